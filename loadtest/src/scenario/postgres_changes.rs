//! Rows of a table delivered as Postgres Changes: latency at a rate, the most the chain sustains, or the cost of waiting.
//!
//! Every subscriber is a user with its own connection and token, and joins one channel with one entry for INSERTs of the
//! table ([`ChangesTable`]). Counting begins once all have been told that they are subscribed. What happens to the rows
//! then, and what makes a run fail, is the business of [`RowArgs::stream`] and [`Subscribers`].

use super::row_stream::RowArgs;
use super::subscribers::{Share, Subscribers};
use super::{Context, Scenario, WAIT_NS_MAX};
use crate::client::{Fleet, LoadError, Seat};
use crate::database::{ChangesTable, DatabaseArgs, ROLE, Rows, TOPIC_PREFIX};
use crate::machine::monotonic_ns;
use crate::measure::{Meter, Outcome, Quantity};
use crate::wire::push::Channel;
use crate::wire::row::Place;
use clap::{Args, ValueEnum};

/// A server may need a while to begin with a database; clients wait as long.
const SUBSCRIBED_WAIT_NS_MAX: u64 = 65_000_000_000;
/// Backends report their transactions up to 10 s late: those of the joins must be in before idle ones are counted.
const STATISTICS_DELAY_NS_MAX: u64 = 11_000_000_000;

/// What decides who receives a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nothing: every row reaches every subscriber.
    Plain,
    /// A filter per subscriber, n=eq.NUMBER: every row reaches one.
    Filter,
    /// Row-level security: a policy is asked for every user, and every row reaches every subscriber.
    Rls,
}

/// N subscribers to the changes of a table.
#[derive(Debug, Clone, Args)]
pub struct PostgresChanges {
    /// Subscribers, each a user with its own connection and token.
    #[arg(long, default_value_t = 1)]
    pub subscribers: usize,
    /// What decides who receives a row.
    #[arg(long, value_enum, default_value_t = Mode::Plain)]
    pub mode: Mode,
    /// Insert nothing and count the transactions of the database instead; every one is the server's.
    #[arg(long, conflicts_with_all = ["rate", "batch", "window"])]
    pub idle: bool,
    #[command(flatten)]
    pub rows: RowArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

impl PostgresChanges {
    fn seat(&self, index: usize, topic: &str) -> Seat {
        let filter = match self.mode {
            Mode::Filter => format!(r#","filter":"n=eq.{index}""#),
            Mode::Plain | Mode::Rls => String::new(),
        };
        let changes = format!(r#"{{"event":"INSERT","schema":"public","table":"swarm_changes"{filter}}}"#);
        Seat { channels: vec![Channel { changes, ..Channel::named(topic) }], ..Seat::default() }
    }

    /// Holds the subscribers without writing anything.
    fn idle(
        &self,
        context: &Context,
        fleet: &mut Fleet,
        subscribers: &mut Subscribers,
        table: &ChangesTable,
    ) -> Result<Outcome, LoadError> {
        let mut hold = |what: &str, span_ns: u64| {
            let end = monotonic_ns() + span_ns;
            while monotonic_ns() < end {
                context.progress.tell(|| what.to_owned());
                fleet.poll(WAIT_NS_MAX, subscribers)?;
            }
            Ok(())
        };
        hold("waiting for the statistics of the joins", context.warmup_ns.max(STATISTICS_DELAY_NS_MAX))?;
        let meter = Meter::start_beside(context.probe, context.postgres)?;
        let transactions = table.transactions_during(|| hold("holding the subscribers", context.duration_ns))?;
        let usage = meter.stop()?;
        context.progress.clear();
        let mut outcome = Outcome::default();
        usage.report_loads(&mut outcome);
        outcome.put(Quantity::IdleTransactions, transactions as f64 / (usage.elapsed_ns as f64 / 1e9));
        Ok(outcome)
    }
}

/// Polls until all subscribers have been told that they are subscribed.
fn await_subscriptions(context: &Context, fleet: &mut Fleet, subscribers: &mut Subscribers, all: usize) -> Result<(), LoadError> {
    let end = monotonic_ns() + SUBSCRIBED_WAIT_NS_MAX;
    while subscribers.subscribed() < all {
        let subscribed = subscribers.subscribed();
        context.progress.tell(|| format!("subscribed {subscribed} of {all}"));
        if monotonic_ns() > end {
            return Err(LoadError::Stalled(format!("{subscribed} of {all} subscribed to changes after 65 s")));
        }
        fleet.poll(context.wait_ns(u64::MAX), subscribers)?;
    }
    Ok(())
}

impl Scenario for PostgresChanges {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.subscribers == 0 {
            return Err(LoadError::Argument("postgres-changes needs at least one subscriber".to_owned()));
        }
        let endpoint = context.endpoint.clone().for_role(ROLE);
        let context = &Context { endpoint, postgres: self.database.probe()?, ..context.clone() };
        let table = self.database.make_table(self.mode == Mode::Rls)?;
        let topic = format!("{TOPIC_PREFIX}changes:{:x}", monotonic_ns());
        let seats: Vec<Seat> = (0..self.subscribers).map(|index| self.seat(index, &topic)).collect();
        let share = if self.mode == Mode::Filter { Share::Dealt } else { Share::All };
        let mut subscribers = Subscribers::new(self.subscribers, share, self.rows.rate, Place::Note);
        let mut fleet = context.open(&seats, &mut subscribers)?;
        await_subscriptions(context, &mut fleet, &mut subscribers, self.subscribers)?;
        let outcome = if self.idle {
            self.idle(context, &mut fleet, &mut subscribers, &table)?
        } else {
            let rows = Rows::Changes { cycle: self.subscribers as u64, note_bytes: context.payload_bytes };
            self.rows.stream(context, &mut fleet, &mut subscribers, self.database.connect()?, rows)?
        };
        drop(fleet);
        table.remove()?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::row_stream::RowRate;

    fn scenario(mode: Mode) -> PostgresChanges {
        PostgresChanges {
            subscribers: 3,
            mode,
            idle: false,
            rows: RowArgs { rate: RowRate::Max, batch: 1, window: 1 },
            database: DatabaseArgs { database: "postgres://127.0.0.1:1/x".to_owned(), postgres_pid: None },
        }
    }

    #[test]
    fn only_filtered_subscribers_ask_for_rows_of_their_own() {
        for mode in [Mode::Plain, Mode::Filter, Mode::Rls] {
            let filters: Vec<serde_json::Value> = (0..3)
                .map(|index| {
                    let seat = scenario(mode).seat(index, "load:a");
                    let join: serde_json::Value = serde_json::from_str(&seat.channels[0].join_payload(None)).unwrap();
                    let entry = &join["config"]["postgres_changes"][0];
                    assert_eq!((&entry["event"], &entry["table"]), (&"INSERT".into(), &"swarm_changes".into()));
                    entry["filter"].clone()
                })
                .collect();
            match mode {
                Mode::Filter => assert_eq!(filters, ["n=eq.0", "n=eq.1", "n=eq.2"]),
                Mode::Plain | Mode::Rls => assert!(filters.iter().all(serde_json::Value::is_null), "{filters:?}"),
            }
        }
    }
}
