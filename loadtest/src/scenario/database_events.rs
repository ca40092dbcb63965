//! Rows inserted by SQL, delivered to S subscribers of one topic: latency at a rate, or the most the chain sustains.
//!
//! A thread of its own inserts ([`Inserter`]); this one reads. Rows carry running numbers, and every subscriber must
//! see 0, 1, 2, … without a gap, a repetition or a change of order: the run fails at the first violation, and at the
//! end when any subscriber has not received everything that was committed.

use super::replication::await_replication;
use super::{Context, Counting, STALL_NS, Scenario};
use crate::client::{Fleet, Listener, LoadError, Seat};
use crate::database::{DatabaseArgs, Inserter, Pace, ROLE, Rows, TOPIC_PREFIX};
use crate::machine::monotonic_ns;
use crate::measure::{Latency, Outcome, Quantity};
use crate::wire::push::Channel;
use crate::wire::row::MarkReader;
use clap::Args;
use std::str::FromStr;

/// At `--rate max` the latency of every 64th delivery is recorded: a flood would otherwise measure the clock.
const SAMPLE_MASK_MAX: u64 = 63;

/// How fast rows are inserted, as on the command line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RowRate {
    /// Rows per second.
    PerSecond(f64),
    /// As fast as deliveries keep up.
    Max,
}

impl FromStr for RowRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
            _ if text == "max" => Ok(Self::Max),
            _ => Err("a rate is a number above zero, or max".to_owned()),
        }
    }
}

/// S subscribers of one topic that rows are sent to.
#[derive(Debug, Clone, Args)]
pub struct DatabaseEvents {
    /// Subscribers of the topic.
    #[arg(long, default_value_t = 100)]
    pub subscribers: usize,
    /// A private topic instead of a public one.
    #[arg(long)]
    pub private: bool,
    /// Rows per second, each in a transaction of its own, or max.
    #[arg(long, default_value = "10", value_name = "N|max")]
    pub rate: RowRate,
    /// With --rate max: rows per transaction.
    #[arg(long, default_value_t = 100)]
    pub batch: u64,
    /// With --rate max: rows inserted and not yet delivered to all, a batch at least.
    #[arg(long, default_value_t = 1000)]
    pub window: u64,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

/// What the subscribers have received.
struct Subscribers {
    /// The number each subscriber must see next.
    next: Vec<u64>,
    deliveries: u64,
    sample_mask: u64,
    reader: MarkReader,
    latency: Latency,
    /// The first violation.
    wrong: Option<String>,
}

impl Subscribers {
    fn new(count: usize, sample_mask: u64) -> Self {
        Self {
            next: vec![0; count],
            deliveries: 0,
            sample_mask,
            reader: MarkReader::default(),
            latency: Latency::default(),
            wrong: None,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        self.wrong.as_ref().map_or(Ok(()), |wrong| Err(LoadError::Wrong(wrong.clone())))
    }

    /// Rows that have arrived at all subscribers, exact once nothing is under way.
    fn rows(&self) -> u64 {
        self.deliveries / self.next.len() as u64
    }

    /// Polls until every subscriber has `rows` rows.
    fn complete(&mut self, context: &Context, fleet: &mut Fleet, rows: u64) -> Result<(), LoadError> {
        let wanted = rows * self.next.len() as u64;
        let (mut seen, mut seen_ns) = (self.deliveries, monotonic_ns());
        while self.deliveries < wanted {
            fleet.poll(context.wait_ns(u64::MAX), self)?;
            self.check()?;
            if self.deliveries != seen {
                (seen, seen_ns) = (self.deliveries, monotonic_ns());
            } else if monotonic_ns() - seen_ns > STALL_NS {
                let missing = wanted - seen;
                return Err(LoadError::Wrong(format!("{missing} deliveries of {rows} rows are missing after 10 s of silence")));
            }
        }
        match self.next.iter().position(|next| *next != rows) {
            Some(seat) => Err(LoadError::Wrong(format!("subscriber {seat} received {} of {rows} rows", self.next[seat]))),
            None => Ok(()),
        }
    }
}

impl Listener for Subscribers {
    #[inline]
    fn on_delivery(&mut self, seat: usize, message: &[u8], _answer: &mut Vec<u8>) {
        let Some(mark) = self.reader.read(message) else {
            let text = || format!("subscriber {seat} received no row: {}", String::from_utf8_lossy(message));
            self.wrong.get_or_insert_with(text);
            return;
        };
        let expected = self.next[seat];
        if mark.number != expected {
            let text = || format!("subscriber {seat} received row {} where {expected} was due", mark.number);
            self.wrong.get_or_insert_with(text);
        }
        self.next[seat] = mark.number + 1;
        self.deliveries += 1;
        if self.deliveries & self.sample_mask == 0 {
            self.latency.record(monotonic_ns().saturating_sub(mark.stamp_ns));
        }
    }
}

impl Counting for Subscribers {
    fn count(&self) -> u64 {
        self.deliveries
    }

