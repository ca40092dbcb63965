//! Row changes on a shard: asking for them when a channel joins, and delivering what the control plane found for it (11).
//!
//! Which change is for whom is decided by the control plane; here a change is one JSON text and a list of channels. A channel
//! that ended meanwhile is recognised by its serial.

use std::rc::Rc;
use std::sync::Arc;

use super::database::{Ask, Asker, ChangeDelivery, Question, Subscribe};
use super::effects::{Effects, Frame};
use super::hub::Hub;
use super::postgres_changes::ids;
use crate::protocol::phoenix::Vsn;
use crate::protocol::phoenix::encode::{self, Status};

/// Told to legacy joins of a tenant that has no database (5.6).
const NO_DATABASE: &str = "Realtime was unable to connect to the project database";

impl Hub {
    /// Asks for the row changes of a channel that has just joined.
    pub(super) fn subscribe<E: Effects>(&mut self, channel: u32, entries: Vec<(u32, Box<str>)>, legacy: bool, fx: &mut E) {
        let entry = &mut self.channels[channel as usize];
        let tenant = self.conns[entry.conn as usize].tenant;
        if !self.tenants[tenant as usize].config.as_ref().is_some_and(|config| config.has_database) {
            return self.send_system(channel, "postgres_changes", Status::Error, NO_DATABASE, fx);
        }
        entry.subscribes = true;
        let token = (&*entry.token).into();
        self.ask_about_changes(channel, Ask::Subscribe(Box::new(Subscribe { token, entries, legacy })), fx);
    }

    /// The token of a channel changed: its subscriptions get the new claims.
    pub(super) fn resubscribe<E: Effects>(&mut self, channel: u32, fx: &mut E) {
        let entry = &self.channels[channel as usize];
        if entry.subscribes {
            let token = (&*entry.token).into();
            self.ask_about_changes(channel, Ask::Resubscribe { token }, fx);
        }
    }

    fn ask_about_changes<E: Effects>(&self, channel: u32, ask: Ask, fx: &mut E) {
        let entry = &self.channels[channel as usize];
        let external_id = self.conns[entry.conn as usize].shared.external_id.clone();
        let asker = Asker::Channel { channel, serial: entry.serial, round: 0 };
        fx.ask(Question { external_id, asker, ask });
    }

    /// A channel that had subscriptions is gone; its slot may be used again.
    pub(super) fn unsubscribe<E: Effects>(&self, slot: u32, channel: u32, serial: u64, fx: &mut E) {
        let external_id = self.conns[slot as usize].shared.external_id.clone();
        fx.ask(Question { external_id, asker: Asker::Channel { channel, serial, round: 0 }, ask: Ask::Unsubscribe });
    }

    /// What became of a channel's subscriptions.
    pub fn notice<E: Effects>(&mut self, channel: u32, serial: u64, status: Status, message: &str, fx: &mut E) {
        if self.channel_is(channel, serial) {
            self.send_system(channel, "postgres_changes", status, message, fx);
        }
    }

    /// Delivers a row change to the channels of this shard that are to get it.
    pub fn deliver_change<E: Effects>(&mut self, delivery: &ChangeDelivery, fx: &mut E) {
        let mut last: Option<(u32, Vsn, Option<Arc<str>>, Frame)> = None;
        for target in &delivery.targets {
            if !self.channel_is(target.channel, target.serial) {
                continue;
            }
            let entry = &self.channels[target.channel as usize];
            let vsn = self.conns[entry.conn as usize].vsn;
            let frame = match &last {
                Some((room, last_vsn, ids, frame)) if *room == entry.room && *last_vsn == vsn && *ids == target.ids => {
                    frame.clone()
                }
                _ => {
                    let topic_json = &self.rooms[entry.room as usize].topic_json;
                    let bytes = match &target.ids {
                        Some(ids) => {
                            let payload = format!("{{\"ids\":{ids},\"data\":{}}}", delivery.data);
                            encode::fan_out(vsn, topic_json, "postgres_changes", &payload)
                        }
                        None => encode::fan_out(vsn, topic_json, delivery.kind, &delivery.data),
                    };
                    let frame = Rc::new(bytes);
                    last = Some((entry.room, vsn, target.ids.clone(), frame.clone()));
                    frame
                }
            };
            fx.send(entry.conn, &frame);
            self.stats.deliveries += 1;
        }
    }
}

/// Ids of the entries: equal for equal ones, whoever asks (5.5).
pub(super) fn entry_ids(entries: &[Box<str>]) -> Vec<u32> {
    ids(&entries.iter().map(|entry| &**entry).collect::<Vec<_>>())
}

/// The `ok` response: each entry as received plus its id (5.5).
pub(super) fn entries_with_ids(entries: &[Box<str>], ids: &[u32]) -> String {
    let with_id = |entry: &str, id: &u32| {
        let members = entry.trim_end();
        let members = members.strip_suffix('}').unwrap_or(members).trim_end();
        let comma = if members.ends_with('{') { "" } else { "," };
        format!("{members}{comma}\"id\":{id}}}")
    };
    let list: Vec<String> = entries.iter().zip(ids).map(|(entry, id)| with_id(entry, id)).collect();
    format!("{{\"postgres_changes\":[{}]}}", list.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_echoed_with_an_id() {
        let check = |entry: &str| {
            let reply: serde_json::Value =
                serde_json::from_str(&entries_with_ids(&[entry.into()], &entry_ids(&[entry.into()]))).unwrap();
            let mut object = reply["postgres_changes"][0].as_object().unwrap().clone();
            let id = object.remove("id").unwrap().as_u64().unwrap();
            assert!(id > 0 && id < 1 << 27);
            assert_eq!(serde_json::Value::from(object), serde_json::from_str::<serde_json::Value>(entry).unwrap());
        };
        check("{}");
        check("{ }");
        check(r#"{"event":"*","schema":"public"}"#);
        check(r#"{"nested":{"a":{}}} "#);
    }
}
