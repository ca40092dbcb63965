//! The files of a local server: where they lie, how they come into being, whether these programs can use them.
//!
//! ```text
//! FOLDER/lock          held while a server runs
//! FOLDER/data          the cluster, owned by the server's account
//! FOLDER/data.new      a cluster in the making, left over only by a crash
//! FOLDER/password      the superuser's, 0600, ours
//! FOLDER/port          the last port
//! FOLDER/socket        the Unix socket
//! FOLDER/postgres.log  what the server says; FOLDER/initdb.log while a cluster is made
//! ```

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use super::{
    account::{Account, own_uid},
    binaries::Binaries,
    instance::{Authentication, Options},
    port, program,
};

/// `initdb` takes a second or two; more on slow disks.
const INITDB_TIMEOUT: Duration = Duration::from_secs(60);

/// Random bytes of a password.
const PASSWORD_BYTES: usize = 24;

/// Where clusters go whose folder the server's account cannot reach. The first survives a restart of the machine.
const SHARED_FOLDERS: [&str; 2] = ["/var/tmp", "/tmp"];

/// What `initdb` gives text functions on Linux, as a hosted database has it; elsewhere plain `C`.
const CHARACTER_LOCALE: Option<&str> = if cfg!(target_os = "linux") { Some("C.UTF-8") } else { None };

/// The folder of one server, reachable for its account.
pub struct Cluster {
    pub folder: PathBuf,
}

impl Cluster {
    /// Makes `folder`, or, when `account` could not reach it, a folder of the same meaning outside.
    pub fn place(folder: &Path, account: Option<&Account>) -> Result<Self, String> {
        let failed = |e: io::Error| format!("the folder {} cannot be made: {e}", folder.display());
        fs::create_dir_all(folder).map_err(failed)?;
        let folder = folder.canonicalize().map_err(failed)?;
        fs::set_permissions(&folder, Permissions::from_mode(folder_mode(account))).map_err(failed)?;
        match account {
            Some(account) if !account.reaches(&folder) => Self::outside(&folder, account),
            _ => Ok(Self { folder }),
        }
    }

    fn outside(folder: &Path, account: &Account) -> Result<Self, String> {
        let name = format!("ringcast-postgres-{:016x}", port::digest(folder.as_os_str().as_encoded_bytes()));
        let shared = SHARED_FOLDERS.iter().map(Path::new).find(|shared| account.reaches(shared));
        let Some(shared) = shared else {
            return Err(format!("user {} can reach neither {} nor {SHARED_FOLDERS:?}", account.name, folder.display()));
        };
        let outside = shared.join(name);
        make_own_folder(&outside, folder_mode(Some(account)))?;
        Ok(Self { folder: outside })
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    pub fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// Sees to it that there is a cluster these programs can run. Returns the superuser's password.
    pub fn prepare(&self, binaries: &Binaries, account: Option<&Account>, options: &Options) -> Result<String, String> {
        let exists = self.data().join("PG_VERSION").exists();
        let password = match options.authentication {
            Authentication::Trust => String::new(),
            Authentication::Password => self.password(exists)?,
        };
        if exists {
            self.check_version(binaries)?;
        } else {
            self.create(binaries, account, options, &password)?;
        }
        Ok(password)
    }

    fn check_version(&self, binaries: &Binaries) -> Result<(), String> {
        let data = self.data();
        let made_by = fs::read_to_string(data.join("PG_VERSION"))
            .map_err(|e| format!("the version of the cluster {} cannot be read: {e}", data.display()))?;
        let made_by = made_by.trim();
        if made_by == binaries.major().to_string() {
            return Ok(());
        }
        Err(format!(
            "the database in {} was made by PostgreSQL {made_by}, but {} holds {binaries}: set {} to the programs of version \
             {made_by}, or delete {} to start with an empty database",
            data.display(),
            binaries.folder().display(),
            super::BINARIES_VARIABLE,
            self.folder.display(),
        ))
    }

    /// The password is written before the cluster exists, so that no cluster is without.
    fn password(&self, must_exist: bool) -> Result<String, String> {
        let path = self.folder.join("password");
        match fs::read_to_string(&path) {
            Ok(password) if !password.trim().is_empty() => return Ok(password.trim().to_owned()),
            Ok(_) if !must_exist => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && !must_exist => {}
            Ok(_) => return Err(lost_password(&path, &self.folder, "it is empty")),
            Err(e) => return Err(lost_password(&path, &self.folder, &e.to_string())),
        }
        let password = random_password().map_err(|e| format!("no password can be made: {e}"))?;
        write_secret(&path, &password).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
        Ok(password)
    }

    /// Makes the cluster beside its place and moves it there when it is complete.
    fn create(&self, binaries: &Binaries, account: Option<&Account>, options: &Options, password: &str) -> Result<(), String> {
        // A data folder without PG_VERSION is none of ours: moving onto it fails unless it is empty.
        let made = match self.initdb(binaries, account, options, password, CHARACTER_LOCALE) {
            Err(said) if CHARACTER_LOCALE.is_some() && said.contains("invalid locale") => {
                self.initdb(binaries, account, options, password, None)
            }
            made => made,
        };
        let _ = fs::remove_file(self.new_password());
        made?;
        let data = self.data();
        fs::rename(self.new_data(), &data).map_err(|e| format!("the new cluster cannot be moved to {}: {e}", data.display()))?;
        let _ = fs::remove_file(self.folder.join("initdb.log"));
        Ok(())
    }

    fn new_data(&self) -> PathBuf {
        self.folder.join("data.new")
    }

    /// `initdb` reads the password from a file, which has to be readable for the server's account.
    fn new_password(&self) -> PathBuf {
        self.folder.join("password.new")
    }

    fn initdb(
        &self,
        binaries: &Binaries,
        account: Option<&Account>,
        options: &Options,
        password: &str,
        character_locale: Option<&str>,
    ) -> Result<(), String> {
        let (data, log) = (self.new_data(), self.folder.join("initdb.log"));
        let failed = |e: io::Error| format!("a cluster cannot be made in {}: {e}", self.folder.display());
        if data.exists() {
            fs::remove_dir_all(&data).map_err(failed)?;
        }
        make_data_folder(&data, account).map_err(failed)?;
        let said = File::create(&log).map_err(failed)?;

        let mut command = program::command(&binaries.program("initdb"), account, &data);
        command.stdout(said.try_clone().map_err(failed)?).stderr(said).stdin(Stdio::null());
        command.arg("-D").arg(&data).args(["-U", options.superuser, "-E", "UTF8", "--locale=C"]);
        if let Some(locale) = character_locale {
            command.arg(format!("--lc-ctype={locale}"));
        }
        if !options.durable {
            command.arg("--no-sync");
        }
        match options.authentication {
            Authentication::Trust => command.arg("--auth=trust"),
            Authentication::Password => {
                let file = self.new_password();
                let _ = fs::remove_file(&file);
                write_secret(&file, password).map_err(failed)?;
                if let Some(account) = account {
                    account.own(&file).map_err(failed)?;
                }
                command.arg("--auth=scram-sha-256").arg("--pwfile").arg(file)
            }
        };
        program::succeed(&mut command, account, INITDB_TIMEOUT)
            .map(drop)
            .map_err(|reason| format!("{reason}; it said:\n{}", fs::read_to_string(&log).unwrap_or_default().trim_end()))
    }

    /// The folder for the Unix socket, made anew; `None` when its path cannot be used for one.
    pub fn socket_folder(&self, account: Option<&Account>) -> Option<PathBuf> {
        /// A socket's path ends at 107 bytes, and the server appends `/.s.PGSQL.65535.lock`.
        const PATH_BYTES_MAX: usize = 87;
        let folder = self.folder.join("socket");
        let text = folder.to_str()?;
        // The setting is a list with its own quotes.
        if text.len() > PATH_BYTES_MAX || text.contains([',', '"', '\\']) {
            return None;
        }
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return None,
            _ => make_data_folder(&folder, account).ok()?,
        }
        Some(folder)
    }
}

