//! Joins that have no reply yet: refused ones wait out their delay, others wait for the database (section 6).
//!
//! Only their topic waits: everything the client sends to it meanwhile is kept and handled after the reply, in order;
//! other topics of the socket go on. Serials come from the hub and are never reused, so late answers find nothing.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use super::admission::JoinOrder;
use super::effects::{Effects, Timer};
use super::hub::{ConnId, Hub, Now};
use super::lifecycle::CloseCode;
use super::refusal::Refusal;
use crate::protocol::phoenix::encode::{self, Status};

/// Messages held behind one refused join, which all come to nothing: the official client buffers 100 pushes itself.
const HELD_MESSAGES_MAX: usize = 100;

/// Bytes that the held joins of one socket may take, orders, answers and messages together: behind a join that will succeed a
/// client sends what it has.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// Joins of one socket that may be held at the same time: refused ones beyond it are answered at once, so that nobody can use
/// the delay to fill memory, and no more questions are asked for the socket.
const HELD_JOINS_MAX: usize = 1_000;

/// Where a reply goes; JSON texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyTo<'a> {
    pub join_ref: &'a str,
    pub reference: &'a str,
    pub topic_json: &'a str,
}

#[derive(Debug)]
enum State {
    /// Refused; the answer is due later.
    Refused {
        reply: Bytes,
        /// `phx_close` of the channel that the refused join replaced.
        replaced: Option<Bytes>,
        closes_socket: bool,
    },
    /// The database has been asked.
    Asking(Box<JoinOrder>),
}

#[derive(Debug)]
struct HeldJoin {
    serial: u64,
    topic: Box<str>,
    state: State,
    messages: Messages,
}

/// Raw client messages in order: whether binary, and their bytes.
pub(super) type Messages = VecDeque<(bool, Vec<u8>)>;

impl HeldJoin {
    fn bytes(&self) -> usize {
        let messages: usize = self.messages.iter().map(|(_, data)| data.len()).sum();
        let state = match &self.state {
            State::Refused { reply, replaced, .. } => reply.len() + replaced.as_ref().map_or(0, Bytes::len),
            State::Asking(order) => order.bytes(),
        };
        self.topic.len() + state + messages
    }
}

/// Held joins of one socket, in order. Behind one pointer, since few sockets have some at any time.
#[derive(Debug, Default)]
pub(super) struct HeldJoins {
    joins: Vec<HeldJoin>,
    bytes: usize,
}

impl HeldJoins {
    /// Joins whose answer may become a channel.
    pub fn asking(&self) -> usize {
        self.joins.iter().filter(|join| matches!(join.state, State::Asking(_))).count()
    }

    fn is_crowded(&self) -> bool {
        self.joins.len() > HELD_JOINS_MAX || self.bytes > HELD_BYTES_MAX
    }

    fn push(&mut self, join: HeldJoin) {
        self.bytes += join.bytes();
        self.joins.push(join);
    }

    fn take(&mut self, serial: u64) -> Option<HeldJoin> {
        let position = self.joins.iter().position(|join| join.serial == serial)?;
        let join = self.joins.remove(position);
        self.bytes -= join.bytes();
        Some(join)
    }
}

impl Hub {
    fn take_held(&mut self, conn: ConnId, serial: u64) -> Option<HeldJoin> {
        if self.conn(conn).is_none_or(|conn| conn.closing) {
            return None;
        }
        let held = &mut self.conns[conn.slot as usize].held;
        let join = held.as_deref_mut()?.take(serial);
        if held.as_deref().is_some_and(|held| held.joins.is_empty()) {
            *held = None;
        }
        join
    }

    /// Holds a join that waits for the database; the order comes back when the socket has too many.
    pub(super) fn hold_asking(&mut self, slot: u32, order: Box<JoinOrder>) -> Result<u64, Box<JoinOrder>> {
        let serial = self.next_serial();
        let held = self.conns[slot as usize].held.get_or_insert_default();
        if held.is_crowded() {
            return Err(order);
        }
        let topic = order.topic.clone();
        held.push(HeldJoin { serial, topic, state: State::Asking(order), messages: Messages::new() });
        Ok(serial)
    }

