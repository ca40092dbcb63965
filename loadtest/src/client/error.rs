//! Why a load run cannot go on, worded for the person at the terminal.

use crate::wire::frame::FrameError;
use crate::wire::handshake::HandshakeError;
use std::error::Error as _;
use std::{fmt, io};

/// A failure that ends a run.
#[derive(Debug)]
pub enum LoadError {
    /// A system call failed; what was being done and its error.
    Io(String, io::Error),
    /// A connection was not upgraded.
    Handshake(HandshakeError),
    /// The server sent an impossible frame.
    Frame(FrameError),
    /// The server refused a join or ended a channel or connection; its words.
    Ended(String),
    /// Nothing arrived for a long time; what was waited for.
    Stalled(String),
    /// The database refused something; what was being done and its error.
    Database(String, tokio_postgres::Error),
    /// Rows arrived otherwise than they were inserted; how.
    Wrong(String),
    /// An argument cannot be used.
    Argument(String),
}

impl LoadError {
    /// For `map_err`: an [`io::Error`] that happened while doing `what`.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io(what.into(), error)
    }

    /// For `map_err`: an error of the database that happened while doing `what`.
    pub fn database(what: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |error| Self::Database(what.into(), error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Handshake(error) => error.fmt(f),
            Self::Frame(error) => error.fmt(f),
            Self::Ended(words) => write!(f, "the server ended it: {words}"),
            Self::Stalled(what) => write!(f, "stalled: {what}"),
            Self::Database(what, error) => match error.source() {
                Some(cause) => write!(f, "{what}: {error}: {cause}"),
                None => write!(f, "{what}: {error}"),
            },
            Self::Wrong(what) | Self::Argument(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<HandshakeError> for LoadError {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<FrameError> for LoadError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
