//! A connected and migrated tenant database: questions of the shards, answered with as little work for it as possible.
//!
//! Identical questions that are open at the same time share one evaluation. Nothing is remembered beyond it: a permission
//! is as fresh as the question.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt as _;
use futures_util::future::{LocalBoxFuture, Shared};
use hashbrown::HashMap;

use super::authorization::{self, AuthorizationContext, ErrorWindow};
use super::failure::DatabaseFailure;
use super::pool::DatabasePool;
use super::replay::{Body, ReplayError, ReplayRequest, replay};
use super::settings::DatabaseSettings;
use crate::base::clock;
use crate::realtime::database::{Authorize, DatabaseRefusal, Extensions, Permissions, StoredBody, StoredMessage};
use crate::telemetry::Code;

type Evaluation = Shared<LocalBoxFuture<'static, Rc<Result<Permissions, DatabaseRefusal>>>>;

/// A database that can be asked.
pub struct Live {
    external_id: Arc<str>,
    /// Its sessions.
    pub pool: DatabasePool,
    /// Where it is.
    pub settings: DatabaseSettings,
    errors: RefCell<ErrorWindow>,
    open: RefCell<HashMap<Authorize, Evaluation>>,
}

impl Live {
    /// Over a pool of the database.
    pub fn new(external_id: Arc<str>, pool: DatabasePool, settings: DatabaseSettings) -> Self {
        let errors = RefCell::new(ErrorWindow::authorization(settings.pool_size, clock::now().0));
        Self { external_id, pool, settings, errors, open: RefCell::default() }
    }

    /// Permissions and stored messages of one identity.
    ///
    /// # Errors
    /// When the database gave no answer.
    pub async fn authorize(self: &Rc<Self>, question: Authorize) -> Result<Permissions, DatabaseRefusal> {
        let evaluation = {
            let mut open = self.open.borrow_mut();
            match open.get(&question) {
                Some(evaluation) => evaluation.clone(),
                None => {
                    let (live, asked) = (self.clone(), question.clone());
                    let evaluation = async move {
                        let outcome = live.evaluate(&asked).await;
                        live.open.borrow_mut().remove(&asked);
                        Rc::new(outcome)
                    };
                    let evaluation = evaluation.boxed_local().shared();
                    open.insert(question, evaluation.clone());
                    evaluation
                }
            }
        };
        Rc::unwrap_or_clone(evaluation.await)
    }

    async fn evaluate(&self, question: &Authorize) -> Result<Permissions, DatabaseRefusal> {
        if self.errors.borrow_mut().tripped(clock::now().0) {
            return Err(DatabaseRefusal::PoolExhausted);
        }
        let evaluated = self.ask(question).await;
        if matches!(evaluated, Err(DatabaseRefusal::PoolExhausted)) {
            let mut errors = self.errors.borrow_mut();
            let now_ms = clock::now().0;
            let was_tripped = errors.tripped(now_ms);
            errors.record(now_ms);
            if !was_tripped && errors.tripped(now_ms) {
                Code::IncreaseConnectionPool.log(&self.external_id, "too many authorisation checks found no free connection");
            }
        }
        evaluated
    }

    async fn ask(&self, question: &Authorize) -> Result<Permissions, DatabaseRefusal> {
        let claims = claims_text(&question.token)?;
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

/// The claims of a token, as it has them. The shard has verified it, so anything else is a fault of ours.
fn claims_text(token: &str) -> Result<String, DatabaseRefusal> {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let text = payload.and_then(|bytes| String::from_utf8(bytes).ok());
    text.ok_or_else(|| DatabaseRefusal::Other("the claims of a verified token cannot be read".to_owned()))
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
