//! One topic, many subscribers: a flood with a window of outstanding messages, or a paced stream.
//!
//! Subscribers come first in the fleet, senders last. Senders are members of the topic without `self`, so with
//! several of them each also receives what the others send.

use super::arrivals::Arrivals;
use super::pace::{Instants, Window};
use super::{Context, Scenario, drain};
use crate::client::{LoadError, Seat};
use crate::machine::monotonic_ns;
use crate::measure::{Outcome, Quantity};
use crate::wire::push::Channel;
use crate::wire::stamp::Template;
use clap::Args;

/// One topic × N subscribers.
#[derive(Debug, Clone, Args)]
pub struct Fanout {
    /// Subscribers of the topic.
    #[arg(long, default_value_t = 1000)]
    pub subscribers: usize,
    /// Connections that send in turn.
    #[arg(long, default_value_t = 1)]
    pub senders: usize,
    /// Closed loop: messages outstanding, counted over the deliveries to all subscribers.
    #[arg(long, default_value_t = 32, conflicts_with = "rate")]
    pub window: u64,
    /// Open loop: messages sent per second.
    #[arg(long)]
    pub rate: Option<f64>,
}

impl Scenario for Fanout {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.subscribers == 0 || self.senders == 0 {
            return Err(LoadError::Argument("fanout needs at least one subscriber and one sender".to_owned()));
        }
        let members = self.subscribers + self.senders;
        let channel = Channel::named("fanout");
        let template = Template::new(context.endpoint.form(), "1", &channel.topic, context.payload_bytes);
        let seats = vec![Seat { channels: vec![channel], ..Seat::default() }; members];
        let mut arrivals = match self.rate {
            Some(_) => Arrivals::sampling_all(members),
            None => Arrivals::sampling_some(members),
        };
        let mut fleet = context.open(&seats, &mut arrivals)?;
        let copies = members as u64 - 1;
        let mut outcome = Outcome::default();
        let mut frames = Vec::new();
        let (usage, deliveries) = if let Some(rate) = self.rate {
            let mut instants = Instants::at_rate(rate, monotonic_ns())?;
            let measured = context.measure(&mut fleet, &mut arrivals, |fleet, _, now| {
                while let Some((due_ns, number)) = instants.take(now) {
                    frames.clear();
                    template.stage(due_ns, &mut frames);
                    fleet.send(self.subscribers + number as usize % self.senders, &frames)?;
                }
                Ok(instants.wait_ns(now))
            })?;
            drain(&mut fleet, &mut arrivals)?;
            let expected = (instants.taken() * copies).max(1) as f64;
            outcome.put(Quantity::Lost, 100.0 * (1.0 - arrivals.deliveries as f64 / expected));
            measured
        } else {
            let mut window = Window::new(self.window, copies);
            let mut turn = 0;
            context.measure(&mut fleet, &mut arrivals, |fleet, arrivals, now| {
                let count = window.take(arrivals.deliveries);
                if count > 0 {
                    frames.clear();
                    (0..count).for_each(|_| template.stage(now, &mut frames));
                    turn = (turn + 1) % self.senders;
                    fleet.send(self.subscribers + turn, &frames)?;
                }
                Ok(u64::MAX)
            })?
        };
        usage.report(deliveries, Quantity::Deliveries, Quantity::CpuPerDelivery, &mut outcome);
        outcome.put(Quantity::Counted, deliveries as f64);
        arrivals.latency.report(&mut outcome);
        Ok(outcome)
    }
}
