//! Round trips: every connection in a channel of its own with `self: true`, one message outstanding each.

use super::{Context, STALL_NS, Scenario};
use crate::client::{Listener, LoadError, Seat};
use crate::machine::monotonic_ns;
use crate::measure::{Latency, Meter, Outcome, Quantity};
use crate::wire::push::Channel;
use crate::wire::stamp::{Reader, Template};
use clap::Args;

/// N connections that send to themselves.
#[derive(Debug, Clone, Args)]
pub struct Echo {
    /// Connections, each with one message under way.
    #[arg(long, default_value_t = 1)]
    pub connections: usize,
}

/// Sends the next message when one has come back.
struct PingPong {
    templates: Vec<Template>,
    reader: Reader,
    latency: Latency,
    round_trips: u64,
}

impl Listener for PingPong {
    fn on_delivery(&mut self, seat: usize, message: &[u8], answer: &mut Vec<u8>) {
        let now = monotonic_ns();
        self.round_trips += 1;
        if let Some(stamp_ns) = self.reader.read(message) {
            self.latency.record(now.saturating_sub(stamp_ns));
        }
        self.templates[seat].stage(monotonic_ns(), answer);
    }

    fn on_joined(&mut self, seat: usize, answer: &mut Vec<u8>) {
        self.templates[seat].stage(monotonic_ns(), answer);
    }
}

impl Scenario for Echo {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.connections == 0 {
            return Err(LoadError::Argument("echo needs at least one connection".to_owned()));
        }
        let channel = |index: usize| Channel::named(format_args!("echo-{index}")).echoing();
        let seats: Vec<Seat> =
            (0..self.connections).map(|index| Seat { channels: vec![channel(index)], ..Seat::default() }).collect();
        let form = context.endpoint.form();
        let template = |seat: &Seat| Template::new(form, "1", &seat.channels[0].topic, context.payload_bytes);
        let mut listener = PingPong {
            templates: seats.iter().map(template).collect(),
            reader: Reader::default(),
            latency: Latency::default(),
            round_trips: 0,
        };
        let mut fleet = context.open(&seats, &mut listener)?;
        let mut drive = |listener: &mut PingPong, span_ns: u64| {
            let end = monotonic_ns() + span_ns;
            let (mut seen, mut seen_ns) = (listener.round_trips, monotonic_ns());
            loop {
                let now = monotonic_ns();
                if now >= end {
                    return Ok(());
                }
                fleet.poll(context.wait_ns(end - now), listener)?;
                if listener.round_trips != seen {
                    (seen, seen_ns) = (listener.round_trips, now);
                } else if now.saturating_sub(seen_ns) > STALL_NS {
                    return Err(LoadError::Stalled(format!("no echo for 10 s, {seen} round trips before")));
                }
            }
        };
        context.progress.tell(|| "warming up".to_owned());
        drive(&mut listener, context.warmup_ns)?;
        context.progress.tell(|| "measuring".to_owned());
        listener.latency.clear();
        let before = listener.round_trips;
        let meter = Meter::start(context.probe)?;
        drive(&mut listener, context.duration_ns)?;
        let usage = meter.stop()?;
        context.progress.clear();
        let round_trips = listener.round_trips - before;
        let mut outcome = Outcome::default();
        usage.report(round_trips, Quantity::RoundTrips, Quantity::CpuPerDelivery, &mut outcome);
        outcome.put(Quantity::Counted, round_trips as f64);
        listener.latency.report(&mut outcome);
        Ok(outcome)
    }
}
