//! Presence of one room, kept by the room's owner shard: state, and diffs to the members (10.3, 10.4).
//!
//! Every change is sent at once while few are present, exactly as the original does. In a room with many presences, where
//! each change would cost a message to everybody, changes are gathered for the batching interval and leave as one diff.
//!
//! Invariants: a seat has at most one entry; every entry's end reaches exactly the members who could have seen its
//! beginning, because state answers and diffs leave through the same mailboxes in order.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::effects::{Effects, Seat, Timer};
use super::hub::{Hub, Now};
use super::room::{Delivery, RoomId};
use crate::protocol::phoenix::encode;
use crate::protocol::phoenix::json::write_string;

/// From this many presences or local members on, changes are gathered: below it a diff costs less than the wait is worth.
const BATCH_CROWD_MIN: usize = 16;

/// One tracked meta.
#[derive(Debug, Clone)]
struct Entry {
    key: Box<str>,
    phx_ref: [u8; 16],
    /// Complete meta as JSON text.
    meta: Arc<str>,
    /// Order of tracking; metas of one key are listed in it.
    order: u64,
}

/// Presences of one room.
#[derive(Debug)]
pub(super) struct PresenceRoom {
    topic: Arc<str>,
    entries: HashMap<Seat, Entry>,
    next_order: u64,
    joins: Vec<(Box<str>, Arc<str>)>,
    leaves: Vec<(Box<str>, Arc<str>)>,
    flush_scheduled: bool,
}

impl PresenceRoom {
    fn state(&self) -> Vec<u8> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_unstable_by_key(|entry| entry.order);
        let mut out = Vec::with_capacity(entries.len() * 96 + 2);
        write_grouped(&mut out, entries.iter().map(|entry| (&*entry.key, &*entry.meta)));
        out
    }
}

impl Hub {
    #[allow(clippy::too_many_arguments, reason = "the fields of PeerMail::Track")]
    pub(super) fn presence_track<E: Effects>(
        &mut self,
        id: RoomId,
        topic: Arc<str>,
        seat: Seat,
        key: Box<str>,
        object: Box<str>,
        phx_ref: [u8; 16],
        now: Now,
        fx: &mut E,
    ) {
        let room = self.presence.entry(id).or_insert_with(|| PresenceRoom {
            topic,
            entries: HashMap::new(),
            next_order: 0,
            joins: Vec::new(),
            leaves: Vec::new(),
            flush_scheduled: false,
        });
        let previous = room.entries.remove(&seat);
        let meta: Arc<str> = with_references(&object, phx_ref, previous.as_ref().map(|entry| entry.phx_ref)).into();
        if let Some(previous) = previous {
            room.leaves.push((previous.key, previous.meta));
        }
        room.joins.push((key.clone(), meta.clone()));
        room.next_order += 1;
        room.entries.insert(seat, Entry { key, phx_ref, meta, order: room.next_order });
        self.presence_changed(id, now, fx);
    }

    pub(super) fn presence_untrack<E: Effects>(&mut self, id: RoomId, seat: Seat, now: Now, fx: &mut E) {
        let Some(room) = self.presence.get_mut(&id) else { return };
        let Some(entry) = room.entries.remove(&seat) else { return };
        room.leaves.push((entry.key, entry.meta));
        self.presence_changed(id, now, fx);
    }

    fn presence_changed<E: Effects>(&mut self, id: RoomId, now: Now, fx: &mut E) {
        let batch_ms = self.settings.presence_batch_ms;
        let members = self.room_index.get(&id).map_or(0, |&room| self.rooms[room as usize].members.len());
        let Some(room) = self.presence.get_mut(&id) else { return };
        let is_crowded = room.entries.len().max(members) >= BATCH_CROWD_MIN;
        if batch_ms == 0 || !is_crowded && !room.flush_scheduled {
            return self.presence_flush(id, now, fx);
        }
        if !room.flush_scheduled {
            room.flush_scheduled = true;
            fx.timer(now.mono_ms + batch_ms, Timer::PresenceFlush(id));
        }
    }

