//! Presence of one channel: the pushes `track` and `untrack`, and its limits (section 10.2, 10.6).

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::effects::{Effects, PeerMail};
use super::hub::{Hub, Now};
use super::payload_size;
use super::room::RoomId;
use crate::protocol::phoenix::encode::{self, Status};
use crate::protocol::phoenix::json::{as_string, is_object, member, members, write_string};
use crate::protocol::phoenix::{Payload, Push};
use crate::telemetry::Code;

/// Deeper objects are compared by their text only.
const COMPARE_DEPTH_MAX: usize = 128;

/// Presence side of a channel.
#[derive(Debug)]
pub(super) struct ChannelPresence {
    /// `None` until the server has generated one.
    key: Option<Box<str>>,
    /// Object text this channel tracks, as the client sent it.
    pub tracked: Option<Box<str>>,
    window_start_ms: u64,
    window_pushes: u32,
}

impl ChannelPresence {
    pub fn new(key: Option<Box<str>>) -> Self {
        Self { key, tracked: None, window_start_ms: 0, window_pushes: 0 }
    }

    /// Counts a push; false when it is one too many for the fixed window, which starts at its first push.
    fn admit_push(&mut self, now_ms: u64, window_ms: u64, pushes_max: u32) -> bool {
        if self.window_pushes == 0 || now_ms >= self.window_start_ms + window_ms {
            self.window_start_ms = now_ms;
            self.window_pushes = 0;
        }
        self.window_pushes = self.window_pushes.saturating_add(1);
        self.window_pushes <= pushes_max
    }
}

impl Hub {
    /// Hands presence mail to the shard that owns the room: often this one.
    pub(super) fn post_to_owner<E: Effects>(&mut self, room: RoomId, mail: PeerMail, now: Now, fx: &mut E) {
        let owner = room.owner(usize::from(self.settings.shards));
        if owner != self.settings.shard {
            return fx.peer(owner, mail);
        }
        match mail {
            PeerMail::StateRequest { room, channel, serial } => {
                let state = self.presence_state(room);
                self.deliver_state(channel, serial, &state, now, fx);
            }
            other => self.peer(owner, other, now, fx),
        }
    }

    /// A `presence` push on a joined channel; always answered unless it ends the channel.
    pub(super) fn presence_push<E: Effects>(&mut self, channel: u32, push: &Push<'_>, now: Now, fx: &mut E) {
        let payload = match push.payload {
            Payload::Json(json) if is_object(json) => json,
            _ => return self.channel_reply(channel, push, Status::Error, "{}", fx),
        };
        let Some(event) = member(payload, "event") else {
            return self.channel_reply(channel, push, Status::Ok, "{}", fx);
        };
        let tenant = self.conns[self.channels[channel as usize].conn as usize].tenant;
        let Some(config) = self.tenants[tenant as usize].config.clone() else { return };
        let presence = self.channels[channel as usize].presence.get_or_insert_with(|| Box::new(ChannelPresence::new(None)));
        if !presence.admit_push(now.mono_ms, config.limits.presence_window_ms, config.limits.presence_pushes_per_window_max) {
            return self.stop_channel(channel, "Client presence rate limit exceeded", now, fx);
        }
        let event = as_string(event).unwrap_or_default();
        if self.is_failing(channel) {
            self.channel_reply(channel, push, Status::Error, "{}", fx);
        } else if event.eq_ignore_ascii_case("track") {
            self.track(channel, push, payload, &config.limits, now, fx);
        } else if event.eq_ignore_ascii_case("untrack") {
            self.untrack(channel, now, fx);
            self.channel_reply(channel, push, Status::Ok, "{}", fx);
        } else {
            Code::UnknownPresenceEvent.log(&config.external_id, "neither track nor untrack");
            self.channel_reply(channel, push, Status::Error, "{}", fx);
        }
    }

    fn track<E: Effects>(
        &mut self,
        channel: u32,
        push: &Push<'_>,
        payload: &str,
        limits: &super::tenant::Limits,
        now: Now,
        fx: &mut E,
    ) {
        if !self.may_write(channel).presence {
            return self.channel_reply(channel, push, Status::Error, "{}", fx);
        }
        let object = member(payload, "payload").unwrap_or("{}");
        if !is_object(object) {
            const NOT_A_MAP: &str = "{\"reason\":\"Presence track payload must be a map\"}";
            return self.channel_reply(channel, push, Status::Error, NOT_A_MAP, fx);
        }
        let entry = &self.channels[channel as usize];
        let presence = entry.presence.as_deref().expect("presence_push made it");
        if presence.tracked.as_deref().is_some_and(|tracked| same_value(tracked, object)) {
            return self.channel_reply(channel, push, Status::Ok, "{}", fx);
        }
        if payload_size::exceeds(object, limits.payload_bytes_max) {
            return self.stop_channel(channel, "Track message size exceeded", now, fx);
        }
        let shared = self.tenants[self.conns[entry.conn as usize].tenant as usize].shared.clone();
        if shared.presence_average() > limits.presence_events_per_second_max as f64 {
            return self.stop_channel(channel, "Too many presence messages per second", now, fx);
        }
        shared.cell(self.settings.shard).presence_events.add(1);
        let random = fx.random();
        let mut phx_ref = [0; 16];
        URL_SAFE_NO_PAD.encode_slice(&random[..12], &mut phx_ref).expect("12 bytes encode to 16 characters");

        let room = &self.rooms[entry.room as usize];
        let (id, topic) = (room.id, room.topic.clone());
        let seat = self.seat(entry.serial);
        let presence = self.channels[channel as usize].presence.as_deref_mut().expect("presence_push made it");
        presence.tracked = Some(object.into());
        let key = presence.key.get_or_insert_with(|| generated_key(fx.random())).clone();
        self.channel_reply(channel, push, Status::Ok, "{}", fx);
        self.note_tracked(channel);
        let object = without_references(object);
        self.post_to_owner(id, PeerMail::Track { room: id, topic, seat, key, object, phx_ref }, now, fx);
    }

