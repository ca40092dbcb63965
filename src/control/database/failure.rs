//! What a caller learns when SQL in a tenant's database did not work out (database.md 10.5).
//!
//! Every operation of the pool ends in a value or in one of these; the edge that talks to the client maps them to its texts,
//! codes and statuses. The texts inside are the database's own words, meant for logs.

use std::fmt;

use deadpool::managed::{PoolError, TimeoutType};
use tokio_postgres::error::{DbError, SqlState};

use super::connect::ConnectError;

/// Outcome of a failed operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseFailure {
    /// The database refused the statement: a policy raised an error, the role does not exist, any other SQL error.
    RlsPolicy(String),
    /// 57014: a statement timeout, or somebody cancelled it.
    QueryCanceled(String),
    /// No partition of `realtime.messages` takes rows of today.
    MissingPartition,
    /// No session became free in time. Counted by the authorization error window.
    PoolExhausted,
    /// The database cannot be reached, or the connection broke.
    Unavailable(String),
    /// A failure on our side of the connection, such as a value that cannot be sent.
    Other(String),
}

impl DatabaseFailure {
    fn of_database(error: &DbError) -> Self {
        let code = error.code().code();
        let text = || format!("{} (SQLSTATE {code})", error.message());
        match *error.code() {
            SqlState::QUERY_CANCELED => Self::QueryCanceled(text()),
            SqlState::CHECK_VIOLATION if error.table() == Some("messages") => Self::MissingPartition,
            // The session is over or never began.
            SqlState::ADMIN_SHUTDOWN
            | SqlState::CRASH_SHUTDOWN
            | SqlState::CANNOT_CONNECT_NOW
            | SqlState::TOO_MANY_CONNECTIONS
            | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT => Self::Unavailable(text()),
            // 08: connection exceptions.
            _ if code.starts_with("08") || matches!(error.severity(), "FATAL" | "PANIC") => Self::Unavailable(text()),
            _ => Self::RlsPolicy(text()),
        }
    }
}

impl From<&tokio_postgres::Error> for DatabaseFailure {
    fn from(error: &tokio_postgres::Error) -> Self {
        if let Some(error) = error.as_db_error() {
            return Self::of_database(error);
        }
        let broken = error.is_closed() || std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>());
        if broken { Self::Unavailable(error.to_string()) } else { Self::Other(error.to_string()) }
    }
}

impl From<PoolError<ConnectError>> for DatabaseFailure {
    fn from(error: PoolError<ConnectError>) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::PoolExhausted,
            PoolError::Backend(error) => Self::Unavailable(error.to_string()),
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl fmt::Display for DatabaseFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RlsPolicy(text) | Self::QueryCanceled(text) | Self::Unavailable(text) | Self::Other(text) => f.write_str(text),
            Self::MissingPartition => f.write_str("realtime.messages has no partition for today"),
            Self::PoolExhausted => f.write_str("no database session became free in time"),
        }
    }
}

impl std::error::Error for DatabaseFailure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_errors_are_exhaustion_only_when_the_wait_was_too_long() {
        assert_eq!(DatabaseFailure::from(PoolError::Timeout(TimeoutType::Wait)), DatabaseFailure::PoolExhausted);
        for error in [
            PoolError::Timeout(TimeoutType::Create),
            PoolError::Timeout(TimeoutType::Recycle),
            PoolError::Closed,
            PoolError::Backend(ConnectError::TooManyConnections),
        ] {
            assert!(matches!(DatabaseFailure::from(error), DatabaseFailure::Unavailable(_)));
        }
    }
}
