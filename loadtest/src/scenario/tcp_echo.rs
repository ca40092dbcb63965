//! Round trips over bare TCP against an echo server: what the kernel alone costs.
//!
//! Messages have the size of the broadcast frame that the WebSocket echo sends, so the two compare directly.

use super::{Context, STALL_NS, Scenario};
use crate::client::{Interest, LoadError, Poller};
use crate::machine::monotonic_ns;
use crate::measure::{Latency, Meter, Outcome, Quantity};
use crate::wire::stamp::Template;
use clap::Args;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

/// N connections to a bare TCP echo server.
#[derive(Debug, Clone, Args)]
pub struct TcpEcho {
    /// Connections, each with one message under way.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
}

struct Line {
    socket: TcpStream,
    sent_ns: u64,
    missing: usize,
}

struct Lines {
    lines: Vec<Line>,
    poller: Poller,
    message: Vec<u8>,
    buffer: Vec<u8>,
    latency: Latency,
    round_trips: u64,
}

impl Scenario for TcpEcho {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.connections == 0 {
            return Err(LoadError::Argument("tcp-echo needs at least one connection".to_owned()));
        }
        let mut lines = Lines::open(self.connections, context)?;
        lines.drive(context, context.warmup_ns)?;
        lines.latency.clear();
        let before = lines.round_trips;
        let meter = Meter::start(context.probe)?;
        lines.drive(context, context.duration_ns)?;
        let usage = meter.stop()?;
        let round_trips = lines.round_trips - before;
        let mut outcome = Outcome::default();
        usage.report(round_trips, Quantity::RoundTrips, Quantity::CpuPerDelivery, &mut outcome);
        outcome.put(Quantity::Counted, round_trips as f64);
        lines.latency.report(&mut outcome);
        Ok(outcome)
    }
}

impl Lines {
    fn open(count: usize, context: &Context) -> Result<Self, LoadError> {
        let mut message = Vec::new();
        Template::new(context.endpoint.form(), "1", "realtime:echo-0", context.payload_bytes).stage(0, &mut message);
        let poller = Poller::new().map_err(LoadError::io("cannot open epoll"))?;
        let buffer = vec![0; 64 * 1024];
        let mut lines = Self { lines: Vec::new(), poller, message, buffer, latency: Latency::default(), round_trips: 0 };
        for index in 0..count {
            let address = context.endpoint.address;
            let failed = || LoadError::io(format!("cannot connect to {address}"));
            let socket = TcpStream::connect(address).map_err(failed())?;
            socket.set_nodelay(true).map_err(failed())?;
            socket.set_nonblocking(true).map_err(failed())?;
            lines.poller.add(&socket, index, Interest::Read).map_err(failed())?;
            lines.lines.push(Line { socket, sent_ns: 0, missing: 0 });
            lines.send(index)?;
        }
        Ok(lines)
    }

    /// Messages are far smaller than a send buffer and one is under way, so a write never is partial.
    fn send(&mut self, index: usize) -> Result<(), LoadError> {
        let line = &mut self.lines[index];
        line.sent_ns = monotonic_ns();
        line.missing = self.message.len();
        line.socket.write_all(&self.message).map_err(LoadError::io("cannot send"))
    }

    fn receive(&mut self, index: usize) -> Result<(), LoadError> {
        let line = &mut self.lines[index];
        match line.socket.read(&mut self.buffer) {
            Ok(0) => {
                return Err(LoadError::Ended("connection closed by the echo server".to_owned()));
            }
            Ok(count) => line.missing = line.missing.saturating_sub(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(LoadError::Io("cannot receive".to_owned(), error)),
        }
        if line.missing > 0 {
            return Ok(());
        }
        self.latency.record(monotonic_ns() - line.sent_ns);
        self.round_trips += 1;
        self.send(index)
    }

    fn drive(&mut self, context: &Context, span_ns: u64) -> Result<(), LoadError> {
        let mut now = monotonic_ns();
        let end = now + span_ns;
        let (mut seen, mut seen_ns) = (self.round_trips, now);
        while now < end {
            let wait_ns = context.wait_ns(end - now);
            let count = self.poller.wait(wait_ns).map_err(LoadError::io("epoll_pwait2"))?;
            for event in 0..count {
                self.receive(self.poller.ready(event).token)?;
            }
            now = monotonic_ns();
            if self.round_trips != seen {
                (seen, seen_ns) = (self.round_trips, now);
            } else if now - seen_ns > STALL_NS {
                return Err(LoadError::Stalled(format!("no echo for 10 s, {seen} round trips before")));
            }
        }
        Ok(())
    }
}
