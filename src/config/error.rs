//! The one way in which the configuration can be refused.
//!
//! Every error names where the offending value was written (an environment variable, a
//! command-line flag, or a line of the tuning profile) and what would be accepted there, because
//! the reader is an operator looking at the last line of a container log.

use std::fmt;

/// Why a configuration was refused; displayed as `PLACE: what is wrong and what is allowed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value came from: `PORT`, `tuning/dev.toml:12`, `--port`.
    pub place: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ConfigError {}