    fn begin(&mut self) {
        self.latency.clear();
    }
}

impl Scenario for DatabaseEvents {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.subscribers == 0 {
            return Err(LoadError::Argument("database-events needs at least one subscriber".to_owned()));
        }
        let (pace, sample_mask) = match self.rate {
            RowRate::PerSecond(rate) => (Pace::PerSecond(rate), 0),
            RowRate::Max => (Pace::Max { batch: self.batch, window: self.window }, SAMPLE_MASK_MAX),
        };
        let endpoint = context.endpoint.clone().for_role(ROLE);
        let context = &Context { endpoint, postgres: self.database.probe()?, ..context.clone() };
        let database = self.database.open()?;
        await_replication(context)?;
        let topic = format!("{TOPIC_PREFIX}events:{:x}", monotonic_ns());
        let channel = Channel { private: self.private, ..Channel::named(&topic) };
        let seats = vec![Seat { channels: vec![channel], ..Seat::default() }; self.subscribers];
        let mut subscribers = Subscribers::new(self.subscribers, sample_mask);
        let mut fleet = context.open(&seats, &mut subscribers)?;
        let rows = Rows { topic, private: self.private, payload_bytes: context.payload_bytes };
        let mut inserter = Some(Inserter::start(database, rows, pace)?);
        let measured = context.measure(&mut fleet, &mut subscribers, |_, subscribers, _| {
            subscribers.check()?;
            if let Some(ended) = inserter.take_if(|inserter| inserter.has_ended()) {
                ended.finish()?;
            }
            inserter.iter().for_each(|inserter| inserter.tell_arrived(subscribers.rows()));
            Ok(u64::MAX)
        });
        let (usage, deliveries) = measured?;
        let committed = inserter.map_or(Ok(0), Inserter::finish)?;
        subscribers.complete(context, &mut fleet, committed)?;
        let mut outcome = Outcome::default();
        usage.report(deliveries, Quantity::Deliveries, Quantity::CpuPerDelivery, &mut outcome);
        usage.report_postgres(deliveries, Quantity::PostgresCpuPerDelivery, &mut outcome);
        let rows = deliveries / self.subscribers as u64;
        usage.report_postgres(rows, Quantity::PostgresCpuPerRow, &mut outcome);
        outcome.put(Quantity::Rows, deliveries as f64 / self.subscribers as f64 / (usage.elapsed_ns as f64 / 1e9));
        outcome.put(Quantity::Counted, deliveries as f64);
        subscribers.latency.report(&mut outcome);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::row::{Mark, payload};

    fn receive(subscribers: &mut Subscribers, seat: usize, number: u64) {
        let row = payload(Mark { stamp_ns: monotonic_ns(), number }, 64);
        subscribers.on_delivery(seat, row.as_bytes(), &mut Vec::new());
    }

    #[test]
    fn rows_in_order_are_counted() {
        let mut subscribers = Subscribers::new(2, 0);
        for (seat, number) in [(0, 0), (1, 0), (0, 1)] {
            receive(&mut subscribers, seat, number);
        }
        assert!(subscribers.check().is_ok());
        assert_eq!((subscribers.count(), subscribers.rows(), subscribers.latency.count()), (3, 1, 3));
    }

    #[test]
    fn gaps_repetitions_and_strangers_are_wrong() {
        for numbers in [&[1][..], &[0, 0], &[0, 2], &[0, 1, 0]] {
            let mut subscribers = Subscribers::new(1, 0);
            numbers.iter().for_each(|number| receive(&mut subscribers, 0, *number));
            assert!(subscribers.check().is_err(), "{numbers:?}");
        }
        let mut subscribers = Subscribers::new(1, 0);
        subscribers.on_delivery(0, br#"[null,null,"t","broadcast",{}]"#, &mut Vec::new());
        assert!(subscribers.check().unwrap_err().to_string().contains("broadcast"));
    }

    #[test]
    fn rates_are_numbers_or_max() {
        assert_eq!("10".parse(), Ok(RowRate::PerSecond(10.0)));
        assert_eq!("max".parse(), Ok(RowRate::Max));
        for bad in ["", "0", "-1", "inf", "NaN", "fast"] {
            assert!(bad.parse::<RowRate>().is_err(), "{bad}");
        }
    }
}
