//! Joining a topic: the checks in their order, the reply, and what follows it (sections 4.4, 4.5, 5, 6, 7).
//!
//! A refused join is answered after a delay. Only that topic waits: everything the client sends to it meanwhile is held
//! back and handled after the reply, in order; other topics of the socket go on.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::dispatch::topic_hash;
use super::effects::{Effects, PeerMail, Timer};
use super::hub::{Channel, ChannelRef, ConnId, Hub, Now};
use super::join_request::{JoinRequest, legacy_entry};
use super::lifecycle::CloseCode;
use super::presence::ChannelPresence;
use super::refusal::Refusal;
use super::room::{Member, RoomId, sub_topic};
use super::token::UsableToken;
use crate::protocol::phoenix::encode::{self, Status};
use crate::protocol::phoenix::{Payload, Push};
use crate::telemetry::Code;

/// Channels that no socket may exceed, whatever its tenant allows (6).
const CHANNELS_HARD_MAX: usize = 99_999;

/// Messages held for a topic whose refused join is not answered yet: the official client buffers 100 pushes itself.
const HELD_MESSAGES_MAX: usize = 100;

/// Bytes that one socket's refused joins may hold, answers and messages together; a client in good faith sends a few small
/// pushes behind a join.
const HELD_BYTES_MAX: usize = 256 * 1024;

/// Refused joins of one socket that may wait at the same time; more are answered at once, so that nobody can use the delay
/// to fill memory.
const HELD_JOINS_MAX: usize = 1_000;

/// How long `replication_ready` waits (7.4).
const REPLICATION_READY_MS_MAX: u64 = 60_000;

/// A refused join that waits for its answer.
#[derive(Debug)]
struct HeldJoin {
    serial: u32,
    topic: Box<str>,
    reply: Bytes,
    /// `phx_close` of the channel that the refused join replaced.
    replaced: Option<Bytes>,
    closes_socket: bool,
    messages: VecDeque<(bool, Vec<u8>)>,
}

impl HeldJoin {
    fn bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(|(_, data)| data.len()).sum();
        self.topic.len() + self.reply.len() + self.replaced.as_ref().map_or(0, Bytes::len) + messages
    }
}

/// Refused joins of one socket, in order. Behind one pointer, since hardly any socket has some.
#[derive(Debug, Default)]
pub(super) struct HeldJoins {
    joins: Vec<HeldJoin>,
    bytes: usize,
}

/// A join that passed every check.
struct Admission {
    token: UsableToken,
    presence_enabled: bool,
}

impl Hub {
    pub(super) fn join<E: Effects>(
        &mut self,
        slot: u32,
        existing: Option<u32>,
        topic: &str,
        push: &Push<'_>,
        now: Now,
        fx: &mut E,
    ) {
        let conn = &self.conns[slot as usize];
        let vsn = conn.vsn;
        let replaced = existing.map(|channel| {
            let join_ref = self.channels[channel as usize].join_ref.clone();
            self.end_channel(channel, now, fx);
            encode::channel_end(vsn, &join_ref, &push.topic_json, "phx_close", "{}")
        });
        let payload = match push.payload {
            Payload::Json(json) => json,
            Payload::Opaque(_) | Payload::User { .. } => "null",
        };
        let outcome = JoinRequest::parse(payload).and_then(|request| {
            self.log_invalid(slot, &request);
            let admission = self.admit(slot, topic, &request, now)?;
            Ok((request, admission))
        });
        match outcome {
            Ok((request, admission)) => {
                let wants_state = admission.presence_enabled;
                let channel = self.enter(slot, topic, push, &request, admission, replaced, now, fx);
                self.follow_up(channel, &request, now, fx);
                if wants_state {
                    // Last, since it may end the channel.
                    self.request_state(channel, now, fx);
                }
            }
            Err(refusal) => self.refuse(slot, topic, push, &refusal, replaced, now, fx),
        }
    }

    fn log_invalid(&self, slot: u32, request: &JoinRequest<'_>) {
        if !request.invalid.is_empty() {
            let tenant = &self.tenants[self.conns[slot as usize].tenant as usize].shared.external_id;
            Code::InvalidJoinPayload.log(tenant, request.invalid.join(", "));
        }
    }

