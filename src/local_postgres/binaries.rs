//! Finding `initdb` and `postgres` on this machine.
//!
//! Distributions hide the server's programs outside PATH, several versions side by side. The order is: the folder
//! that `RINGCAST_POSTGRES_BIN` names (then nothing else counts), PATH, the folders of the known packagings,
//! newest version first. A folder counts when it holds both programs and they are new enough.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use super::program;

/// Names the folder of the programs.
pub const BINARIES_VARIABLE: &str = "RINGCAST_POSTGRES_BIN";

/// Older versions are out of support, and cannot limit what an idle replication slot keeps.
const MAJOR_MIN: u32 = 13;

/// `postgres --version` only prints.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where packagings put the programs: folder of versions, start of a version's name, folder of programs inside it.
const PACKAGINGS: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/usr/local", "pgsql", "bin"),
];

/// The server's programs of one Postgres version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    version: String,
    major: u32,
}

impl Binaries {
    /// Looks in the places of this machine. The error is one line that says where.
    pub fn find() -> Result<Self, String> {
        match env::var_os(BINARIES_VARIABLE).filter(|folder| !folder.is_empty()) {
            Some(folder) => Self::in_folder(Path::new(&folder)).map_err(|reason| format!("{BINARIES_VARIABLE}: {reason}")),
            None => Self::first_of(candidates(env::var_os("PATH").as_deref(), &packaged())),
        }
    }

    /// The programs in `folder`.
    pub fn in_folder(folder: &Path) -> Result<Self, String> {
        // PATH often holds a link, and the programs find their libraries beside the real file.
        let real = |name: &str| folder.join(name).canonicalize().ok().filter(|file| file.is_file());
        let (Some(postgres), Some(initdb)) = (real("postgres"), real("initdb")) else {
            return Err(format!("there are no `initdb` and `postgres` in {}", folder.display()));
        };
        let folder = match (postgres.parent(), initdb.parent()) {
            (Some(one), Some(other)) if one == other => one.to_owned(),
            _ => return Err(format!("`initdb` and `postgres` in {} are of different installations", folder.display())),
        };
        let version = ask_version(&postgres)?;
        match major_of(&version) {
            Some(major) if major >= MAJOR_MIN => Ok(Self { folder, version, major }),
            Some(_) => Err(format!("PostgreSQL {version} in {} is older than {MAJOR_MIN}", folder.display())),
            None => Err(format!("`{} --version` names no version: {version}", postgres.display())),
        }
    }

    fn first_of(folders: Vec<PathBuf>) -> Result<Self, String> {
        folders.iter().find_map(|folder| Self::in_folder(folder).ok()).ok_or_else(|| {
            format!("PostgreSQL {MAJOR_MIN} or newer is neither on PATH nor in the usual folders ({BINARIES_VARIABLE} names one)")
        })
    }

    /// The folder of the programs, without links.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// For example 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// For example `PostgreSQL 15.18`.
impl fmt::Display for Binaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.version)
    }
}

/// The version in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn ask_version(postgres: &Path) -> Result<String, String> {
    let mut command = program::command(postgres, None, Path::new("/"));
    command.arg("--version").stdout(Stdio::piped()).stderr(Stdio::null());
    let stdout = program::succeed(&mut command, None, VERSION_TIMEOUT)?;
    let mut said = String::new();
    if let Some(mut stdout) = stdout {
        stdout.read_to_string(&mut said).map_err(|e| format!("the version of {} is unreadable: {e}", postgres.display()))?;
    }
    let version = said.split_once("(PostgreSQL) ").and_then(|(_, rest)| rest.split_whitespace().next());
    version.map(str::to_owned).ok_or_else(|| format!("{} is not PostgreSQL", postgres.display()))
}

/// `15.18`, `18beta1` and `19devel` are of the majors 15, 18 and 19.
fn major_of(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn candidates(path: Option<&OsStr>, packaged: &[PathBuf]) -> Vec<PathBuf> {
    let on_path = path.into_iter().flat_map(env::split_paths).filter(|folder| folder.is_absolute());
    on_path.chain(packaged.iter().cloned()).collect()
}

fn packaged() -> Vec<PathBuf> {
    PACKAGINGS.into_iter().flat_map(|(folder, prefix, inner)| versions_in(Path::new(folder), prefix, inner)).collect()
}

/// `folder/prefixN/inner` for each N, highest first; a name without a number is the oldest.
fn versions_in(folder: &Path, prefix: &str, inner: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            let number = if version.is_empty() { 0 } else { major_of(version)? };
            Some((number, entry.path().join(inner)))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn install(folder: &Path, version: &str) {
        fs::create_dir_all(folder).unwrap();
        for name in ["initdb", "postgres"] {
            let file = folder.join(name);
            fs::write(&file, format!("#!/bin/sh\necho '{name} (PostgreSQL) {version} (Somewhere {version}-1)'\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn version_names() {
        for (version, major) in
            [("15.18", Some(15)), ("18beta1", Some(18)), ("19devel", Some(19)), ("9.6.24", Some(9)), ("x", None)]
        {
            assert_eq!(major_of(version), major, "{version}");
        }
    }

    #[test]
    fn the_highest_packaged_version_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for name in ["9.6", "15", "13", "lost+found"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let expected: Vec<_> = ["15", "13", "9.6"].iter().map(|version| root.path().join(version).join("bin")).collect();
        assert_eq!(versions_in(root.path(), "", "bin"), expected);
    }

    #[test]
    fn links_lead_to_the_real_folder() {
        let root = tempfile::tempdir().unwrap();
        let (real, links) = (root.path().canonicalize().unwrap().join("real"), root.path().join("links"));
        install(&real, "16.2");
        fs::create_dir(&links).unwrap();
        for name in ["initdb", "postgres"] {
            symlink(real.join(name), links.join(name)).unwrap();
        }
        let found = Binaries::in_folder(&links).unwrap();
        assert_eq!((found.folder(), found.major(), found.to_string().as_str()), (real.as_path(), 16, "PostgreSQL 16.2"));
    }

    #[test]
    fn path_goes_before_packages_and_unusable_folders_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| root.path().canonicalize().unwrap().join(name);
        install(&folder("old"), "12.9");
        install(&folder("on-path"), "14.1");
        install(&folder("packaged"), "17.0");
        fs::create_dir(folder("half")).unwrap();
        fs::copy(folder("packaged").join("postgres"), folder("half").join("postgres")).unwrap();
        let path = env::join_paths([folder("missing"), folder("half"), folder("old"), folder("on-path")]).unwrap();
        let first = |path: Option<&OsStr>| Binaries::first_of(candidates(path, &[folder("packaged")]));
        assert_eq!(first(Some(&path)).unwrap().folder(), folder("on-path"));
        assert_eq!(first(None).unwrap().folder(), folder("packaged"));
        assert!(Binaries::first_of(vec![folder("old")]).unwrap_err().contains(BINARIES_VARIABLE));
        assert!(Binaries::in_folder(&folder("old")).unwrap_err().contains("PostgreSQL 12.9"));
    }
}
