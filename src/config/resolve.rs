//! Finds the effective text of every knob and where it came from.
//!
//! Precedence: command-line flag, environment variable, tuning profile, the subcommand's fallback,
//! default. Each value is parsed
//! through a getter named after its type; a failure names the place it was written. A variable that
//! is set to nothing counts as unset for texts, lists, keys and choices (compose files pass empty
//! variables for missing ones), but not for numbers and truth values, which must be well-formed.

use std::fmt;

use super::{
    error::ConfigError,
    knobs::{Id, KNOBS, Kind, Knob, knob},
    profile::{self, ProfileValue},
    values,
};

/// Where an effective value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: the table's default.
    Default,
    /// The knob's environment variable.
    Environment(&'static str),
    /// The tuning profile.
    Profile {
        /// Path as it was opened.
        file: String,
        /// 1-based line.
        line: usize,
    },
    /// A flag of the command line, such as `--port`.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Profile { file, line } => write!(f, "profile {file}:{line}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value that comes with the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagValue {
    /// Name of the knob, as in the profile.
    pub knob: &'static str,
    /// The flag as the user typed it, such as `--port`.
    pub flag: &'static str,
    /// The value, as the environment variable would have it.
    pub value: String,
    /// Used only if neither the environment nor the profile says anything; otherwise it wins.
    pub fallback: bool,
}

/// One line of `ringcast check`: an effective value with its origin and what could be written.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The knob's table entry.
    pub knob: &'static Knob,
    /// Effective value; secrets appear as `<set>`, nothing as `<unset>`.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

#[derive(Debug, Clone)]
struct Setting {
    text: String,
    source: Source,
}

/// The effective text of every knob, indexed like `KNOBS`.
#[derive(Clone)]
pub(super) struct Settings(Vec<Setting>);

impl Settings {
    pub(super) fn resolve(
        env: &dyn Fn(&str) -> Option<String>,
        profile: Option<(&str, &str)>,
        flags: &[FlagValue],
    ) -> Result<Self, ConfigError> {
        let (file, mut from_profile) = match profile {
            Some((file, text)) => (file, profile::parse(file, text)?),
            None => ("", vec![None; KNOBS.len()]),
        };
        let settings = KNOBS.iter().zip(&mut from_profile).map(|(knob, found)| {
            let flag = flags.iter().find(|flag| flag.knob == knob.name);
            let from_flag = flag.map(|flag| Setting { text: flag.value.clone(), source: Source::Flag(flag.flag) });
            if let (Some(FlagValue { fallback: false, .. }), Some(setting)) = (flag, &from_flag) {
                return setting.clone();
            }
            if let Some(text) = env(knob.env).filter(|text| counts_as_set(knob.kind, text)) {
                return Setting { text, source: Source::Environment(knob.env) };
            }
            match found.take() {
                Some(ProfileValue { text, line }) => Setting { text, source: Source::Profile { file: file.to_owned(), line } },
                None => from_flag.unwrap_or_else(|| Setting { text: knob.default.to_owned(), source: Source::Default }),
            }
        });
        Ok(Self(settings.collect()))
    }

    /// Replaces the shown default of a knob whose default depends on another one.
    pub(super) fn set_default(&mut self, id: Id, text: &str) {
        let setting = &mut self.0[id as usize];
        if setting.source == Source::Default {
            text.clone_into(&mut setting.text);
        }
    }

    /// The text of a knob, `None` when it is unset and has no default.
    pub(super) fn text(&self, id: Id) -> Option<String> {
        let text = &self.0[id as usize].text;
        (!text.is_empty()).then(|| text.clone())
    }

    pub(super) fn int(&self, id: Id) -> Result<u64, ConfigError> {
        let setting = &self.0[id as usize];
        let Kind::Int { min, max } = knob(id).kind else { unreachable!("`{}` is declared as a number", knob(id).name) };
        values::parse_int(&setting.text, min, max).map_err(|message| self.refuse(id, message))
    }

    /// A number of a type narrower than 64 bits; the table's range must fit it.
    pub(super) fn narrow<T: TryFrom<u64>>(&self, id: Id) -> Result<T, ConfigError> {
        let value = self.int(id)?;
        T::try_from(value).map_err(|_| self.refuse(id, format!("{value} is out of range")))
    }

    /// A number that may be unset.
    pub(super) fn optional_int(&self, id: Id) -> Result<Option<u64>, ConfigError> {
        let setting = &self.0[id as usize];
        if setting.source == Source::Default && setting.text.is_empty() {
            return Ok(None);
        }
        self.int(id).map(Some)
    }

    pub(super) fn boolean(&self, id: Id) -> Result<bool, ConfigError> {
        values::parse_bool(&self.0[id as usize].text).map_err(|message| self.refuse(id, message))
    }

    /// Checks a word against the knob's choices; `None` when unset.
    pub(super) fn choice(&self, id: Id) -> Result<Option<String>, ConfigError> {
        let Kind::Choice(words) = knob(id).kind else { unreachable!("`{}` is declared as a choice", knob(id).name) };
        let Some(text) = self.text(id) else {
            return Ok(None);
        };
        values::parse_choice(&text, words).map_err(|message| self.refuse(id, message))?;
        Ok(Some(text))
    }

    /// Applies a parser to the text; `None` when unset.
    pub(super) fn parse<T>(&self, id: Id, parser: impl FnOnce(&str) -> Result<T, String>) -> Result<Option<T>, ConfigError> {
        self.text(id).map(|text| parser(&text).map_err(|message| self.refuse(id, message))).transpose()
    }

    /// An error at the place where the value of `id` was written.
    pub(super) fn refuse(&self, id: Id, message: String) -> ConfigError {
        let knob = knob(id);
        match &self.0[id as usize].source {
            Source::Default | Source::Environment(_) => ConfigError::new(knob.env, message),
            Source::Profile { file, line } => ConfigError::new(format!("{file}:{line}"), format!("`{}`: {message}", knob.name)),
            Source::Flag(flag) => ConfigError::new(*flag, message),
        }
    }

    /// Every knob with its effective value and origin, in table order.
    pub(super) fn explain(&self) -> Vec<Explained> {
        KNOBS
            .iter()
            .zip(&self.0)
            .map(|(knob, setting)| Explained {
                knob,
                value: match setting.text.as_str() {
                    "" => "<unset>".to_owned(),
                    _ if knob.kind.is_secret() => "<set>".to_owned(),
                    text => text.to_owned(),
                },
                source: setting.source.clone(),
            })
            .collect()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.explain();
        f.debug_map().entries(shown.iter().map(|e| (e.knob.name, &e.value))).finish()
    }
}

/// Whether a variable holding `text` overrides the profile and the default.
fn counts_as_set(kind: Kind, text: &str) -> bool {
    !text.is_empty() || matches!(kind, Kind::Int { .. } | Kind::Bool)
}
