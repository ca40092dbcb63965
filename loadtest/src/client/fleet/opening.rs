//! Bringing a fleet up: connect, upgrade, join, at a bounded concurrency.
//!
//! The join messages of a connection leave in one write after its upgrade. Opening fails with the first connection
//! that does, and when nothing moves for [`OPEN_STALL_NS`].

use super::{Fleet, Listener, READ_BYTES};
use crate::client::poller::{Interest, Poller};
use crate::client::seat::{Connection, Phase, Seat};
use crate::client::{Endpoint, LoadError};
use crate::machine::monotonic_ns;
use crate::wire::frame::{OPCODE_TEXT, put_client_frame};
use crate::wire::handshake;

/// Silence after which opening is given up.
const OPEN_STALL_NS: u64 = 15_000_000_000;

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

    fn start(&mut self, seat: &Seat) -> Result<(), LoadError> {
        let index = self.connections.len();
        let connection = Connection::open(&self.endpoint, index, seat.reading)?;
        self.poller.add(&connection.socket, index, Interest::ReadWrite).map_err(LoadError::io("epoll_ctl"))?;
        self.connections.push(connection);
        Ok(())
    }

    pub(super) fn request_upgrade(&mut self, seat: usize) -> Result<(), LoadError> {
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

    pub(super) fn join<L: Listener>(&mut self, seat: usize, plan: &Seat, listener: &mut L) -> Result<(), LoadError> {
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
}
