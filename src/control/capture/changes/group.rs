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
use crate::control::capture::catalog::Readable;
use crate::control::capture::filters;
use crate::control::capture::visibility::{self, Probe};
use crate::control::database::Live;
use crate::control::database::failure::DatabaseFailure;
use crate::control::database::pool::Answer;
use crate::control::plane::Plane;
use crate::mailbox::ToShard;
use crate::protocol::phoenix::encode::Status;
use crate::realtime::database::{ChangeDelivery, ChangeTarget};
use crate::realtime::postgres_changes::{Kind, NO_PRIMARY_KEY, UNAUTHORIZED};
use crate::telemetry::Code;

/// Changes that are asked about at once: enough to make one round trip cheap, few enough to deliver while more arrive.
const BATCH_MAX: usize = 500;

/// How long an answer about privileges holds: how long a revoked right is still good.
const PRIVILEGES_AGE_MAX: Duration = Duration::from_secs(2);

/// How long a group waits for a session in all.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

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
    privileges_at: Cell<Instant>,
    /// It did not judge in time; others do not wait for it until it does.
    pub is_slow: Cell<bool>,
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
            privileges_at: Cell::new(Instant::now()),
            is_slow: Cell::new(false),
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

    /// Changes wait, and it is not the group's own slowness.
    pub fn is_busy(&self, items_max: usize, patience: Duration) -> bool {
        self.queue.borrow().len() > items_max && self.progressed.get().elapsed() < patience
    }

    /// Queues a change; false when the group has fallen behind and lost what waited.
    pub fn push(&self, change: Rc<Change>, hits: Hits, ticket: Ticket) -> bool {
        let bytes = self.queued_bytes.get() + change.bytes();
        if bytes > QUEUE_BYTES_MAX {
            self.queue.borrow_mut().clear();
            self.queued_bytes.set(0);
            return false;
        }
        self.queued_bytes.set(bytes);
        self.queue.borrow_mut().push_back(Item { change, hits, ticket: Some(ticket) });
        self.arrived.notify_one();
        true
    }

    /// Tells every member that changes were lost.
    pub fn tell_loss(&self, plane: &Plane, changes: &Changes) {
        Code::UnableToSubscribeToPostgres.log(changes.external_id(), FELL_BEHIND);
        changes.for_each_member(self, |subscriber| subscriber.tell(plane, Status::Error, FELL_BEHIND));
    }

    /// Delivers what arrives until nobody is bound any more.
    pub async fn run(self: Rc<Self>, plane: Rc<Plane>, changes: Rc<Changes>) {
        while self.bindings.get() > 0 {
            let items: Vec<Item> = {
                let mut queue = self.queue.borrow_mut();
                let take = queue.len().min(BATCH_MAX);
                queue.drain(..take).collect()
            };
            if items.is_empty() {
                self.arrived.notified().await;
                continue;
            }
            let bytes: usize = items.iter().map(|item| item.change.bytes()).sum();
            self.queued_bytes.set(self.queued_bytes.get().saturating_sub(bytes));
            if let Some(live) = changes.live() {
                self.deliver(&plane, &live, &changes, items).await;
            }
            self.progressed.set(Instant::now());
        }
        // What waits refers to the group.
        let left = std::mem::take(&mut *self.queue.borrow_mut());
        drop(left);
    }

    /// Wakes the task, so that it sees that nobody is bound any more.
    pub fn wake(&self) {
        self.arrived.notify_one();
    }

    async fn deliver(self: &Rc<Self>, plane: &Plane, live: &Live, changes: &Changes, mut items: Vec<Item>) {
        if self.privileges_at.get().elapsed() >= PRIVILEGES_AGE_MAX {
            let pairs: Vec<(Rc<Self>, u32)> = self.tables().into_iter().map(|table| (self.clone(), table)).collect();
            match patiently(async || changes.load_privileges(live, &pairs).await).await {
                Ok(()) => self.privileges_at.set(Instant::now()),
                // Without an answer nothing is shown that a revoked right may hide.
                Err(failure) => return Code::CheckOidsError.log(changes.external_id(), failure),
            }
        }
        for item in &mut items {
            if self.withholds(&item.change).is_none() {
                // What was withheld when it was captured is not any more.
                item.hits.iter_mut().filter(|(_, found)| *found == Match::Withheld).for_each(|(binding, found)| {
                    *found = binding.matches(&item.change);
                });
                item.hits.retain(|(_, found)| *found != Match::No);
            }
        }
        self.ask_about_filters(live, &mut items).await;
        items.retain(|item| !item.hits.is_empty());
        let asked_at = Instant::now();
        let visible = match self.visible(live, &changes.slow_turn, &items).await {
            Ok(visible) => visible,
            Err(failure) => {
                let text = format!("changes for role {} could not be authorised: {failure}", self.role);
                Code::ErrorExecutingTransaction.log(changes.external_id(), text);
                items.iter().map(|item| !self.needs_visibility(&item.change)).collect()
            }
        };
        self.is_slow.set(asked_at.elapsed() >= JUDGED_WITHIN);
        let last = items.last().and_then(|item| item.ticket.as_ref()).map(Ticket::number);
        items.iter_mut().for_each(|item| drop(item.ticket.take()));
        if let Some(last) = last {
            changes.gate.passed(last).await;
        }
        let mut deliveries: Vec<Vec<ChangeDelivery>> = (0..plane.post.shards()).map(|_| Vec::new()).collect();
        for (item, _) in items.iter().zip(visible).filter(|(_, visible)| *visible) {
            self.compose(live, changes, item, &mut deliveries).await;
        }
        for (shard, deliveries) in deliveries.into_iter().enumerate() {
            if let (Ok(shard), false) = (u16::try_from(shard), deliveries.is_empty()) {
                plane.post.send(shard, ToShard::Changes(deliveries));
            }
        }
    }

    /// Settles the filters that only the database can evaluate.
    async fn ask_about_filters(&self, live: &Live, items: &mut [Item]) {
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
            return;
        }
        let asked = live.pool.run(FILTERS_MAX, async |client| Answer::of(Ok(filters::ask(client, &questions).await))).await;
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
    }

    fn needs_visibility(&self, change: &Change) -> bool {
        change.table.has_row_security && change.kind != Kind::Delete && self.withholds(change).is_none()
    }

    /// For each item whether its row is visible to the group now (8.4); one question for all of them.
    async fn visible(&self, live: &Live, slow: &tokio::sync::Mutex<()>, items: &[Item]) -> Result<Vec<bool>, DatabaseFailure> {
        let mut visible = vec![true; items.len()];
        let mut by_table: HashMap<u32, Vec<usize>> = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            if self.needs_visibility(&item.change) {
                // Not until the database has said so; never where it cannot be asked.
                visible[index] = false;
                by_table.entry(item.change.table.oid).or_default().push(index);
            }
        }
        if by_table.is_empty() {
            return Ok(visible);
        }
        let mut asked: Vec<Vec<usize>> = by_table.into_values().collect();
        asked.retain(|indexes| items[indexes[0]].change.table.lookup.is_some());
        let probe = |indexes: &Vec<usize>| {
            let relation = items[indexes[0]].change.table.lookup.as_ref()?;
            Some(Probe { relation, keys: indexes.iter().flat_map(|index| items[*index].change.key()).collect() })
        };
        let probes: Vec<Probe<'_>> = asked.iter().filter_map(probe).collect();
        let ask = async || visibility::visible(&live.visibility, &self.role, &self.claims, &probes).await;
        let answers = if self.is_slow.get() {
            // Slow ones take turns, so that they leave sessions for the others.
            let _turn = slow.lock().await;
            patiently(ask).await?
        } else {
            patiently(ask).await?
        };
        for (indexes, answers) in asked.iter().zip(answers) {
            for (index, answer) in indexes.iter().zip(answers) {
                visible[*index] = answer;
            }
        }
        Ok(visible)
    }

    /// One delivery per text: entries with other columns get another text.
    async fn compose(&self, live: &Live, changes: &Changes, item: &Item, deliveries: &mut [Vec<ChangeDelivery>]) {
        let change = &item.change;
        let withheld = self.withholds(change);
        if withheld.is_none() {
            change.convert(&live.pool, live.settings.record_bytes_max).await;
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

/// Asks again while no session is free: others may be slow, but what waits here is not to be lost for it.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, DatabaseFailure>) -> Result<T, DatabaseFailure> {
    let deadline = Instant::now() + PATIENCE_MAX;
    loop {
        match ask().await {
            Err(DatabaseFailure::PoolExhausted) if Instant::now() < deadline => {}
            answer => return answer,
        }
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
