//! Connect, upgrade and join at full speed: what a reconnecting crowd costs.
//!
//! Connections stay open until all have joined, so closing them is not part of the measurement. Every connection
//! presents a token of its own when a secret is given.

use super::arrivals::Arrivals;
use super::{Context, Scenario};
use crate::client::{LoadError, Seat};
use crate::measure::{Meter, Outcome, Quantity};
use crate::wire::push::Channel;
use clap::Args;

/// N connections joined as fast as the server takes them.
#[derive(Debug, Clone, Args)]
pub struct JoinStorm {
    /// Connections, one channel each.
    #[arg(long, default_value_t = 5000)]
    pub connections: usize,
    /// Connections per topic.
    #[arg(long, default_value_t = 6)]
    pub room_size: usize,
}

impl Scenario for JoinStorm {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.connections == 0 || self.room_size == 0 {
            return Err(LoadError::Argument("joinstorm needs connections and a room size above zero".to_owned()));
        }
        let seat = |index: usize| Seat {
            channels: vec![Channel::named(format_args!("storm-{}", index / self.room_size))],
            ..Seat::default()
        };
        let seats: Vec<Seat> = (0..self.connections).map(seat).collect();
        let meter = Meter::start(context.probe)?;
        let fleet = context.open(&seats, &mut Arrivals::sampling_all(0))?;
        let usage = meter.stop()?;
        drop(fleet);
        context.progress.clear();
        let mut outcome = Outcome::default();
        let joins = self.connections as u64;
        usage.report(joins, Quantity::Joins, Quantity::CpuPerJoin, &mut outcome);
        outcome.put(Quantity::Counted, joins as f64);
        Ok(outcome)
    }
}
