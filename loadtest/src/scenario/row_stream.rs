//! Inserting numbered rows and reading their deliveries, at a rate or as fast as deliveries keep up.
//!
//! Shared by the scenarios that insert into a database. An [`Inserter`] writes on a thread of its own while this one
//! drives the fleet; the run fails with whichever side fails first.

use super::Context;
use super::subscribers::Subscribers;
use crate::client::{Fleet, LoadError};
use crate::database::{Database, Inserter, Pace, Rows};
use crate::measure::{Outcome, Quantity};
use clap::Args;
use std::str::FromStr;

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

/// How rows are inserted, as on the command line.
#[derive(Debug, Clone, Args)]
pub struct RowArgs {
    /// Rows per second, each in a transaction of its own, or max.
    #[arg(long, default_value = "10", value_name = "N|max")]
    pub rate: RowRate,
    /// With --rate max: rows per transaction.
    #[arg(long, default_value_t = 100)]
    pub batch: u64,
    /// With --rate max: rows inserted and not yet delivered to all, a batch at least.
    #[arg(long, default_value_t = 1000)]
    pub window: u64,
}

impl RowArgs {
    fn pace(&self) -> Pace {
        match self.rate {
            RowRate::PerSecond(rate) => Pace::PerSecond(rate),
            RowRate::Max => Pace::Max { batch: self.batch, window: self.window },
        }
    }

    /// Inserts `rows` into `database` while `subscribers` receive them, and reports what was measured once everything
    /// committed has arrived.
    pub(super) fn stream(
        &self,
        context: &Context,
        fleet: &mut Fleet,
        subscribers: &mut Subscribers,
        database: Database,
        rows: Rows,
    ) -> Result<Outcome, LoadError> {
        let mut inserter = Some(Inserter::start(database, rows, self.pace())?);
        let (usage, deliveries) = context.measure(fleet, subscribers, |_, subscribers, _| {
            subscribers.check()?;
            if let Some(ended) = inserter.take_if(|inserter| inserter.has_ended()) {
                ended.finish()?;
            }
            inserter.iter().for_each(|inserter| inserter.tell_arrived(subscribers.rows()));
            Ok(u64::MAX)
        })?;
        let inserted = inserter.map(Inserter::finish).transpose()?;
        subscribers.complete(context, fleet, inserted.map_or(0, |inserted| inserted.rows))?;
        let mut outcome = subscribers.report(&usage, deliveries);
        if let Some(inserted) = inserted {
            outcome.put(Quantity::InserterLoad, 100.0 * inserted.busy);
        }
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_numbers_or_max() {
        assert_eq!("10".parse(), Ok(RowRate::PerSecond(10.0)));
        assert_eq!("max".parse(), Ok(RowRate::Max));
        for bad in ["", "0", "-1", "inf", "NaN", "fast"] {
            assert!(bad.parse::<RowRate>().is_err(), "{bad}");
        }
    }
}