    /// The checks of 5.4 in their order.
    fn admit(&mut self, slot: u32, topic: &str, request: &JoinRequest<'_>, now: Now) -> Result<Admission, Refusal> {
        if sub_topic(topic).is_empty() {
            return Err(Refusal::TopicNameRequired);
        }
        if self.draining {
            return Err(Refusal::Restarting);
        }
        let conn = &self.conns[slot as usize];
        let tenant = &self.tenants[conn.tenant as usize];
        let config = tenant.config.clone().ok_or(Refusal::TenantNotFound)?;
        if config.private_only && !request.private {
            return Err(Refusal::PrivateOnly);
        }
        if !conn.counted && tenant.shared.users() >= config.limits.concurrent_users_max {
            return Err(Refusal::TooManyUsers);
        }
        if tenant.shared.joins_triggered.load(Ordering::Relaxed) {
            return Err(Refusal::TooManyJoins);
        }
        tenant.shared.cell(self.settings.shard).joins.add(1);
        let channels = conn.channels.len();
        if channels >= CHANNELS_HARD_MAX {
            return Err(Refusal::HardChannelLimit);
        }
        if i64::try_from(channels).unwrap_or(i64::MAX) >= config.limits.channels_per_client_max {
            return Err(Refusal::TooManyChannels);
        }
        let text = match &request.token {
            Some(text) if **text != *conn.token => Rc::from(&**text),
            _ => conn.token.clone(),
        };
        let token = self.usable_token(&config, text, now)?;
        if config.suspended {
            return Err(Refusal::TenantSuspended);
        }
        if request.private || !request.postgres_changes.is_empty() {
            return Err(Refusal::NoDatabase);
        }
        if request.replay {
            return Err(Refusal::ReplayOnPublic);
        }
        Ok(Admission { token, presence_enabled: request.presence_enabled || config.presence_enabled })
    }

    /// Makes the channel a member and answers `ok`; fan-out can reach it only behind the reply.
    #[allow(clippy::too_many_arguments, reason = "one step of join, with everything the join found out")]
    fn enter<E: Effects>(
        &mut self,
        slot: u32,
        topic: &str,
        push: &Push<'_>,
        request: &JoinRequest<'_>,
        admission: Admission,
        replaced: Option<Bytes>,
        now: Now,
        fx: &mut E,
    ) -> u32 {
        let tenant = self.conns[slot as usize].tenant;
        let vsn = self.conns[slot as usize].vsn;
        let entries = if request.legacy { vec![legacy_entry(sub_topic(topic))] } else { Vec::new() };
        let response = entries_with_ids(&entries);
        self.reply_with(slot, &push.join_ref, push, Status::Ok, &response, fx);
        if let Some(replaced) = replaced {
            fx.send(slot, &Rc::new(replaced));
        }

        let external_id = self.tenants[tenant as usize].shared.external_id.clone();
        let id = RoomId::new(&self.settings.room_secret, &external_id, request.private, topic);
        let room = self.room_for_join(id, tenant, topic);
        let serial = self.next_serial();
        let presence_key = request.presence_key.as_deref().map(Box::from);
        let presence =
            (admission.presence_enabled || presence_key.is_some()).then(|| Box::new(ChannelPresence::new(presence_key)));
        let channel = self.channels.insert(Channel {
            conn: slot,
            room,
            member: 0,
            serial,
            join_ref: push.join_ref.as_ref().into(),
            ack: request.ack,
            self_broadcast: request.self_broadcast,
            token: admission.token.text,
            token_check_ms: 0,
            token_timer_ms: u64::MAX,
            presence,
        }) as u32;
        self.channels[channel as usize].member =
            self.add_member(room, Member { conn: slot, channel, vsn, awaits_state: admission.presence_enabled }, fx);
        self.schedule_token_check(channel, admission.token.check_in_ms, now, fx);

        let conn = &mut self.conns[slot as usize];
        conn.channels.push(ChannelRef { topic_hash: topic_hash(topic), channel });
        conn.had_channels = true;
        if !conn.counted {
            conn.counted = true;
            conn.shared.add_users(1);
        }
        self.stats.joins_ok += 1;
        channel
    }

    /// What a tenant without a database answers after the `ok` (7.1).
    fn follow_up<E: Effects>(&mut self, channel: u32, request: &JoinRequest<'_>, now: Now, fx: &mut E) {
        if request.legacy {
            self.send_system(
                channel,
                "postgres_changes",
                Status::Error,
                "Realtime was unable to connect to the project database",
                fx,
            );
        }
        if request.replication_ready {
            let serial = self.channels[channel as usize].serial;
            fx.timer(now.mono_ms + REPLICATION_READY_MS_MAX, Timer::ReplicationDeadline { channel, serial });
        }
    }

