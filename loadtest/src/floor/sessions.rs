//! What the floor does with received bytes: upgrade, frames, join, broadcast, heartbeat, echo.
//!
//! Knows nothing of io_uring: it queues output on connections and lists them in `dirty`; the event loop sends.
//! Frames are handled where they lie in the receive buffer; only an incomplete rest is copied aside.

use super::Mode;
use super::connection::{BufferPool, Connection};
use super::rooms::Rooms;
use crate::wire::{frame, handshake, push};
use memchr::memmem;

/// All connections with the rooms they are in.
pub struct Sessions {
    mode: Mode,
    connections: Vec<Connection>,
    rooms: Rooms,
    pool: BufferPool,
    /// Connections with queued output that no flush has seen yet.
    pub dirty: Vec<u32>,
    /// A fan-out frame, encoded once.
    encoded: Vec<u8>,
}

impl Sessions {
    /// No connections yet.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            connections: Vec::new(),
            rooms: Rooms::default(),
            pool: BufferPool::default(),
            dirty: Vec::new(),
            encoded: Vec::new(),
        }
    }

    /// Begins connection `number`.
    pub fn open(&mut self, number: u32) {
        let index = number as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, Connection::default);
        }
        self.connections[index] = Connection { upgraded: self.mode == Mode::TcpEcho, ..Connection::default() };
    }

    /// Connection `number` and the pool its buffers come from.
    pub fn connection(&mut self, number: u32) -> (&mut Connection, &mut BufferPool) {
        (&mut self.connections[number as usize], &mut self.pool)
    }

    /// The peer of connection `number` is gone: leaves its rooms. True if a send is still in flight.
    pub fn depart(&mut self, number: u32) -> bool {
        let connection = &mut self.connections[number as usize];
        connection.closing = true;
        connection.partial = Vec::new();
        for room in std::mem::take(&mut connection.rooms) {
            self.rooms.leave(room, number);
        }
        self.connections[number as usize].outgoing.is_flying()
    }

    /// Handles `bytes` just received on connection `number`.
    pub fn take_bytes(&mut self, number: u32, bytes: &mut [u8]) {
        if self.mode == Mode::TcpEcho {
            self.queue(number, bytes);
            return;
        }
        let mut partial = std::mem::take(&mut self.connections[number as usize].partial);
        if partial.is_empty() {
            let consumed = self.consume(number, bytes);
            partial.extend_from_slice(&bytes[consumed..]);
        } else {
            partial.extend_from_slice(bytes);
            let consumed = self.consume(number, &mut partial);
            partial.drain(..consumed);
            if partial.is_empty() {
                partial = Vec::new();
            }
        }
        self.connections[number as usize].partial = partial;
    }

    /// Handles everything complete in `bytes` and returns how much that was.
    fn consume(&mut self, number: u32, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        if !self.connections[number as usize].upgraded {
            let Some(head_bytes) = handshake::head_length(bytes) else {
                return 0;
            };
            if let Some(answer) = handshake::answer(&bytes[..head_bytes]) {
                self.queue(number, answer.as_bytes());
                self.connections[number as usize].upgraded = true;
            }
            at = head_bytes;
        }
        while let Ok(Some(header)) = frame::parse_header(&bytes[at..]) {
            let start = at + header.head_bytes;
            let Some(payload) = bytes.get_mut(start..start + header.payload_bytes) else {
                break;
            };
            frame::unmask(payload, header.mask.unwrap_or_default());
            if header.opcode == frame::OPCODE_TEXT {
                self.handle(number, payload);
            }
            at = start + header.payload_bytes;
        }
        at
    }

    fn handle(&mut self, number: u32, text: &[u8]) {
        let Some(message) = push::split(text) else {
            return;
        };
        match message.event {
            br#""broadcast""# => self.fan_out(number, &message),
            br#""phx_join""# => {
                let echo = memmem::find(message.payload, br#""self":true"#).is_some();
                if let Some(room) = self.rooms.join(message.topic, number, echo) {
                    let rooms = &mut self.connections[number as usize].rooms;
                    rooms.reserve_exact(1);
                    rooms.push(room);
                }
                self.reply(number, &message, br#"{"status":"ok","response":{"postgres_changes":[]}}"#);
            }
            br#""heartbeat""# => self.reply(number, &message, br#"{"status":"ok","response":{}}"#),
            _ => {}
        }
    }

    fn fan_out(&mut self, sender: u32, message: &push::Push<'_>) {
        let parts: [&[u8]; 5] = [b"[null,null,", message.topic, br#","broadcast","#, message.payload, b"]"];
        self.encode(&parts);
        for member in self.rooms.members(message.topic) {
            if member.receives_from(sender) {
                let receiver = member.connection();
                if self.connections[receiver as usize].outgoing.queue(&self.encoded, &mut self.pool) {
                    self.dirty.push(receiver);
                }
            }
        }
    }

    fn reply(&mut self, number: u32, message: &push::Push<'_>, payload: &[u8]) {
        let parts: [&[u8]; 9] =
            [b"[", message.join_ref, b",", message.reference, b",", message.topic, br#","phx_reply","#, payload, b"]"];
        self.encode(&parts);
        let encoded = std::mem::take(&mut self.encoded);
        self.queue(number, &encoded);
        self.encoded = encoded;
    }

    fn encode(&mut self, parts: &[&[u8]]) {
        self.encoded.clear();
        frame::put_server_header(frame::OPCODE_TEXT, parts.iter().map(|part| part.len()).sum(), &mut self.encoded);
        for part in parts {
            self.encoded.extend_from_slice(part);
        }
    }

    fn queue(&mut self, number: u32, bytes: &[u8]) {
        if self.connections[number as usize].outgoing.queue(bytes, &mut self.pool) {
            self.dirty.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        frame::put_client_frame(frame::OPCODE_TEXT, text.as_bytes(), &mut out);
        out
    }

    fn output(sessions: &mut Sessions, number: u32) -> String {
        sessions.dirty.retain(|listed| *listed != number);
        let (connection, pool) = sessions.connection(number);
        connection.outgoing.listed = false;
        let bytes = connection.outgoing.take_off().to_vec();
        connection.outgoing.landed(bytes.len(), pool);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn upgraded(count: u32) -> Sessions {
        let mut sessions = Sessions::new(Mode::WebSocket);
        for number in 0..count {
            sessions.open(number);
            sessions.take_bytes(number, &mut handshake::request("/", "a"));
            assert!(output(&mut sessions, number).starts_with("HTTP/1.1 101"));
        }
        sessions
    }

    #[test]
    fn join_and_broadcast_reach_the_others_even_byte_by_byte() {
        let mut sessions = upgraded(2);
        for number in 0..2 {
            for byte in client(r#"["1","2","realtime:a","phx_join",{"config":{}}]"#) {
                sessions.take_bytes(number, &mut [byte]);
            }
            assert!(output(&mut sessions, number).contains(r#"["1","2","realtime:a","phx_reply",{"status":"ok""#));
        }
        let mut twice = client(r#"["1","3","realtime:a","broadcast",{"x":1}]"#).repeat(2);
        sessions.take_bytes(0, &mut twice);
        assert_eq!(output(&mut sessions, 0), "");
        let received = output(&mut sessions, 1);
        assert_eq!(received.matches(r#"[null,null,"realtime:a","broadcast",{"x":1}]"#).count(), 2);
        assert!(!sessions.depart(1));
        sessions.take_bytes(0, &mut twice);
        assert_eq!(output(&mut sessions, 1), "");
    }

    #[test]
    fn heartbeats_are_answered_and_rubbish_ignored() {
        let mut sessions = upgraded(1);
        sessions.take_bytes(0, &mut client("rubbish"));
        assert_eq!(output(&mut sessions, 0), "");
        sessions.take_bytes(0, &mut client(&push::Dialect::V2.heartbeat()));
        assert!(output(&mut sessions, 0).ends_with(r#"[null,"0","phoenix","phx_reply",{"status":"ok","response":{}}]"#));
    }

    #[test]
    fn tcp_echo_sends_back_what_it_gets() {
        let mut sessions = Sessions::new(Mode::TcpEcho);
        sessions.open(0);
        sessions.take_bytes(0, &mut b"xyz".to_vec());
        assert_eq!(output(&mut sessions, 0), "xyz");
    }
}
