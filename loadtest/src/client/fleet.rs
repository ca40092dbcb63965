//! All connections of a run: opened at a bounded concurrency, joined, then read and written until dropped.
//!
//! A scenario calls [`Fleet::open`] and then [`Fleet::poll`] in its loop. One large buffer is shared by all reads;
//! frames are walked in place and handed to the [`Listener`] without a copy. Answers a listener appends leave on
//! the same connection in one write. Connections that read eagerly must stay open: losing one ends the run with
//! the server's words. Slow and stopped readers may be closed by the server; that is counted.

use super::poller::{Interest, Poller};
use super::seat::{Connection, Phase, Reading, Seat};
use super::{Endpoint, LoadError};
use crate::machine::monotonic_ns;
use crate::wire::frame::{OPCODE_BINARY, OPCODE_CLOSE, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT, parse_header, put_client_frame};
use crate::wire::handshake;
use crate::wire::push::Kind;
use std::io::{self, Read as _};

/// Bytes asked for per read; grows when a single frame is larger.
const READ_BYTES: usize = 256 * 1024;
/// Every connection says this often that it lives; the server drops those silent for 60 s (protocol 1.7).
const HEARTBEAT_INTERVAL_NS: u64 = 25_000_000_000;
/// Heartbeats sent per poll at most, so that they never form a burst.
const HEARTBEATS_PER_POLL_MAX: usize = 64;
/// Silence after which opening is given up.
const OPEN_STALL_NS: u64 = 15_000_000_000;
/// How often slow readers read.
const SLOW_READ_INTERVAL_NS: u64 = 250_000_000;

/// What a scenario wants to know.
pub trait Listener {
    /// A fan-out message arrived on connection `seat`; bytes appended to `answer` are sent back on it.
    fn on_delivery(&mut self, seat: usize, message: &[u8], answer: &mut Vec<u8>);

    /// All joins of connection `seat` were answered ok.
    fn on_joined(&mut self, _seat: usize, _answer: &mut Vec<u8>) {}
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
    /// Connects and joins all `seats`, at most `concurrency` of them under way at once; `progress` is told the count.
    ///
    /// # Errors
    /// [`LoadError`] when a connection, an upgrade or a join fails, or nothing moves for 15 s.
    pub fn open<L: Listener>(
        endpoint: &Endpoint,
        seats: &[Seat],
        concurrency: usize,
        listener: &mut L,
        mut progress: impl FnMut(usize),
    ) -> Result<Self, LoadError> {
        let mut fleet = Self::empty(endpoint, seats.len())?;
        let mut moved_at_ns = monotonic_ns();
        let mut seen = 0;
        while fleet.joined < seats.len() {
            while fleet.connections.len() < seats.len() && fleet.connections.len() - fleet.joined < concurrency.max(1) {
                fleet.start(&seats[fleet.connections.len()])?;
            }
            fleet.poll_opening(100_000_000, seats, listener)?;
            if fleet.joined != seen {
                seen = fleet.joined;
                moved_at_ns = monotonic_ns();
                progress(seen);
            } else if monotonic_ns() - moved_at_ns > OPEN_STALL_NS {
                let what = format!("{seen} of {} connections joined, none for 15 s", seats.len());
                return Err(LoadError::Stalled(what));
            }
        }
        fleet.heartbeats_from_ns = monotonic_ns();
        fleet.calm_slow_readers()?;
        Ok(fleet)
    }

    fn empty(endpoint: &Endpoint, seats: usize) -> Result<Self, LoadError> {
        let mut heartbeat = Vec::new();
        put_client_frame(OPCODE_TEXT, endpoint.dialect.heartbeat().as_bytes(), &mut heartbeat);
        Ok(Self {
            endpoint: endpoint.clone(),
            poller: Poller::new().map_err(LoadError::io("cannot open epoll"))?,
            connections: Vec::with_capacity(seats),
            buffer: vec![0; READ_BYTES],
            answer: Vec::new(),
            expected_accept: handshake::accept_for(handshake::CLIENT_KEY.as_bytes()),
            joined: 0,
            closed: 0,
            heartbeat,
            heartbeats_from_ns: 0,
            heartbeats_sent: 0,
            slow: Vec::new(),
            slow_read_due_ns: 0,
        })
    }

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

