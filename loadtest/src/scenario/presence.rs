//! N members join one room and track at once: how many diffs does each of them receive?
//!
//! Without batching the n-th member to track causes n frames, half a million for a thousand members. The scenario
//! counts `presence_diff` frames per member, in total and within any one batching interval.

use super::{Context, STALL_NS, Scenario};
use crate::client::{Listener, LoadError, Seat};
use crate::machine::monotonic_ns;
use crate::measure::{Meter, Outcome, Quantity};
use crate::wire::frame::{OPCODE_TEXT, put_client_frame};
use crate::wire::push::{Channel, Dialect};
use clap::Args;
use memchr::memmem;

/// N members join and track one room.
#[derive(Debug, Clone, Args)]
pub struct Presence {
    /// Members of the room.
    #[arg(long, default_value_t = 1000)]
    pub members: usize,
    /// Interval within which a server is expected to send a member one diff at most, in milliseconds.
    #[arg(long, default_value_t = 50)]
    pub interval_ms: u64,
}

/// What one member has received.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    diffs: u64,
    interval: u64,
    in_interval: u64,
}

struct Room {
    dialect: Dialect,
    topic: String,
    interval_ns: u64,
    started_ns: u64,
    tallies: Vec<Tally>,
    /// Tracks seen in diffs by the first member that is there from the start.
    joined: usize,
    most_in_interval: u64,
    last_ns: u64,
}

impl Room {
    fn new(dialect: Dialect, topic: &str, members: usize, interval_ms: u64) -> Self {
        let now = monotonic_ns();
        Self {
            dialect,
            topic: topic.to_owned(),
            interval_ns: interval_ms.max(1) * 1_000_000,
            started_ns: now,
            tallies: vec![Tally::default(); members],
            joined: 0,
            most_in_interval: 0,
            last_ns: now,
        }
    }

    fn count_diff(&mut self, seat: usize, now_ns: u64) {
        let interval = (now_ns - self.started_ns) / self.interval_ns;
        let tally = &mut self.tallies[seat];
        tally.diffs += 1;
        if tally.interval != interval {
            (tally.interval, tally.in_interval) = (interval, 0);
        }
        tally.in_interval += 1;
        self.most_in_interval = self.most_in_interval.max(tally.in_interval);
        self.last_ns = now_ns;
    }

    fn diffs(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.diffs).sum()
    }
}

impl Listener for Room {
    fn on_delivery(&mut self, seat: usize, message: &[u8], _answer: &mut Vec<u8>) {
        if memmem::find(message, b"\"presence_diff\"").is_none() {
            return;
        }
        self.count_diff(seat, monotonic_ns());
        if seat == 0 {
            self.joined += memmem::find_iter(message, b"\"phx_ref\"").count();
        }
    }

    fn on_joined(&mut self, seat: usize, answer: &mut Vec<u8>) {
        let payload = format!(r#"{{"type":"presence","event":"track","payload":{{"member":{seat}}}}}"#);
        let text = self.dialect.message(Some("1"), "2", &self.topic, "presence", &payload);
        put_client_frame(OPCODE_TEXT, text.as_bytes(), answer);
    }
}

impl Scenario for Presence {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.members == 0 {
            return Err(LoadError::Argument("presence needs at least one member".to_owned()));
        }
        let channel = Channel { presence: true, ..Channel::named("presence") };
        let mut room = Room::new(context.endpoint.dialect, &channel.topic, self.members, self.interval_ms);
        let seats = vec![Seat { channels: vec![channel], ..Seat::default() }; self.members];
        let meter = Meter::start(context.probe)?;
        let mut fleet = context.open(&seats, &mut room)?;
        while room.joined < self.members {
            fleet.poll(20_000_000, &mut room)?;
            context.progress.tell(|| format!("{} of {} presences seen", room.joined, self.members));
            if monotonic_ns() - room.last_ns > STALL_NS {
                let what = format!("the first member saw {} of {} presences", room.joined, self.members);
                return Err(LoadError::Stalled(what));
            }
        }
        // Diffs of the last tracks may still be under way to the others.
        while monotonic_ns() - room.last_ns < 5 * room.interval_ns.max(20_000_000) {
            fleet.poll(20_000_000, &mut room)?;
        }
        let usage = meter.stop()?;
        context.progress.clear();
        let mut outcome = Outcome::default();
        let diffs = room.diffs();
        usage.report(diffs, Quantity::Deliveries, Quantity::CpuPerDelivery, &mut outcome);
        outcome.put(Quantity::DiffsPerMember, diffs as f64 / self.members as f64);
        outcome.put(Quantity::DiffsPerInterval, room.most_in_interval as f64);
        outcome.put(Quantity::Settled, (room.last_ns - room.started_ns) as f64 / 1e6);
        outcome.put(Quantity::Counted, diffs as f64);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diffs_are_tallied_per_member_and_interval() {
        let mut room = Room::new(Dialect::V2, "realtime:presence", 2, 50);
        let start = room.started_ns;
        for at_ms in [0, 10, 20, 60] {
            room.count_diff(0, start + at_ms * 1_000_000);
        }
        room.count_diff(1, start);
        assert_eq!(room.diffs(), 5);
        assert_eq!(room.most_in_interval, 3);
    }

    #[test]
    fn the_first_member_counts_presences_inside_diffs() {
        let mut room = Room::new(Dialect::V2, "realtime:presence", 1, 50);
        let diff = br#"[null,null,"realtime:presence","presence_diff",{"joins":{"a":{"metas":[{"phx_ref":"1"}]},"b":{"metas":[{"phx_ref":"2"}]}},"leaves":{}}]"#;
        room.on_delivery(0, diff, &mut Vec::new());
        room.on_delivery(0, br#"[null,null,"realtime:presence","broadcast",{}]"#, &mut Vec::new());
        assert_eq!((room.joined, room.diffs()), (2, 1));
    }
}
