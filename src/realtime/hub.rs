//! The state of one shard's core and the entry points of its events.
//!
//! Owned by the shard (one hub per data-plane thread). Everything is indexed by slab slots; slots that travel (timers,
//! mail, the shard's own tables) carry a generation or serial, so a late event for a reused slot is recognised and
//! dropped. Nothing here blocks, allocates per member of a fan-out, or fails: bad input is counted and answered.

use std::sync::Arc;

use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;

use super::database::{Answer, DatabaseRefusal};
use super::effects::{Effects, PeerMail, Seat, Timer};
use super::held::HeldJoins;
use super::presence::ChannelPresence;
use super::presence_room::PresenceRoom;
use super::private::PrivateChannel;
use super::room::{FramePair, Interest, Room, RoomId};
use super::tenant::{TenantConfig, TenantShared};
use super::token::Token;
use crate::protocol::jwt::{ClaimValidators, VerifiedCache};
use crate::protocol::phoenix::Vsn;

/// The time, as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic milliseconds.
    pub mono_ms: u64,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
}

impl Now {
    /// Unix time in whole seconds, as token claims have it.
    pub fn unix_secs(self) -> i64 {
        i64::try_from(self.unix_ms / 1000).unwrap_or(i64::MAX)
    }
}

/// Slot of a socket with its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Slot.
    pub slot: u32,
    /// Generation of the slot.
    pub generation: u32,
}

/// What a hub has to know about its process.
#[derive(Debug)]
pub struct HubSettings {
    /// Number of this shard.
    pub shard: u16,
    /// Number of shards.
    pub shards: u16,
    /// Distinguishes this hub's presences from every other's, in this process and elsewhere.
    pub origin: u64,
    /// Key of [`RoomId`], equal on all shards of the process.
    pub room_secret: [u8; 32],
    /// Delay before a refused join is answered.
    pub channel_error_backoff_ms: u64,
    /// Presence changes of large rooms are gathered this long.
    pub presence_batch_ms: u64,
    /// Required claim values.
    pub claim_validators: ClaimValidators,
}

/// Counters of one hub since they were last taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HubStats {
    /// Client messages handled.
    pub messages: u64,
    /// Frames dropped as malformed (3.5).
    pub malformed: u64,
    /// Joins answered `ok`.
    pub joins_ok: u64,
    /// Joins refused.
    pub joins_error: u64,
    /// Broadcasts accepted from clients and HTTP.
    pub broadcasts: u64,
    /// Broadcast deliveries to members.
    pub deliveries: u64,
    /// Presence diffs delivered to members.
    pub presence_diffs: u64,
}

/// A tenant as this shard knows it.
#[derive(Debug)]
pub(super) struct HubTenant {
    /// `None` once deleted.
    pub config: Option<Arc<TenantConfig>>,
    pub shared: Arc<TenantShared>,
}

/// One joined topic of a socket: hash of the topic and slot of the channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChannelRef {
    pub topic_hash: u32,
    pub channel: u32,
}

/// One WebSocket connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub generation: u32,
    pub tenant: u32,
    /// The counters this socket was counted in, also after its tenant was deleted and created again.
    pub shared: Arc<TenantShared>,
    pub vsn: Vsn,
    /// Counted among the tenant's users (14.3).
    pub counted: bool,
    /// A close was asked for: nothing is handled any more.
    pub closing: bool,
    /// Had a channel at some time (15.4).
    pub had_channels: bool,
    pub channels: SmallVec<[ChannelRef; 1]>,
    pub token: Token,
    /// Joins without a reply yet, with what was sent to their topics meanwhile.
    pub held: Option<Box<HeldJoins>>,
    /// JSON object text of the upgrade's `x-` headers, for policies.
    pub headers: Option<Arc<str>>,
    /// Bytes of pushes that wait for permissions, over all channels.
    pub waiting_bytes: usize,
}

/// One joined channel.
#[derive(Debug)]
pub(super) struct Channel {
    pub conn: u32,
    pub room: u32,
    /// Index in the room's members.
    pub member: u32,
    pub serial: u64,
    /// JSON text of the join reference.
    pub join_ref: Box<str>,
    pub ack: bool,
    pub self_broadcast: bool,
    pub token: Token,
    /// When the token has to be verified again.
    pub token_check_ms: u64,
    /// When the armed timer fires; a later check re-arms it then instead of adding another.
    pub token_timer_ms: u64,
    pub presence: Option<Box<ChannelPresence>>,
    /// The control plane knows the channel as a subscriber of row changes.
    pub subscribes: bool,
    /// `None` on public channels.
    pub private: Option<Box<PrivateChannel>>,
}

/// What the shard knows about a socket whose upgrade succeeded.
#[derive(Debug)]
pub struct OpenSocket {
    /// Result of [`Hub::set_tenant`].
    pub tenant: u32,
    /// Serializer.
    pub vsn: Vsn,
    /// Connection token.
    pub token: Token,
    /// JSON object text of the `x-` headers that policies may see, where the tenant has policies.
    pub headers: Option<Arc<str>>,
}