    fn untrack<E: Effects>(&mut self, channel: u32, now: Now, fx: &mut E) {
        let entry = &mut self.channels[channel as usize];
        let serial = entry.serial;
        if entry.presence.as_deref_mut().and_then(|presence| presence.tracked.take()).is_some() {
            let id = self.rooms[entry.room as usize].id;
            let seat = self.seat(serial);
            self.post_to_owner(id, PeerMail::Untrack { room: id, seat }, now, fx);
        }
    }

    /// `presence_state` for a channel that just joined (10.3).
    pub(super) fn deliver_state<E: Effects>(&mut self, channel: u32, serial: u64, state: &[u8], now: Now, fx: &mut E) {
        if !self.channel_is(channel, serial) {
            return;
        }
        let entry = &self.channels[channel as usize];
        let conn = &self.conns[entry.conn as usize];
        let tenant = &self.tenants[conn.tenant as usize];
        let limit = tenant.config.as_ref().map_or(0, |config| config.limits.presence_events_per_second_max);
        if tenant.shared.presence_average() > limit as f64 {
            return self.stop_channel(channel, "Too many presence messages per second", now, fx);
        }
        tenant.shared.cell(self.settings.shard).presence_events.add(1);
        let room = &mut self.rooms[entry.room as usize];
        room.members[entry.member as usize].awaits_state = false;
        let state = std::str::from_utf8(state).expect("presence states are built from text");
        fx.send(entry.conn, &Rc::new(encode::direct(conn.vsn, &entry.join_ref, &room.topic_json, "presence_state", state)));
    }
}

/// A key for clients that chose none: a UUID in version 1 form.
fn generated_key(random: [u8; 16]) -> Box<str> {
    uuid::Builder::from_bytes(random)
        .with_version(uuid::Version::Mac)
        .with_variant(uuid::Variant::RFC4122)
        .into_uuid()
        .to_string()
        .into()
}

/// The object's members without the references that belong to the server (10.3); other members keep their text.
fn without_references(object: &str) -> Box<str> {
    if !object.contains("phx_ref") && !object.contains("\\u") {
        return object.into();
    }
    let mut out = vec![b'{'];
    for (key, value) in members(object) {
        if key == "phx_ref" || key == "phx_ref_prev" {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        write_string(&mut out, &key);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
    String::from_utf8(out).expect("spans of text").into()
}

/// Equality of JSON values: same text, or the same value in another notation.
fn same_value(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let shallow = |text: &str| text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() <= COMPARE_DEPTH_MAX;
    if !shallow(a) || !shallow(b) {
        return false;
    }
    let (mut a, mut b) = (a.as_bytes().to_vec(), b.as_bytes().to_vec());
    match (simd_json::to_borrowed_value(&mut a), simd_json::to_borrowed_value(&mut b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_fixed_and_starts_at_its_first_push() {
        let mut presence = ChannelPresence::new(None);
        assert!(presence.admit_push(1_000, 100, 2));
        assert!(presence.admit_push(1_099, 100, 2));
        assert!(!presence.admit_push(1_099, 100, 2));
        assert!(presence.admit_push(1_100, 100, 2));
    }

    #[test]
    fn equality_ignores_notation() {
        assert!(same_value(r#"{"a":1,"b":[1,2]}"#, r#"{ "b":[1, 2],"a":1 }"#));
        assert!(!same_value(r#"{"a":1}"#, r#"{"a":2}"#));
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        assert!(!same_value(&deep, "1"));
    }

    #[test]
    fn server_references_are_stripped() {
        assert_eq!(&*without_references(r#"{"phx_ref":"mine", "x" : 1,"phx_ref_prev":2}"#), r#"{"x":1}"#);
        assert_eq!(&*without_references(r#"{"\u0070hx_ref":"mine"}"#), "{}");
        assert_eq!(&*without_references(r#"{"x": 1}"#), r#"{"x": 1}"#);
    }

    #[test]
    fn generated_keys_are_version_1_uuids() {
        assert_eq!(uuid::Uuid::parse_str(&generated_key([7; 16])).unwrap().get_version_num(), 1);
    }
}
