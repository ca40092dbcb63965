//! The only place of this folder that touches the process: its environment and the profile's file.

use std::{fs, path::Path};

use super::{Config, FlagValue, error::ConfigError, knobs::Id, knobs::knob};

/// Folder, relative to the working directory, where a bare profile name is looked up.
const PROFILE_FOLDER: &str = "tuning";

/// Largest profile read; a real one is a few KB, so this is a wrong path.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

impl Config {
    /// Loads the configuration of this process: its environment and the profile named by
    /// `RINGCAST_PROFILE` (a bare name means `tuning/NAME.toml`).
    ///
    /// # Errors
    /// As `load`; also an unreadable profile. Bytes of a variable that are not UTF-8 are replaced,
    /// which no number, word or path of the table survives unnoticed.
    pub fn from_process() -> Result<Self, ConfigError> {
        Self::from_process_with(&[])
    }

    /// As `from_process`, with values from the command line.
    ///
    /// # Errors
    /// As `from_process`.
    pub fn from_process_with(flags: &[FlagValue]) -> Result<Self, ConfigError> {
        let env = |name: &str| std::env::var_os(name).map(|v| v.to_string_lossy().into_owned());
        let name = flags
            .iter()
            .find(|flag| flag.knob == knob(Id::profile).name)
            .map(|flag| flag.value.clone())
            .or_else(|| env(knob(Id::profile).env))
            .filter(|name| !name.is_empty());
        let Some(name) = name else {
            return Self::load_with_flags(&env, None, flags);
        };
        let path = profile_path(&name);
        let text = read_profile(&path)?;
        Self::load_with_flags(&env, Some((&path, &text)), flags)
    }
}

/// A bare name (no slash, no extension) means a file of the profile folder.
fn profile_path(name: &str) -> String {
    if name.contains('/') || Path::new(name).extension().is_some() {
        name.to_owned()
    } else {
        format!("{PROFILE_FOLDER}/{name}.toml")
    }
}

fn read_profile(path: &str) -> Result<String, ConfigError> {
    let refuse = |reason: String| ConfigError::new(knob(Id::profile).env, format!("cannot read the profile {path}: {reason}"));
    let size = fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if size > PROFILE_BYTES_MAX {
        return Err(refuse(format!("it is larger than {PROFILE_BYTES_MAX} bytes")));
    }
    fs::read_to_string(path).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_live_in_the_profile_folder() {
        assert_eq!(profile_path("small"), "tuning/small.toml");
        assert_eq!(profile_path("./small"), "./small");
        assert_eq!(profile_path("my.toml"), "my.toml");
        assert_eq!(profile_path("/etc/ringcast/p.toml"), "/etc/ringcast/p.toml");
    }

    #[test]
    fn a_missing_profile_is_named() {
        let error = read_profile("/nonexistent/p.toml").expect_err("no such file");
        assert_eq!(error.place, "RINGCAST_PROFILE");
        assert!(error.message.contains("/nonexistent/p.toml"));
    }
}
