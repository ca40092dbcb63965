//! A private Postgres for development and tests.
//!
//! `ringcast dev` keeps one in the state folder and connects the development tenant to it; the tests
//! that need a database get theirs from [`testing`]. Only standard library and libc: the cluster is made and
//! started with the machine's own `initdb` and `postgres`, and the SQL files here are run by the caller
//! with its own client.
//!
//! Invariants: a server never outlives the process that started it, listens on 127.0.0.1 only, and is in nobody
//! else's way (own folder, own port, no shared settings). Everything fails with a sentence for the user; nothing here
//! may be called from a thread that must not block.

mod account;
mod binaries;
mod cluster;
mod instance;
mod port;
mod program;
mod server_process;
#[cfg(test)]
pub mod testing;

use std::fmt;

pub use binaries::{BINARIES_VARIABLE, Binaries};
pub use instance::{Authentication, Instance, Options};

/// Where a local server listens and who may enter.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// Always an address of this machine.
    pub host: String,
    pub port: u16,
    /// A superuser.
    pub user: String,
    /// Empty when the server trusts everyone who reaches it.
    pub password: String,
    pub database: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.database)
    }
}

/// Makes an empty database look like one of a Supabase project: roles, `auth`, `extensions`, default privileges, an empty
/// publication. For a superuser; may be run again.
pub fn bootstrap_sql() -> &'static str {
    include_str!("bootstrap.sql")
}

/// The table of the demo with its policies, published. Needs [`bootstrap_sql`]; may be run again.
pub fn demo_sql() -> &'static str {
    include_str!("demo.sql")
}

/// Who may use private topics of the demo. Has no effect until the server has installed its own objects; may be run again.
pub fn demo_policies_sql() -> &'static str {
    include_str!("demo_policies.sql")
}