    /// Sends what has been gathered as one diff, and forgets the room when nobody is present any more.
    pub(super) fn presence_flush<E: Effects>(&mut self, id: RoomId, now: Now, fx: &mut E) {
        let Some(room) = self.presence.get_mut(&id) else { return };
        room.flush_scheduled = false;
        let (joins, leaves) = (std::mem::take(&mut room.joins), std::mem::take(&mut room.leaves));
        let topic = room.topic.clone();
        if room.entries.is_empty() {
            self.presence.remove(&id);
        }
        if joins.is_empty() && leaves.is_empty() {
            return;
        }
        let mut payload = Vec::with_capacity(64 + (joins.len() + leaves.len()) * 96);
        payload.extend_from_slice(b"{\"joins\":");
        write_grouped(&mut payload, joins.iter().map(|(key, meta)| (&**key, &**meta)));
        payload.extend_from_slice(b",\"leaves\":");
        write_grouped(&mut payload, leaves.iter().map(|(key, meta)| (&**key, &**meta)));
        payload.push(b'}');
        let payload = String::from_utf8(payload).expect("only text was written");
        let topic_json = serde_json::to_string(&*topic).expect("a string always encodes");
        let frames = self.encode_for(id, |vsn| Some(encode::fan_out(vsn, &topic_json, "presence_diff", &payload)));
        self.fan_out(id, Delivery::PresenceDiff, frames, None, now, fx);
    }

    /// JSON text of the room's state. It includes changes that are still being gathered: their diff repeats them, which
    /// changes nothing for a client.
    pub(super) fn presence_state(&mut self, id: RoomId) -> Bytes {
        self.presence.get(&id).map_or_else(|| Bytes::from_static(b"{}"), |room| room.state().into())
    }
}

/// `{"KEY":{"metas":[…]},…}` with the metas of one key together, keys in order of their first meta.
fn write_grouped<'a>(out: &mut Vec<u8>, metas: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut index: HashMap<&str, usize> = HashMap::new();
    for (key, meta) in metas {
        let group = *index.entry(key).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push(meta);
    }
    out.push(b'{');
    for (number, (key, metas)) in groups.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_string(out, key);
        out.extend_from_slice(b":{\"metas\":[");
        out.extend_from_slice(metas.join(",").as_bytes());
        out.extend_from_slice(b"]}");
    }
    out.push(b'}');
}

/// The tracked object with its `phx_ref`, and `phx_ref_prev` after an update.
fn with_references(object: &str, phx_ref: [u8; 16], previous: Option<[u8; 16]>) -> String {
    let text = |bytes: &[u8; 16]| String::from_utf8_lossy(bytes).into_owned();
    let members = object.trim_end().strip_suffix('}').unwrap_or("{").trim_end();
    let comma = if members.ends_with('{') { "" } else { "," };
    let mut out = format!("{members}{comma}\"phx_ref\":\"{}\"", text(&phx_ref));
    if let Some(previous) = previous {
        out.push_str(&format!(",\"phx_ref_prev\":\"{}\"", text(&previous)));
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_appended() {
        let a = *b"aaaaaaaaaaaaaaaa";
        assert_eq!(with_references("{}", a, None), r#"{"phx_ref":"aaaaaaaaaaaaaaaa"}"#);
        let b = *b"bbbbbbbbbbbbbbbb";
        assert_eq!(
            with_references(r#"{"x":"}" } "#, b, Some(a)),
            r#"{"x":"}","phx_ref":"bbbbbbbbbbbbbbbb","phx_ref_prev":"aaaaaaaaaaaaaaaa"}"#
        );
    }

    #[test]
    fn metas_of_one_key_are_grouped() {
        let mut out = Vec::new();
        write_grouped(&mut out, [("a", "1"), ("b", "2"), ("a", "3")].into_iter());
        assert_eq!(std::str::from_utf8(&out).unwrap(), r#"{"a":{"metas":[1,3]},"b":{"metas":[2]}}"#);
    }
}
