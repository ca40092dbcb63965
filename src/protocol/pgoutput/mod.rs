//! Messages of Postgres' `pgoutput` plug-in, `proto_version` 1 (spec: database 11.3 and 15.2).
//!
//! Bytes in, meaning out; no socket and no clock. `control::capture` hands in the payload of
//! one replication message at a time and gets a [`Message`] that borrows from it.
//!
//! Invariants: decoding allocates nothing ([`Relation`] is the owned copy of the one message
//! that must be remembered); a tuple is checked whole before it is handed out, so iterating
//! its columns cannot fail; every byte of a message is accounted for. Values are passed on as
//! they are, text or binary. Names are bytes, because a database of encoding SQL_ASCII may
//! hold names that are not UTF-8.
//!
//! Every violation is a [`DecodeError`] with the position in the message. Messages of
//! streamed and of prepared transactions (`proto_version` 2 and up) are such violations.

mod cursor;
#[cfg(test)]
pub(crate) mod encode;
mod error;
mod lsn;
mod message;
mod relation;
#[cfg(test)]
mod tests;
mod tuple;

pub use error::DecodeError;
pub use lsn::{Lsn, LsnError};
pub use message::{ChangeHead, ChangeKind, Message, RelationIds};
pub use relation::{ColumnDescription, Relation, RelationColumn, RelationColumns, RelationMessage, Relations, ReplicaIdentity};
pub use tuple::{Column, Columns, OldTuple, Tuple};

/// Seconds from the Unix epoch to Postgres' epoch, 2000-01-01 00:00:00 UTC. All times of the
/// replication protocol are microseconds since the latter.
pub const POSTGRES_EPOCH_UNIX_SECS: i64 = 946_684_800;
