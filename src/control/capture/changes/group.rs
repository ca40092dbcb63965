//! Subscribers that are equal before the database: same role, same claims. What they may see is asked once for all of them.
//!
//! Each group has a queue and a task of its own, so a policy that is slow or raises concerns its own group only, and every
//! member gets its changes in commit order. The queue is bounded: a group that falls behind too far loses what waits, and its
//! members are told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Changes;
use super::binding::{Binding, Match};
use super::change::Change;
use super::gate::Ticket;
use super::table::Table;
use crate::control::capture::catalog::Readable;
use crate::control::capture::filters;
use crate::control::capture::visibility::{self, Probe, Visible};
use crate::control::database::Live;
use crate::control::database::failure::DatabaseFailure;
use crate::control::database::pool::Answer;
use crate::control::plane::Plane;
use crate::protocol::phoenix::encode::Status;
use crate::realtime::database::{ChangeDelivery, ChangeTarget};
use crate::realtime::postgres_changes::{Kind, NO_PRIMARY_KEY, UNAUTHORIZED};
use crate::telemetry::Code;

/// Changes that are asked about at once: enough to make one round trip cheap, few enough to deliver while more arrive.
const BATCH_MAX: usize = 500;

/// How long an answer about privileges holds: how long a revoked right is still good.
const PRIVILEGES_AGE_MAX: Duration = Duration::from_secs(2);

/// How long policies may take where they were fast so far, and otherwise.
const FAST_ANSWER_MAX: Duration = Duration::from_secs(1);
const SLOW_ANSWER_MAX: Duration = Duration::from_secs(10);

/// A transaction that is on disk but not visible to others yet usually is a moment later.
const NOT_YET_PAUSE: Duration = Duration::from_millis(2);

/// How long a group waits for its database to answer at all, and the pauses between.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Changes that may wait for a group that works them off before the stream waits for it.
const BUSY_ITEMS: usize = 2_000;

/// A group that judged this fast is waited for (again).
const JUDGED_WITHIN: Duration = Duration::from_millis(150);

/// Filters that only the database can evaluate get this long.
const FILTERS_MAX: Duration = Duration::from_secs(10);

/// Bytes of changes that may wait for one group.
pub const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Told to the members of a group whose changes were given up.
const FELL_BEHIND: &str = "Changes were lost because their visibility could not be evaluated in time";

/// Entries that a change may be for.
pub type Hits = Vec<(Rc<Binding>, Match)>;

/// Entries that show the same columns.
type Selected<'a> = (Option<Rc<[String]>>, Vec<&'a Rc<Binding>>);

/// A change and the entries of the group that it may be for.
struct Item {
    change: Rc<Change>,
    hits: Hits,
    /// Held until the group has judged the change.
    ticket: Option<Ticket>,
    /// Why nothing may be told but that there was a change; decided once, when the change is judged.
    withheld: Option<&'static str>,
}

/// Subscribers with one role and one set of claims.
pub struct Group {
    /// Claim `role`.
    pub role: String,
    /// All claims, a JSON object.
    pub claims: String,
    queue: RefCell<VecDeque<Item>>,
    queued_bytes: Cell<usize>,
    arrived: Notify,
    /// Entries that are bound to it; its task ends with the last one.
    pub bindings: Cell<usize>,
    progressed: Cell<Instant>,
    /// What the role may read, by table, and when that was asked.
    readable: RefCell<HashMap<u32, Readable>>,
    privileges_at: Cell<Option<Instant>>,
    /// It did not judge in time; others do not wait for it until it does.
    pub is_slow: Cell<bool>,
    /// Its task runs.
    is_running: Cell<bool>,
}

impl Group {
    pub fn new(role: String, claims: String) -> Rc<Self> {
        Rc::new(Self {
            role,
            claims,
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            arrived: Notify::new(),
            bindings: Cell::new(0),
            progressed: Cell::new(Instant::now()),
            readable: RefCell::default(),
            privileges_at: Cell::new(None),
            is_slow: Cell::new(false),
            is_running: Cell::new(false),
        })
    }

    /// Notes what the role may read of a table.
    pub fn set_readable(&self, table: u32, readable: Readable) {
        self.readable.borrow_mut().insert(table, readable);
    }

    /// Tables whose privileges are known.
    fn tables(&self) -> Vec<u32> {
        self.readable.borrow().keys().copied().collect()
    }

    /// Tables have changed: what is known of their columns may not be true any more.
    pub fn forget_privileges(&self) {
        self.privileges_at.set(None);
    }

    /// What is known of the role's privileges on a table.
    pub fn readable_of(&self, table: u32) -> Option<Readable> {
        self.readable.borrow().get(&table).cloned()
    }

    fn may_read(&self, table: u32, attnum: i16) -> bool {
        self.readable.borrow().get(&table).is_some_and(|readable| readable.contains(attnum))
    }

