//! Rooms: the members of one topic on this shard, who else is interested, and fan-out.
//!
//! A room is (tenant, privacy, topic). Its [`RoomId`] is a keyed hash of those three, so that mail between shards is
//! small and no crafted topic can collide with another tenant's (4.2). A room exists while it has local members.
//!
//! Invariants: a channel's `member` is its index in `members`; `local` counts members by serializer and the other shards
//! were told about every 0↔1 transition; a frame is encoded once per serializer and only if somebody needs it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::database::MessageId;
use super::effects::{Effects, Frame, PeerMail};
use super::hub::{Hub, Now};
use crate::protocol::phoenix::Vsn;

/// Most shards of a process: interest is a bit mask.
pub const SHARDS_MAX: usize = 128;

/// Identity of a room across shards. Two words instead of one `u128`, whose alignment would pad every timer and table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomId([u64; 2]);

impl RoomId {
    /// Hashes the structured key with the process's secret.
    pub fn new(secret: &[u8; 32], external_id: &str, private: bool, topic: &str) -> Self {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        context.update(secret);
        context.update(&(external_id.len() as u64).to_le_bytes());
        context.update(external_id.as_bytes());
        context.update(&[u8::from(private)]);
        context.update(topic.as_bytes());
        let digest = context.finish();
        let word = |at: usize| u64::from_le_bytes(digest.as_ref()[at..at + 8].try_into().expect("SHA-256 has 32 bytes"));
        Self([word(0), word(8)])
    }

    /// The shard that keeps the room's presence.
    pub fn owner(self, shards: usize) -> u16 {
        u16::try_from(self.0[0] % shards as u64).expect("there are at most SHARDS_MAX shards")
    }
}

/// Other shards with members of a room, by serializer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Interest {
    v1: u128,
    v2: u128,
}

impl Interest {
    pub fn set(&mut self, shard: u16, vsn: Vsn, interested: bool) {
        let mask = match vsn {
            Vsn::V1 => &mut self.v1,
            Vsn::V2 => &mut self.v2,
        };
        if interested {
            *mask |= 1 << shard;
        } else {
            *mask &= !(1 << shard);
        }
    }

    pub fn is_empty(self) -> bool {
        self.v1 | self.v2 == 0
    }

    fn shards(self) -> impl Iterator<Item = u16> {
        let mut mask = self.v1 | self.v2;
        std::iter::from_fn(move || {
            if mask == 0 {
                return None;
            }
            let shard = mask.trailing_zeros();
            mask &= mask - 1;
            u16::try_from(shard).ok()
        })
    }

    fn wants(self, vsn: Vsn) -> bool {
        match vsn {
            Vsn::V1 => self.v1 != 0,
            Vsn::V2 => self.v2 != 0,
        }
    }

    fn wants_at(self, vsn: Vsn, shard: u16) -> bool {
        let mask = match vsn {
            Vsn::V1 => self.v1,
            Vsn::V2 => self.v2,
        };
        mask >> shard & 1 == 1
    }
}

/// One channel in a room; kept small because fan-out walks these.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub conn: u32,
    pub channel: u32,
    pub vsn: Vsn,
    /// Asked the owner for the state and has no answer yet: diffs that arrive before it are part of it already.
    pub awaits_state: bool,
    /// May see broadcasts; false only where a private channel was denied it.
    pub reads_broadcast: bool,
    /// May see presence.
    pub reads_presence: bool,
    /// Its channel was sent stored messages, which must not come again.
    pub has_replayed: bool,
}

/// A topic with local members.
#[derive(Debug)]
pub(super) struct Room {
    pub id: RoomId,
    pub tenant: u32,
    pub topic: Arc<str>,
    pub topic_json: Rc<str>,
    pub members: Vec<Member>,
    /// Local members by serializer, V1 then V2.
    local: [u32; 2],
}

impl Room {
    pub fn new(id: RoomId, tenant: u32, topic: &str) -> Self {
        let topic_json = serde_json::to_string(topic).expect("a string always encodes");
        Self { id, tenant, topic: topic.into(), topic_json: topic_json.into(), members: Vec::new(), local: [0; 2] }
    }

