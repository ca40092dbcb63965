//! Rows inserted by SQL, delivered to S subscribers of one topic: latency at a rate, or the most the chain sustains.
//!
//! A thread of its own inserts; this one reads ([`RowArgs::stream`]) and every subscriber must see every row in order
//! ([`Subscribers`]).

use super::replication::await_replication;
use super::row_stream::RowArgs;
use super::subscribers::{Share, Subscribers};
use super::{Context, Scenario};
use crate::client::{LoadError, Seat};
use crate::database::{DatabaseArgs, ROLE, Rows, TOPIC_PREFIX};
use crate::machine::monotonic_ns;
use crate::measure::Outcome;
use crate::wire::push::Channel;
use crate::wire::row::Place;
use clap::Args;

/// S subscribers of one topic that rows are sent to.
#[derive(Debug, Clone, Args)]
pub struct DatabaseEvents {
    /// Subscribers of the topic.
    #[arg(long, default_value_t = 100)]
    pub subscribers: usize,
    /// A private topic instead of a public one.
    #[arg(long)]
    pub private: bool,
    #[command(flatten)]
    pub rows: RowArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
}

impl Scenario for DatabaseEvents {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        if self.subscribers == 0 {
            return Err(LoadError::Argument("database-events needs at least one subscriber".to_owned()));
        }
        let endpoint = context.endpoint.clone().for_role(ROLE);
        let context = &Context { endpoint, postgres: self.database.probe()?, ..context.clone() };
        let database = self.database.open()?;
        await_replication(context)?;
        let topic = format!("{TOPIC_PREFIX}events:{:x}", monotonic_ns());
        let channel = Channel { private: self.private, ..Channel::named(&topic) };
        let seats = vec![Seat { channels: vec![channel], ..Seat::default() }; self.subscribers];
        let mut subscribers = Subscribers::new(self.subscribers, Share::All, self.rows.rate, Place::Payload);
        let mut fleet = context.open(&seats, &mut subscribers)?;
        let rows = Rows::Broadcasts { topic, private: self.private, payload_bytes: context.payload_bytes };
        self.rows.stream(context, &mut fleet, &mut subscribers, database, rows)
    }
}