    fn start(&mut self, seat: &Seat) -> Result<(), LoadError> {
        let index = self.connections.len();
        let connection = Connection::open(&self.endpoint, index, seat.reading)?;
        self.poller.add(&connection.socket, index, Interest::ReadWrite).map_err(LoadError::io("epoll_ctl"))?;
        self.connections.push(connection);
        Ok(())
    }

    fn request_upgrade(&mut self, seat: usize) -> Result<(), LoadError> {
        let connection = &mut self.connections[seat];
        let outcome = connection.socket.take_error().map_err(LoadError::io("SO_ERROR"))?;
        if let Some(error) = outcome {
            return Err(LoadError::Io(format!("cannot connect to {}", self.endpoint.address), error));
        }
        connection.phase = Phase::Upgrading;
        let request = self.endpoint.upgrade_request(&self.endpoint.token(seat));
        connection.write(&request).map_err(LoadError::io("cannot send the upgrade request"))?;
        self.watch(seat)
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

    fn join<L: Listener>(&mut self, seat: usize, plan: &Seat, listener: &mut L) -> Result<(), LoadError> {
        if plan.channels.is_empty() {
            self.connections[seat].phase = Phase::Joined;
            self.joined += 1;
            let mut answer = Vec::new();
            listener.on_joined(seat, &mut answer);
            return self.send(seat, &answer);
        }
        self.connections[seat].phase = Phase::Joining { missing: plan.channels.len() };
        let token = self.endpoint.join_token.then(|| self.endpoint.token(seat));
        let mut frames = Vec::new();
        for (index, channel) in plan.channels.iter().enumerate() {
            let reference = (index + 1).to_string();
            let payload = channel.join_payload(token.as_deref());
            let text = self.endpoint.dialect.message(Some(&reference), &reference, &channel.topic, "phx_join", &payload);
            put_client_frame(OPCODE_TEXT, text.as_bytes(), &mut frames);
        }
        self.send(seat, &frames)
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

    fn calm_slow_readers(&mut self) -> Result<(), LoadError> {
        for seat in 0..self.connections.len() {
            match self.connections[seat].reading {
                Reading::Eager => {}
                Reading::Stopped => self.watch(seat)?,
                Reading::Slow(_) => {
                    self.slow.push(seat);
                    self.watch(seat)?;
                }
            }
        }
        Ok(())
    }

    fn read_slowly<L: Listener>(&mut self, listener: &mut L) -> Result<(), LoadError> {
        if self.slow.is_empty() || monotonic_ns() < self.slow_read_due_ns {
            return Ok(());
        }
        self.slow_read_due_ns = monotonic_ns() + SLOW_READ_INTERVAL_NS;
        let slow = std::mem::take(&mut self.slow);
        for &seat in &slow {
            let connection = &self.connections[seat];
            if let (Reading::Slow(bytes_per_second), Phase::Joined) = (connection.reading, connection.phase) {
                let share = (bytes_per_second as u64 * SLOW_READ_INTERVAL_NS / 1_000_000_000).max(1);
                self.read(seat, share as usize, &[], listener)?;
            }
        }
        self.slow = slow;
        Ok(())
    }

    /// Sends the heartbeats that are due, spread evenly over the connections and the interval.
    fn beat(&mut self) -> Result<(), LoadError> {
        let count = self.connections.len() as u64;
        let elapsed_ns = monotonic_ns() - self.heartbeats_from_ns;
        let due = (u128::from(elapsed_ns) * u128::from(count) / u128::from(HEARTBEAT_INTERVAL_NS)) as u64;
        let heartbeat = std::mem::take(&mut self.heartbeat);
        for _ in 0..HEARTBEATS_PER_POLL_MAX {
            if self.heartbeats_sent >= due {
                break;
            }
            self.send((self.heartbeats_sent % count) as usize, &heartbeat)?;
            self.heartbeats_sent += 1;
        }
        self.heartbeat = heartbeat;
        Ok(())
    }
}