    /// Why nothing may be told of a change but that there was one (8.3 steps 2 and 3): no primary key, or none that the role
    /// may read. Filters have no say then.
    pub fn withholds(&self, change: &Change) -> Option<&'static str> {
        let table = &change.table;
        if change.kind == Kind::Delete {
            None
        } else if table.key.is_empty() {
            Some(NO_PRIMARY_KEY)
        } else if !table.key.iter().all(|column| self.may_read(table.oid, table.columns[*column].attnum)) {
            Some(UNAUTHORIZED)
        } else {
            None
        }
    }

    /// Changes wait, and the group is working them off.
    pub fn is_busy(&self, patience: Duration) -> bool {
        let much = self.queue.borrow().len() > BUSY_ITEMS || self.queued_bytes.get() > QUEUE_BYTES_MAX / 2;
        much && self.progressed.get().elapsed() < patience
    }

    /// Queues a change; false when the group has fallen behind and lost what waited.
    pub fn push(&self, change: Rc<Change>, hits: Hits, ticket: Ticket) -> bool {
        let is_first = self.queue.borrow().is_empty();
        let bytes = self.queued_bytes.get() + change.bytes();
        if bytes > QUEUE_BYTES_MAX && !is_first {
            let lost = std::mem::take(&mut *self.queue.borrow_mut());
            drop(lost);
            self.queued_bytes.set(0);
            return false;
        }
        if is_first {
            self.progressed.set(Instant::now());
        }
        self.queued_bytes.set(bytes);
        self.queue.borrow_mut().push_back(Item { change, hits, ticket: Some(ticket), withheld: None });
        self.arrived.notify_one();
        true
    }

    /// True for the one who has to start the group's task.
    pub fn start(&self) -> bool {
        !self.is_running.replace(true)
    }

    /// Tells every member that changes were lost.
    pub fn tell_loss(&self, plane: &Plane, changes: &Changes) {
        Code::UnableToSubscribeToPostgres.log(changes.external_id(), FELL_BEHIND);
        changes.for_each_member(self, |subscriber| subscriber.tell(plane, Status::Error, FELL_BEHIND));
    }

    /// Delivers what arrives until nobody is bound any more and nothing waits.
    pub async fn run(self: Rc<Self>, plane: Rc<Plane>, changes: Rc<Changes>) {
        loop {
            let items: Vec<Item> = {
                let mut queue = self.queue.borrow_mut();
                let take = queue.len().min(BATCH_MAX);
                queue.drain(..take).collect()
            };
            if items.is_empty() {
                if self.bindings.get() == 0 {
                    break;
                }
                self.arrived.notified().await;
                continue;
            }
            let bytes: usize = items.iter().map(|item| item.change.bytes()).sum();
            self.queued_bytes.set(self.queued_bytes.get().saturating_sub(bytes));
            if !self.deliver(&plane, &changes, items).await {
                self.tell_loss(&plane, &changes);
            }
            self.progressed.set(Instant::now());
        }
        self.is_running.set(false);
        changes.forget_group(&self);
    }

    /// Wakes the task, so that it sees that nobody is bound any more.
    pub fn wake(&self) {
        self.arrived.notify_one();
    }

    /// False when changes were lost, because the database did not answer for long.
    async fn deliver(self: &Rc<Self>, plane: &Plane, changes: &Changes, mut items: Vec<Item>) -> bool {
        if self.privileges_at.get().is_none_or(|asked| asked.elapsed() >= PRIVILEGES_AGE_MAX) {
            let pairs: Vec<(Rc<Self>, u32)> = self.tables().into_iter().map(|table| (self.clone(), table)).collect();
            match patiently(changes, async |live| changes.load_privileges(live, &pairs).await).await {
                Ok(()) => self.privileges_at.set(Some(Instant::now())),
                // Without an answer nothing is shown that a revoked right may hide.
                Err(failure) => {
                    Code::CheckOidsError.log(changes.external_id(), failure);
                    return false;
                }
            }
        }
        for item in &mut items {
            item.withheld = self.withholds(&item.change);
            for (binding, found) in item.hits.iter_mut().filter(|(_, found)| *found == Match::Withheld) {
                // Or it was withheld when it was captured, and is not any more.
                *found = if item.withheld.is_some() { Match::Yes } else { binding.matches(&item.change) };
            }
            item.hits.retain(|(_, found)| *found != Match::No);
        }
        let mut complete = self.ask_about_filters(changes, &mut items).await;
        let visible = match self.visible(changes, &items).await {
            Ok(visible) => visible,
            Err(failure) => {
                let text = format!("changes for role {} could not be authorised: {failure}", self.role);
                Code::ErrorExecutingTransaction.log(changes.external_id(), text);
                complete &= matches!(failure, DatabaseFailure::RlsPolicy(_) | DatabaseFailure::QueryCanceled(_));
                items.iter().map(|item| !changes.needs_visibility(&item.change, item.withheld)).collect()
            }
        };
        let last = items.last().and_then(|item| item.ticket.as_ref()).map(Ticket::number);
        items.iter_mut().for_each(|item| drop(item.ticket.take()));
        if let Some(last) = last {
            changes.gate.passed(last).await;
        }
        let mut deliveries: Vec<Vec<ChangeDelivery>> = (0..plane.post.shards()).map(|_| Vec::new()).collect();
        for (item, _) in items.iter().zip(visible).filter(|(item, visible)| *visible && !item.hits.is_empty()) {
            self.compose(changes, item, &mut deliveries).await;
        }
        for (shard, deliveries) in deliveries.into_iter().enumerate() {
            let Ok(shard) = u16::try_from(shard) else { continue };
            changes.post(plane, shard, deliveries).await;
        }
        complete
    }

    /// Settles the filters that only the database can evaluate; false when it could not be asked.
    async fn ask_about_filters(&self, changes: &Changes, items: &mut [Item]) -> bool {
        let mut questions = Vec::new();
        let mut places = Vec::new();
        for (index, item) in items.iter().enumerate() {
            for (hit, (binding, found)) in item.hits.iter().enumerate() {
                if *found == Match::Ask {
                    for question in binding.questions(&item.change) {
                        questions.push(question);
                        places.push((index, hit));
                    }
                }
            }
        }
        if questions.is_empty() {
            return true;
        }
        let ask = async |live: &Live| {
            live.pool.run(FILTERS_MAX, async |client| Answer::of(Ok(filters::ask(client, &questions).await))).await
        };
        let asked = patiently(changes, ask).await;
        let complete = asked.is_ok();
        drop(questions);
        let holds: Vec<bool> = match asked {
            Ok(answers) => answers.into_iter().map(|answer| matches!(answer, Ok(Some(true)))).collect(),
            Err(failure) => {
                tracing::warn!("filters could not be evaluated: {failure}");
                Vec::new()
            }
        };
        let refused: HashSet<(usize, usize)> = places
            .into_iter()
            .enumerate()
            .filter(|(question, _)| !holds.get(*question).copied().unwrap_or(false))
            .map(|(_, place)| place)
            .collect();
        for (index, item) in items.iter_mut().enumerate() {
            let mut hit = 0;
            item.hits.retain(|_| {
                let keep = !refused.contains(&(index, hit));
                hit += 1;
                keep
            });
        }
        complete
    }

    /// For each item whether its row is visible to the group now (8.4); one question for all of them.
    async fn visible(&self, changes: &Changes, items: &[Item]) -> Result<Vec<bool>, DatabaseFailure> {
        let mut visible = vec![true; items.len()];
        // By table as it was captured: keys of other versions may be other columns.
        let mut by_table: HashMap<*const Table, Vec<usize>> = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            if !item.hits.is_empty() && changes.needs_visibility(&item.change, item.withheld) {
                // Not until the database has said so; never where it cannot be asked.
                visible[index] = false;
                by_table.entry(Rc::as_ptr(&item.change.table)).or_default().push(index);
            }
        }
        let mut asked: Vec<Vec<usize>> = by_table.into_values().collect();
        asked.retain(|indexes| items[indexes[0]].change.table.lookup.is_some());
        if asked.is_empty() {
            return Ok(visible);
        }
        let probe = |indexes: &Vec<usize>| {
            let relation = items[indexes[0]].change.table.lookup.as_ref()?;
            Some(Probe { relation, keys: indexes.iter().flat_map(|index| items[*index].change.key()).collect() })
        };
        let probes: Vec<Probe<'_>> = asked.iter().filter_map(probe).collect();
        let mut xids: Vec<i64> = asked.iter().flatten().map(|index| i64::from(items[*index].change.xid)).collect();
        xids.sort_unstable();
        xids.dedup();
        let answers = self.judged(changes, &probes, &xids).await?;
        for (indexes, answers) in asked.iter().zip(answers) {
            for (index, answer) in indexes.iter().zip(answers) {
                visible[*index] = answer;
            }
        }
        Ok(visible)
    }

    /// Asks until there is an answer. A group that is slow takes turns with other slow ones, so that they leave sessions for
    /// those that are not; one that was not slow before is given up soon and asks again as a slow one.
    async fn judged(&self, changes: &Changes, probes: &[Probe<'_>], xids: &[i64]) -> Result<Vec<Vec<bool>>, DatabaseFailure> {
        let deadline = Instant::now() + PATIENCE_MAX;
        loop {
            let was_slow = self.is_slow.get();
            let _turn = if was_slow { changes.slow_turns.acquire().await.ok() } else { None };
            let answer_max = if was_slow { SLOW_ANSWER_MAX } else { FAST_ANSWER_MAX };
            let asked_at = Instant::now();
            let ask = async |live: &Live| {
                visibility::visible(&live.visibility, &self.role, &self.claims, probes, xids, answer_max).await
            };
            match patiently(changes, ask).await {
                Ok(Visible::Known(visible)) => {
                    if asked_at.elapsed() < JUDGED_WITHIN {
                        self.is_slow.set(false);
                    }
                    return Ok(visible);
                }
                Ok(Visible::NotYet) if Instant::now() < deadline => tokio::time::sleep(NOT_YET_PAUSE).await,
                Ok(Visible::NotYet) => {
                    return Err(DatabaseFailure::Unavailable("a commit was not confirmed for a minute".to_owned()));
                }
                Err(DatabaseFailure::QueryCanceled(_)) if !was_slow => self.is_slow.set(true),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// One delivery per text: entries with other columns get another text.
    async fn compose(&self, changes: &Changes, item: &Item, deliveries: &mut [Vec<ChangeDelivery>]) {
        let change = &item.change;
        let withheld = item.withheld;
        if withheld.is_none() {
            change.convert(changes).await;
        }
        // By selection, none first, as the original orders them.
        let mut selections: Vec<Selected<'_>> = Vec::new();
        for (binding, _) in &item.hits {
            match selections.iter_mut().find(|(selection, _)| *selection == binding.selection) {
                Some((_, bindings)) => bindings.push(binding),
                None => selections.push((binding.selection.clone(), vec![binding])),
            }
        }
        selections.sort_by(|(a, _), (b, _)| a.as_deref().map(<[String]>::to_vec).cmp(&b.as_deref().map(<[String]>::to_vec)));
        for (_, bindings) in selections {
            let text = match withheld {
                Some(error) => change.withheld_text(error),
                None => change.text(&bindings[0].shown(&change.table, |attnum| self.may_read(change.table.oid, attnum))),
            };
            changes.count_events(bindings.len() as u64);
            for (shard, targets) in targets(&bindings) {
                deliveries[usize::from(shard)].push(ChangeDelivery { data: text.clone(), kind: change.kind.as_str(), targets });
            }
        }
    }
}

/// Asks again while the database cannot be reached or has no session free: what waits here is not to be lost for it.
pub async fn patiently<T>(
    changes: &Changes,
    ask: impl AsyncFn(&Live) -> Result<T, DatabaseFailure>,
) -> Result<T, DatabaseFailure> {
    let deadline = Instant::now() + PATIENCE_MAX;
    loop {
        let failure = match changes.live() {
            Some(live) => match ask(&live).await {
                Err(failure @ (DatabaseFailure::PoolExhausted | DatabaseFailure::Unavailable(_))) => failure,
                answer => return answer,
            },
            None => DatabaseFailure::Unavailable("the database is not connected".to_owned()),
        };
        if Instant::now() >= deadline {
            return Err(failure);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// The channels of these entries by shard, each with the ids of all its entries; channels with equal ids lie together.
fn targets(bindings: &[&Rc<Binding>]) -> Vec<(u16, Vec<ChangeTarget>)> {
    let mut channels: HashMap<super::subscriber::SubscriberKey, (bool, Vec<u32>)> = HashMap::new();
    for binding in bindings {
        let subscriber = &binding.subscriber;
        let (_, ids) = channels.entry(subscriber.key).or_insert_with(|| (subscriber.is_legacy, Vec::new()));
        ids.push(subscriber.entries[binding.entry].0);
    }
    let mut texts: HashMap<Vec<u32>, Arc<str>> = HashMap::new();
    let mut found: Vec<(u16, Option<Arc<str>>, ChangeTarget)> = channels
        .into_iter()
        .filter(|(_, (_, ids))| !ids.is_empty())
        .map(|(key, (is_legacy, ids))| {
            let text = (!is_legacy).then(|| {
                let list = |ids: &[u32]| format!("[{}]", ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")).into();
                texts.entry_ref(ids.as_slice()).or_insert_with(|| list(&ids)).clone()
            });
            (key.shard, text.clone(), ChangeTarget { channel: key.channel, serial: key.serial, ids: text })
        })
        .collect();
    found.sort_by(|a, b| (a.0, &a.1, a.2.channel).cmp(&(b.0, &b.1, b.2.channel)));
    let mut by_shard: Vec<(u16, Vec<ChangeTarget>)> = Vec::new();
    for (shard, _, target) in found {
        match by_shard.last_mut() {
            Some((last, targets)) if *last == shard => targets.push(target),
            _ => by_shard.push((shard, vec![target])),
        }
    }
    by_shard
}
