//! The life of one tenant's database: connect, watch over, end (sections 3.2–3.5).
//!
//! One task per database in use. It connects, lets waiting questions through, runs the replication stream beside them, and
//! ends when nobody uses the tenant any more, when told to, or when a loss lasts too long. Ending is final: the next
//! question starts a new one, which waits for the end of the one before. The flags that shards read are true only while
//! this task says so, and a task that was told to end never touches them again.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::live::Live;
use super::pool::DatabasePool;
use super::preparation::{keep_partitions, prepare};
use super::settings::DatabaseSettings;
use crate::control::api::DatabaseState;
use crate::control::capture;
use crate::control::capture::changes::Changes;
use crate::control::plane::Plane;
use crate::realtime::database::DatabaseRefusal;
use crate::realtime::tenant::TenantShared;
use crate::telemetry::Code;

/// Looks without users after which the database is let go of: eleven, and one more to be sure (3.5).
const IDLE_LOOKS: u32 = 12;

/// How long a lost database is waited for before the next question has to start over (3.3).
const RECOVERY_MAX: Duration = Duration::from_secs(600);

/// Pauses between attempts to reach a lost database.
const RECOVERY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A caller waits this long for the connection (3.1).
const READY_MAX: Duration = Duration::from_secs(15);

/// How long the end of an earlier use of the same database is waited for: dropping a slot takes milliseconds.
const PREDECESSOR_MAX: Duration = Duration::from_secs(5);

/// The longest random addition to the housekeeping period.
const RANDOM_MINUTES_MAX: u64 = 59;

#[derive(Clone)]
enum Phase {
    Connecting,
    Ready(Rc<Live>),
    Ended(DatabaseRefusal),
}

/// One tenant's database in use.
pub struct TenantDatabase {
    external_id: Arc<str>,
    shared: Arc<TenantShared>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
    /// Closed when the task has ended.
    done: watch::Receiver<()>,
}

impl TenantDatabase {
    /// Starts connecting in the background.
    pub fn start(
        plane: Rc<Plane>,
        settings: DatabaseSettings,
        shared: Arc<TenantShared>,
        predecessor: Option<Rc<Self>>,
    ) -> Rc<Self> {
        let (running, done) = watch::channel(());
        let database = Rc::new(Self {
            external_id: shared.external_id.clone(),
            shared,
            phase: watch::Sender::new(Phase::Connecting),
            stop: watch::Sender::new(false),
            done,
        });
        let life = database.clone();
        tokio::task::spawn_local(async move {
            if let Some(predecessor) = predecessor {
                // It still holds the replication slot.
                let _ = tokio::time::timeout(PREDECESSOR_MAX, predecessor.ended()).await;
            }
            life.live(&plane, settings).await;
            drop(running);
        });
        database
    }

    /// Waits until it can be asked.
    ///
    /// # Errors
    /// Why it cannot, or [`DatabaseRefusal::Initializing`] when that is not known in time.
    pub async fn ready(&self) -> Result<Rc<Live>, DatabaseRefusal> {
        let mut phase = self.phase.subscribe();
        let known = phase.wait_for(|phase| !matches!(phase, Phase::Connecting));
        match tokio::time::timeout(READY_MAX, known).await {
            Ok(Ok(phase)) => match &*phase {
                Phase::Ready(live) => Ok(live.clone()),
                Phase::Ended(refusal) => Err(refusal.clone()),
                Phase::Connecting => Err(DatabaseRefusal::Initializing),
            },
            Ok(Err(_)) | Err(_) => Err(DatabaseRefusal::Initializing),
        }
    }

    /// What the health endpoint says.
    pub fn state(&self) -> DatabaseState {
        DatabaseState {
            connected: matches!(&*self.phase.borrow(), Phase::Ready(_)),
            replication: self.shared.stream_ready.load(Ordering::Acquire),
        }
    }

    /// Asks it to end; its flags fall at once.
    pub fn stop(&self) {
        self.set_database_ready(false);
        self.set_stream_ready(false);
        self.stop.send_replace(true);
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        let mut done = self.done.clone();
        while done.changed().await.is_ok() {}
    }

    /// Told to end.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Resolves when told to end.
    pub async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        // An error would mean that this value is gone.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Public name of the tenant.
    pub fn external_id(&self) -> &Arc<str> {
        &self.external_id
    }

    /// Counters and flags of the tenant.
    pub fn shared(&self) -> &Arc<TenantShared> {
        &self.shared
    }

