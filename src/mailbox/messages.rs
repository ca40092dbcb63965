//! What threads tell each other: everything that shards and the control thread know of one another.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;

use super::{Mail, Permit};
use crate::protocol::phoenix::encode::Status;
use crate::realtime::database::{Answer, Ask, ChangeDelivery, DatabaseRefusal, Permissions, Question, StoredMessage};
use crate::realtime::tenant::{TenantConfig, TenantShared};
use crate::realtime::{Delivery, PeerMail};

/// Mail for a shard.
#[derive(Debug)]
pub enum ToShard {
    /// From the hub of another shard.
    Peer {
        /// The sending shard.
        from: u16,
        /// Its message.
        mail: PeerMail,
    },
    /// A socket that this shard should own.
    Handoff(Box<Handoff>),
    /// Answer to a question of the shard's hub.
    Answer(Answer),
    /// Rows of a tenant's database, in commit order, for whoever is in their rooms.
    Stored {
        /// The tenant's counters.
        shared: Arc<TenantShared>,
        /// The rows.
        messages: Vec<StoredMessage>,
    },
    /// Row changes for channels of the shard, in commit order.
    Changes {
        /// The changes.
        changes: Vec<ChangeDelivery>,
        /// Channels that they are for, in all.
        frames: usize,
        /// Lowered by these when they have been worked off.
        in_flight: Arc<AtomicUsize>,
    },
    /// What became of a channel's subscriptions to row changes.
    Notice {
        /// Slot of the channel.
        channel: u32,
        /// Serial of the channel.
        serial: u64,
        /// Good or bad news.
        status: Status,
        /// For the client.
        message: Box<str>,
    },
    /// Settings of a tenant were loaded or changed.
    Tenant(TenantNews),
    /// Answer to a [`ToControl`] request.
    Reply {
        /// Number the shard gave the request.
        request: u64,
        /// The answer.
        reply: Reply,
    },
    /// The process is shutting down.
    Drain,
}

impl Mail for ToShard {
    fn is_droppable(&self) -> bool {
        matches!(self, Self::Peer { mail: PeerMail::FanOut { delivery: Delivery::Broadcast | Delivery::Stored(_), .. }, .. })
    }
}

/// A connection on its way to another shard: closes with its descriptor when dropped.
#[derive(Debug)]
pub struct Handoff {
    /// The socket; nothing is armed on it.
    pub socket: OwnedFd,
    /// Bytes already read, starting with the request head.
    pub received: Vec<u8>,
    /// Address of the client, after PROXY protocol.
    pub client: SocketAddr,
    /// Its place within the connection limit.
    pub permit: Permit,
}

/// New settings of a tenant.
#[derive(Debug, Clone)]
pub struct TenantNews {
    /// Public name.
    pub external_id: Arc<str>,
    /// Settings; `None` when it was deleted.
    pub config: Option<Arc<TenantConfig>>,
    /// Its counters.
    pub shared: Arc<TenantShared>,
    /// Disconnect its sockets (15.2).
    pub disconnect: bool,
}

/// Mail for the control thread.
#[derive(Debug)]
pub enum ToControl {
    /// A shard has met a tenant it does not know. Answered with [`ToShard::Tenant`] when it exists, then
    /// [`Reply::Tenant`].
    Lookup {
        /// Asking shard.
        shard: u16,
        /// Its number for the request.
        request: u64,
        /// Public name.
        external_id: String,
    },
    /// A question to a tenant's database. Answered with [`ToShard::Answer`], or with [`Reply::Database`] where HTTP asks.
    Ask {
        /// Asking shard.
        shard: u16,
        /// The question.
        question: Question,
    },
    /// An HTTP request for the control plane.
    Http {
        /// Asking shard.
        shard: u16,
        /// Its number for the request.
        request: u64,
        /// The request.
        call: Box<HttpCall>,
    },
    /// The shard has closed its sockets and ended.
    Drained,
}

impl Mail for ToControl {
    fn is_droppable(&self) -> bool {
        // Whoever asks has a deadline of its own.
        !matches!(
            self,
            Self::Drained
                | Self::Ask {
                    question: Question { ask: Ask::Subscribe(_) | Ask::Resubscribe { .. } | Ask::Unsubscribe, .. },
                    ..
                }
        )
    }
}

/// Body of a forwarded request.
#[derive(Debug)]
pub enum HttpBody {
    /// None, or of a type that is not read.
    None,
    /// Parsed JSON.
    Json(serde_json::Value),
}

/// A parsed HTTP request.
#[derive(Debug)]
pub struct HttpCall {
    /// Method.
    pub method: String,
    /// Decoded path segments.
    pub segments: Vec<String>,
    /// All `Authorization` values.
    pub authorization: Vec<String>,
    /// Body.
    pub body: HttpBody,
}

/// Answers of the control thread.
#[derive(Debug)]
pub enum Reply {
    /// Whether the tenant exists.
    Tenant {
        /// False: unknown.
        found: bool,
    },
    /// Answer to an HTTP request.
    Http {
        /// Status.
        status: u16,
        /// Headers besides length.
        headers: Vec<(&'static str, String)>,
        /// Body, may be empty.
        body: Bytes,
    },
    /// Answer to a question.
    Database(Result<Permissions, DatabaseRefusal>),
    /// The control plane failed; the text is for the log.
    Failed(String),
}
