//! One replication connection of a tenant: from opening its slot until the stream breaks or is not wanted any more.
//!
//! Rows go to the tenant's home shard in batches, in commit order, no faster than the shard works them off; the server is told
//! of a position only when its rows are on their way. A transaction may be large: its rows are not collected, so after a break in
//! the middle of one the rows that were handed over already are counted off when it comes again.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::changes::{Changes, Written};
use super::error::StreamError;
use super::rows::MessageColumns;
use super::slot::{self, Health};
use super::walsender::{Event, SqlState, Streaming};
use crate::control::database::dial::Stream;
use crate::control::database::{Live, TenantDatabase};
use crate::control::plane::Plane;
use crate::mailbox::ToShard;
use crate::protocol::pgoutput::{ChangeHead, Lsn, Message, Relation};
use crate::realtime::database::StoredMessage;
use crate::realtime::postgres_changes::Kind;
use crate::telemetry::Code;

/// Rows and bytes handed over at once: enough to make the mailbox cheap, little enough that a shard with many members in the
/// room does not stand still.
const BATCH_ROWS_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Batches of one tenant on their way: while the shard works on one, the next is ready. More would only fill memory.
const BATCHES_IN_FLIGHT_MAX: u64 = 2;

/// Pause before a busy shard is looked at again.
const BUSY_PAUSE: Duration = Duration::from_micros(500);

/// How often a position that moved is acknowledged without being asked for.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// A server that was asked for a sign of life has this long (11.4).
const SIGN_OF_LIFE_MAX: Duration = Duration::from_secs(60);

/// Transactions that were committed longer ago than this when a slot of an earlier process is taken over are not sent any
/// more: nobody waits for them, and they can be replayed.
const TAKEOVER_AGE_US_MAX: i64 = 120_000_000;

/// Rows that could not be broadcast are logged at most this often.
const DROP_LOG_PERIOD: Duration = Duration::from_secs(1);

/// Rows of one transaction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    messages: u64,
    changes: u64,
}

impl Seen {
    fn max(self, other: Self) -> Self {
        Self { messages: self.messages.max(other.messages), changes: self.changes.max(other.changes) }
    }
}

/// What survives a connection.
#[derive(Debug, Default)]
pub struct Progress {
    /// Everything committed before this was handed over.
    pub handed_over: Lsn,
    /// What was handed over of transactions that the server will send again if the connection breaks now, by commit position.
    partial: HashMap<Lsn, Seen>,
    /// This process has streamed from the slot.
    pub owns_slot: bool,
    /// The slot is of no more use.
    pub renew_slot: bool,
}

impl Progress {
    /// With a slot that this process has just made.
    pub fn of_new_slot() -> Self {
        Self { owns_slot: true, ..Self::default() }
    }
}

/// Streams until the database is told to end.
///
/// # Errors
/// Why the stream broke, or could not be started.
pub async fn serve(
    plane: &Rc<Plane>,
    database: &Rc<TenantDatabase>,
    live: &Rc<Live>,
    slot: &str,
    progress: &mut Progress,
) -> Result<(), StreamError> {
    plane.slots.note(database.external_id());
    let changes = plane.changes_of(database.external_id());
    let mut wanted = changes.wanted();
    let with_changes = *wanted.borrow_and_update();
    let before = progress.handed_over;
    let opened = tokio::select! {
        opened = slot::open(&live.settings, slot, with_changes, progress) => opened,
        () = database.stopped() => return Ok(()),
    };
    let takes_over = !progress.owns_slot;
    let (streaming, carries_changes) = opened.inspect_err(|error| note_lost_slot(error, progress))?;
    progress.owns_slot = true;
    progress.renew_slot = false;
    database.set_stream_ready(true);
    let is_new_slot = before > Lsn::INVALID && progress.handed_over == Lsn::INVALID;
    if with_changes && (!carries_changes || is_new_slot) {
        // There is no publication, or what was written since the old slot was lost is not known.
        changes.stream_lost(plane);
    }
    changes.stream_started(carries_changes);
    tracing::info!(external_id = %database.external_id(), "streaming broadcasts of the tenant's database through slot {slot}");
    let home = plane.post.home_of(database.external_id());
    let session = Session {
        plane,
        database,
        live,
        changes: changes.clone(),
        wanted,
        carries_changes,
        slot,
        home,
        takes_over,
        relations: HashMap::new(),
        transaction: None,
        ended: Vec::new(),
        batch: Vec::new(),
        batch_bytes: 0,
        dropped: 0,
        dropped_logged: Instant::now() - DROP_LOG_PERIOD,
    };
    let outcome = session.pump(streaming, progress).await;
    changes.stream_started(false);
    outcome.inspect_err(|error| note_lost_slot(error, progress))
}

