//! The account a Postgres server runs under.
//!
//! Postgres refuses to run as root. When this process is root (containers, CI) the server gets the account
//! `postgres` if there is one, else `nobody`; otherwise it simply runs as we do. Used by everything
//! here that starts a program or makes a folder for one.

use std::{
    fs, io,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

/// In order of preference.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// Another account than our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account a server has to get, `None` when it can have ours. Fails when we are root and there is no other.
    pub fn for_server() -> Result<Option<Self>, String> {
        if own_uid() != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(|e| format!("/etc/passwd cannot be read: {e}"))?;
        match Self::find(&accounts) {
            Some(account) => Ok(Some(account)),
            None => Err("Postgres does not run as root, and there is no account `postgres` or `nobody`".to_owned()),
        }
    }

    /// The first of [`ACCOUNTS`] in the lines of an `/etc/passwd`.
    fn find(passwd: &str) -> Option<Self> {
        let named = |name: &str| {
            passwd.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next() == Some(name)).then_some(())?;
                let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
                (uid != 0).then(|| Self { name: name.to_owned(), uid, gid })
            })
        };
        ACCOUNTS.into_iter().find_map(named)
    }

    /// Whether this account can get into `folder`, an absolute path without links.
    pub fn reaches(&self, folder: &Path) -> bool {
        folder.ancestors().all(|part| {
            fs::metadata(part).is_ok_and(|metadata| {
                let search = match (metadata.uid() == self.uid, metadata.gid() == self.gid) {
                    (true, _) => 0o100,
                    (_, true) => 0o010,
                    _ => 0o001,
                };
                metadata.mode() & search != 0
            })
        })
    }

    /// Makes `path` belong to this account.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
    }

    /// Makes `command` run under this account, without any further group of ours (the standard library
    /// clears them when root changes the user).
    pub fn run(&self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

/// Our effective user id.
pub fn own_uid() -> u32 {
    // SAFETY: takes nothing, touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533::/:/bin/false\n";

    #[test]
    fn postgres_is_preferred_to_nobody() {
        let both = format!("{PASSWD}postgres:x:101:103:a comment:/var/lib/postgresql:/bin/bash\n");
        assert_eq!(Account::find(&both), Some(Account { name: "postgres".to_owned(), uid: 101, gid: 103 }));
        assert_eq!(Account::find(PASSWD), Some(Account { name: "nobody".to_owned(), uid: 65534, gid: 65533 }));
    }

    #[test]
    fn an_account_that_is_root_or_damaged_does_not_count() {
        assert_eq!(Account::find("postgres:x:0:0::/:/bin/sh\npostgres2:x:5:5::/:/bin/sh\nnobody:x:many\n"), None);
    }

    #[test]
    fn a_closed_folder_above_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().canonicalize().unwrap().join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger = Account { name: "stranger".to_owned(), uid: 4_000_000, gid: 4_000_000 };
        for (mode, reached) in [(0o700, false), (0o711, true), (0o766, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(stranger.reaches(&inner), reached, "{mode:o}");
        }
    }
}
