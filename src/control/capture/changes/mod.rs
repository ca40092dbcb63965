//! Postgres Changes of one tenant: who subscribed to what, and the way of a captured row to them (database 7–9, 15.2).
//!
//! Lives as long as the tenant is in use; its database may come and go meanwhile. The stream calls [`Changes::describe`] and
//! [`Changes::take_in`] in commit order and waits in [`Changes::has_room`]; nothing here waits for a client. Matching is done
//! at once against entries indexed by table; what only the database knows is asked by the groups' tasks.
//!
//! | file | concept |
//! |---|---|
//! | `subscriber` | one channel: subscribing, renewing, ending |
//! | `binding` | one entry on one table: matching |
//! | `group`, `gate` | equal role and claims: visibility, delivery; and groups that wait for each other |
//! | `change`, `table` | a captured row and its texts; published tables |

mod binding;
mod change;
mod gate;
mod group;
mod subscriber;
mod table;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::watch;
use uuid::Uuid;

use super::catalog::{self, Readable, Version};
use super::subscribing;
use crate::base::clock;
use crate::base::rate::RateWindow;
use crate::control::database::Live;
use crate::control::database::failure::DatabaseFailure;
use crate::control::plane::Plane;
use crate::mailbox::ToShard;
use crate::protocol::pgoutput::{OldTuple, Relation, RelationMessage, Tuple};
use crate::protocol::phoenix::encode::Status;
use crate::realtime::database::{Ask, Asker, ChangeDelivery, Question};
use crate::realtime::postgres_changes::{Kind, Subscription};
use crate::telemetry::Code;
use binding::{Binding, Match};
use change::Change;
pub use change::Written;
use gate::Gate;
use group::{Group, Hits, patiently};
use subscriber::{Subscriber, SubscriberKey};
use table::Table;

/// How often there may be something to clear up: rows of `realtime.subscription` whose channels are gone.
const CHORES_PAUSE: Duration = Duration::from_secs(1);

/// Looks without subscribers after which the stream stops carrying the publication: ten minutes (9.6).
const IDLE_CHORES: u32 = 600;

/// Told when changes cannot be delivered for the time being; [`subscriber::SUBSCRIBED`] follows when they can.
const STREAM_LOST: &str = "Realtime lost the connection to the project database, changes may be delayed";

/// Slow groups that may ask at the same time: half of the usual sessions.
const SLOW_TURNS: usize = 2;

/// Frames of one mail, about, and on their way to one shard: a shard has other things to do between mails, and is to find the
/// next one when it is done, which takes it a few milliseconds.
const MAIL_FRAMES_MAX: usize = 1_024;
const FRAMES_IN_FLIGHT_MAX: usize = 8_192;

/// Pause before a busy shard is looked at again.
const BUSY_PAUSE: Duration = Duration::from_micros(500);

/// A group that got nowhere for this long does not hold the stream up any more.
const GROUP_PATIENCE: Duration = Duration::from_secs(1);

/// Ticks and buckets of the `db_events` counter (14).
const EVENTS_TICK_MS: u64 = 5_000;
const EVENTS_BUCKETS: usize = 12;

/// Subscribers to the row changes of one tenant.
pub struct Changes {
    external_id: Arc<str>,
    subscribers: RefCell<HashMap<SubscriberKey, Rc<Subscriber>>>,
    by_table: RefCell<HashMap<u32, Vec<Rc<Binding>>>>,
    groups: RefCell<HashMap<(String, String), Rc<Group>>>,
    tables: RefCell<HashMap<u32, Rc<Table>>>,
    version: RefCell<Option<Version>>,
    relations: RefCell<HashMap<u32, Described>>,
    live: RefCell<Option<Rc<Live>>>,
    wanted: watch::Sender<bool>,
    streaming: watch::Sender<bool>,
    renewals: watch::Sender<u64>,
    forgotten: RefCell<Vec<Uuid>>,
    events: RefCell<RateWindow>,
    new_events: Cell<u64>,
    gate: Rc<Gate>,
    /// For slow groups that may ask at the same time.
    slow_turns: tokio::sync::Semaphore,
    /// Held by whoever reads the catalog.
    loading: tokio::sync::Mutex<()>,
    /// Frames that shards have yet to work off, by shard number.
    in_flight: RefCell<HashMap<u16, Arc<AtomicUsize>>>,
    is_limited: Cell<bool>,
    is_stale: Cell<bool>,
    is_loss_told: Cell<bool>,
}

