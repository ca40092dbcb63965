//! The everyday mix: every user in an echo channel of its own and in a room of six, an open loop on both.
//!
//! Own messages come back in both, so a full room turns one round of both channels into seven deliveries per user.
//! A user sends on both channels at once. By default users take their turns in order, so members of a room speak
//! shortly after one another and a server can combine what it sends them; `--shuffle` gives every user a random
//! phase instead, where nothing can be combined. Latency counts from the instant a message was due.

use super::arrivals::Arrivals;
use super::pace::Instants;
use super::{Context, Scenario, drain};
use crate::client::{LoadError, Seat};
use crate::machine::monotonic_ns;
use crate::measure::{Outcome, Quantity};
use crate::wire::push::Channel;
use crate::wire::stamp::Template;
use clap::Args;

/// N users, each in an echo channel and in a shared room.
#[derive(Debug, Clone, Args)]
pub struct Mix {
    /// Users, one connection each.
    #[arg(long, default_value_t = 600)]
    pub users: usize,
    /// Messages per second that a user sends on each of its two channels.
    #[arg(long, default_value_t = 2.0)]
    pub rate: f64,
    /// Users per shared room.
    #[arg(long, default_value_t = 6)]
    pub room_size: usize,
    /// Messages due within this many microseconds leave together, as from a host with a coarse timer; 0 spreads
    /// them evenly.
    #[arg(long, default_value_t = 1000)]
    pub tick_us: u64,
    /// Random phases instead of turns in order.
    #[arg(long)]
    pub shuffle: bool,
}

impl Scenario for Mix {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.users == 0 || self.room_size == 0 {
            return Err(LoadError::Argument("mix needs at least one user and a room size above zero".to_owned()));
        }
        let seats: Vec<Seat> = (0..self.users).map(|user| self.seat(user)).collect();
        let order = if self.shuffle { shuffled(self.users) } else { (0..self.users).collect() };
        let form = context.endpoint.form();
        let templates: Vec<[Template; 2]> = seats
            .iter()
            .map(|seat| {
                let template =
                    |join_ref, index: usize| Template::new(form, join_ref, &seat.channels[index].topic, context.payload_bytes);
                [template("1", 0), template("2", 1)]
            })
            .collect();
        let mut arrivals = Arrivals::sampling_all(self.users);
        let mut fleet = context.open(&seats, &mut arrivals)?;
        let mut instants = Instants::at_rate(self.rate * self.users as f64, monotonic_ns())?.in_ticks(self.tick_us * 1000);
        let mut frames = Vec::new();
        let mut expected = 0;
        let (usage, deliveries) = context.measure(&mut fleet, &mut arrivals, |fleet, _, now| {
            while let Some((due_ns, number)) = instants.take(now) {
                let user = order[number as usize % self.users];
                frames.clear();
                templates[user].iter().for_each(|template| template.stage(due_ns, &mut frames));
                fleet.send(user, &frames)?;
                expected += self.copies(user);
            }
            Ok(instants.wait_ns(now))
        })?;
        drain(&mut fleet, &mut arrivals)?;
        let mut outcome = Outcome::default();
        usage.report(deliveries, Quantity::Deliveries, Quantity::CpuPerDelivery, &mut outcome);
        outcome.put(Quantity::Lost, 100.0 * (1.0 - arrivals.deliveries as f64 / expected.max(1) as f64));
        outcome.put(Quantity::Counted, deliveries as f64);
        arrivals.latency.report(&mut outcome);
        Ok(outcome)
    }
}

impl Mix {
    fn seat(&self, user: usize) -> Seat {
        let own = Channel::named(format_args!("own-{user}")).echoing();
        let room = Channel::named(format_args!("room-{}", user / self.room_size)).echoing();
        Seat { channels: vec![own, room], ..Seat::default() }
    }

    /// Deliveries that one turn of `user` causes: its echo and a message to its room, itself included.
    fn copies(&self, user: usize) -> u64 {
        let first = user / self.room_size * self.room_size;
        1 + (self.users - first).min(self.room_size) as u64
    }
}

/// The numbers below `count` in an arbitrary but always equal order.
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for index in (1..count).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        order.swap(index, (state % (index as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_know_the_last_room_may_be_smaller() {
        let mix = Mix { users: 8, rate: 2.0, room_size: 6, tick_us: 0, shuffle: false };
        let copies: Vec<u64> = (0..8).map(|user| mix.copies(user)).collect();
        assert_eq!(copies, [7, 7, 7, 7, 7, 7, 3, 3]);
    }

    #[test]
    fn shuffling_keeps_every_number() {
        let mut order = shuffled(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
