//! Broadcast: one member's message, or one from HTTP, to everybody else in the room (section 8).
//!
//! Payload bytes are forwarded as they came. The sender's shard encodes once per serializer that has members anywhere.

use super::database::StoredMessage;
use super::effects::Effects;
use super::hub::{Hub, Now};
use super::payload_size;
use super::room::{Delivery, RoomId};
use super::tenant::TenantShared;
use crate::protocol::phoenix::encode::{self, Status};
use crate::protocol::phoenix::envelope::UserBody;
use crate::protocol::phoenix::{Malformed, Payload, Push, Vsn};

/// How a message that did not come from a socket looks to version 2 members (8.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Text, as the batch endpoint sends.
    Text,
    /// Kind 4, as the single endpoint and the database send.
    Binary,
}

/// A message from HTTP or the database, already authorised and validated.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// Private or public room.
    pub private: bool,
    /// Topic without `realtime:`.
    pub sub_topic: &'a str,
    /// User event.
    pub event: &'a str,
    /// JSON object text for `meta`, or empty.
    pub metadata: &'a str,
    /// User payload.
    pub body: UserBody<'a>,
    /// Frame for version 2.
    pub form: Form,
}

impl Hub {
    /// A `broadcast` push on a joined channel.
    pub(super) fn broadcast<E: Effects>(&mut self, channel: u32, push: &Push<'_>, now: Now, fx: &mut E) {
        let entry = &self.channels[channel as usize];
        let (slot, ack) = (entry.conn, entry.ack);
        if Self::is_malformed_payload(&push.payload) {
            return self.note_malformed(slot, Malformed::Message("a broadcast payload must be an object"));
        }
        if !self.may_write(channel).broadcast {
            return;
        }
        self.count_events(channel, 1);
        if self.too_large(slot, &push.payload) {
            if ack {
                self.channel_reply(channel, push, Status::Error, "\"payload_size_exceeded\"", fx);
            }
            return;
        }
        self.stats.broadcasts += 1;
        let room = &self.rooms[entry.room as usize];
        let except = (!entry.self_broadcast).then_some(channel);
        let id = room.id;
        let frames = self.encode_for(id, |vsn| match push.payload {
            Payload::Json(json) => Some(encode::fan_out(vsn, &room.topic_json, "broadcast", json)),
            Payload::User { event, body, .. } => encode::user_broadcast(vsn, &room.topic, &room.topic_json, event, "", body),
            Payload::Opaque(_) => None,
        });
        if ack {
            self.channel_reply(channel, push, Status::Ok, "{}", fx);
        }
        self.fan_out(id, Delivery::Broadcast, frames, except, now, fx);
    }

    fn too_large(&self, slot: u32, payload: &Payload<'_>) -> bool {
        let Some(config) = &self.tenants[self.conns[slot as usize].tenant as usize].config else { return true };
        let limit = config.limits.payload_bytes_max;
        match payload {
            Payload::Json(json) => payload_size::exceeds(json, limit),
            Payload::User { event, metadata, body } => payload_size::user_push_exceeds(event, metadata, *body, limit),
            Payload::Opaque(_) => false,
        }
    }

    /// Publishes a message from HTTP. Counts one message.
    pub fn publish<E: Effects>(&mut self, shared: &TenantShared, publication: &Publication<'_>, now: Now, fx: &mut E) {
        self.send_to_room(shared, publication, Delivery::Broadcast, now, fx);
    }

    /// Publishes a row of the tenant's database (8.6), already checked against size and rate. Counts one message.
    pub fn publish_stored<E: Effects>(&mut self, shared: &TenantShared, message: &StoredMessage, now: Now, fx: &mut E) {
        let publication = Publication {
            private: message.private,
            sub_topic: &message.sub_topic,
            event: &message.event,
            metadata: &message.metadata(false),
            body: message.body.as_user_body(),
            form: Form::Binary,
        };
        self.send_to_room(shared, &publication, Delivery::Stored(message.id), now, fx);
    }

    fn send_to_room<E: Effects>(
        &mut self,
        shared: &TenantShared,
        publication: &Publication<'_>,
        delivery: Delivery,
        now: Now,
        fx: &mut E,
    ) {
        shared.cell(self.settings.shard).events.add(1);
        self.stats.broadcasts += 1;
        let topic = format!("realtime:{}", publication.sub_topic);
        let id = RoomId::new(&self.settings.room_secret, &shared.external_id, publication.private, &topic);
        let topic_json = serde_json::to_string(&topic).expect("a string always encodes");
        let Publication { event, metadata, body, form, .. } = *publication;
        let frames = self.encode_for(id, |vsn| match (vsn, form, body) {
            (Vsn::V2, Form::Binary, _) | (Vsn::V1, _, UserBody::Binary(_)) => {
                encode::user_broadcast(vsn, &topic, &topic_json, event, metadata, body)
            }
            (_, _, UserBody::Json(json)) => Some(encode::user_text(vsn, &topic_json, event, metadata, json)),
            (Vsn::V2, Form::Text, UserBody::Binary(_)) => None,
        });
        self.fan_out(id, delivery, frames, None, now, fx);
    }
}
