//! What subscribers of numbered rows have received, checked row by row.
//!
//! Used by the scenarios that insert into a database. Rows carry running numbers; every subscriber must see those meant
//! for it without a gap, a repetition or a change of order. The first violation is kept and fails the run, and so does
//! a subscriber that in the end has not received everything that was committed.

use super::row_stream::RowRate;
use super::{Context, Counting, STALL_NS};
use crate::client::{Fleet, Listener, LoadError};
use crate::machine::monotonic_ns;
use crate::measure::{Latency, Outcome, Quantity, Usage};
use crate::wire::push::Kind;
use crate::wire::row::{MarkReader, Place};
use memchr::memmem;

/// At `--rate max` the latency of every 64th delivery is recorded: a flood would otherwise measure the clock.
const SAMPLE_MASK_MAX: u64 = 63;
/// Message of the `system` event that follows a join with `postgres_changes` (protocol 11.3).
const SUBSCRIBED: &[u8] = b"Subscribed to PostgreSQL";

/// Which rows reach whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Every row reaches every subscriber.
    All,
    /// The rows are dealt out in turn, the first to the first subscriber.
    Dealt,
}

/// What the subscribers have received.
pub(super) struct Subscribers {
    /// The number each subscriber must see next.
    next: Vec<u64>,
    share: Share,
    deliveries: u64,
    subscribed: usize,
    sample_mask: u64,
    reader: MarkReader,
    latency: Latency,
    /// The first violation.
    wrong: Option<String>,
}

impl Subscribers {
    /// `count` subscribers, above zero, of rows that are inserted at `rate` and carry their marks at `place`.
    pub fn new(count: usize, share: Share, rate: RowRate, place: Place) -> Self {
        let next = match share {
            Share::All => vec![0; count],
            Share::Dealt => (0..count as u64).collect(),
        };
        let sample_mask = if rate == RowRate::Max { SAMPLE_MASK_MAX } else { 0 };
        Self {
            next,
            share,
            deliveries: 0,
            subscribed: 0,
            sample_mask,
            reader: MarkReader::of(place),
            latency: Latency::default(),
            wrong: None,
        }
    }

    /// The first violation, if there was one.
    pub fn check(&self) -> Result<(), LoadError> {
        self.wrong.as_ref().map_or(Ok(()), |wrong| Err(LoadError::Wrong(wrong.clone())))
    }

    /// Deliveries of one row.
    fn copies(&self) -> u64 {
        match self.share {
            Share::All => self.next.len() as u64,
            Share::Dealt => 1,
        }
    }

    /// From one row of a subscriber to its next.
    fn stride(&self) -> u64 {
        match self.share {
            Share::All => 1,
            Share::Dealt => self.next.len() as u64,
        }
    }

    /// Rows that have arrived at all they are meant for, exact once nothing is under way.
    pub fn rows(&self) -> u64 {
        self.deliveries / self.copies()
    }

    /// How many have been told that they are subscribed to changes; told twice counts twice.
    pub fn subscribed(&self) -> usize {
        self.subscribed
    }

    /// Polls until every subscriber has what it must have of `rows` rows.
    pub fn complete(&mut self, context: &Context, fleet: &mut Fleet, rows: u64) -> Result<(), LoadError> {
        let wanted = rows * self.copies();
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
        self.check_ends(rows)
    }

    /// Whether everybody awaits just the first row after `rows`.
    fn check_ends(&self, rows: u64) -> Result<(), LoadError> {
        let stride = self.stride();
        match self.next.iter().position(|next| !(rows..rows + stride).contains(next)) {
            Some(seat) => {
                let next = self.next[seat];
                Err(LoadError::Wrong(format!("subscriber {seat} awaits row {next} after {rows} were inserted")))
            }
            None => Ok(()),
        }
    }

    /// What the measured part showed: `deliveries` during `usage`.
    pub fn report(&self, usage: &Usage, deliveries: u64) -> Outcome {
        let mut outcome = Outcome::default();
        let rows = deliveries / self.copies();
        usage.report(rows, Quantity::Rows, Quantity::CpuPerRow, &mut outcome);
        usage.report(deliveries, Quantity::Deliveries, Quantity::CpuPerDelivery, &mut outcome);
        usage.report_postgres(rows, Quantity::PostgresCpuPerRow, &mut outcome);
        usage.report_postgres(deliveries, Quantity::PostgresCpuPerDelivery, &mut outcome);
        outcome.put(Quantity::Counted, deliveries as f64);
        self.latency.report(&mut outcome);
        outcome
    }
}

/// Whether a message says that the channel is subscribed to changes.
fn says_subscribed(message: &[u8]) -> bool {
    memmem::find(message, SUBSCRIBED).is_some()
}

