//! What is wrong with a message, and where.

use std::fmt;

/// Bytes that are no `pgoutput` message of `proto_version` 1.
///
/// The stream cannot be continued behind it: the message may have changed state that later
/// messages rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// Offset in the message, in bytes.
    pub position: usize,
    /// What should have been there.
    pub expected: &'static str,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pgoutput message: expected {} at byte {}", self.expected, self.position)
    }
}

impl std::error::Error for DecodeError {}