    fn request_state<E: Effects>(&mut self, channel: u32, now: Now, fx: &mut E) {
        let Channel { room, serial, .. } = self.channels[channel as usize];
        let room = self.rooms[room as usize].id;
        self.post_to_owner(room, PeerMail::StateRequest { room, channel, serial }, now, fx);
    }

    #[allow(clippy::too_many_arguments, reason = "one step of join, with everything the join found out")]
    fn refuse<E: Effects>(
        &mut self,
        slot: u32,
        topic: &str,
        push: &Push<'_>,
        refusal: &Refusal,
        replaced: Option<Bytes>,
        now: Now,
        fx: &mut E,
    ) {
        self.stats.joins_error += 1;
        let conn = &mut self.conns[slot as usize];
        let tenant = &self.tenants[conn.tenant as usize].shared.external_id;
        refusal.log(tenant);
        let response = serde_json::json!({ "reason": refusal.reason() }).to_string();
        let held = conn.held.get_or_insert_default();
        let serial = held.joins.last().map_or(0, |last| last.serial.wrapping_add(1));
        let join = HeldJoin {
            serial,
            topic: topic.into(),
            reply: encode::reply(conn.vsn, &push.join_ref, &push.reference, &push.topic_json, Status::Error, &response),
            replaced,
            closes_socket: refusal.closes_socket(),
            messages: VecDeque::new(),
        };
        held.bytes += join.bytes();
        held.joins.push(join);
        let crowded = held.joins.len() > HELD_JOINS_MAX || held.bytes > HELD_BYTES_MAX;
        let id = ConnId { slot, generation: conn.generation };
        let delay_ms = self.settings.channel_error_backoff_ms;
        if delay_ms == 0 || crowded || !refusal.is_delayed() {
            self.answer_held_join(id, serial, now, fx);
        } else {
            fx.timer(now.mono_ms + delay_ms, Timer::JoinBackoff { conn: id, serial });
        }
    }

    /// Keeps a message for a topic whose refused join is not answered yet; false when its topic does not wait.
    pub(super) fn hold_message(&mut self, slot: u32, topic: &str, binary: bool, data: &[u8]) -> bool {
        let Some(held) = self.conns[slot as usize].held.as_deref_mut() else { return false };
        let Some(join) = held.joins.iter_mut().find(|join| *join.topic == *topic) else { return false };
        if join.messages.len() < HELD_MESSAGES_MAX && held.bytes + data.len() <= HELD_BYTES_MAX {
            held.bytes += data.len();
            join.messages.push_back((binary, data.to_vec()));
        } else {
            self.stats.malformed += 1;
        }
        true
    }

    /// The delay of a refused join is over.
    pub(super) fn answer_held_join<E: Effects>(&mut self, id: ConnId, serial: u32, now: Now, fx: &mut E) {
        if self.conn(id).is_none_or(|conn| conn.closing) {
            return;
        }
        let conn = &mut self.conns[id.slot as usize];
        let Some(held) = conn.held.as_deref_mut() else { return };
        let Some(position) = held.joins.iter().position(|join| join.serial == serial) else { return };
        let join = held.joins.remove(position);
        held.bytes -= join.bytes();
        if held.joins.is_empty() {
            conn.held = None;
        }
        fx.send(id.slot, &Rc::new(join.reply));
        if let Some(replaced) = join.replaced {
            fx.send(id.slot, &Rc::new(replaced));
        }
        if join.closes_socket {
            return self.close_socket(id.slot, CloseCode::GoingAway, now, fx);
        }
        for (binary, data) in join.messages {
            self.message(id.slot, binary, &data, now, fx);
        }
    }
}

/// The `ok` response: each entry as received plus its id, a 27-bit hash of the entry (5.5).
fn entries_with_ids(entries: &[String]) -> String {
    let with_id = |entry: &String| {
        let id = (topic_hash(entry) & 0x07ff_ffff).max(1);
        let members = entry.trim_end_matches('}');
        let comma = if members.ends_with('{') { "" } else { "," };
        format!("{members}{comma}\"id\":{id}}}")
    };
    let list: Vec<String> = entries.iter().map(with_id).collect();
    format!("{{\"postgres_changes\":[{}]}}", list.join(","))
}