impl Listener for Subscribers {
    #[inline]
    fn on_delivery(&mut self, seat: usize, message: &[u8], _answer: &mut Vec<u8>) {
        let Some(mark) = self.reader.read(message) else {
            // V1 has nothing that tells a direct push from a fan-out message.
            if says_subscribed(message) {
                self.subscribed += 1;
                return;
            }
            let text = || format!("subscriber {seat} received no row: {}", String::from_utf8_lossy(message));
            self.wrong.get_or_insert_with(text);
            return;
        };
        let expected = self.next[seat];
        if mark.number != expected {
            let text = || format!("subscriber {seat} received row {} where {expected} was due", mark.number);
            self.wrong.get_or_insert_with(text);
        }
        self.next[seat] = mark.number.saturating_add(self.stride());
        self.deliveries += 1;
        if self.deliveries & self.sample_mask == 0 {
            self.latency.record(monotonic_ns().saturating_sub(mark.stamp_ns));
        }
    }

    fn on_control(&mut self, _seat: usize, kind: Kind, message: &[u8], _answer: &mut Vec<u8>) -> bool {
        let subscribed = kind == Kind::Other && says_subscribed(message);
        self.subscribed += usize::from(subscribed);
        subscribed
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::row::Mark;

    fn subscribers(count: usize, share: Share) -> Subscribers {
        Subscribers::new(count, share, RowRate::PerSecond(1.0), Place::Payload)
    }

    fn receive(subscribers: &mut Subscribers, seat: usize, number: u64) {
        let row = Place::Payload.text(Mark { stamp_ns: monotonic_ns(), number }, 64);
        subscribers.on_delivery(seat, row.as_bytes(), &mut Vec::new());
    }

    #[test]
    fn rows_in_order_are_counted() {
        let mut subscribers = subscribers(2, Share::All);
        for (seat, number) in [(0, 0), (1, 0), (0, 1)] {
            receive(&mut subscribers, seat, number);
        }
        assert!(subscribers.check().is_ok());
        assert_eq!((subscribers.count(), subscribers.rows(), subscribers.latency.count()), (3, 1, 3));
        assert!(subscribers.check_ends(2).is_err(), "the second has not seen row 1");
        receive(&mut subscribers, 1, 1);
        assert!(subscribers.check_ends(2).is_ok());
    }

    #[test]
    fn rows_dealt_out_reach_one_each() {
        let mut subscribers = subscribers(3, Share::Dealt);
        for (seat, number) in [(1, 1), (0, 0), (2, 2), (0, 3)] {
            receive(&mut subscribers, seat, number);
        }
        assert!(subscribers.check().is_ok() && subscribers.check_ends(4).is_ok());
        assert_eq!((subscribers.count(), subscribers.rows()), (4, 4));
        assert!(subscribers.check_ends(5).is_err(), "row 4 was for the second");
        receive(&mut subscribers, 0, 4);
        assert!(subscribers.check().is_err(), "and not for the first");
    }

    #[test]
    fn gaps_repetitions_and_strangers_are_wrong() {
        for numbers in [&[1][..], &[0, 0], &[0, 2], &[0, 1, 0]] {
            let mut subscribers = subscribers(1, Share::All);
            numbers.iter().for_each(|number| receive(&mut subscribers, 0, *number));
            assert!(subscribers.check().is_err(), "{numbers:?}");
        }
        let mut subscribers = subscribers(1, Share::All);
        subscribers.on_delivery(0, br#"[null,null,"t","broadcast",{}]"#, &mut Vec::new());
        assert!(subscribers.check().unwrap_err().to_string().contains("broadcast"));
    }

    #[test]
    fn subscriptions_are_counted_in_both_dialects() {
        use crate::wire::push::Dialect;
        let payload = r#"{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL","channel":"a"}"#;
        for dialect in [Dialect::V1, Dialect::V2] {
            let text = dialect.message(Some("1"), "1", "realtime:a", "system", payload);
            let mut subscribers = subscribers(1, Share::All);
            match dialect.classify(text.as_bytes()) {
                Kind::Delivery => subscribers.on_delivery(0, text.as_bytes(), &mut Vec::new()),
                kind => assert!(subscribers.on_control(0, kind, text.as_bytes(), &mut Vec::new())),
            }
            assert_eq!((subscribers.subscribed(), subscribers.check().is_ok()), (1, true), "{dialect:?}");
            assert!(!subscribers.on_control(0, Kind::Other, br#"["1",null,"realtime:a","presence_state",{}]"#, &mut Vec::new()));
        }
    }
}