/// The core of one shard.
pub struct Hub {
    pub(super) settings: HubSettings,
    pub(super) tenants: Vec<HubTenant>,
    tenant_index: HashMap<Arc<str>, u32>,
    pub(super) conns: Slab<Conn>,
    next_generation: u32,
    pub(super) channels: Slab<Channel>,
    next_serial: u64,
    pub(super) rooms: Slab<Room>,
    pub(super) room_index: HashMap<RoomId, u32>,
    pub(super) interest: HashMap<RoomId, Interest>,
    pub(super) presence: HashMap<RoomId, PresenceRoom>,
    pub(super) verified: VerifiedCache,
    pub(super) draining: bool,
    pub(super) stats: HubStats,
}

impl Hub {
    /// An empty hub.
    pub fn new(settings: HubSettings) -> Self {
        Self {
            settings,
            tenants: Vec::new(),
            tenant_index: HashMap::new(),
            conns: Slab::new(),
            next_generation: 0,
            channels: Slab::new(),
            next_serial: 1,
            rooms: Slab::new(),
            room_index: HashMap::new(),
            interest: HashMap::new(),
            presence: HashMap::new(),
            verified: VerifiedCache::new(),
            draining: false,
            stats: HubStats::default(),
        }
    }

    /// Counters since the last call.
    pub fn take_stats(&mut self) -> HubStats {
        std::mem::take(&mut self.stats)
    }

    /// Open sockets.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Installs or replaces the settings of a tenant; the index stays the same.
    pub fn set_tenant(&mut self, config: Arc<TenantConfig>, shared: Arc<TenantShared>) -> u32 {
        if let Some(&index) = self.tenant_index.get(&config.external_id) {
            let tenant = &mut self.tenants[index as usize];
            tenant.config = Some(config);
            tenant.shared = shared;
            return index;
        }
        let index = self.tenants.len() as u32;
        self.tenant_index.insert(config.external_id.clone(), index);
        self.tenants.push(HubTenant { config: Some(config), shared });
        index
    }

    /// Forgets the settings of a deleted tenant; its sockets stay until they are disconnected.
    pub fn remove_tenant(&mut self, external_id: &str) {
        if let Some(&index) = self.tenant_index.get(external_id) {
            self.tenants[index as usize].config = None;
        }
    }

    /// Index and settings of a tenant this shard has been told of.
    pub fn tenant(&self, external_id: &str) -> Option<(u32, &Arc<TenantConfig>, &Arc<TenantShared>)> {
        let index = *self.tenant_index.get(external_id)?;
        let tenant = &self.tenants[index as usize];
        tenant.config.as_ref().map(|config| (index, config, &tenant.shared))
    }

    /// A socket completed its upgrade.
    pub fn open(&mut self, socket: OpenSocket) -> ConnId {
        self.next_generation = self.next_generation.wrapping_add(1);
        let generation = self.next_generation;
        let shared = self.tenants[socket.tenant as usize].shared.clone();
        shared.cell(self.settings.shard).connections.add(1);
        let slot = self.conns.insert(Conn {
            generation,
            tenant: socket.tenant,
            shared,
            vsn: socket.vsn,
            counted: false,
            closing: false,
            had_channels: false,
            channels: SmallVec::new(),
            token: socket.token,
            held: None,
            headers: socket.headers,
            waiting_bytes: 0,
        }) as u32;
        ConnId { slot, generation }
    }

    pub(super) fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.conns.get(id.slot as usize).filter(|conn| conn.generation == id.generation)
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }

    pub(super) fn seat(&self, serial: u64) -> Seat {
        Seat { origin: self.settings.origin, serial }
    }

    pub(super) fn channel_is(&self, channel: u32, serial: u64) -> bool {
        self.channels.get(channel as usize).is_some_and(|channel| channel.serial == serial)
    }

    /// Mail from another shard.
    pub fn peer<E: Effects>(&mut self, from: u16, mail: PeerMail, now: Now, fx: &mut E) {
        match mail {
            PeerMail::Interest { room, vsn, interested } => self.note_interest(from, room, vsn, interested),
            PeerMail::FanOut { room, delivery, v1, v2 } => {
                self.fan_out_local(room, delivery, FramePair { v1, v2 }, None, now, fx);
            }
            PeerMail::Track { room, topic, seat, key, object, phx_ref } => {
                self.presence_track(room, topic, seat, key, object, phx_ref, now, fx);
            }
            PeerMail::Untrack { room, seat } => self.presence_untrack(room, seat, now, fx),
            PeerMail::StateRequest { room, channel, serial } => {
                let state = self.presence_state(room);
                fx.peer(from, PeerMail::State { channel, serial, state });
            }
            PeerMail::State { channel, serial, state } => self.deliver_state(channel, serial, &state, now, fx),
        }
    }

    /// A timer asked for through [`Effects::timer`] is due.
    pub fn timer<E: Effects>(&mut self, timer: Timer, now: Now, fx: &mut E) {
        match timer {
            Timer::JoinBackoff { conn, serial } => self.answer_held_join(conn, serial, now, fx),
            Timer::TokenCheck { channel, serial } if self.channel_is(channel, serial) => self.check_token(channel, now, fx),
            Timer::ReplicationCheck { channel, serial, until_ms } if self.channel_is(channel, serial) => {
                self.check_replication(channel, until_ms, now, fx);
            }
            Timer::TokenCheck { .. } | Timer::ReplicationCheck { .. } => {}
            Timer::AnswerDeadline(asker) => {
                self.answered(Answer { asker, outcome: Err(DatabaseRefusal::Initializing) }, now, fx);
            }
            Timer::PresenceFlush(room) => self.presence_flush(room, now, fx),
        }
    }
}