/// Some errors say that the slot will never work again.
fn note_lost_slot(error: &StreamError, progress: &mut Progress) {
    let is_lost = match error {
        StreamError::Lag { .. } => true,
        StreamError::Walsender(error) => {
            matches!(error.sqlstate(), Some(SqlState::UNDEFINED_OBJECT | SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE))
        }
        _ => false,
    };
    progress.renew_slot |= is_lost;
}

struct Transaction {
    final_lsn: Lsn,
    written: Written,
    /// Rows of `realtime.messages` so far, and changes of all other tables.
    seen: Seen,
    /// Those that were handed over on an earlier connection.
    skipped: Seen,
    is_stale: bool,
}

struct Session<'a> {
    plane: &'a Rc<Plane>,
    database: &'a Rc<TenantDatabase>,
    live: &'a Rc<Live>,
    changes: Rc<Changes>,
    wanted: watch::Receiver<bool>,
    carries_changes: bool,
    slot: &'a str,
    home: u16,
    takes_over: bool,
    /// `None` for tables that are not `realtime.messages`.
    relations: HashMap<u32, Option<MessageColumns>>,
    transaction: Option<Transaction>,
    /// Commit positions of transactions that have ended since the last hand-over.
    ended: Vec<Lsn>,
    batch: Vec<StoredMessage>,
    batch_bytes: usize,
    dropped: u64,
    dropped_logged: Instant,
}

type Check<'a> = Pin<Box<dyn Future<Output = Option<Health>> + 'a>>;