    /// The topic without `realtime:`.
    pub fn sub_topic(&self) -> &str {
        sub_topic(&self.topic)
    }

    fn local_mut(&mut self, vsn: Vsn) -> &mut u32 {
        &mut self.local[usize::from(vsn == Vsn::V2)]
    }

    fn has_local(&self, vsn: Vsn) -> bool {
        self.local[usize::from(vsn == Vsn::V2)] > 0
    }
}

/// The topic without its `realtime:` prefix.
pub(super) fn sub_topic(topic: &str) -> &str {
    topic.strip_prefix("realtime:").unwrap_or(topic)
}

/// What a fan-out message is: decides who may see it and what it counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A broadcast: counts one message per delivery and is subject to the message limiter (14.1).
    Broadcast,
    /// A broadcast that is a row of the tenant's database: as above, and withheld where it was replayed (section 9).
    Stored(MessageId),
    /// A presence diff: counts one presence event per delivery.
    PresenceDiff,
}

/// The frames of one message, by serializer.
#[derive(Debug, Default, Clone)]
pub(super) struct FramePair {
    pub v1: Option<Bytes>,
    pub v2: Option<Bytes>,
}

impl Hub {
    /// Index of the room, created when missing.
    pub(super) fn room_for_join(&mut self, id: RoomId, tenant: u32, topic: &str) -> u32 {
        if let Some(&index) = self.room_index.get(&id) {
            return index;
        }
        let index = self.rooms.insert(Room::new(id, tenant, topic)) as u32;
        self.room_index.insert(id, index);
        index
    }

    pub(super) fn add_member<E: Effects>(&mut self, room_index: u32, member: Member, fx: &mut E) -> u32 {
        let room = &mut self.rooms[room_index as usize];
        let position = room.members.len() as u32;
        room.members.push(member);
        let count = room.local_mut(member.vsn);
        *count += 1;
        if *count == 1 {
            let id = room.id;
            self.announce(id, member.vsn, true, fx);
        }
        position
    }

    pub(super) fn remove_member<E: Effects>(&mut self, room_index: u32, position: u32, fx: &mut E) {
        let room = &mut self.rooms[room_index as usize];
        let removed = room.members.swap_remove(position as usize);
        if let Some(moved) = room.members.get(position as usize) {
            self.channels[moved.channel as usize].member = position;
        }
        let room = &mut self.rooms[room_index as usize];
        let id = room.id;
        let count = room.local_mut(removed.vsn);
        *count -= 1;
        let last_of_its_kind = *count == 0;
        if room.members.is_empty() {
            self.rooms.remove(room_index as usize);
            self.room_index.remove(&id);
        }
        if last_of_its_kind {
            self.announce(id, removed.vsn, false, fx);
        }
    }

    fn announce<E: Effects>(&self, room: RoomId, vsn: Vsn, interested: bool, fx: &mut E) {
        for shard in 0..self.settings.shards {
            if shard != self.settings.shard {
                fx.peer(shard, PeerMail::Interest { room, vsn, interested });
            }
        }
    }

    pub(super) fn note_interest(&mut self, from: u16, room: RoomId, vsn: Vsn, interested: bool) {
        let entry = self.interest.entry(room).or_default();
        entry.set(from, vsn, interested);
        if entry.is_empty() {
            self.interest.remove(&room);
        }
    }

    /// Encodes a message for whoever is there, once per serializer.
    pub(super) fn encode_for(&self, id: RoomId, encode: impl Fn(Vsn) -> Option<Bytes>) -> FramePair {
        let room = self.room_index.get(&id).map(|&index| &self.rooms[index as usize]);
        let interest = self.interest.get(&id).copied().unwrap_or_default();
        let wanted = |vsn| interest.wants(vsn) || room.is_some_and(|room| room.has_local(vsn));
        FramePair {
            v1: wanted(Vsn::V1).then(|| encode(Vsn::V1)).flatten(),
            v2: wanted(Vsn::V2).then(|| encode(Vsn::V2)).flatten(),
        }
    }

