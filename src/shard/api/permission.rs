//! Write permission of private messages that come over HTTP (protocol 16, database 10.4): asked of the tenant's database for each
//! request and topic, never remembered.

use std::rc::Rc;

use hashbrown::HashSet;

use super::super::Shard;
use super::super::http::Request;
use super::TenantRequest;
use super::broadcast::bearer;
use super::messages::Message;
use crate::mailbox::{Reply, ToControl};
use crate::protocol::http1::Response;
use crate::realtime::database::{Ask, Asker, Authorize, DatabaseRefusal, Extensions, Question};

/// Whether the request's token may broadcast to the topic.
pub(super) async fn may_write(
    shard: &Rc<Shard>,
    tenant: &TenantRequest,
    request: &Request,
    sub_topic: &str,
) -> Result<bool, DatabaseRefusal> {
    let Some(number) = ask(shard, tenant, request, sub_topic) else { return Err(DatabaseRefusal::Unavailable) };
    answer(shard, number).await
}

/// The private topics of a batch that the request's token may write; failures count as denied.
pub(super) async fn allowed_topics<'a>(
    shard: &Rc<Shard>,
    tenant: &TenantRequest,
    request: &Request,
    messages: &'a [Message<'_>],
) -> HashSet<&'a str> {
    let topics: HashSet<&str> = messages.iter().filter(|message| message.private).map(|message| &*message.sub_topic).collect();
    // All questions first, so that they are answered side by side.
    let asked: Vec<(&str, u64)> =
        topics.into_iter().filter_map(|topic| Some((topic, ask(shard, tenant, request, topic)?))).collect();
    let mut allowed = HashSet::new();
    for (topic, number) in asked {
        match answer(shard, number).await {
            Ok(true) => {
                allowed.insert(topic);
            }
            Ok(false) => {}
            Err(refusal) => {
                refusal.log(&tenant.config.external_id);
            }
        }
    }
    allowed
}

/// `None` when there is no database that could allow anything.
fn ask(shard: &Rc<Shard>, tenant: &TenantRequest, request: &Request, sub_topic: &str) -> Option<u64> {
    let token = bearer(request).filter(|_| tenant.config.has_database)?;
    let number = shard.waiters.register();
    let authorize = Authorize {
        sub_topic: sub_topic.into(),
        token: token.into(),
        headers: request.policy_headers.as_deref().map(Into::into),
        read: Extensions::NONE,
        write: true,
        replay: None,
    };
    let question = Question {
        external_id: tenant.config.external_id.clone(),
        asker: Asker::Http(number),
        ask: Ask::Authorize(Box::new(authorize)),
    };
    shard.control.borrow_mut().send(ToControl::Ask { shard: shard.settings.shard, question });
    Some(number)
}

async fn answer(shard: &Rc<Shard>, number: u64) -> Result<bool, DatabaseRefusal> {
    match shard.waiters.wait(number).await {
        Some(Reply::Database(outcome)) => outcome.map(|permissions| permissions.write.broadcast),
        Some(Reply::Tenant { .. } | Reply::Http { .. } | Reply::Failed(_)) | None => Err(DatabaseRefusal::Initializing),
    }
}

/// The answer of the single endpoint when the permission could not be evaluated (protocol 16.3, database 10.5).
pub(super) fn refused(tenant: &TenantRequest, refusal: &DatabaseRefusal) -> Response {
    refusal.log(&tenant.config.external_id);
    let (status, text) = match refusal {
        DatabaseRefusal::RlsPolicy(_) => (422, "RLS policy error"),
        DatabaseRefusal::QueryCanceled(_) => (422, "Query canceled"),
        DatabaseRefusal::MissingPartition => (422, "Missing messages partition"),
        DatabaseRefusal::Unavailable => (422, "Tenant database unavailable"),
        DatabaseRefusal::Initializing => (422, "Tenant database initializing"),
        DatabaseRefusal::TooManyConnections => (422, "Tenant database has too many connections"),
        DatabaseRefusal::ConnectRateLimited => (422, "Connect rate limit reached"),
        DatabaseRefusal::PoolExhausted => (429, "Connection pool exhausted"),
        DatabaseRefusal::Suspended => (403, "Tenant is suspended"),
        DatabaseRefusal::TenantNotFound => (401, "Tenant not found in database"),
        DatabaseRefusal::Other(_) | DatabaseRefusal::ReplayFailed(_) => (500, "Unable to authorize broadcast"),
    };
    tenant.refuse(status, text)
}
