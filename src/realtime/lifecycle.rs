//! Ends: of channels, sockets, tenants' sockets and the process (sections 4.6, 4.8, 15).

use std::rc::Rc;

use super::effects::{Effects, PeerMail};
use super::hub::{Hub, Now};
use crate::protocol::phoenix::Push;
use crate::protocol::phoenix::encode::{self, Status};
use crate::protocol::phoenix::json::write_string;
use crate::telemetry::Code;

/// Close codes the server sends on its own (15.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum CloseCode {
    /// Idle timeout.
    Normal = 1000,
    /// Join refused for good on this socket; sockets without channels.
    GoingAway = 1001,
    /// Draining, tenant-wide disconnect.
    ServiceRestart = 1012,
}

const DISCONNECT: &str = "{\"extension\":\"system\",\"status\":\"ok\",\"message\":\"Server requested disconnect\"}";

impl Hub {
    /// `phx_leave` on a joined channel.
    pub(super) fn leave<E: Effects>(&mut self, channel: u32, push: &Push<'_>, now: Now, fx: &mut E) {
        let join_ref = &*self.channels[channel as usize].join_ref;
        // A leave of a join that was replaced; an absent reference matches.
        if join_ref != "null" && push.join_ref != "null" && *push.join_ref != *join_ref {
            return;
        }
        let slot = self.channels[channel as usize].conn;
        self.reply_with(slot, &push.join_ref, push, Status::Ok, "{}", fx);
        self.send_close(channel, fx);
        self.end_channel(channel, now, fx);
    }

    /// Orderly stop with an explanation: `system`, then `phx_close` (4.8).
    pub(super) fn stop_channel<E: Effects>(&mut self, channel: u32, message: &str, now: Now, fx: &mut E) {
        let entry = &self.channels[channel as usize];
        let tenant = &self.tenants[self.conns[entry.conn as usize].tenant as usize].shared.external_id;
        Code::ChannelShutdown.log(tenant, message);
        self.send_system(channel, "system", Status::Error, message, fx);
        self.send_close(channel, fx);
        self.end_channel(channel, now, fx);
    }

    /// A `system` message of a channel (7.2).
    pub(super) fn send_system<E: Effects>(&self, channel: u32, extension: &str, status: Status, message: &str, fx: &mut E) {
        let room = &self.rooms[self.channels[channel as usize].room as usize];
        let status = if status == Status::Ok { "ok" } else { "error" };
        let mut payload = format!("{{\"extension\":\"{extension}\",\"status\":\"{status}\",\"message\":").into_bytes();
        write_string(&mut payload, message);
        payload.extend_from_slice(b",\"channel\":");
        write_string(&mut payload, room.sub_topic());
        payload.push(b'}');
        let payload = String::from_utf8(payload).expect("only text was written");
        self.send_direct(channel, "system", &payload, fx);
    }

    fn send_close<E: Effects>(&self, channel: u32, fx: &mut E) {
        let entry = &self.channels[channel as usize];
        let vsn = self.conns[entry.conn as usize].vsn;
        let topic_json = &self.rooms[entry.room as usize].topic_json;
        fx.send(entry.conn, &Rc::new(encode::channel_end(vsn, &entry.join_ref, topic_json, "phx_close", "{}")));
    }

    /// Removes a channel and its presence; says nothing to its own client.
    pub(super) fn end_channel<E: Effects>(&mut self, channel: u32, now: Now, fx: &mut E) {
        let entry = self.channels.remove(channel as usize);
        let conn = &mut self.conns[entry.conn as usize];
        conn.waiting_bytes -= entry.private.as_deref().map_or(0, |private| private.waiting_bytes);
        conn.channels.retain(|joined| joined.channel != channel);
        let id = self.rooms[entry.room as usize].id;
        self.remove_member(entry.room, entry.member, fx);
        if entry.subscribes {
            self.unsubscribe(entry.conn, channel, entry.serial, fx);
        }
        if entry.presence.is_some_and(|presence| presence.tracked.is_some()) {
            let seat = self.seat(entry.serial);
            self.post_to_owner(id, PeerMail::Untrack { room: id, seat }, now, fx);
        }
    }

