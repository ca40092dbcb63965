//! What the core asks of a tenant's database, and what it is told (sections 7.4, 8.6, 9, 12).
//!
//! Questions leave through [`super::Effects::ask`] and are answered later through [`super::Hub::answered`], or not at all:
//! every question also arms a timer. A question names its asker by identities that are never reused, so an answer for
//! something that is gone is dropped.

use std::sync::Arc;

use super::hub::ConnId;

/// One question.
#[derive(Debug)]
pub struct Question {
    /// Whose database.
    pub external_id: Arc<str>,
    /// Who wants to know.
    pub asker: Asker,
    /// What.
    pub ask: Ask,
}

/// Who asked, and what the answer continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// A join that waits for its reply.
    Join {
        /// Its socket.
        conn: ConnId,
        /// Number of the held join.
        serial: u64,
    },
    /// A joined channel: its pushes wait.
    Channel {
        /// Slot of the channel.
        channel: u32,
        /// Serial of the channel.
        serial: u64,
        /// Number of the question on that channel.
        round: u32,
    },
    /// An HTTP request of the shard, by its number.
    Http(u64),
}

/// What is asked.
#[derive(Debug)]
pub enum Ask {
    /// Is the database connected? Starts the connection when it is not.
    Connect,
    /// May this identity read or write the topic, and which stored messages are there for it?
    Authorize(Box<Authorize>),
    /// Row changes for a channel that has just joined. Not answered; the channel is sent notices and changes.
    Subscribe(Box<Subscribe>),
    /// The channel's token changed: the same entries with other claims.
    Resubscribe {
        /// The new token, verified.
        token: Box<str>,
    },
    /// The channel has ended.
    Unsubscribe,
}

/// What a channel wants to know of row changes (section 11).
#[derive(Debug)]
pub struct Subscribe {
    /// A token that the shard has verified.
    pub token: Box<str>,
    /// Entries as received, each with the id that the client knows it by.
    pub entries: Vec<(u32, Box<str>)>,
    /// The entry stands for a sub-topic (5.6): changes are delivered in the old form.
    pub legacy: bool,
}

/// A row change on its way to the channels of one shard: the same for all of them but for the ids.
#[derive(Debug)]
pub struct ChangeDelivery {
    /// JSON text of `data` (11.5).
    pub data: Arc<str>,
    /// `INSERT`, `UPDATE` or `DELETE`: the event of legacy channels.
    pub kind: &'static str,
    /// Who gets it. Those with equal ids lie together, so that equal frames are encoded once.
    pub targets: Vec<ChangeTarget>,
}

/// A channel that gets a row change.
#[derive(Debug, Clone)]
pub struct ChangeTarget {
    /// Slot of the channel.
    pub channel: u32,
    /// Serial of the channel.
    pub serial: u64,
    /// JSON list of the ids of the entries that match; `None` for legacy channels.
    pub ids: Option<Arc<str>>,
}

/// An authorisation check, answered by the policies on `realtime.messages` (12.3).
#[derive(Debug, PartialEq, Eq, Hash, Clone)]
pub struct Authorize {
    /// Topic without `realtime:`.
    pub sub_topic: Box<str>,
    /// A token that the shard has verified.
    pub token: Box<str>,
    /// JSON object text of the request headers that policies may see.
    pub headers: Option<Arc<str>>,
    /// Read permissions to evaluate; none: no read check.
    pub read: Extensions,
    /// Evaluate the write permissions of broadcast and presence.
    pub write: bool,
    /// Stored messages to fetch when broadcast may be read.
    pub replay: Option<Replay>,
}

/// A flag for each kind of message that policies know apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Extensions {
    /// `extension = 'broadcast'`.
    pub broadcast: bool,
    /// `extension = 'presence'`.
    pub presence: bool,
}

impl Extensions {
    /// Neither.
    pub const NONE: Self = Self { broadcast: false, presence: false };
    /// Both.
    pub const ALL: Self = Self { broadcast: true, presence: true };

    /// At least one.
    pub fn any(self) -> bool {
        self.broadcast || self.presence
    }
}

/// Which stored messages a join wants (section 9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replay {
    /// Unix milliseconds.
    pub since_unix_ms: i64,
    /// As the client sent it; clamped where it is used.
    pub limit: i64,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Copied from the question.
    pub asker: Asker,
    /// What was found out, or why nothing was.
    pub outcome: Result<Permissions, DatabaseRefusal>,
}

/// Permissions of one identity on one topic; also the answer to [`Ask::Connect`], then empty.
#[derive(Debug, Default, Clone)]
pub struct Permissions {
    /// Read permissions; false where not asked.
    pub read: Extensions,
    /// Write permissions; false where not asked.
    pub write: Extensions,
    /// Stored messages, oldest first.
    pub replay: Vec<StoredMessage>,
}

/// A row of `realtime.messages` on its way to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Row id.
    pub id: MessageId,
    /// Private or public room.
    pub private: bool,
    /// Topic without `realtime:`; shared by the rows of one replay.
    pub sub_topic: Arc<str>,
    /// User event.
    pub event: Box<str>,
    /// User payload.
    pub body: StoredBody,
}

/// Id of a stored message: the bytes of its UUID.
pub type MessageId = [u8; 16];

/// Payload of a stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBody {
    /// JSON text as the database prints it.
    Json(Box<str>),
    /// Bytes.
    Binary(Box<[u8]>),
}

impl StoredBody {
    /// The payload as the encoders take it.
    pub fn as_user_body(&self) -> crate::protocol::phoenix::envelope::UserBody<'_> {
        use crate::protocol::phoenix::envelope::UserBody;
        match self {
            Self::Json(text) => UserBody::Json(text),
            Self::Binary(bytes) => UserBody::Binary(bytes),
        }
    }
}

impl StoredMessage {
    /// JSON object text of the message's `meta`.
    pub fn metadata(&self, replayed: bool) -> String {
        let id = uuid::Uuid::from_bytes(self.id);
        if replayed { format!("{{\"id\":\"{id}\",\"replayed\":true}}") } else { format!("{{\"id\":\"{id}\"}}") }
    }
}

/// Why the database could not answer (database 3.1, 10.5). The texts of clients and of HTTP are derived from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseRefusal {
    /// The tenant has none, or it cannot be reached.
    Unavailable,
    /// Still being connected after the longest wait.
    Initializing,
    /// Too few free connections for the server to work.
    TooManyConnections,
    /// Too many failed attempts to connect.
    ConnectRateLimited,
    /// The tenant is suspended.
    Suspended,
    /// The tenant does not exist any more.
    TenantNotFound,
    /// A policy, or a role that does not exist, raised an error.
    RlsPolicy(String),
    /// The statement was cancelled.
    QueryCanceled(String),
    /// The day has no partition of `realtime.messages`.
    MissingPartition,
    /// No connection became free in time.
    PoolExhausted,
    /// Another structured error.
    Other(String),
    /// The stored messages could not be read.
    ReplayFailed(String),
}
