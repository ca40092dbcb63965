//! What the core asks of its surroundings, and what hubs say to each other.
//!
//! The shard implements [`Effects`] with outboxes, the timer wheel and the mailboxes; tests implement it with vectors.
//! Frames are complete WebSocket frames; they are shared by reference count and never changed.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::database::{Asker, Question};
use super::hub::ConnId;
use super::room::{Delivery, RoomId};
use crate::protocol::phoenix::Vsn;

/// One encoded WebSocket frame, shared by every outbox of the shard that carries it. The inner `Bytes` is what travels
/// between shards; the outer count keeps atomic operations out of the fan-out loop.
pub type Frame = Rc<Bytes>;

/// Effects of handling one event.
pub trait Effects {
    /// Queues a frame for a socket.
    fn send(&mut self, conn: u32, frame: &Frame);
    /// Sends a close frame after what is queued and ends the socket.
    fn close(&mut self, conn: u32, code: u16);
    /// Asks for [`super::Hub::timer`] at `due_ms` (monotonic milliseconds) or a little later.
    fn timer(&mut self, due_ms: u64, timer: Timer);
    /// Hands mail to another shard; order per pair of shards is kept.
    fn peer(&mut self, shard: u16, mail: PeerMail);
    /// Asks the tenant's database; answered through [`super::Hub::answered`], or not at all.
    fn ask(&mut self, question: Question);
    /// Sixteen unpredictable bytes.
    fn random(&mut self) -> [u8; 16];
}

/// Things that happen later. Stale timers are recognised and ignored, never cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A refused join may be answered now (section 6).
    JoinBackoff {
        /// Socket of the join.
        conn: ConnId,
        /// Number of the held join.
        serial: u64,
    },
    /// The token of a channel has to be verified again (13.4).
    TokenCheck {
        /// Slot of the channel.
        channel: u32,
        /// Serial of the channel.
        serial: u64,
    },
    /// Look whether the stream of database broadcasts is up (7.4).
    ReplicationCheck {
        /// Slot of the channel.
        channel: u32,
        /// Serial of the channel.
        serial: u64,
        /// When to give up, monotonic milliseconds.
        until_ms: u64,
    },
    /// A question to the database should have been answered by now.
    AnswerDeadline(Asker),
    /// The presence changes gathered for a room are due.
    PresenceFlush(RoomId),
}

/// Identity of one presence: unique across shards and nodes, so that it can travel (10.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat {
    /// Origin: one hub of one process.
    pub origin: u64,
    /// Serial of the channel within its hub.
    pub serial: u64,
}

/// What hubs tell each other.
#[derive(Debug, Clone)]
pub enum PeerMail {
    /// The sender now has, or no longer has, members of a room with this serializer.
    Interest {
        /// Room concerned.
        room: RoomId,
        /// Serializer of the members.
        vsn: Vsn,
        /// Whether there is at least one.
        interested: bool,
    },
    /// Frames for the members of a room.
    FanOut {
        /// Room concerned.
        room: RoomId,
        /// What kind of message it is, for permission and counting.
        delivery: Delivery,
        /// Frame for version 1 members.
        v1: Option<Bytes>,
        /// Frame for version 2 members.
        v2: Option<Bytes>,
    },
    /// Track or update a presence at the room's owner.
    Track {
        /// Room concerned.
        room: RoomId,
        /// Full topic.
        topic: Arc<str>,
        /// Who tracks.
        seat: Seat,
        /// Presence key.
        key: Box<str>,
        /// JSON object text without `phx_ref`.
        object: Box<str>,
        /// Reference of this track.
        phx_ref: [u8; 16],
    },
    /// Remove a presence at the room's owner.
    Untrack {
        /// Room concerned.
        room: RoomId,
        /// Who leaves.
        seat: Seat,
    },
    /// Ask the room's owner for its state, for a channel that just joined.
    StateRequest {
        /// Room concerned.
        room: RoomId,
        /// Slot of the asking channel.
        channel: u32,
        /// Serial of the asking channel.
        serial: u64,
    },
    /// The owner's answer.
    State {
        /// Slot of the asking channel.
        channel: u32,
        /// Serial of the asking channel.
        serial: u64,
        /// JSON text of the state.
        state: Bytes,
    },
}
