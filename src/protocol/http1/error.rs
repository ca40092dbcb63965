//! Why a request head or a request body is refused, and with which status.
//!
//! Raised by the head parser, by the body framing of a parsed head and by the body
//! reader. The connection answers with the error's status and an empty body and closes,
//! since the start of the next request is unknown.

use std::fmt;

/// A request head that cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// Not HTTP, or ambiguous; the text names the rule for the log.
    BadRequest(&'static str),
    /// The request line is over its limit.
    UriTooLong,
    /// A header value, the number of headers or the whole head is over its limit.
    HeaderTooLarge,
    /// HTTP, but neither 1.0 nor 1.1.
    VersionNotSupported,
}

impl HeadError {
    /// The status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::UriTooLong => 414,
            Self::HeaderTooLarge => 431,
            Self::VersionNotSupported => 505,
        }
    }
}

impl fmt::Display for HeadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::BadRequest(rule) => rule,
            Self::UriTooLong => "request line is too long",
            Self::HeaderTooLarge => "request head is too large",
            Self::VersionNotSupported => "HTTP version is not supported",
        })
    }
}

impl std::error::Error for HeadError {}

/// Why a body cannot be read. The connection closes after answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    /// The body is, or is declared to be, over the limit.
    TooLarge,
    /// The chunked coding is broken; the text names the rule for the log.
    Malformed(&'static str),
}

impl BodyError {
    /// The status code of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Malformed(_) => 400,
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::TooLarge => "request body is too large",
            Self::Malformed(rule) => rule,
        })
    }
}

impl std::error::Error for BodyError {}
