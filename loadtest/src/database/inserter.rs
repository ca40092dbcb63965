//! A thread that inserts numbered rows, at a rate or as fast as deliveries keep up.
//!
//! The scenario starts it, tells it how many rows have arrived everywhere, asks now and then whether it still lives, and
//! ends it; [`Inserter::finish`] returns how many rows were committed. One statement is under way at a time, a
//! transaction each, so rows become visible in the order of their numbers. It fails with the first statement that
//! fails, and with the first warning, for that is how `realtime.send` reports a row it could not write.

use super::{Database, ROWS_INSERT, answer};
use crate::client::LoadError;
use crate::machine::monotonic_ns;
use crate::scenario::pace::{Instants, Window};
use crate::wire::row::{Mark, Place};
use std::panic;
use std::sync::PoisonError;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::watch;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

/// Sends the payloads in their order; one statement, one transaction.
const SEND: &str = "select realtime.send(one.payload::jsonb, 'row', $2, $3) from unnest($1::text[]) as one (payload)";

/// When rows are inserted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// So many transactions of one row per second.
    PerSecond(f64),
    /// Transactions of `batch` rows while at most `window` rows are under way.
    Max {
        /// Rows per transaction, above zero.
        batch: u64,
        /// Rows inserted and not yet delivered to all subscribers.
        window: u64,
    },
}

/// What the rows are.
#[derive(Debug, Clone)]
pub enum Rows {
    /// Broadcasts, through `realtime.send`.
    Broadcasts {
        /// Topic without `realtime:`.
        topic: String,
        /// Whether only private channels receive them.
        private: bool,
        /// Size of their payloads in bytes.
        payload_bytes: usize,
    },
    /// Rows of [`super::ChangesTable`].
    Changes {
        /// Column `n` is the number of the row modulo this, above zero.
        cycle: u64,
        /// Size of column `note` in bytes.
        note_bytes: usize,
    },
}

impl Rows {
    fn statement(&self) -> &'static str {
        match self {
            Self::Broadcasts { .. } => SEND,
            Self::Changes { .. } => ROWS_INSERT,
        }
    }

    /// The text that carries the mark.
    fn text(&self, mark: Mark) -> String {
        match self {
            Self::Broadcasts { payload_bytes, .. } => Place::Payload.text(mark, *payload_bytes),
            Self::Changes { note_bytes, .. } => Place::Note.text(mark, *note_bytes),
        }
    }
}

/// What was inserted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inserted {
    /// Rows committed.
    pub rows: u64,
    /// Share of the time from the first statement on in which one was under way.
    pub busy: f64,
}

/// What the scenario tells the thread.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// Rows that have arrived at all subscribers.
    arrived: u64,
    stop: bool,
}

/// The inserting thread. Dropping it also ends the thread, a statement later.
pub struct Inserter {
    thread: JoinHandle<Result<Inserted, LoadError>>,
    told: watch::Sender<Told>,
    batch: u64,
}

impl Inserter {
    /// Starts inserting `rows` into `database`.
    ///
    /// # Errors
    /// When the pace cannot be kept or the thread not be started.
    pub fn start(database: Database, rows: Rows, pace: Pace) -> Result<Self, LoadError> {
        let (told, hears) = watch::channel(Told::default());
        let batch = match pace {
            Pace::PerSecond(rate) => Instants::at_rate(rate, 0).map(|_| 1)?,
            Pace::Max { batch: 0, .. } => return Err(LoadError::Argument("--batch must be above zero".to_owned())),
            Pace::Max { batch, .. } => batch,
        };
        let insert = move || {
            let Database { runtime, client, warning } = database;
            let mut table = Table { client, warning, rows, inserted: 0, busy_ns: 0 };
            let started_ns = monotonic_ns();
            runtime.block_on(async {
                match pace {
                    Pace::PerSecond(rate) => table.insert_at(rate, hears).await,
                    Pace::Max { batch, window } => table.insert_batches(batch, window, hears).await,
                }
            })?;
            let elapsed_ns = (monotonic_ns() - started_ns).max(1);
            Ok(Inserted { rows: table.inserted, busy: table.busy_ns as f64 / elapsed_ns as f64 })
        };
        let thread = thread::Builder::new().name("inserter".to_owned()).spawn(insert);
        Ok(Self { thread: thread.map_err(LoadError::io("cannot start the inserting thread"))?, told, batch })
    }

