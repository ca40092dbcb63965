//! Why entries are not subscribed (database.md 7.4, protocol.md 11.4 d to f).

use std::fmt;

use tokio_postgres::error::{DbError, Severity};

use super::super::super::database::failure::DatabaseFailure;
use crate::realtime::postgres_changes::condition_name;

/// Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscribeFailure {
    /// The publication has no table the entry means. Not worth a retry.
    NothingPublished {
        /// Index of the entry.
        entry: usize,
    },
    /// The database does not accept the entry. Not worth a retry.
    Rejected {
        /// Index of the entry.
        entry: usize,
        /// `ERROR`.
        severity: &'static str,
        /// Five letters and digits.
        sqlstate: String,
        /// The database's words, meant for the client.
        message: String,
    },
    /// There is no answer. Worth a retry.
    Database(DatabaseFailure),
}

impl SubscribeFailure {
    /// Of an entry's statement. What says nothing about the entry is a failure of the database: 40 and 55 are conflicts with
    /// others, 53 is a lack of resources.
    pub(super) fn of_entry(entry: usize, error: &tokio_postgres::Error) -> Self {
        let failure = DatabaseFailure::from(error);
        let refused = error.as_db_error().filter(|_| matches!(failure, DatabaseFailure::RlsPolicy(_)));
        match refused {
            Some(error) if !["40", "53", "55"].iter().any(|class| error.code().code().starts_with(class)) => Self::Rejected {
                entry,
                severity: severity(error),
                sqlstate: error.code().code().to_owned(),
                message: error.message().to_owned(),
            },
            _ => Self::Database(failure),
        }
    }
}

/// Not in the language of the server.
fn severity(error: &DbError) -> &'static str {
    match error.parsed_severity() {
        Some(Severity::Fatal) => "FATAL",
        Some(Severity::Panic) => "PANIC",
        _ => "ERROR",
    }
}

impl From<DatabaseFailure> for SubscribeFailure {
    fn from(failure: DatabaseFailure) -> Self {
        Self::Database(failure)
    }
}

/// For `Rejected`, what protocol.md 11.4 e puts behind `Exception: `.
impl fmt::Display for SubscribeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingPublished { .. } => f.write_str("the publication has no such table"),
            Self::Rejected { severity, sqlstate, message, .. } => match condition_name(sqlstate) {
                Some(name) => write!(f, "{severity} {sqlstate} ({name}) {message}"),
                None => write!(f, "{severity} {sqlstate} {message}"),
            },
            Self::Database(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for SubscribeFailure {}