    /// Delivers to every local member and to the shards with members. `except` is the channel that must not get it.
    pub(super) fn fan_out<E: Effects>(
        &mut self,
        id: RoomId,
        delivery: Delivery,
        frames: FramePair,
        except: Option<u32>,
        now: Now,
        fx: &mut E,
    ) {
        if let Some(interest) = self.interest.get(&id) {
            for shard in interest.shards() {
                let for_shard = |vsn, frame: &Option<Bytes>| interest.wants_at(vsn, shard).then(|| frame.clone()).flatten();
                let (v1, v2) = (for_shard(Vsn::V1, &frames.v1), for_shard(Vsn::V2, &frames.v2));
                if v1.is_some() || v2.is_some() {
                    fx.peer(shard, PeerMail::FanOut { room: id, delivery, v1, v2 });
                }
            }
        }
        self.fan_out_local(id, delivery, frames, except, now, fx);
    }

    /// The local half of [`Hub::fan_out`], also the end of mail from other shards.
    pub(super) fn fan_out_local<E: Effects>(
        &mut self,
        id: RoomId,
        delivery: Delivery,
        frames: FramePair,
        except: Option<u32>,
        now: Now,
        fx: &mut E,
    ) {
        let Some(&index) = self.room_index.get(&id) else { return };
        let room = &self.rooms[index as usize];
        let v1: Option<Frame> = frames.v1.map(Rc::new);
        let v2: Option<Frame> = frames.v2.map(Rc::new);
        let mut deliveries = 0;
        for member in &room.members {
            let frame = match member.vsn {
                Vsn::V1 => &v1,
                Vsn::V2 => &v2,
            };
            if let Some(frame) = frame
                && Some(member.channel) != except
                && self.may_see(member, delivery)
            {
                fx.send(member.conn, frame);
                deliveries += 1;
            }
        }
        if deliveries == 0 {
            return;
        }
        let shared = &self.tenants[room.tenant as usize].shared;
        let cell = shared.cell(self.settings.shard);
        match delivery {
            Delivery::PresenceDiff => {
                self.stats.presence_diffs += deliveries;
                cell.presence_events.add(deliveries);
            }
            Delivery::Broadcast | Delivery::Stored(_) => {
                self.stats.deliveries += deliveries;
                cell.events.add(deliveries);
                if shared.events_triggered.load(std::sync::atomic::Ordering::Relaxed) {
                    self.stop_receivers(index, delivery, except, v1.is_some(), v2.is_some(), now, fx);
                }
            }
        }
    }

    /// Whether a message of this kind is for this member (8.3, 10.5, 12.3).
    fn may_see(&self, member: &Member, delivery: Delivery) -> bool {
        match delivery {
            Delivery::PresenceDiff => member.reads_presence && !member.awaits_state,
            Delivery::Broadcast => member.reads_broadcast,
            Delivery::Stored(id) => member.reads_broadcast && !(member.has_replayed && self.was_replayed(member.channel, &id)),
        }
    }

    /// The message limiter is triggered: whoever just received is told and stopped (14.1).
    #[cold]
    #[allow(clippy::too_many_arguments, reason = "everything that says who received")]
    fn stop_receivers<E: Effects>(
        &mut self,
        room: u32,
        delivery: Delivery,
        except: Option<u32>,
        v1: bool,
        v2: bool,
        now: Now,
        fx: &mut E,
    ) {
        let received = |member: &&Member| match member.vsn {
            Vsn::V1 => v1,
            Vsn::V2 => v2,
        } && Some(member.channel) != except
            && self.may_see(member, delivery);
        let channels: Vec<u32> = self.rooms[room as usize].members.iter().filter(received).map(|member| member.channel).collect();
        for channel in channels {
            self.stop_channel(channel, "Too many messages per second", now, fx);
        }
    }
}
