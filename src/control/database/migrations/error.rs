//! Why a tenant database could not be migrated, in words for the operator.
//!
//! Texts carry Postgres' message and SQLSTATE and the part of the script, never its detail lines, which may quote rows.

use std::fmt;

use tokio_postgres::error::SqlState;

/// Failure of a migration. The database is unchanged, unless the connection was lost during the commit: the next run finds
/// out which it is.
#[derive(Debug)]
pub enum MigrationError {
    /// Roles the platform has to create first; all that are missing.
    MissingRoles(Vec<String>),
    /// Another node has been migrating this database for too long.
    Busy,
    /// The time limit of the whole run is over.
    TimedOut,
    /// A part of the script failed, or the connection did meanwhile.
    Failed {
        /// What was being done.
        part: &'static str,
        /// Message of Postgres, or of the connection.
        message: String,
        /// SQLSTATE; none if the connection failed.
        sqlstate: Option<String>,
    },
}

impl MigrationError {
    pub(super) fn at(part: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| match error.as_db_error() {
            Some(refusal) => {
                Self::Failed { part, message: refusal.message().to_owned(), sqlstate: Some(refusal.code().code().to_owned()) }
            }
            None => Self::Failed { part, message: error.to_string(), sqlstate: None },
        }
    }

    pub(super) fn while_locking(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) { Self::Busy } else { Self::at("migration lock")(error) }
    }
}

impl fmt::Display for MigrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingRoles(roles) => write!(f, "the database lacks the roles {}", roles.join(", ")),
            Self::Busy => f.write_str("another node is migrating the database"),
            Self::TimedOut => f.write_str("migrating the database took too long"),
            Self::Failed { part, message, sqlstate: Some(state) } => {
                write!(f, "migration failed at \"{part}\": {message} (SQLSTATE {state})")
            }
            Self::Failed { part, message, sqlstate: None } => write!(f, "migration failed at \"{part}\": {message}"),
        }
    }
}

impl std::error::Error for MigrationError {}
