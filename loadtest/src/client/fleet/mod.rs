//! All connections of a run: opened at a bounded concurrency, joined, then read and written until dropped.
//!
//! A scenario calls [`Fleet::open`] and then [`Fleet::poll`] in its loop. One large buffer is shared by all reads;
//! frames are walked in place and handed to the [`Listener`] without a copy. Answers a listener appends leave on
//! the same connection in one write. Connections that read eagerly must stay open: losing one ends the run with
//! the server's words. Slow and stopped readers may be closed by the server; that is counted.

mod opening;
mod upkeep;

use super::poller::{Interest, Poller};
use super::seat::{Connection, Phase, Reading, Seat};
use super::{Endpoint, LoadError};
use crate::wire::frame::{OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, parse_header, put_client_frame};
use crate::wire::handshake;
use crate::wire::push::Kind;
use std::io::{self, Read as _};

/// Bytes asked for per read; grows when a single frame is larger.
const READ_BYTES: usize = 256 * 1024;

/// What a scenario wants to know.
pub trait Listener {
    /// A fan-out message arrived on connection `seat`; bytes appended to `answer` are sent back on it.
    fn on_delivery(&mut self, seat: usize, message: &[u8], answer: &mut Vec<u8>);

    /// All joins of connection `seat` were answered ok.
    fn on_joined(&mut self, _seat: usize, _answer: &mut Vec<u8>) {}

    /// Anything else that arrived, except the replies to the joins of the plan. Returns whether it was expected; what
    /// was not and ends a channel or refuses something ends the run. Bytes appended to `answer` are sent back.
    fn on_control(&mut self, _seat: usize, _kind: Kind, _message: &[u8], _answer: &mut Vec<u8>) -> bool {
        false
    }
}

/// The connections of a run.
pub struct Fleet {
    endpoint: Endpoint,
    poller: Poller,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    answer: Vec<u8>,
    expected_accept: String,
    joined: usize,
    closed: usize,
    heartbeat: Vec<u8>,
    heartbeats_from_ns: u64,
    heartbeats_sent: u64,
    slow: Vec<usize>,
    slow_read_due_ns: u64,
}

impl Fleet {
    /// Connections the server has closed; only readers that are not eager may be.
    pub fn closed(&self) -> usize {
        self.closed
    }

