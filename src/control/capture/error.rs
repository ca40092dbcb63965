//! Why a tenant's stream could not be started or broke, and under which code that is logged (sections 3.4, 11.4).

use std::fmt;

use super::walsender::{SqlState, WalsenderError};
use crate::control::database::dial::DialError;
use crate::protocol::pgoutput::DecodeError;
use crate::telemetry::Code;

/// Why there is no stream.
#[derive(Debug)]
pub enum StreamError {
    /// Another node streams.
    HeldByOther,
    /// Not an error: the stream is to carry more, or less, from now on.
    Reopen,
    /// No connection.
    Dial(DialError),
    /// The protocol or the server failed.
    Walsender(WalsenderError),
    /// A message that no server sends.
    Decode(DecodeError),
    /// The server ended the stream.
    Ended,
    /// No sign of life.
    Silent,
    /// The slot is gone or nobody reads it.
    NotAlive,
    /// The slot holds back too much.
    Lag {
        /// Bytes of log.
        bytes: i64,
    },
}

impl StreamError {
    /// Logs it under its code; `was_up`: the stream had worked.
    pub fn log(&self, external_id: &str, was_up: bool) {
        let code = match self {
            Self::Silent => Code::ReplicationConnectionWatchdogTimeout,
            Self::NotAlive => Code::ReplicationSlotNotAlive,
            Self::Lag { .. } => Code::ReplicationSlotLagTooHigh,
            Self::Walsender(error) if is_out_of_senders(error) => Code::ReplicationMaxWalSendersReached,
            _ if was_up => Code::ReplicationConnectionDown,
            Self::Walsender(WalsenderError::Timeout(_)) | Self::Dial(DialError::Timeout) => Code::ReplicationConnectionTimeout,
            _ => Code::StartReplicationFailed,
        };
        code.log(external_id, self);
    }
}

fn is_out_of_senders(error: &WalsenderError) -> bool {
    matches!(error.sqlstate(), Some(SqlState::TOO_MANY_CONNECTIONS | SqlState::CONFIGURATION_LIMIT_EXCEEDED))
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldByOther => f.write_str("another node streams"),
            Self::Reopen => f.write_str("the stream is opened anew"),
            Self::Dial(error) => error.fmt(f),
            Self::Walsender(error) => error.fmt(f),
            Self::Decode(error) => error.fmt(f),
            Self::Ended => f.write_str("the server ended the replication stream"),
            Self::Silent => f.write_str("the replication stream gives no sign of life"),
            Self::NotAlive => f.write_str("the replication slot is gone or inactive"),
            Self::Lag { bytes } => write!(f, "the replication slot holds back {bytes} bytes of log: it is made anew"),
        }
    }
}

impl From<WalsenderError> for StreamError {
    fn from(error: WalsenderError) -> Self {
        match error.sqlstate() {
            Some(SqlState::OBJECT_IN_USE) => Self::HeldByOther,
            _ => Self::Walsender(error),
        }
    }
}