    /// The socket is ending: its channels and presences end now and its user is no longer counted, however long the
    /// closing handshake takes (1.7). Nothing it sends is handled any more.
    pub fn detach<E: Effects>(&mut self, slot: u32, now: Now, fx: &mut E) {
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.closing = true;
        conn.held = None;
        if std::mem::take(&mut conn.counted) {
            conn.shared.add_users(-1);
        }
        while let Some(joined) = self.conns.get(slot as usize).and_then(|conn| conn.channels.last().copied()) {
            self.end_channel(joined.channel, now, fx);
        }
    }

    /// The socket is gone, for whatever reason. Its slot may be reused afterwards.
    pub fn close<E: Effects>(&mut self, slot: u32, now: Now, fx: &mut E) {
        self.detach(slot, now, fx);
        if let Some(conn) = self.conns.try_remove(slot as usize) {
            conn.shared.cell(self.settings.shard).connections.sub(1);
        }
    }

    /// Nothing came from the client for the idle timeout (1.7).
    pub fn close_idle<E: Effects>(&mut self, slot: u32, now: Now, fx: &mut E) {
        if self.conns.contains(slot as usize) {
            self.close_socket(slot, CloseCode::Normal, now, fx);
        }
    }

    pub(super) fn close_socket<E: Effects>(&mut self, slot: u32, code: CloseCode, now: Now, fx: &mut E) {
        let conn = &mut self.conns[slot as usize];
        if !conn.closing {
            conn.closing = true;
            fx.close(slot, code as u16);
            self.detach(slot, now, fx);
        }
    }

    /// Tenant-wide disconnect (15.2): every channel is told, every socket closed with 1012.
    pub fn disconnect_tenant<E: Effects>(&mut self, external_id: &str, now: Now, fx: &mut E) {
        let of_tenant =
            |hub: &Self, slot: usize| &*hub.tenants[hub.conns[slot].tenant as usize].shared.external_id == external_id;
        let slots: Vec<usize> = self.conns.iter().map(|(slot, _)| slot).filter(|&slot| of_tenant(self, slot)).collect();
        for slot in slots {
            let conn = &self.conns[slot];
            for joined in &conn.channels {
                let room = &self.rooms[self.channels[joined.channel as usize].room as usize];
                let frame = encode::fan_out(conn.vsn, &room.topic_json, "system", DISCONNECT);
                fx.send(slot as u32, &Rc::new(frame));
            }
            self.close_socket(slot as u32, CloseCode::ServiceRestart, now, fx);
        }
    }

    /// From now on joins are refused (15.3).
    pub fn start_draining(&mut self) {
        self.draining = true;
    }

    /// Closes up to `sockets_max` sockets with 1012; returns how many are still open and not closing.
    pub fn drain_batch<E: Effects>(&mut self, sockets_max: usize, now: Now, fx: &mut E) -> usize {
        let open: Vec<usize> = self.conns.iter().filter(|(_, conn)| !conn.closing).map(|(slot, _)| slot).collect();
        for &slot in open.iter().take(sockets_max) {
            self.close_socket(slot as u32, CloseCode::ServiceRestart, now, fx);
        }
        open.len().saturating_sub(sockets_max)
    }

    /// Closes sockets whose channel count has fallen back to zero (15.4).
    pub fn close_channelless<E: Effects>(&mut self, now: Now, fx: &mut E) {
        let idle =
            |conn: &super::hub::Conn| conn.had_channels && conn.channels.is_empty() && conn.held.is_none() && !conn.closing;
        let slots: Vec<usize> = self.conns.iter().filter(|(_, conn)| idle(conn)).map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close_socket(slot as u32, CloseCode::GoingAway, now, fx);
        }
    }
}