    /// Sends `bytes` (whole frames) on connection `seat`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send(&mut self, seat: usize, bytes: &[u8]) -> Result<(), LoadError> {
        let connection = &mut self.connections[seat];
        if connection.phase == Phase::Closed {
            return Ok(());
        }
        let had_unsent = !connection.unsent.is_empty();
        match connection.write(bytes) {
            Ok(true) => Ok(()),
            Ok(false) if had_unsent => Ok(()),
            Ok(false) => self.watch(seat),
            Err(error) => self.lost(seat, error.to_string()),
        }
    }

    /// Waits up to `timeout_ns` for events and handles them, heartbeats and slow readers included.
    ///
    /// # Errors
    /// [`LoadError`] when the server ended an eager connection or one of its channels.
    pub fn poll<L: Listener>(&mut self, timeout_ns: u64, listener: &mut L) -> Result<(), LoadError> {
        self.poll_opening(timeout_ns, &[], listener)?;
        self.beat()?;
        self.read_slowly(listener)
    }

    fn poll_opening<L: Listener>(&mut self, timeout_ns: u64, seats: &[Seat], listener: &mut L) -> Result<(), LoadError> {
        let count = self.poller.wait(timeout_ns).map_err(LoadError::io("epoll_pwait2"))?;
        for index in 0..count {
            let ready = self.poller.ready(index);
            let seat = ready.token;
            if self.connections[seat].phase == Phase::Connecting {
                self.request_upgrade(seat)?;
            } else if ready.writable && !self.connections[seat].unsent.is_empty() {
                match self.connections[seat].write_unsent() {
                    Ok(true) => self.watch(seat)?,
                    Ok(false) => {}
                    Err(error) => self.lost(seat, error.to_string())?,
                }
            }
            if ready.readable {
                self.read(seat, usize::MAX, seats, listener)?;
            }
        }
        Ok(())
    }

    /// Adjusts what the poller watches to the state of the connection.
    fn watch(&self, seat: usize) -> Result<(), LoadError> {
        let connection = &self.connections[seat];
        let interest = match (connection.unsent.is_empty(), connection.phase, connection.reading) {
            (true, Phase::Joined, Reading::Slow(_) | Reading::Stopped) => Interest::Nothing,
            (true, ..) => Interest::Read,
            (false, ..) => Interest::ReadWrite,
        };
        self.poller.change(&connection.socket, seat, interest).map_err(LoadError::io("epoll_ctl"))
    }

    /// Reads once, at most `bytes_max`, and handles every complete frame.
    fn read<L: Listener>(&mut self, seat: usize, bytes_max: usize, seats: &[Seat], listener: &mut L) -> Result<(), LoadError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let connection = &mut self.connections[seat];
        let kept = connection.tail.len();
        if buffer.len() < kept + READ_BYTES {
            buffer.resize(kept + READ_BYTES, 0);
        }
        buffer[..kept].copy_from_slice(&connection.tail);
        let room = kept.saturating_add(bytes_max).min(buffer.len());
        let outcome = match connection.socket.read(&mut buffer[kept..room]) {
            Ok(0) => self.lost(seat, "connection closed by the server".to_owned()),
            Ok(count) => self.take_bytes(seat, &buffer[..kept + count], seats, listener),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(()),
            Err(error) => self.lost(seat, error.to_string()),
        };
        self.buffer = buffer;
        outcome
    }

    fn take_bytes<L: Listener>(&mut self, seat: usize, bytes: &[u8], seats: &[Seat], listener: &mut L) -> Result<(), LoadError> {
        let mut at = 0;
        if self.connections[seat].phase == Phase::Upgrading {
            match handshake::check_answer(bytes, &self.expected_accept)? {
                Some(head_bytes) => at = head_bytes,
                None => {
                    self.connections[seat].tail = bytes.to_vec();
                    return Ok(());
                }
            }
            self.join(seat, &seats[seat], listener)?;
        }
        let mut answer = std::mem::take(&mut self.answer);
        while let Some(header) = parse_header(&bytes[at..])? {
            let start = at + header.head_bytes;
            let Some(payload) = bytes.get(start..start + header.payload_bytes) else {
                break;
            };
            at = start + header.payload_bytes;
            if matches!(header.opcode, OPCODE_TEXT | OPCODE_BINARY) {
                match self.endpoint.dialect.classify(payload) {
                    Kind::Delivery => listener.on_delivery(seat, payload, &mut answer),
                    kind => self.take_control(seat, kind, payload, listener, &mut answer)?,
                }
            } else if header.opcode == OPCODE_PING {
                put_client_frame(OPCODE_PONG, payload, &mut answer);
            } else if header.opcode == OPCODE_CLOSE {
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                self.lost(seat, format!("close frame {:?} {reason:?}", payload.get(..2)))?;
                break;
            }
        }
        let tail = &mut self.connections[seat].tail;
        tail.clear();
        tail.extend_from_slice(&bytes[at..]);
        if !answer.is_empty() {
            self.send(seat, &answer)?;
            answer.clear();
        }
        self.answer = answer;
        Ok(())
    }

    /// Everything that is not a fan-out message.
    fn take_control<L: Listener>(
        &mut self,
        seat: usize,
        kind: Kind,
        payload: &[u8],
        listener: &mut L,
        answer: &mut Vec<u8>,
    ) -> Result<(), LoadError> {
        let connection = &mut self.connections[seat];
        let of_plan = kind == Kind::Accepted && matches!(connection.phase, Phase::Joining { .. });
        if !of_plan && listener.on_control(seat, kind, payload, answer) {
            return Ok(());
        }
        match (kind, connection.phase) {
            (Kind::Rejected | Kind::Ended, _) => self.lost(seat, String::from_utf8_lossy(payload).into_owned()),
            (Kind::Accepted, Phase::Joining { missing }) => {
                if missing > 1 {
                    connection.phase = Phase::Joining { missing: missing - 1 };
                } else {
                    connection.phase = Phase::Joined;
                    self.joined += 1;
                    listener.on_joined(seat, answer);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An eager connection ended: an error. Any other: noted.
    fn lost(&mut self, seat: usize, words: String) -> Result<(), LoadError> {
        let connection = &mut self.connections[seat];
        if connection.reading == Reading::Eager || connection.phase != Phase::Joined {
            return Err(LoadError::Ended(format!("connection {seat}: {words}")));
        }
        connection.phase = Phase::Closed;
        self.closed += 1;
        connection.socket.shutdown(std::net::Shutdown::Both).ok();
        self.poller.remove(&connection.socket).map_err(LoadError::io("epoll_ctl"))
    }
}