/// A table as the stream described it.
struct Described {
    relation: Rc<Relation>,
    /// As the catalog had it then: rows that were written before a change of the table come under their old names. `None` until
    /// the catalog was looked at.
    table: Option<Rc<Table>>,
}

/// Takes a question of a shard about row changes. At once, since a later one may be about the same channel.
pub fn ask(plane: &Rc<Plane>, shard: u16, question: Question) {
    let Asker::Channel { channel, serial, .. } = question.asker else { return };
    let key = SubscriberKey { shard, channel, serial };
    let known = plane.changes.borrow().get(&question.external_id).cloned();
    match question.ask {
        Ask::Subscribe(wanted) => {
            let changes = known.unwrap_or_else(|| plane.changes_of(&question.external_id));
            let subscriber = Subscriber::new(key, wanted.entries, wanted.legacy, wanted.token);
            changes.subscribers.borrow_mut().insert(key, subscriber.clone());
            changes.wanted.send_if_modified(|wanted| !std::mem::replace(wanted, true));
            tokio::task::spawn_local(subscriber.run(plane.clone(), changes));
        }
        Ask::Resubscribe { token } => {
            if let Some(subscriber) = known.as_ref().and_then(|changes| changes.subscribers.borrow().get(&key).cloned()) {
                subscriber.set_token(token);
            }
        }
        Ask::Unsubscribe => {
            let subscriber = known.and_then(|changes| changes.subscribers.borrow_mut().remove(&key));
            if let Some(subscriber) = subscriber {
                subscriber.end();
            }
        }
        Ask::Connect | Ask::Authorize(_) => {}
    }
}

impl Changes {
    /// Nobody has subscribed yet.
    pub fn new(external_id: Arc<str>) -> Rc<Self> {
        Rc::new(Self {
            external_id,
            subscribers: RefCell::default(),
            by_table: RefCell::default(),
            groups: RefCell::default(),
            tables: RefCell::default(),
            version: RefCell::default(),
            relations: RefCell::default(),
            live: RefCell::default(),
            wanted: watch::Sender::new(false),
            streaming: watch::Sender::new(false),
            renewals: watch::Sender::new(0),
            forgotten: RefCell::default(),
            events: RefCell::new(RateWindow::new(EVENTS_TICK_MS, EVENTS_BUCKETS, clock::now().0)),
            new_events: Cell::new(0),
            gate: Rc::default(),
            slow_turns: tokio::sync::Semaphore::new(SLOW_TURNS),
            loading: tokio::sync::Mutex::default(),
            in_flight: RefCell::default(),
            is_limited: Cell::new(false),
            is_stale: Cell::new(false),
            is_loss_told: Cell::new(false),
        })
    }

    /// Public name of the tenant.
    pub fn external_id(&self) -> &str {
        &self.external_id
    }

    /// The tenant was deleted.
    pub fn end(&self) {
        for (_, subscriber) in self.subscribers.borrow_mut().drain() {
            subscriber.end();
        }
    }

    /// The tenant's database, while it is connected.
    fn live(&self) -> Option<Rc<Live>> {
        self.live.borrow().clone()
    }

    /// Whether the stream is to carry the publication; changes with the subscribers.
    pub fn wanted(&self) -> watch::Receiver<bool> {
        self.wanted.subscribe()
    }

    /// Changes when every subscriber has to subscribe anew.
    fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    fn renew(&self) {
        self.renewals.send_modify(|renewals| *renewals += 1);
    }

    /// Resolves while the stream carries the publication.
    async fn streaming(&self) {
        let mut streaming = self.streaming.subscribe();
        if !*streaming.borrow() {
            // The publication may be newer than the stream.
            self.wanted.send_replace(true);
        }
        // An error would mean that this value is gone.
        let _ = streaming.wait_for(|streaming| *streaming).await;
    }

    /// The stream begins; tables are described to it anew.
    pub fn stream_started(&self, carries_publication: bool) {
        self.relations.borrow_mut().clear();
        self.streaming.send_replace(carries_publication);
        if carries_publication && self.is_loss_told.replace(false) {
            self.renew();
        }
    }

    /// Deletes the rows of earlier processes, before anybody subscribes.
    pub async fn clear_rows(live: &Live) {
        if let Err(failure) = subscribing::clear(&live.pool).await {
            tracing::debug!("subscriptions of earlier processes could not be deleted: {failure}");
        }
    }

