//! Joining a topic: the checks in their order, the reply, and what follows it (sections 4.4, 4.5, 5, 6, 7).
//!
//! What only the database can say is asked before the reply; a join that needs nothing of it is answered at once.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::admission::JoinOrder;
use super::changes::{entries_with_ids, entry_ids};
use super::database::{Answer, Ask, Asker, DatabaseRefusal, Permissions, Question, StoredMessage};
use super::dispatch::topic_hash;
use super::effects::{Effects, PeerMail, Timer};
use super::held::ReplyTo;
use super::hub::{Channel, ChannelRef, ConnId, Hub, Now};
use super::join_request::{JoinRequest, ReplayRequest};
use super::presence::ChannelPresence;
use super::private::PrivateChannel;
use super::refusal::Refusal;
use super::room::{Member, RoomId, sub_topic};
use crate::protocol::phoenix::encode::{self, Status};
use crate::protocol::phoenix::{Payload, Push};

/// How often `replication_ready` looks, and for how long (7.4).
const REPLICATION_CHECK_MS: u64 = 500;
const REPLICATION_READY_MS_MAX: u64 = 60_000;

/// A question is answered within this time: longer than the control plane's own deadline, so that it only expires when the
/// answer was lost.
pub(super) const ANSWER_MS_MAX: u64 = 20_000;

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
        let vsn = self.conns[slot as usize].vsn;
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
            self.admit(slot, topic, &request, push, now)
        });
        match outcome {
            Ok((mut order, ask)) => {
                order.replaced = replaced;
                match ask {
                    None => self.enter(slot, *order, Permissions::default(), now, fx),
                    Some(ask) => self.ask_before_entering(slot, order, ask, now, fx),
                }
            }
            Err(refusal) => {
                let to = ReplyTo { join_ref: &push.join_ref, reference: &push.reference, topic_json: &push.topic_json };
                self.refuse(slot, topic, to, &refusal, replaced, <_>::default(), now, fx);
            }
        }
    }

    fn ask_before_entering<E: Effects>(&mut self, slot: u32, order: Box<JoinOrder>, ask: Ask, now: Now, fx: &mut E) {
        let conn = &self.conns[slot as usize];
        let id = ConnId { slot, generation: conn.generation };
        let external_id = conn.shared.external_id.clone();
        match self.hold_asking(slot, order) {
            Ok(serial) => {
                let asker = Asker::Join { conn: id, serial };
                fx.timer(now.mono_ms + ANSWER_MS_MAX, Timer::AnswerDeadline(asker));
                fx.ask(Question { external_id, asker, ask });
            }
            Err(order) => {
                let refusal = Refusal::Database(DatabaseRefusal::PoolExhausted);
                self.refuse_order(slot, *order, &refusal, <_>::default(), now, fx);
            }
        }
    }

    fn refuse_order<E: Effects>(
        &mut self,
        slot: u32,
        mut order: JoinOrder,
        refusal: &Refusal,
        messages: super::held::Messages,
        now: Now,
        fx: &mut E,
    ) {
        let replaced = order.replaced.take();
        self.refuse(slot, &order.topic, order.reply_to(), refusal, replaced, messages, now, fx);
    }

    /// The answer to a question asked through [`Effects::ask`] by this hub.
    pub fn answered<E: Effects>(&mut self, answer: Answer, now: Now, fx: &mut E) {
        match answer.asker {
            Asker::Join { conn, serial } => self.join_answered(conn, serial, answer.outcome, now, fx),
            Asker::Channel { channel, serial, round } if self.channel_is(channel, serial) => {
                self.channel_answered(channel, round, answer.outcome, now, fx);
            }
            Asker::Channel { .. } | Asker::Http(_) => {}
        }
    }

    fn join_answered<E: Effects>(
        &mut self,
        conn: ConnId,
        serial: u64,
        outcome: Result<Permissions, DatabaseRefusal>,
        now: Now,
        fx: &mut E,
    ) {
        let Some((order, messages)) = self.take_asking(conn, serial) else { return };
        let slot = conn.slot;
        match self.judge(slot, &order, outcome) {
            Ok(permissions) => {
                self.enter(slot, *order, permissions, now, fx);
                self.handle_held(slot, messages, now, fx);
            }
            Err(refusal) => self.refuse_order(slot, *order, &refusal, messages, now, fx),
        }
    }

    /// The checks of 5.4 that need the answer.
    fn judge(&self, slot: u32, order: &JoinOrder, outcome: Result<Permissions, DatabaseRefusal>) -> Result<Permissions, Refusal> {
        if self.draining {
            return Err(Refusal::Restarting);
        }
        let conn = &self.conns[slot as usize];
        let tenant = &self.tenants[conn.tenant as usize];
        let config = tenant.config.as_ref().ok_or(Refusal::TenantNotFound)?;
        if !conn.counted && tenant.shared.users() >= config.limits.concurrent_users_max {
            // Others were faster while this join waited.
            return Err(Refusal::TooManyUsers);
        }
        let sub_topic = || Box::from(sub_topic(&order.topic));
        let permissions = outcome.map_err(|refusal| match refusal {
            DatabaseRefusal::RlsPolicy(detail) => Refusal::PolicyError(sub_topic(), detail),
            other => Refusal::Database(other),
        })?;
        if !order.private {
            return if order.replay.is_present() { Err(Refusal::ReplayOnPublic) } else { Ok(permissions) };
        }
        let allowed = if order.replay.is_present() { permissions.read.broadcast } else { permissions.read.any() };
        if !allowed {
            return Err(Refusal::Unauthorized(sub_topic()));
        }
        if order.replay == ReplayRequest::Invalid {
            return Err(Refusal::ReplayInvalid);
        }
        Ok(permissions)
    }

    /// Makes the channel a member and answers `ok`; fan-out can reach it only behind the reply. Then what follows (7.1).
    fn enter<E: Effects>(&mut self, slot: u32, order: JoinOrder, permissions: Permissions, now: Now, fx: &mut E) {
        let JoinOrder { topic, join_ref, reference, topic_json, private, presence_enabled, .. } = order;
        let JoinOrder { ack, self_broadcast, replication_ready, presence_key, entries, legacy, token, replaced, .. } = order;
        let tenant = self.conns[slot as usize].tenant;
        let vsn = self.conns[slot as usize].vsn;
        let ids = entry_ids(&entries);
        let response = entries_with_ids(&entries, &ids);
        fx.send(slot, &Rc::new(encode::reply(vsn, &join_ref, &reference, &topic_json, Status::Ok, &response)));
        if let Some(replaced) = replaced {
            fx.send(slot, &Rc::new(replaced));
        }

        let external_id = self.tenants[tenant as usize].shared.external_id.clone();
        let id = RoomId::new(&self.settings.room_secret, &external_id, private, &topic);
        let room = self.room_for_join(id, tenant, &topic);
        let serial = self.next_serial();
        let sees_presence = presence_enabled && (!private || permissions.read.presence);
        let has_presence = presence_enabled || presence_key.is_some();
        let channel = self.channels.insert(Channel {
            conn: slot,
            room,
            member: 0,
            serial,
            join_ref,
            ack,
            self_broadcast,
            token: token.text,
            token_check_ms: 0,
            token_timer_ms: u64::MAX,
            presence: has_presence.then(|| Box::new(ChannelPresence::new(presence_key))),
            subscribes: false,
            private: private.then(|| {
                let presence_read = presence_enabled.then_some(permissions.read.presence);
                Box::new(PrivateChannel::new(presence_read, permissions.replay.iter().map(|message| message.id)))
            }),
        }) as u32;
        let member = Member {
            conn: slot,
            channel,
            vsn,
            awaits_state: sees_presence,
            reads_broadcast: !private || permissions.read.broadcast,
            reads_presence: !private || sees_presence,
            has_replayed: !permissions.replay.is_empty(),
        };
        self.channels[channel as usize].member = self.add_member(room, member, fx);
        self.schedule_token_check(channel, token.check_in_ms, now, fx);

        let conn = &mut self.conns[slot as usize];
        conn.channels.push(ChannelRef { topic_hash: topic_hash(&topic), channel });
        conn.had_channels = true;
        if !conn.counted {
            conn.counted = true;
            conn.shared.add_users(1);
        }
        self.stats.joins_ok += 1;

        for message in &permissions.replay {
            self.send_replayed(channel, message, fx);
        }
        if !entries.is_empty() {
            self.subscribe(channel, ids.into_iter().zip(entries).collect(), legacy, fx);
        }
        if replication_ready {
            self.check_replication(channel, now.mono_ms + REPLICATION_READY_MS_MAX, now, fx);
        }
        if sees_presence && self.channel_is(channel, serial) {
            // Last, since it may end the channel.
            let mail = PeerMail::StateRequest { room: id, channel, serial };
            self.post_to_owner(id, mail, now, fx);
        }
    }

    /// One stored message for a channel that just joined (section 9).
    fn send_replayed<E: Effects>(&self, channel: u32, message: &StoredMessage, fx: &mut E) {
        let entry = &self.channels[channel as usize];
        let room = &self.rooms[entry.room as usize];
        let vsn = self.conns[entry.conn as usize].vsn;
        let metadata = message.metadata(true);
        let frame = encode::replayed(
            vsn,
            &entry.join_ref,
            &room.topic,
            &room.topic_json,
            &message.event,
            &metadata,
            message.body.as_user_body(),
        );
        if let Some(frame) = frame {
            fx.send(entry.conn, &Rc::new(frame));
        }
    }

    /// Tells the channel once the stream of database broadcasts is up, or stops it when that takes too long (7.4).
    pub(super) fn check_replication<E: Effects>(&mut self, channel: u32, until_ms: u64, now: Now, fx: &mut E) {
        let entry = &self.channels[channel as usize];
        let tenant = &self.tenants[self.conns[entry.conn as usize].tenant as usize];
        if tenant.shared.stream_ready.load(Ordering::Acquire) {
            self.send_system(channel, "system", Status::Ok, "Replication connection established", fx);
        } else if now.mono_ms >= until_ms {
            self.stop_channel(channel, "Replication connection was not established in time", now, fx);
        } else {
            let timer = Timer::ReplicationCheck { channel, serial: entry.serial, until_ms };
            fx.timer((now.mono_ms + REPLICATION_CHECK_MS).min(until_ms), timer);
        }
    }
}
