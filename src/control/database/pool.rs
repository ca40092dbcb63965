//! The general-purpose sessions of one tenant, `realtime_connect` (database.md 2.3 and 3.3).
//!
//! Authorization, replay and maintenance borrow sessions here. A borrowed session is a [`Lease`]; it goes back only when its
//! holder says that no transaction is left open on it, in every other case (error, dropped future, deadline) it is closed
//! and what it may still be doing is cancelled. Sessions are read-only outside of `begin read write`, so a statement whose
//! `begin` failed cannot commit anything. Sessions are opened on demand; their ends and beginnings can be watched.

use std::fmt;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{self, Metrics, Object, QueueMode, RecycleError, RecycleResult, Timeouts};
use deadpool::{Runtime, Status};
use deadpool_postgres::ClientWrapper;
use tokio::sync::watch;
use tokio_postgres::error::SqlState;

use super::connect::{self, ConnectError};
use super::failure::DatabaseFailure;
use super::settings::DatabaseSettings;

/// Name of the pool's sessions.
const APPLICATION_NAME: &str = "realtime_connect";

/// Name of the sessions that ask for the visibility of row changes.
const VISIBILITY_NAME: &str = "realtime_rls";

/// Sessions beyond `db_pool`, opened only when needed: a policy that sleeps then holds up only its own join, where the one
/// session of the default setting would hold up every join of the tenant.
const SPARE_SESSIONS: usize = 3;

/// Longest wait for a free session, whatever the settings say: a client gives up its join after ten.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Opening a session; not shorter than its own deadline.
const CREATE_TIMEOUT: Duration = Duration::from_secs(16);

/// Checking a session before reuse; it does no I/O, so this is never reached.
const RECYCLE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a cancelled statement may take to end before its answer is not waited for any more.
const CANCELED_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Unused for this long, a spare session is closed: a small server has few of them.
const SPARE_IDLE_MAX: Duration = Duration::from_secs(60);

/// What makes a forgotten `begin` harmless.
const SESSION_OPTIONS: &str = "-c default_transaction_read_only=on";

/// Sessions of one tenant. Cheap to clone; all clones are the same pool.
#[derive(Clone)]
pub struct DatabasePool {
    sessions: managed::Pool<Opener>,
    settings: Arc<DatabaseSettings>,
    losses: watch::Sender<u64>,
    successes: watch::Sender<u64>,
}

impl DatabasePool {
    /// An empty pool; nothing is connected yet. Must be called inside a tokio runtime.
    pub fn new(settings: DatabaseSettings) -> Self {
        let sessions = settings.pool_size + SPARE_SESSIONS;
        Self::named(settings, APPLICATION_NAME, sessions)
    }

    /// The pool for the visibility of row changes, `realtime_rls`: policies that are slow there hold up nothing else.
    pub fn for_visibility(settings: DatabaseSettings) -> Self {
        let sessions = settings.subscriber_pool_size;
        Self::named(settings, VISIBILITY_NAME, sessions)
    }

    fn named(settings: DatabaseSettings, application_name: &'static str, sessions_max: usize) -> Self {
        let settings = Arc::new(settings);
        let (losses, successes) = (watch::Sender::new(0), watch::Sender::new(0));
        let opener =
            Opener { settings: settings.clone(), application_name, losses: losses.clone(), successes: successes.clone() };
        let timeouts = Timeouts {
            wait: Some(settings.queue_target.min(WAIT_MAX)),
            create: Some(CREATE_TIMEOUT),
            recycle: Some(RECYCLE_TIMEOUT),
        };
        let sessions = managed::Pool::builder(opener)
            .max_size(sessions_max)
            // The session used last has its plans and pages warm, and the spare ones get a chance to be idle.
            .queue_mode(QueueMode::Lifo)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("timeouts are given together with a runtime");
        Self { sessions, settings, losses, successes }
    }

    /// Borrows a session, opening one if there is room. Waits at most `min(db_queue_target, 5 s)` for a free one.
    ///
    /// # Errors
    /// [`DatabaseFailure::PoolExhausted`] when none became free, [`DatabaseFailure::Unavailable`] when none could be opened.
    pub async fn lease(&self) -> Result<Lease, DatabaseFailure> {
        let session = self.sessions.get().await?;
        Ok(Lease { session: Some(session), settings: self.settings.clone() })
    }