    /// The database has answered: the order and what the client sent to its topic meanwhile.
    pub(super) fn take_asking(&mut self, conn: ConnId, serial: u64) -> Option<(Box<JoinOrder>, Messages)> {
        match self.take_held(conn, serial)? {
            HeldJoin { state: State::Asking(order), messages, .. } => Some((order, messages)),
            // Serials are never reused: an answer can only meet its own question.
            HeldJoin { state: State::Refused { .. }, .. } => None,
        }
    }

    /// Refuses a join: logs it and answers after the delay, or at once where there is none.
    #[allow(clippy::too_many_arguments, reason = "one step of join, with everything the join found out")]
    pub(super) fn refuse<E: Effects>(
        &mut self,
        slot: u32,
        topic: &str,
        to: ReplyTo<'_>,
        refusal: &Refusal,
        replaced: Option<Bytes>,
        messages: Messages,
        now: Now,
        fx: &mut E,
    ) {
        self.stats.joins_error += 1;
        let serial = self.next_serial();
        let conn = &mut self.conns[slot as usize];
        refusal.log(&self.tenants[conn.tenant as usize].shared.external_id);
        let response = serde_json::json!({ "reason": refusal.reason() }).to_string();
        let reply = encode::reply(conn.vsn, to.join_ref, to.reference, to.topic_json, Status::Error, &response);
        let held = conn.held.get_or_insert_default();
        let state = State::Refused { reply, replaced, closes_socket: refusal.closes_socket() };
        held.push(HeldJoin { serial, topic: topic.into(), state, messages });
        let crowded = held.is_crowded();
        let id = ConnId { slot, generation: conn.generation };
        let delay_ms = self.settings.channel_error_backoff_ms;
        if delay_ms == 0 || crowded || !refusal.is_delayed() {
            self.answer_held_join(id, serial, now, fx);
        } else {
            fx.timer(now.mono_ms + delay_ms, Timer::JoinBackoff { conn: id, serial });
        }
    }

    /// Keeps a message for a topic whose join has no reply yet; false when its topic does not wait.
    pub(super) fn hold_message(&mut self, slot: u32, topic: &str, binary: bool, data: &[u8]) -> bool {
        let Some(held) = self.conns[slot as usize].held.as_deref_mut() else { return false };
        let Some(join) = held.joins.iter_mut().find(|join| *join.topic == *topic) else { return false };
        let messages_max = match join.state {
            State::Refused { .. } => HELD_MESSAGES_MAX,
            State::Asking(_) => usize::MAX,
        };
        if join.messages.len() < messages_max && held.bytes + data.len() <= HELD_BYTES_MAX {
            held.bytes += data.len();
            join.messages.push_back((binary, data.to_vec()));
        } else {
            self.stats.malformed += 1;
        }
        true
    }

    /// The delay of a refused join is over.
    pub(super) fn answer_held_join<E: Effects>(&mut self, id: ConnId, serial: u64, now: Now, fx: &mut E) {
        let Some(HeldJoin { state: State::Refused { reply, replaced, closes_socket }, messages, .. }) =
            self.take_held(id, serial)
        else {
            return;
        };
        fx.send(id.slot, &Rc::new(reply));
        if let Some(replaced) = replaced {
            fx.send(id.slot, &Rc::new(replaced));
        }
        if closes_socket {
            return self.close_socket(id.slot, CloseCode::GoingAway, now, fx);
        }
        self.handle_held(id.slot, messages, now, fx);
    }

    /// Handles what waited for a reply or an answer, in order.
    pub(super) fn handle_held<E: Effects>(&mut self, slot: u32, messages: Messages, now: Now, fx: &mut E) {
        for (binary, data) in messages {
            self.message(slot, binary, &data, now, fx);
        }
    }
}