/// Others may pass through the folder only when the server's account has to.
fn folder_mode(account: Option<&Account>) -> u32 {
    if account.is_some() { 0o711 } else { 0o700 }
}

/// A folder for the server's own files.
pub fn make_data_folder(folder: &Path, account: Option<&Account>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    account.map_or(Ok(()), |account| account.own(folder))
}

/// Makes `folder` inside a folder everyone may write to, or takes it when it is already there and ours.
pub fn make_own_folder(folder: &Path, mode: u32) -> Result<(), String> {
    match DirBuilder::new().mode(mode).create(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(format!("{} cannot be made: {e}", folder.display())),
        _ => {}
    }
    let found = fs::symlink_metadata(folder).map_err(|e| format!("{} cannot be used: {e}", folder.display()))?;
    if !found.is_dir() || found.uid() != own_uid() {
        return Err(format!("{} cannot be used: it belongs to somebody else", folder.display()));
    }
    fs::set_permissions(folder, Permissions::from_mode(mode)).map_err(|e| format!("{} cannot be used: {e}", folder.display()))
}

fn random_password() -> io::Result<String> {
    let mut bytes = [0; PASSWORD_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Only its owner may read the file.
fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(secret.as_bytes())
}

fn lost_password(path: &Path, folder: &Path, reason: &str) -> String {
    format!(
        "the database's password in {} cannot be used ({reason}); delete {} to start with an empty database",
        path.display(),
        folder.display()
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_password_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster { folder: folder.path().to_owned() };
        let password = cluster.password(false).unwrap();
        assert_eq!(password.len(), 2 * PASSWORD_BYTES);
        assert_eq!(cluster.password(true).unwrap(), password);
        assert_eq!(fs::metadata(folder.path().join("password")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_lost_password_is_not_replaced_behind_the_back_of_a_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Cluster { folder: folder.path().to_owned() };
        assert!(cluster.password(true).unwrap_err().contains("delete"));
        fs::write(folder.path().join("password"), "\n").unwrap();
        assert!(cluster.password(true).unwrap_err().contains("it is empty"));
    }

    #[test]
    fn a_planted_link_is_not_taken_for_our_folder() {
        let root = tempfile::tempdir().unwrap();
        let (ours, planted) = (root.path().join("ours"), root.path().join("planted"));
        make_own_folder(&ours, 0o700).unwrap();
        make_own_folder(&ours, 0o711).unwrap();
        assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o711);
        symlink(&ours, &planted).unwrap();
        assert!(make_own_folder(&planted, 0o700).unwrap_err().contains("somebody else"));
    }

    #[test]
    fn a_long_path_does_without_the_socket() {
        let root = tempfile::tempdir().unwrap();
        let long = root.path().join("x".repeat(90));
        fs::create_dir(&long).unwrap();
        assert_eq!(Cluster { folder: long }.socket_folder(None), None);
        let short = Cluster { folder: root.path().to_owned() };
        assert_eq!(short.socket_folder(None), Some(root.path().join("socket")));
        assert_eq!(short.socket_folder(None), Some(root.path().join("socket")), "again");
    }
}