    /// The database is connected: everybody who was subscribed subscribes again. Goes on until it is dropped: rows of channels
    /// that are gone are deleted, and the stream is relieved when nobody subscribes for long. While nothing happens the database
    /// is not asked anything.
    pub async fn attend(&self, live: &Rc<Live>) {
        *self.live.borrow_mut() = Some(live.clone());
        *self.version.borrow_mut() = None;
        if !self.by_table.borrow().is_empty() {
            self.renew();
        }
        let mut idle = 0;
        loop {
            tokio::time::sleep(CHORES_PAUSE).await;
            let forgotten = std::mem::take(&mut *self.forgotten.borrow_mut());
            if !forgotten.is_empty()
                && let Err(failure) = subscribing::unsubscribe(&live.pool, &forgotten).await
            {
                Code::SubscriptionDeletionFailed.log(&self.external_id, failure);
                self.forgotten.borrow_mut().extend(forgotten);
            }
            if *self.wanted.borrow() && !*self.streaming.borrow() {
                self.look_for_publication(live).await;
            }
            idle = if self.subscribers.borrow().is_empty() { idle + 1 } else { 0 };
            if idle >= IDLE_CHORES {
                self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, false));
            }
        }
    }

    /// The stream does not carry the publication, because there was none when it was opened: opens it anew when there is one.
    async fn look_for_publication(&self, live: &Live) {
        if let Ok(Some(_)) = catalog::version(&live.pool, &live.settings.publication).await {
            self.wanted.send_replace(true);
        }
    }

    /// The database is let go of. Whoever subscribes wants it back.
    pub fn leave(&self, live: &Rc<Live>) {
        let mut current = self.live.borrow_mut();
        if current.as_ref().is_some_and(|current| Rc::ptr_eq(current, live)) {
            *current = None;
            self.streaming.send_replace(false);
            self.renew();
        }
    }

    /// The stream could not be brought back at once: subscribers are told, once for each loss.
    pub fn stream_lost(&self, plane: &Plane) {
        if !self.is_loss_told.replace(true) {
            for subscriber in self.subscribers.borrow().values() {
                subscriber.tell(plane, Status::Error, STREAM_LOST);
            }
        }
    }

    /// Something about a table was described since it was last looked at.
    pub fn is_stale(&self) -> bool {
        self.is_stale.get()
    }

    /// Looks at the tables again and binds every entry to what they are now. Not given up, since what follows must be judged by
    /// them.
    pub async fn freshen(&self) {
        self.is_stale.set(false);
        if let Err(failure) = patiently(self, async |live| self.load_if_changed(live).await).await {
            Code::CheckOidsError.log(&self.external_id, failure);
            self.is_stale.set(true);
        }
        let tables = self.tables.borrow();
        for (oid, described) in self.relations.borrow_mut().iter_mut().filter(|(_, described)| described.table.is_none()) {
            described.table = tables.get(oid).cloned();
        }
    }

    /// The one place where tables are replaced: entries are bound to the new ones at the same time.
    async fn load_if_changed(&self, live: &Live) -> Result<(), DatabaseFailure> {
        let _turn = self.loading.lock().await;
        let version = catalog::version(&live.pool, &live.settings.publication).await?;
        if version.is_some() && version == *self.version.borrow() {
            return Ok(());
        }
        let catalog = catalog::load(&live.pool, &live.settings.publication).await?;
        let tables = catalog.as_ref().map(Table::all_of).unwrap_or_default();
        let before = self.tables.replace(tables);
        *self.version.borrow_mut() = catalog.map(|catalog| catalog.version);
        self.groups.borrow().values().for_each(|group| group.forget_privileges());
        let tables = self.tables.borrow();
        let mut is_gone = false;
        for (oid, bindings) in &mut *self.by_table.borrow_mut() {
            match tables.get(oid) {
                Some(table) => bindings.iter_mut().for_each(|binding| *binding = Rc::new(binding.renewed(table))),
                None => is_gone = true,
            }
        }
        if !before.is_empty() && (is_gone || tables.keys().any(|table| !before.contains_key(table))) {
            // Wildcards mean other tables now, and some entries none.
            self.renew();
        }
        Ok(())
    }

    /// Whether the database has to be asked who may see a row (8.4). Row security that was enabled since counts too.
    fn needs_visibility(&self, change: &Change, withheld: Option<&'static str>) -> bool {
        let has_row_security = change.table.has_row_security
            || self.tables.borrow().get(&change.table.oid).is_some_and(|table| table.has_row_security);
        has_row_security && change.kind != Kind::Delete && withheld.is_none()
    }

    /// Hands deliveries to a shard, no faster than it works them off.
    async fn post(&self, plane: &Plane, shard: u16, deliveries: Vec<ChangeDelivery>) {
        let mut deliveries = deliveries.into_iter().peekable();
        while deliveries.peek().is_some() {
            let in_flight = self.in_flight.borrow_mut().entry(shard).or_default().clone();
            while in_flight.load(Ordering::Acquire) >= FRAMES_IN_FLIGHT_MAX {
                plane.post.flush();
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            let mut changes = Vec::new();
            let mut frames = 0;
            while frames < MAIL_FRAMES_MAX
                && let Some(delivery) = deliveries.next()
            {
                frames += delivery.targets.len();
                changes.push(delivery);
            }
            in_flight.fetch_add(frames, Ordering::AcqRel);
            plane.post.send(shard, ToShard::Changes { changes, frames, in_flight });
        }
    }

    async fn load_privileges(&self, live: &Live, pairs: &[(Rc<Group>, u32)]) -> Result<(), DatabaseFailure> {
        // Groups with one role ask once.
        let mut asked: Vec<(&str, u32)> = pairs.iter().map(|(group, table)| (group.role.as_str(), *table)).collect();
        asked.sort_unstable();
        asked.dedup();
        let answers = catalog::privileges(&live.pool, &asked).await?;
        let known: HashMap<(&str, u32), Readable> = asked.iter().copied().zip(answers).collect();
        for (group, table) in pairs {
            if let Some(readable) = known.get(&(group.role.as_str(), *table)) {
                group.set_readable(*table, readable.clone());
            }
        }
        Ok(())
    }

    /// Binds a subscriber's entries to the tables they mean, in place of what was bound before.
    async fn bind(
        self: &Rc<Self>,
        live: &Live,
        plane: &Rc<Plane>,
        subscriber: &Rc<Subscriber>,
        subscriptions: &[Subscription],
        relations: &[Vec<u32>],
        claims: &str,
    ) -> Result<(), DatabaseFailure> {
        let is_unknown = |table: &u32| !self.tables.borrow().contains_key(table);
        if self.is_stale.get() || self.version.borrow().is_none() || relations.iter().flatten().any(is_unknown) {
            self.load_if_changed(live).await?;
        }
        let role = role_of(claims);
        let key = (role.clone(), claims.to_owned());
        let group = self.groups.borrow().get(&key).cloned().unwrap_or_else(|| Group::new(role, claims.to_owned()));
        let pairs: Vec<(Rc<Group>, u32)> = relations.iter().flatten().map(|table| (group.clone(), *table)).collect();
        self.load_privileges(live, &pairs).await?;
        if subscriber.is_gone() {
            return Ok(());
        }
        // From here on nothing waits, so nothing is missed between the old entries and the new ones.
        let group = self.groups.borrow_mut().entry(key).or_insert_with(|| group.clone()).clone();
        for (_, table) in &pairs {
            if let Some(readable) = pairs[0].0.readable_of(*table) {
                group.set_readable(*table, readable);
            }
        }
        group.bindings.set(group.bindings.get() + 1);
        self.unbind(subscriber);
        let tables = self.tables.borrow();
        let mut bound = 0;
        for (entry, (subscription, relations)) in subscriptions.iter().zip(relations).enumerate() {
            let subscription = Rc::new(subscription.clone());
            let selection = subscription.select.as_ref().map(|names| {
                let mut names = names.clone();
                names.sort();
                names.into()
            });
            for table in relations.iter().filter_map(|table| tables.get(table)) {
                let binding =
                    Binding::new(subscriber.clone(), entry, group.clone(), subscription.clone(), selection.clone(), table);
                self.by_table.borrow_mut().entry(table.oid).or_default().push(Rc::new(binding));
                bound += 1;
            }
        }
        group.bindings.set(group.bindings.get() + bound - 1);
        if group.start() {
            tokio::task::spawn_local(group.run(plane.clone(), self.clone()));
        } else {
            group.wake();
        }
        Ok(())
    }

    /// A group's task has ended.
    fn forget_group(&self, group: &Rc<Group>) {
        let key = (group.role.clone(), group.claims.clone());
        let mut groups = self.groups.borrow_mut();
        if groups.get(&key).is_some_and(|current| Rc::ptr_eq(current, group)) {
            groups.remove(&key);
        }
    }

    /// Forgets what a subscriber is bound to.
    fn unbind(&self, subscriber: &Rc<Subscriber>) {
        self.by_table.borrow_mut().retain(|_, bindings| {
            bindings.retain(|binding| {
                let keep = !Rc::ptr_eq(&binding.subscriber, subscriber);
                if !keep {
                    let left = binding.group.bindings.get() - 1;
                    binding.group.bindings.set(left);
                    if left == 0 {
                        binding.group.wake();
                    }
                }
                keep
            });
            !bindings.is_empty()
        });
    }

    /// Rows of a subscriber that is gone, to be deleted.
    fn forget_rows(&self, rows: Vec<Uuid>) {
        self.forgotten.borrow_mut().extend(rows);
    }

    fn for_each_member(&self, group: &Group, tell: impl Fn(&Subscriber)) {
        let mut told: Vec<SubscriberKey> = Vec::new();
        for binding in self.by_table.borrow().values().flatten() {
            if std::ptr::eq(&*binding.group, group) && !told.contains(&binding.subscriber.key) {
                told.push(binding.subscriber.key);
                tell(&binding.subscriber);
            }
        }
    }

    /// The stream describes a table.
    pub fn describe(&self, message: &RelationMessage<'_>) {
        let relation = Rc::new(Relation::from(message));
        self.relations.borrow_mut().insert(message.id, Described { relation, table: None });
        // A table is described when it is new to the stream, and again after every change of it.
        self.is_stale.set(true);
    }

    /// Takes in a change of a row. Rows of tables that nobody subscribed to cost one look.
    pub fn take_in(
        &self,
        plane: &Plane,
        kind: Kind,
        relation: u32,
        new: Option<&Tuple<'_>>,
        old: Option<&OldTuple<'_>>,
        written: Written,
    ) {
        let by_table = self.by_table.borrow();
        let Some(bindings) = by_table.get(&relation) else { return };
        if self.limits(plane) {
            return;
        }
        let relations = self.relations.borrow();
        let Some(described) = relations.get(&relation) else { return };
        let Some(table) = described.table.clone().or_else(|| self.tables.borrow().get(&relation).cloned()) else { return };
        let change = Rc::new(Change::new(kind, table, &described.relation, new, old, written));
        drop(relations);
        let mut hits: Vec<(Rc<Group>, Hits)> = Vec::new();
        let mut places: HashMap<*const Group, usize> = HashMap::new();
        for binding in bindings.iter().filter(|binding| binding.wants(kind)).map(|binding| binding.for_change(&change)) {
            let found = if binding.group.withholds(&change).is_some() { Match::Withheld } else { binding.matches(&change) };
            if found == Match::No {
                continue;
            }
            let place = *places.entry(Rc::as_ptr(&binding.group)).or_insert_with(|| {
                hits.push((binding.group.clone(), Vec::new()));
                hits.len() - 1
            });
            hits[place].1.push((binding, found));
        }
        drop(by_table);
        let groups: Vec<Rc<Group>> = hits.iter().map(|(group, _)| group.clone()).collect();
        for ((group, hits), ticket) in hits.into_iter().zip(self.gate.admit(&groups)) {
            if !group.push(change.clone(), hits, ticket) {
                group.tell_loss(plane, self);
            }
        }
    }

    /// Waits for groups that are working off what they have, so that a large transaction needs no large memory.
    pub async fn has_room(&self) {
        let is_busy = || self.groups.borrow().values().any(|group| group.is_busy(GROUP_PATIENCE));
        while is_busy() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn count_events(&self, events: u64) {
        self.new_events.set(self.new_events.get() + events);
    }

    /// Whether the tenant's changes are over its limit (8.8); logged when that begins.
    fn limits(&self, plane: &Plane) -> bool {
        let mut events = self.events.borrow_mut();
        let now_ms = clock::now().0;
        if events.due(now_ms) {
            events.tick(now_ms, self.new_events.take());
            let limit =
                plane.registry.borrow().get(&self.external_id).map_or(0, |entry| entry.config.limits.events_per_second_max);
            let limited = events.average() >= limit as f64;
            if limited && !self.is_limited.get() {
                Code::MessagePerSecondRateLimitReached.log(&self.external_id, "Too many database changes per second");
            }
            self.is_limited.set(limited);
        }
        self.is_limited.get()
    }
}

/// Claim `role` of verified claims.
fn role_of(claims: &str) -> String {
    let claims: serde_json::Value = serde_json::from_str(claims).unwrap_or_default();
    match claims.get("role") {
        Some(serde_json::Value::String(role)) => role.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