    /// `arrived` rows have reached all subscribers. Wakes the thread only when that lets it insert another batch.
    pub fn tell_arrived(&self, arrived: u64) {
        let whole = arrived - arrived % self.batch;
        self.told.send_if_modified(|told| {
            let more = whole > told.arrived;
            told.arrived = told.arrived.max(whole);
            more
        });
    }

    /// Whether the thread has given up; [`Inserter::finish`] then says why.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the inserting and returns what was committed.
    ///
    /// # Errors
    /// What stopped the thread before.
    pub fn finish(self) -> Result<Inserted, LoadError> {
        self.told.send_modify(|told| told.stop = true);
        self.thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// The connection and how far it has come.
struct Table {
    client: tokio_postgres::Client,
    warning: super::Warning,
    rows: Rows,
    inserted: u64,
    busy_ns: u64,
}

impl Table {
    async fn statement(&self) -> Result<Statement, LoadError> {
        answer("cannot prepare the INSERT", self.client.prepare(self.rows.statement())).await
    }

    async fn insert_at(&mut self, rate: f64, mut hears: watch::Receiver<Told>) -> Result<(), LoadError> {
        let statement = self.statement().await?;
        let mut instants = Instants::at_rate(rate, monotonic_ns())?;
        loop {
            let wait = Duration::from_nanos(instants.wait_ns(monotonic_ns()));
            let stopped = tokio::time::timeout(wait, hears.wait_for(|told| told.stop)).await;
            if stopped.is_ok() {
                return Ok(());
            }
            if instants.take(monotonic_ns()).is_some() {
                self.insert(&statement, 1).await?;
            }
        }
    }

    async fn insert_batches(&mut self, batch: u64, window: u64, mut hears: watch::Receiver<Told>) -> Result<(), LoadError> {
        let statement = self.statement().await?;
        let mut batches = Window::new(window / batch, batch);
        let mut allowed = 0;
        loop {
            while allowed == 0 {
                let more = |told: &Told| {
                    allowed = batches.take(told.arrived);
                    told.stop || allowed > 0
                };
                match hears.wait_for(more).await {
                    Ok(told) if !told.stop => {}
                    _ => return Ok(()),
                }
            }
            if hears.borrow().stop {
                return Ok(());
            }
            self.insert(&statement, batch).await?;
            allowed -= 1;
        }
    }

    /// Inserts the next `count` rows in one transaction, all stamped with the instant before it is sent.
    async fn insert(&mut self, statement: &Statement, count: u64) -> Result<(), LoadError> {
        let numbers = self.inserted..self.inserted + count;
        let stamp_ns = monotonic_ns();
        let texts: Vec<String> = numbers.map(|number| self.rows.text(Mark { stamp_ns, number })).collect();
        let first = self.inserted as i64;
        let cycle;
        let values: [&(dyn ToSql + Sync); 3] = match &self.rows {
            Rows::Broadcasts { topic, private, .. } => [&texts, topic, private],
            Rows::Changes { cycle: after, .. } => {
                cycle = *after as i64;
                [&texts, &first, &cycle]
            }
        };
        answer("cannot insert rows", self.client.execute(statement, &values)).await?;
        self.busy_ns += monotonic_ns() - stamp_ns;
        if let Some(warning) = self.warning.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(LoadError::Wrong(format!("realtime.send did not write a row: {warning}")));
        }
        self.inserted += count;
        Ok(())
    }
}
