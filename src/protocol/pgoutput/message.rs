//! The messages.
//!
//! Layouts: Postgres documentation, "Logical Replication Message Formats". Each transaction
//! arrives whole and in commit order: Begin, changes with the descriptions they need, Commit.

use super::cursor::Cursor;
use super::error::DecodeError;
use super::lsn::Lsn;
use super::relation::RelationMessage;
use super::tuple::{OldTuple, Tuple};

/// One decoded message. Times are microseconds since 2000-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction starts.
    Begin {
        /// Position of the commit record; equals `commit_lsn` of the Commit to come.
        final_lsn: Lsn,
        /// When it committed.
        commit_time_us: i64,
        /// Its number.
        xid: u32,
    },
    /// The transaction ends.
    Commit {
        /// Position of the commit record.
        commit_lsn: Lsn,
        /// The byte behind the commit record: what to acknowledge, and to resume from, once
        /// the transaction is dispatched.
        end_lsn: Lsn,
        /// When it committed.
        commit_time_us: i64,
    },
    /// The transaction was replicated from another server.
    Origin {
        /// Position of the commit over there.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: &'a [u8],
    },
    /// A table is described.
    Relation(RelationMessage<'a>),
    /// The name of a type that is not built in, ahead of a relation that uses it.
    Type {
        /// Object id of the type.
        id: u32,
        /// Schema; empty stands for `pg_catalog`.
        namespace: &'a [u8],
        /// Name of the type.
        name: &'a [u8],
    },
    /// A row was inserted.
    Insert {
        /// Id of the table.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// Id of the table.
        relation: u32,
        /// The row before; only if the identity is FULL or key columns changed.
        old: Option<OldTuple<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// Id of the table.
        relation: u32,
        /// The row before.
        old: OldTuple<'a>,
    },
    /// Tables were emptied.
    Truncate {
        /// Whether dependent tables went along.
        cascade: bool,
        /// Whether sequences were reset.
        restart_identity: bool,
        /// Ids of the tables.
        relations: RelationIds<'a>,
    },
    /// Written by `pg_logical_emit_message`; only if the option `messages` is on.
    Message {
        /// Part of the transaction, or on its own.
        transactional: bool,
        /// Position of the message.
        lsn: Lsn,
        /// The writer's mark.
        prefix: &'a [u8],
        /// The writer's bytes.
        content: &'a [u8],
    },
}

impl<'a> Message<'a> {
    /// Decodes one message, which is the payload of one replication data message.
    ///
    /// # Errors
    /// When the bytes are not exactly one message of `proto_version` 1.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(message);
        let message = decode(&mut cursor)?;
        cursor.end()?;
        Ok(message)
    }
}

fn decode<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, DecodeError> {
    let start = *cursor;
    Ok(match cursor.u8("a message")? {
        b'I' => {
            let relation = cursor.u32(RELATION)?;
            Message::Insert { relation, new: new_tuple(cursor)? }
        }
        b'U' => {
            let relation = cursor.u32(RELATION)?;
            let old = if cursor.rest().first() == Some(&b'N') { None } else { Some(old_tuple(cursor)?) };
            Message::Update { relation, old, new: new_tuple(cursor)? }
        }
        b'D' => {
            let relation = cursor.u32(RELATION)?;
            Message::Delete { relation, old: old_tuple(cursor)? }
        }
        b'B' => Message::Begin {
            final_lsn: Lsn(cursor.u64("the final position")?),
            commit_time_us: cursor.i64("the commit time")?,
            xid: cursor.u32("the transaction number")?,
        },
        b'C' => {
            cursor.u8("the commit flags")?;
            Message::Commit {
                commit_lsn: Lsn(cursor.u64("the commit position")?),
                end_lsn: Lsn(cursor.u64("the end position")?),
                commit_time_us: cursor.i64("the commit time")?,
            }
        }
        b'R' => Message::Relation(RelationMessage::decode(cursor)?),
        b'Y' => Message::Type {
            id: cursor.u32("the id of a type")?,
            namespace: cursor.string("the namespace of a type")?,
            name: cursor.string("the name of a type")?,
        },
        b'T' => truncate(cursor)?,
        b'O' => Message::Origin {
            commit_lsn: Lsn(cursor.u64("the position of the origin")?),
            name: cursor.string("the name of the origin")?,
        },
        b'M' => Message::Message {
            transactional: cursor.u8("the message flags")? & 1 != 0,
            lsn: Lsn(cursor.u64("the position of the message")?),
            prefix: cursor.string("the prefix of the message")?,
            content: cursor.counted("the content of the message")?,
        },
        b'S' | b'E' | b'c' | b'A' => return Err(start.error("a whole transaction, not a streamed one (proto_version 1)")),
        b'b' | b'P' | b'K' | b'r' | b'p' => return Err(start.error("a plain transaction, not a prepared one (proto_version 1)")),
        _ => return Err(start.error("a message of a known kind")),
    })
}

const RELATION: &str = "the id of a relation";

#[inline]
fn new_tuple<'a>(cursor: &mut Cursor<'a>) -> Result<Tuple<'a>, DecodeError> {
    let start = *cursor;
    match cursor.u8("a new tuple")? {
        b'N' => Tuple::decode(cursor),
        _ => Err(start.error("a new tuple, N")),
    }
}

fn old_tuple<'a>(cursor: &mut Cursor<'a>) -> Result<OldTuple<'a>, DecodeError> {
    let start = *cursor;
    match cursor.u8("an old tuple")? {
        b'K' => Tuple::decode(cursor).map(OldTuple::Key),
        b'O' => Tuple::decode(cursor).map(OldTuple::Full),
        _ => Err(start.error("an old tuple, K or O")),
    }
}

fn truncate<'a>(cursor: &mut Cursor<'a>) -> Result<Message<'a>, DecodeError> {
    let count = cursor.u32("the number of relations")?;
    let options = cursor.u8("the truncate options")?;
    let (ids, _) = cursor.bytes(u64::from(count) * 4, "the ids of the relations")?.as_chunks();
    Ok(Message::Truncate { cascade: options & 1 != 0, restart_identity: options & 2 != 0, relations: RelationIds { ids } })
}

/// Ids of truncated tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationIds<'a> {
    ids: &'a [[u8; 4]],
}

impl<'a> RelationIds<'a> {
    /// The ids in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.ids.iter().map(|id| u32::from_be_bytes(*id))
    }
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// A new row.
    Insert,
    /// A changed row.
    Update,
    /// A removed row.
    Delete,
}

/// The start of a change to a row: enough to report one that was too large to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeHead {
    /// What the change does.
    pub kind: ChangeKind,
    /// Id of the table.
    pub relation: u32,
}

impl ChangeHead {
    /// Reads the first bytes of a message, which need not be complete. None unless it is a
    /// change to a row.
    pub fn peek(message_head: &[u8]) -> Option<Self> {
        let mut cursor = Cursor::new(message_head);
        let kind = match cursor.u8("a message").ok()? {
            b'I' => ChangeKind::Insert,
            b'U' => ChangeKind::Update,
            b'D' => ChangeKind::Delete,
            _ => return None,
        };
        Some(ChangeHead { kind, relation: cursor.u32(RELATION).ok()? })
    }
}