    fn set_database_ready(&self, ready: bool) {
        if !self.is_stopped() {
            self.shared.database_ready.store(ready, Ordering::Release);
        }
    }

    /// Tells the shards whether what is written to the database from now on is broadcast.
    pub fn set_stream_ready(&self, ready: bool) {
        if !self.is_stopped() {
            self.shared.stream_ready.store(ready, Ordering::Release);
        }
    }

    async fn live(self: Rc<Self>, plane: &Rc<Plane>, settings: DatabaseSettings) {
        let prepared = tokio::select! {
            prepared = prepare(plane, &self.external_id, &settings) => prepared,
            () = self.stopped() => return self.end(plane, DatabaseRefusal::Unavailable),
        };
        if let Err(error) = prepared {
            error.log(&self.external_id);
            plane.databases.note_connect_error(&self.external_id);
            return self.end(plane, error.refusal());
        }
        let pool = DatabasePool::new(settings.clone());
        let live = Rc::new(Live::new(self.external_id.clone(), pool.clone(), settings.clone()));
        Changes::clear_rows(&live).await;
        self.phase.send_replace(Phase::Ready(live.clone()));
        self.set_database_ready(true);
        {
            let changes = plane.changes_of(&self.external_id);
            let stream = capture::run(plane, &self, &live);
            tokio::pin!(stream);
            let over = tokio::select! {
                () = self.watch_over(plane, &live) => false,
                () = changes.attend(&live) => false,
                () = &mut stream => true,
            };
            changes.leave(&live);
            plane.databases.retire(&self.external_id, &self);
            self.stop();
            if !over {
                // The stream ends on its own now, and drops its slot.
                stream.await;
            }
        }
        pool.close();
        live.visibility.close();
        self.end(plane, DatabaseRefusal::Unavailable);
    }

    fn end(self: &Rc<Self>, plane: &Plane, refusal: DatabaseRefusal) {
        plane.databases.forget(&self.external_id, self);
        self.phase.send_replace(Phase::Ended(refusal));
    }

    /// Returns when the database is not to be used any more.
    async fn watch_over(&self, plane: &Plane, live: &Live) {
        let config = &plane.config.tenant_database;
        let mut losses = live.pool.losses();
        let mut looks = tokio::time::interval(Duration::from_millis(config.check_ms));
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut unused_looks = 0;
        let mut housekeeping = Instant::now() + self.housekeeping_pause(plane);
        loop {
            tokio::select! {
                () = self.stopped() => return,
                _ = looks.tick() => {
                    live.pool.close_idle_spares();
                    live.visibility.close_idle_spares();
                    unused_looks = if self.shared.users() > 0 { 0 } else { unused_looks + 1 };
                    if unused_looks > IDLE_LOOKS {
                        tracing::info!(external_id = %self.external_id, "nobody uses the tenant: its database is disconnected");
                        return;
                    }
                }
                Ok(()) = losses.changed() => {
                    if !self.recover(live).await {
                        return;
                    }
                    losses.mark_unchanged();
                }
                () = tokio::time::sleep_until(housekeeping) => {
                    keep_partitions(&self.external_id, &live.settings, config.drop_partitions).await;
                    housekeeping = Instant::now() + self.housekeeping_pause(plane);
                }
            }
        }
    }

    fn housekeeping_pause(&self, plane: &Plane) -> Duration {
        let config = &plane.config.tenant_database;
        let minutes = if config.partitions_randomized { 1 + super::random() % RANDOM_MINUTES_MAX } else { 0 };
        Duration::from_millis(config.partitions_ms) + Duration::from_secs(60 * minutes)
    }

    /// A session was lost: tries until one can be opened; false when that took too long or nobody wants it any more.
    async fn recover(&self, live: &Live) -> bool {
        Code::DatabaseConnectionDown.log(&self.external_id, "a connection to the tenant's database was lost");
        let deadline = Instant::now() + RECOVERY_MAX;
        let mut backoff = Backoff::new(RECOVERY_PAUSES.0, RECOVERY_PAUSES.1);
        let mut successes = live.pool.successes();
        loop {
            let Err(failure) = live.pool.verify().await else { return true };
            tracing::debug!(external_id = %self.external_id, "the tenant's database is still down: {failure}");
            if Instant::now() >= deadline {
                Code::DatabaseConnectionRecoveryWindowExceeded.log(&self.external_id, failure);
                return false;
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(super::random())) => {}
                // Whoever opened one has ended the loss.
                Ok(()) = successes.changed() => return true,
                () = self.stopped() => return false,
            }
        }
    }
}