    /// Borrows a session and runs `work` on it. After `deadline` the server is asked to cancel, and the answer is waited for
    /// 2 s more. `work` must end the transactions it begins.
    ///
    /// # Errors
    /// As [`DatabasePool::lease`], and what `work` answers, sorted.
    pub async fn run<T>(
        &self,
        deadline: Duration,
        work: impl AsyncFnOnce(&ClientWrapper) -> Answer<T>,
    ) -> Result<T, DatabaseFailure> {
        let lease = self.lease().await?;
        let answer = {
            let mut working = pin!(work(&lease));
            match tokio::time::timeout(deadline, &mut working).await {
                Ok(answer) => Some(answer),
                Err(_) => {
                    let token = lease.cancel_token();
                    let both = async { tokio::join!(connect::cancel(&self.settings, &token), working).1 };
                    let answer = tokio::time::timeout(CANCELED_ANSWER_WAIT, both).await.ok();
                    answer.map(|answer| Answer { clean: false, ..answer })
                }
            }
        };
        let Some(answer) = answer else {
            lease.close();
            let text = format!("no answer from the database within {} ms", deadline.as_millis());
            return Err(DatabaseFailure::Unavailable(text));
        };
        if answer.clean {
            lease.finish()
        } else {
            lease.close()
        }
        answer.outcome.map_err(|error| DatabaseFailure::from(&error))
    }

    /// Opens a session if none is idle, and asks the server for a sign of life. To be called after a loss, with backoff: the
    /// pool itself opens sessions only for callers.
    ///
    /// # Errors
    /// As [`DatabasePool::run`].
    pub async fn verify(&self) -> Result<(), DatabaseFailure> {
        self.run(WAIT_MAX, async |client: &ClientWrapper| Answer::of(client.batch_execute("").await)).await
    }

    /// How many sessions ended that we did not close ourselves; changes with every loss.
    pub fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    /// How many sessions were opened; changes with every success.
    pub fn successes(&self) -> watch::Receiver<u64> {
        self.successes.subscribe()
    }

    /// Sessions open, idle and waited for.
    pub fn status(&self) -> Status {
        self.sessions.status()
    }

    /// Closes sessions beyond `db_pool` that were not used for a minute. To be called now and then.
    pub fn close_idle_spares(&self) {
        let mut spares = self.sessions.status().size.saturating_sub(self.settings.pool_size);
        self.sessions.retain(|_, metrics| {
            let close = spares > 0 && metrics.last_used() >= SPARE_IDLE_MAX;
            spares -= usize::from(close);
            !close
        });
    }

    /// Closes idle sessions now and borrowed ones when they come back. Callers get [`DatabaseFailure::Unavailable`] from now on.
    pub fn close(&self) {
        self.sessions.close();
    }
}

impl fmt::Debug for DatabasePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabasePool").field("settings", &self.settings).field("status", &self.status()).finish_non_exhaustive()
    }
}

/// A borrowed session. Closed when dropped; [`Lease::finish`] gives it back instead.
pub struct Lease {
    /// `None` only while it is being given up.
    session: Option<Object<Opener>>,
    settings: Arc<DatabaseSettings>,
}

impl Lease {
    /// Gives the session back. The holder has no transaction open and nothing running.
    pub fn finish(mut self) {
        drop(self.session.take());
    }

    /// Closes the session; nothing is running that would have to be cancelled.
    pub fn close(mut self) {
        drop(self.session.take().map(Object::take));
    }
}

impl Deref for Lease {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        self.session.as_ref().expect("a lease holds its session until it is consumed")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        // A server notices a closed connection only when it next writes to it; until then a sleeping policy would keep
        // one of the tenant's sessions.
        let token = session.cancel_token();
        drop(Object::take(session));
        let settings = self.settings.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move { connect::cancel(&settings, &token).await }));
        }
    }
}

/// What work on a borrowed session came to.
#[derive(Debug)]
pub struct Answer<T> {
    /// The value or the first error.
    pub outcome: Result<T, tokio_postgres::Error>,
    /// The session is idle, outside of a transaction and good for others.
    pub clean: bool,
}

impl<T> Answer<T> {
    /// Of work that begins no transaction, or whose transaction has been ended.
    pub fn of(outcome: Result<T, tokio_postgres::Error>) -> Self {
        let clean = outcome.as_ref().err().is_none_or(|error| {
            // The last two: the table was altered, or somebody discarded our prepared statements. New ones are needed.
            !error.is_closed()
                && !matches!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED | &SqlState::INVALID_SQL_STATEMENT_NAME))
        });
        Self { outcome, clean }
    }
}

/// Opens the pool's sessions.
struct Opener {
    settings: Arc<DatabaseSettings>,
    application_name: &'static str,
    losses: watch::Sender<u64>,
    successes: watch::Sender<u64>,
}

impl managed::Manager for Opener {
    type Type = ClientWrapper;
    type Error = ConnectError;

    async fn create(&self) -> Result<ClientWrapper, ConnectError> {
        let losses = self.losses.clone();
        let ended = move |error: Option<tokio_postgres::Error>| {
            if let Some(error) = error {
                tracing::debug!("a session of the tenant database is lost: {error}");
                losses.send_modify(|losses| *losses += 1);
            }
        };
        let session = connect::open(&self.settings, self.application_name, SESSION_OPTIONS, ended).await?;
        self.successes.send_modify(|successes| *successes += 1);
        Ok(ClientWrapper::new(session.client, session.driver))
    }

    async fn recycle(&self, session: &mut ClientWrapper, _: &Metrics) -> RecycleResult<ConnectError> {
        if session.is_closed() { Err(RecycleError::message("the connection is closed")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
