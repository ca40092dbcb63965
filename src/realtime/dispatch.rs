//! From the bytes of one client message to the rule that handles it (section 4).

use std::rc::Rc;

use super::effects::{Effects, Frame};
use super::hub::{ChannelRef, Hub, Now};
use crate::protocol::phoenix::encode::{self, Status};
use crate::protocol::phoenix::{Malformed, Payload, Push, Vsn, decode_binary, decode_text};
use crate::telemetry::Code;

/// Prefix of every topic that can be joined (4.2).
const TOPIC_PREFIX: &str = "realtime:";

const UNMATCHED: &str = "{\"reason\":\"unmatched topic\"}";

/// FNV-1a: a cheap hash that tells the topics of one socket apart. Lists of hits are walked and compared, so crafted
/// collisions gain nothing.
pub(super) fn topic_hash(topic: &str) -> u32 {
    topic.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Hub {
    /// Handles one complete WebSocket message of a socket. Unknown slots and closing sockets are ignored.
    pub fn message<E: Effects>(&mut self, slot: u32, binary: bool, data: &[u8], now: Now, fx: &mut E) {
        let Some(conn) = self.conns.get(slot as usize).filter(|conn| !conn.closing) else { return };
        self.stats.messages += 1;
        let decoded = match (conn.vsn, binary) {
            (Vsn::V2, true) => decode_binary(data),
            (vsn, _) => decode_text(vsn, data),
        };
        let push = match decoded {
            Ok(push) => push,
            Err(malformed) => return self.note_malformed(slot, malformed),
        };
        let Some(topic) = push.topic.as_deref() else {
            return self.reply_with(slot, "null", &push, Status::Error, UNMATCHED, fx);
        };
        if topic == "phoenix" && push.event == "heartbeat" {
            return self.reply_with(slot, "null", &push, Status::Ok, "{}", fx);
        }
        if self.conns[slot as usize].held.is_some() && self.hold_message(slot, topic, binary, data) {
            return;
        }
        let channel = self.find_channel(slot, topic);
        if let Some(channel) = channel
            && self.defer(channel, &push, (binary, data), now, fx)
        {
            return;
        }
        self.route(slot, channel, topic, &push, now, fx);
    }

    fn route<E: Effects>(&mut self, slot: u32, channel: Option<u32>, topic: &str, push: &Push<'_>, now: Now, fx: &mut E) {
        match (&*push.event, channel) {
            ("phx_join", _) if topic.starts_with(TOPIC_PREFIX) => self.join(slot, channel, topic, push, now, fx),
            ("phx_leave", None) => self.reply_with(slot, &push.join_ref, push, Status::Ok, "{}", fx),
            (_, None) => self.reply_with(slot, "null", push, Status::Error, UNMATCHED, fx),
            ("phx_leave", Some(channel)) => self.leave(channel, push, now, fx),
            ("broadcast", Some(channel)) => self.broadcast(channel, push, now, fx),
            ("presence", Some(channel)) => self.presence_push(channel, push, now, fx),
            ("access_token", Some(channel)) => self.refresh_token(channel, push, now, fx),
            (_, Some(channel)) => self.count_events(channel, 1),
        }
    }

    /// The channel of a topic on a socket.
    pub(super) fn find_channel(&self, slot: u32, topic: &str) -> Option<u32> {
        let conn = &self.conns[slot as usize];
        if conn.channels.is_empty() {
            return None;
        }
        let hash = topic_hash(topic);
        conn.channels
            .iter()
            .filter(|entry| entry.topic_hash == hash)
            .map(|entry: &ChannelRef| entry.channel)
            .find(|&channel| &*self.rooms[self.channels[channel as usize].room as usize].topic == topic)
    }

    /// Counts messages against the tenant's limit (8.4).
    pub(super) fn count_events(&self, channel: u32, count: u64) {
        let tenant = self.conns[self.channels[channel as usize].conn as usize].tenant;
        self.tenants[tenant as usize].shared.cell(self.settings.shard).events.add(count);
    }

    pub(super) fn reply_with<E: Effects>(
        &self,
        slot: u32,
        join_ref: &str,
        push: &Push<'_>,
        status: Status,
        response: &str,
        fx: &mut E,
    ) {
        let vsn = self.conns[slot as usize].vsn;
        let bytes = encode::reply(vsn, join_ref, &push.reference, &push.topic_json, status, response);
        fx.send(slot, &Rc::new(bytes));
    }

    /// Reply of a joined channel: carries the channel's join reference.
    pub(super) fn channel_reply<E: Effects>(&self, channel: u32, push: &Push<'_>, status: Status, response: &str, fx: &mut E) {
        let channel = &self.channels[channel as usize];
        self.reply_with(channel.conn, &channel.join_ref, push, status, response, fx);
    }

    /// A message of a channel to its own client.
    pub(super) fn send_direct<E: Effects>(&self, channel: u32, event: &str, payload_json: &str, fx: &mut E) {
        let channel = &self.channels[channel as usize];
        let vsn = self.conns[channel.conn as usize].vsn;
        let room = &self.rooms[channel.room as usize];
        let frame: Frame = Rc::new(encode::direct(vsn, &channel.join_ref, &room.topic_json, event, payload_json));
        fx.send(channel.conn, &frame);
    }

    pub(super) fn note_malformed(&mut self, slot: u32, malformed: Malformed) {
        self.stats.malformed += 1;
        let (code, what) = match malformed {
            Malformed::Message(what) => (Code::MalformedWebSocketMessage, what),
            Malformed::Unknown(what) => (Code::UnknownErrorOnWebSocketMessage, what),
        };
        let tenant = &self.tenants[self.conns[slot as usize].tenant as usize].shared.external_id;
        // At debug level: a client can send any number of these, and the counter tells how many there were.
        let code = code.as_str();
        tracing::debug!(error_code = code, external_id = %tenant, "{code}: {what}");
    }

    pub(super) fn is_malformed_payload(payload: &Payload<'_>) -> bool {
        match payload {
            Payload::Json(json) => !crate::protocol::phoenix::json::is_object(json),
            Payload::Opaque(_) => true,
            Payload::User { .. } => false,
        }
    }
}
