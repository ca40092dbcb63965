//! CONTROL PLANE: everything slow or library-shaped, on a tokio thread; the only user of tokio.
//!
//! Owns the tenant store and the tenants' databases, answers lookups, questions and management requests of the shards,
//! ticks the rate counters and handles signals. Shards wait for none of it: they ask by mail and go on. Every request runs
//! as a task of its own, so none waits for another's database.

pub mod api;
mod capture;
mod certificate;
mod database;
pub mod development;
mod management;
mod plane;
mod post;
mod registry;
pub mod tenants;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;

use crate::base::clock;
use crate::config::Config;
use crate::mailbox::{Receiver, Reply, Sender, ToControl, ToShard};
use crate::realtime::database::{Answer, Ask, Asker, Question};
use crate::telemetry::ShardCounters;
use api::ApiSettings;
use capture::{SlotJournal, changes};
use database::Databases;
use plane::Plane;
use post::PostOffice;
use registry::Registry;
use tenants::{Cipher, StoreChange, TenantStore};

/// How often due counters are looked for; their ticks are whole seconds.
const TICK: Duration = Duration::from_millis(100);

/// Time beyond the drain's own deadline after which the process ends anyway.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Time that databases get for a goodbye once every shard is drained: the end of the stream, then dropping the slot, each
/// with a deadline of its own. Usually both take milliseconds.
const DATABASES_STOP_MAX: Duration = Duration::from_secs(9);

/// What the control thread starts with.
pub struct ControlPlan {
    /// Configuration.
    pub config: Arc<Config>,
    /// Settings of the management API.
    pub api: ApiSettings,
    /// Tenant store.
    pub store: TenantStore,
    /// Cipher of its secrets.
    pub cipher: Cipher,
    /// Mailbox.
    pub inbox: Receiver<ToControl>,
    /// Ends to the shards, by number.
    pub shards: Vec<Sender<ToShard>>,
    /// Counters of the shards, by number.
    pub counters: Vec<Arc<ShardCounters>>,
}

/// What the control thread runs on.
pub type Runtime = tokio::runtime::Runtime;

/// The runtime of the control thread; also runs what has to be done before the first shard starts.
///
/// # Errors
/// When the kernel refuses what it needs.
pub fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Runs until a signal has drained every shard. Blocks the calling thread.
///
/// # Errors
/// When the signal handlers cannot be set up.
pub fn run(runtime: &Runtime, plan: ControlPlan) -> std::io::Result<()> {
    let ControlPlan { config, api, store, cipher, inbox, shards, counters } = plan;
    let plane = Rc::new(Plane {
        registry: RefCell::new(Registry::new(&config, shards.len())),
        databases: Databases::default(),
        changes: RefCell::default(),
        slots: SlotJournal::new(&config.state_dir),
        post: PostOffice::new(shards),
        writing: tokio::sync::Mutex::default(),
        config,
        api,
        store,
        cipher,
        counters,
    });
    let local = tokio::task::LocalSet::new();
    local.block_on(runtime, Control { plane, inbox, drained: 0, drain_deadline: None }.serve())
}

struct Control {
    plane: Rc<Plane>,
    inbox: Receiver<ToControl>,
    drained: usize,
    drain_deadline: Option<tokio::time::Instant>,
}

impl Control {
    async fn serve(mut self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        spawn_local(watch_store(self.plane.clone()));
        spawn_local(database::reconnect_used(self.plane.clone()));
        spawn_local(database::clear_up(self.plane.clone()));
        let watch = self.inbox.watch();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.drained < self.plane.post.shards() {
            tokio::select! {
                () = watch.pending() => self.drain_mail(),
                _ = ticks.tick() => {
                    self.plane.registry.borrow_mut().tick(clock::now().0);
                    self.plane.post.flush();
                    if self.drain_deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
                        tracing::warn!("the drain deadline is over; connections that are left are cut off");
                        break;
                    }
                }
                _ = terminate.recv() => if self.start_draining("SIGTERM") { return Ok(()) },
                _ = interrupt.recv() => if self.start_draining("SIGINT") { return Ok(()) },
            }
        }
        if tokio::time::timeout(DATABASES_STOP_MAX, self.plane.databases.stop_all()).await.is_err() {
            tracing::warn!("a tenant's database did not answer: its replication slot is dropped when this node is back");
        }
        tracing::info!("all shards are drained");
        Ok(())
    }

    /// True when this is the second signal: end now.
    fn start_draining(&mut self, signal: &str) -> bool {
        if self.drain_deadline.is_some() {
            tracing::warn!("{signal} again: ending at once");
            return true;
        }
        tracing::error!("{signal}: draining, at most {} ms", self.plane.config.drain_timeout_ms);
        let grace = Duration::from_millis(self.plane.config.drain_timeout_ms) + DRAIN_SLACK;
        self.drain_deadline = Some(tokio::time::Instant::now() + grace);
        self.plane.post.send_all(|| ToShard::Drain);
        false
    }

    fn drain_mail(&mut self) {
        let Self { plane, inbox, drained, .. } = self;
        inbox.drain(|message| match message {
            ToControl::Lookup { shard, request, external_id } => {
                let plane = plane.clone();
                spawn_local(async move { look_up(&plane, shard, request, &external_id).await });
            }
            ToControl::Http { shard, request, call } => {
                let plane = plane.clone();
                spawn_local(async move {
                    let reply = management::serve(&plane, *call).await;
                    plane.post.send(shard, ToShard::Reply { request, reply });
                });
            }
            ToControl::Ask {
                shard,
                question: question @ Question { ask: Ask::Subscribe(_) | Ask::Resubscribe { .. } | Ask::Unsubscribe, .. },
            } => {
                changes::ask(plane, shard, question);
            }
            ToControl::Ask { shard, question } => {
                let plane = plane.clone();
                spawn_local(async move { answer(&plane, shard, question).await });
            }
            ToControl::Drained => *drained += 1,
        });
    }
}

async fn look_up(plane: &Rc<Plane>, shard: u16, request: u64, external_id: &str) {
    let reply = match plane.load(external_id).await {
        Ok(Some(news)) => {
            plane.post.send(shard, ToShard::Tenant(news));
            Reply::Tenant { found: true }
        }
        Ok(None) => Reply::Tenant { found: false },
        Err(error) => Reply::Failed(error.to_string()),
    };
    plane.post.send(shard, ToShard::Reply { request, reply });
}

async fn answer(plane: &Rc<Plane>, shard: u16, question: Question) {
    let Question { external_id, asker, ask } = question;
    let outcome = database::answer(plane, &external_id, ask).await;
    let mail = match asker {
        Asker::Http(request) => ToShard::Reply { request, reply: Reply::Database(outcome) },
        Asker::Join { .. } | Asker::Channel { .. } => ToShard::Answer(Answer { asker, outcome }),
    };
    plane.post.send(shard, mail);
}

/// Notices what others write to a shared store: at once where it says so, else within the cache time.
async fn watch_store(plane: Rc<Plane>) {
    let TenantStore::Postgres(store) = &plane.store else { return };
    let mut changes = store.watch();
    let mut expired = tokio::time::interval(Duration::from_millis(plane.config.tenant_cache_expiration_ms));
    expired.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            _ = expired.tick() => Some(StoreChange::Unknown),
        };
        match change {
            Some(StoreChange::Tenant(external_id)) => {
                if let Err(error) = plane.refresh(&external_id).await {
                    tracing::error!("tenant {external_id} could not be read again: {error}");
                }
            }
            Some(StoreChange::Unknown) => plane.refresh_all().await,
            None => return,
        }
    }
}
