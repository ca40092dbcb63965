//! How a replication connection fails.
//!
//! `capture` decides by [`WalsenderError::sqlstate`] what to log and when to retry.

use std::{fmt, io};

/// The longest message or detail of the server that is kept, in bytes: these end up in a log
/// line, and a statement quoted in one may be of any size.
const TEXT_BYTES_MAX: usize = 2048;

/// The five characters by which the server classifies an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// No connection or walsender is free (spec 11.1).
    pub const TOO_MANY_CONNECTIONS: SqlState = SqlState(*b"53300");
    /// No replication slot is free (spec 11.1).
    pub const CONFIGURATION_LIMIT_EXCEEDED: SqlState = SqlState(*b"53400");
    /// The slot belongs to another connection at present.
    pub const OBJECT_IN_USE: SqlState = SqlState(*b"55006");
    /// `wal_level` is too low, or the slot has lost its log.
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState(*b"55000");
    /// There is no such slot or publication.
    pub const UNDEFINED_OBJECT: SqlState = SqlState(*b"42704");
    /// There is such a slot or publication already.
    pub const DUPLICATE_OBJECT: SqlState = SqlState(*b"42710");
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

/// What the server said in an error message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// ERROR, FATAL or PANIC.
    pub severity: String,
    /// The class of the error.
    pub sqlstate: SqlState,
    /// The sentence for humans, in the language of the server.
    pub message: String,
    /// More sentences.
    pub detail: Option<String>,
}

impl ServerError {
    /// From the body of an ErrorResponse: fields of a type byte and a string, then a zero.
    /// Missing fields stay empty: half an error is better than none.
    pub(super) fn parse(body: &[u8]) -> Self {
        let mut error =
            ServerError { severity: String::new(), sqlstate: SqlState(*b"XX000"), message: String::new(), detail: None };
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, value)) = field.split_first() else { continue };
            match kind {
                // S is the same in the language of the server, and comes first.
                b'S' | b'V' => error.severity = text(value),
                b'C' => error.sqlstate = value.try_into().map_or(error.sqlstate, SqlState),
                b'M' => error.message = text(value),
                b'D' => error.detail = Some(text(value)),
                _ => {}
            }
        }
        error
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(&value[..value.len().min(TEXT_BYTES_MAX)]).into_owned()
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.message)?;
        self.detail.iter().try_for_each(|detail| write!(f, " ({detail})"))
    }
}

impl std::error::Error for ServerError {}

/// Why a replication connection is of no more use; for a command that the server refused,
/// why it did.
#[derive(Debug)]
pub enum WalsenderError {
    /// The server said so.
    Server(ServerError),
    /// The byte stream failed or ended.
    Io(io::Error),
    /// The server sent what it should not have, or the caller did not keep to the order of
    /// things; says what.
    Protocol(&'static str),
    /// The named step took longer than its deadline.
    Timeout(&'static str),
    /// A name or value that no database object can have; says which.
    Name(&'static str),
}

impl WalsenderError {
    /// The server's classification, if it was the server that failed.
    pub fn sqlstate(&self) -> Option<SqlState> {
        match self {
            WalsenderError::Server(error) => Some(error.sqlstate),
            _ => None,
        }
    }
}

impl fmt::Display for WalsenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalsenderError::Server(error) => error.fmt(f),
            WalsenderError::Io(error) => write!(f, "replication connection: {error}"),
            WalsenderError::Protocol(what) => write!(f, "replication connection: {what}"),
            WalsenderError::Timeout(step) => write!(f, "replication connection: {step} timed out"),
            WalsenderError::Name(what) => write!(f, "invalid {what}"),
        }
    }
}

impl std::error::Error for WalsenderError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WalsenderError::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for WalsenderError {
    fn from(error: io::Error) -> Self {
        WalsenderError::Io(error)
    }
}