impl Session<'_> {
    async fn pump(mut self, mut streaming: Streaming<Stream>, progress: &mut Progress) -> Result<(), StreamError> {
        let config = &self.plane.config.tenant_database;
        let (live, slot) = (self.live, self.slot);
        let mut statuses = tokio::time::interval(STATUS_PERIOD);
        statuses.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut checks = tokio::time::interval(Duration::from_millis(config.stream_check_ms));
        checks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        checks.reset();
        let mut silent_since: Option<Instant> = None;
        let mut check: Option<Check<'_>> = None;
        loop {
            let silence_over = silent_since.map(|since| since + SIGN_OF_LIFE_MAX);
            tokio::select! {
                () = self.database.stopped() => {
                    let _ = streaming.finish().await;
                    return Ok(());
                }
                Ok(()) = self.wanted.changed() => {
                    if *self.wanted.borrow() != self.carries_changes {
                        streaming.finish().await?;
                        return Err(StreamError::Reopen);
                    }
                }
                event = streaming.next() => {
                    silent_since = None;
                    self.take_in(event?, &mut streaming, progress).await?;
                }
                _ = statuses.tick() => {
                    if progress.handed_over > streaming.acknowledged() {
                        streaming.send_status(progress.handed_over, false).await?;
                    }
                }
                _ = checks.tick() => {
                    streaming.send_status(progress.handed_over, true).await?;
                    silent_since.get_or_insert_with(Instant::now);
                    check.get_or_insert_with(|| Box::pin(slot::health(live, slot)));
                }
                health = async { check.as_mut().expect("the branch is off without one").await }, if check.is_some() => {
                    check = None;
                    self.judge(health)?;
                }
                () = tokio::time::sleep_until(silence_over.unwrap_or_else(Instant::now)), if silence_over.is_some() => {
                    return Err(StreamError::Silent);
                }
            }
        }
    }

    fn judge(&self, health: Option<Health>) -> Result<(), StreamError> {
        let Some(health) = health else {
            Code::ReplicationSlotCheckSkipped.log(self.database.external_id(), "the replication slot could not be looked at");
            return Ok(());
        };
        if !health.is_active {
            return Err(StreamError::NotAlive);
        }
        let own_max = self.plane.config.tenant_database.slot_lag_bytes_max;
        let own_max = i64::try_from(own_max).ok().filter(|max| *max > 0);
        if own_max.is_some_and(|max| health.lag_bytes > max) {
            return Err(StreamError::Lag { bytes: health.lag_bytes });
        }
        if health.keep_bytes_max.is_some_and(|max| health.held_bytes > max / 2) {
            return Err(StreamError::Lag { bytes: health.held_bytes });
        }
        Ok(())
    }

    /// Takes in an event and everything that came with it, and hands the rows over.
    async fn take_in(
        &mut self,
        event: Event,
        streaming: &mut Streaming<Stream>,
        progress: &mut Progress,
    ) -> Result<(), StreamError> {
        let mut next = Some(event);
        let mut reply_requested = false;
        let mut committed = progress.handed_over;
        while let Some(event) = next {
            match event {
                Event::Data { server_time_us, payload, .. } => {
                    if let Some(end) = self.message(&payload, server_time_us, progress)? {
                        committed = end;
                    }
                    if self.changes.is_stale() {
                        // Before the change that follows.
                        self.changes.freshen().await;
                    }
                }
                Event::Oversized { head, payload_bytes, .. } => self.oversized(&head, payload_bytes),
                Event::KeepAlive { end, reply_requested: requested, .. } => {
                    reply_requested |= requested;
                    if self.transaction.is_none() {
                        committed = committed.max(end);
                    }
                }
                Event::Ended => return Err(StreamError::Ended),
            }
            if self.batch.len() >= BATCH_ROWS_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
                self.hand_over(progress).await;
                progress.handed_over = committed;
            }
            next = streaming.next_buffered()?;
        }
        self.hand_over(progress).await;
        progress.handed_over = committed;
        if reply_requested {
            streaming.send_status(progress.handed_over, false).await?;
        }
        Ok(())
    }

    /// One message of the plug-in; the position behind a transaction that is complete.
    fn message(&mut self, payload: &[u8], server_time_us: i64, progress: &mut Progress) -> Result<Option<Lsn>, StreamError> {
        match Message::decode(payload).map_err(StreamError::Decode)? {
            Message::Begin { final_lsn, commit_time_us, xid } => {
                let skipped = progress.partial.get(&final_lsn).copied().unwrap_or_default();
                let is_stale = self.takes_over && server_time_us.saturating_sub(commit_time_us) > TAKEOVER_AGE_US_MAX;
                self.transaction = Some(Transaction {
                    final_lsn,
                    written: Written { xid, commit_time_us },
                    seen: Seen::default(),
                    skipped,
                    is_stale,
                });
            }
            Message::Relation(relation) => {
                let columns = MessageColumns::find(&Relation::from(&relation));
                self.relations.insert(relation.id, columns);
                if relation.namespace != b"realtime" {
                    self.changes.describe(&relation);
                }
            }
            Message::Insert { relation, new } => {
                if let Some(Some(columns)) = self.relations.get(&relation).copied() {
                    if self.is_new_row() {
                        self.row(columns.message(&new, self.payload_bytes_max()));
                    }
                } else if let Some(written) = self.new_change(progress) {
                    self.changes.take_in(self.plane, Kind::Insert, relation, Some(&new), None, written);
                }
            }
            Message::Update { relation, old, new } => {
                if let Some(written) = self.new_change(progress) {
                    self.changes.take_in(self.plane, Kind::Update, relation, Some(&new), old.as_ref(), written);
                }
            }
            Message::Delete { relation, old } => {
                if let Some(written) = self.new_change(progress) {
                    self.changes.take_in(self.plane, Kind::Delete, relation, None, Some(&old), written);
                }
            }
            Message::Commit { end_lsn, .. } => {
                self.ended.extend(self.transaction.take().map(|transaction| transaction.final_lsn));
                return Ok(Some(end_lsn));
            }
            Message::Truncate { .. } | Message::Origin { .. } | Message::Type { .. } | Message::Message { .. } => {}
        }
        Ok(None)
    }

    /// Counts a row of the transaction; false when it was handed over before or is too old.
    fn is_new_row(&mut self) -> bool {
        let Some(transaction) = &mut self.transaction else { return false };
        transaction.seen.messages += 1;
        transaction.seen.messages > transaction.skipped.messages && !transaction.is_stale
    }

    /// Counts a change of another table; its transaction unless it was handed over before or is too old.
    fn new_change(&mut self, progress: &mut Progress) -> Option<Written> {
        let transaction = self.transaction.as_mut()?;
        transaction.seen.changes += 1;
        if transaction.seen.changes > transaction.skipped.changes {
            // Unlike messages, which go in batches, a change is handed over as soon as it is seen.
            progress.partial.entry(transaction.final_lsn).or_default().changes = transaction.seen.changes;
        }
        let is_new = transaction.seen.changes > transaction.skipped.changes && !transaction.is_stale;
        is_new.then_some(transaction.written)
    }

    fn payload_bytes_max(&self) -> u64 {
        let registry = self.plane.registry.borrow();
        registry.get(self.database.external_id()).map_or(0, |entry| entry.config.limits.payload_bytes_max)
    }

    fn is_limited(&self) -> bool {
        let registry = self.plane.registry.borrow();
        let limit = registry.get(self.database.external_id()).map_or(0, |entry| entry.config.limits.events_per_second_max);
        self.database.shared().events_average() >= limit as f64
    }

    fn row(&mut self, message: Result<StoredMessage, &'static str>) {
        let message = if self.is_limited() { Err("too_many_requests") } else { message };
        match message {
            Ok(message) => {
                self.batch_bytes += message.body.as_user_body().bytes();
                self.batch.push(message);
            }
            Err(what) => self.note_dropped(what),
        }
    }

    fn oversized(&mut self, head: &[u8], payload_bytes: usize) {
        let is_message = ChangeHead::peek(head).is_some_and(|head| matches!(self.relations.get(&head.relation), Some(Some(_))));
        if is_message && self.is_new_row() {
            tracing::debug!("a row of {payload_bytes} bytes is not read");
            self.note_dropped("payload_size_exceeded");
        }
    }

    fn note_dropped(&mut self, what: &str) {
        self.dropped += 1;
        if self.dropped_logged.elapsed() >= DROP_LOG_PERIOD {
            let text = format!("{what} ({} rows since the last such line)", self.dropped);
            Code::UnableToBroadcastChanges.log(self.database.external_id(), text);
            self.dropped = 0;
            self.dropped_logged = Instant::now();
        }
    }

    async fn hand_over(&mut self, progress: &mut Progress) {
        self.changes.has_room().await;
        if !self.batch.is_empty() {
            let shared = self.database.shared();
            while shared.stored_in_flight.load(Ordering::Acquire) >= BATCHES_IN_FLIGHT_MAX && !self.database.is_stopped() {
                self.plane.post.flush();
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            let messages = std::mem::take(&mut self.batch);
            self.batch_bytes = 0;
            shared.stored_in_flight.fetch_add(1, Ordering::AcqRel);
            self.plane.post.send(self.home, ToShard::Stored { shared: shared.clone(), messages });
        }
        for ended in self.ended.drain(..) {
            progress.partial.remove(&ended);
        }
        if let Some(transaction) = &self.transaction {
            // What an earlier connection knew counts until this one knows more.
            progress.partial.insert(transaction.final_lsn, transaction.seen.max(transaction.skipped));
        }
    }
}
