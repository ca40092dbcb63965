//! Memory of a server that holds joined connections which do nothing.
//!
//! Only the first such run against a fresh server tells the truth: allocators keep what earlier load made them
//! take. The suite therefore runs it first.

use super::arrivals::Arrivals;
use super::{Context, Scenario, WAIT_NS_MAX};
use crate::client::{LoadError, Seat};
use crate::machine::monotonic_ns;
use crate::measure::{Meter, Outcome, Quantity};
use crate::wire::push::Channel;
use clap::Args;

/// N joined connections that stay silent.
#[derive(Debug, Clone, Args)]
pub struct Idle {
    /// Connections, one channel each.
    #[arg(long, default_value_t = 15_000)]
    pub connections: usize,
    /// Connections per topic.
    #[arg(long, default_value_t = 6)]
    pub room_size: usize,
}

impl Scenario for Idle {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        let probe = context
            .probe
            .ok_or_else(|| LoadError::Argument("idle measures the server's memory: name its process with --pid".to_owned()))?;
        if self.connections == 0 || self.room_size == 0 {
            return Err(LoadError::Argument("idle needs connections and a room size above zero".to_owned()));
        }
        let memory = || probe.memory().map_err(LoadError::io("cannot read the server's memory"));
        let seat = |index: usize| Seat {
            channels: vec![Channel::named(format_args!("idle-{}", index / self.room_size))],
            ..Seat::default()
        };
        let seats: Vec<Seat> = (0..self.connections).map(seat).collect();
        let mut arrivals = Arrivals::sampling_all(0);
        let before = memory()?;
        let mut fleet = context.open(&seats, &mut arrivals)?;
        let meter = Meter::start(context.probe)?;
        let end = monotonic_ns() + context.duration_ns;
        while monotonic_ns() < end {
            context.progress.tell(|| format!("holding {} connections", self.connections));
            fleet.poll(WAIT_NS_MAX, &mut arrivals)?;
        }
        let usage = meter.stop()?;
        let after = memory()?;
        context.progress.clear();
        let per_connection = |after: u64, before: u64| (after as f64 - before as f64) / self.connections as f64;
        let mut outcome = Outcome::default();
        outcome.put(Quantity::RssPerConnection, per_connection(after.rss_bytes, before.rss_bytes));
        outcome.put(Quantity::AnonymousPerConnection, per_connection(after.anonymous_bytes, before.anonymous_bytes));
        if let Some(cpu_ns) = usage.server_cpu_ns {
            outcome.put(Quantity::ServerLoad, 100.0 * cpu_ns as f64 / usage.elapsed_ns as f64);
        }
        Ok(outcome)
    }
}
