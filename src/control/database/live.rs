//! A connected and migrated tenant database: questions of the shards, answered with as little work for it as possible.
//!
//! Identical questions that are open at the same time share one evaluation. Nothing is remembered beyond it: a permission
//! is as fresh as the question.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use tokio::sync::watch;

use super::authorization::{self, AuthorizationContext, ErrorWindow};
use super::failure::DatabaseFailure;
use super::pool::DatabasePool;
use super::replay::{Body, ReplayError, ReplayRequest, replay};
use super::settings::DatabaseSettings;
use crate::base::clock;
use crate::protocol::jwt;
use crate::realtime::database::{Authorize, DatabaseRefusal, Extensions, Permissions, StoredBody, StoredMessage};
use crate::telemetry::{Code, Severity};

/// A check that found its session broken is repeated once if it did so this soon.
const RETRY_WITHIN_MS: u64 = 1_000;

/// What an evaluation will have come to; `None` until then.
type Evaluation = watch::Receiver<Option<Rc<Result<Permissions, DatabaseRefusal>>>>;

/// A database that can be asked.
pub struct Live {
    external_id: Arc<str>,
    /// Its sessions.
    pub pool: DatabasePool,
    /// Sessions that ask for the visibility of row changes.
    pub visibility: DatabasePool,
    /// Where it is.
    pub settings: DatabaseSettings,
    errors: RefCell<ErrorWindow>,
    /// The verdict of the last look at `errors`.
    refused: Cell<bool>,
    open: RefCell<HashMap<Authorize, Evaluation>>,
}

impl Live {
    /// Over a pool of the database.
    pub fn new(external_id: Arc<str>, pool: DatabasePool, settings: DatabaseSettings) -> Self {
        let visibility = DatabasePool::for_visibility(settings.clone());
        let errors = RefCell::new(ErrorWindow::authorization(settings.pool_size, clock::now().0));
        Self { external_id, pool, visibility, settings, errors, refused: Cell::new(false), open: RefCell::default() }
    }

    /// Permissions and stored messages of one identity.
    ///
    /// # Errors
    /// When the database gave no answer.
    pub async fn authorize(self: &Rc<Self>, question: Authorize) -> Result<Permissions, DatabaseRefusal> {
        let mut evaluation = self.evaluation_of(question);
        let known = evaluation.wait_for(|outcome| outcome.is_some()).await;
        let outcome = known.ok().and_then(|outcome| outcome.clone());
        outcome.map_or(Err(DatabaseRefusal::Unavailable), Rc::unwrap_or_clone)
    }

    /// The open evaluation of this question, or a new one. It goes on when whoever asked does not wait any more: each of its
    /// steps has a deadline, and a session in use must come to its end.
    fn evaluation_of(self: &Rc<Self>, question: Authorize) -> Evaluation {
        if let Some(evaluation) = self.open.borrow().get(&question) {
            return evaluation.clone();
        }
        let (done, evaluation) = watch::channel(None);
        self.open.borrow_mut().insert(question.clone(), evaluation.clone());
        let live = self.clone();
        tokio::task::spawn_local(async move {
            let outcome = live.evaluate(&question).await;
            live.open.borrow_mut().remove(&question);
            done.send_replace(Some(Rc::new(outcome)));
        });
        evaluation
    }

    async fn evaluate(&self, question: &Authorize) -> Result<Permissions, DatabaseRefusal> {
        if self.is_refusing() {
            return Err(DatabaseRefusal::PoolExhausted);
        }
        let started_ms = clock::now().0;
        let mut evaluated = self.ask(question).await;
        if matches!(evaluated, Err(DatabaseRefusal::Unavailable)) && clock::now().0 - started_ms < RETRY_WITHIN_MS {
            // A session of the pool may have ended unnoticed; a new one is opened now.
            evaluated = self.ask(question).await;
        }
        if matches!(evaluated, Err(DatabaseRefusal::PoolExhausted)) {
            self.errors.borrow_mut().record(clock::now().0);
        }
        evaluated
    }

    /// Whether too many checks found no session lately; logged when that begins.
    fn is_refusing(&self) -> bool {
        let refuses = self.errors.borrow_mut().tripped(clock::now().0);
        if refuses && !self.refused.replace(refuses) {
            let text = "too many authorisation checks found no free connection";
            Code::IncreaseConnectionPool.log_at(Severity::Critical, &self.external_id, text);
        }
        self.refused.set(refuses);
        refuses
    }

    async fn ask(&self, question: &Authorize) -> Result<Permissions, DatabaseRefusal> {
        // The shard has verified the token, so anything else is a fault of ours.
        let claims = jwt::claims_text(&question.token)
            .ok_or_else(|| DatabaseRefusal::Other("the claims of a verified token cannot be read".to_owned()))?;
        let headers = question.headers.as_deref().unwrap_or("{}").to_owned();
        let context = AuthorizationContext::from_claims(question.sub_topic.to_string(), &claims, headers)
            .map_err(|error| DatabaseRefusal::RlsPolicy(error.to_string()))?;
        let mut permissions = Permissions::default();
        if question.read.any() {
            permissions.read = authorization::read(&self.pool, &context, question.read).await.map_err(refusal)?;
        }
        if question.write {
            permissions.write = authorization::write(&self.pool, &context, Extensions::ALL).await.map_err(refusal)?;
        }
        if let Some(wanted) = question.replay.filter(|_| permissions.read.broadcast) {
            let request =
                ReplayRequest { topic: &question.sub_topic, since_unix_ms: wanted.since_unix_ms, limit: Some(wanted.limit) };
            let sub_topic: Arc<str> = (&*question.sub_topic).into();
            let found = replay(&self.pool, &request).await.map_err(|error| match error {
                ReplayError::InvalidParameters => DatabaseRefusal::ReplayFailed(error.to_string()),
                ReplayError::Failed(failure) => DatabaseRefusal::ReplayFailed(failure.to_string()),
            })?;
            let stored = found.into_iter().map(|row| StoredMessage {
                id: row.id,
                private: true,
                sub_topic: sub_topic.clone(),
                event: row.event.into(),
                body: match row.body {
                    Body::Json(text) => StoredBody::Json(text.into()),
                    Body::Binary(bytes) => StoredBody::Binary(bytes.into()),
                },
            });
            permissions.replay = stored.collect();
        }
        Ok(permissions)
    }
}

fn refusal(failure: DatabaseFailure) -> DatabaseRefusal {
    match failure {
        DatabaseFailure::RlsPolicy(text) => DatabaseRefusal::RlsPolicy(text),
        DatabaseFailure::QueryCanceled(text) => DatabaseRefusal::QueryCanceled(text),
        DatabaseFailure::MissingPartition => DatabaseRefusal::MissingPartition,
        DatabaseFailure::PoolExhausted => DatabaseRefusal::PoolExhausted,
        DatabaseFailure::Unavailable(text) => {
            tracing::warn!("a check could not reach the tenant's database: {text}");
            DatabaseRefusal::Unavailable
        }
        DatabaseFailure::Other(text) => DatabaseRefusal::Other(text),
    }
}
