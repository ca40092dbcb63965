//! One channel that subscribes to row changes: a task that keeps its subscriptions alive until the channel ends (7.4, 7.5).
//!
//! It subscribes when the channel joins, when the token changes, and when the database, the publication or its tables do. Errors
//! of the client are told once; errors of the database are told and tried again.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use super::Changes;
use crate::control::capture::subscribing::{self, Entry, Filter, SubscribeFailure};
use crate::control::database::failure::DatabaseFailure;
use crate::control::database::{self, Live};
use crate::control::plane::Plane;
use crate::mailbox::ToShard;
use crate::protocol::jwt;
use crate::protocol::phoenix::encode::Status;
use crate::realtime::postgres_changes::{self, Subscription, message_not_published, message_rejected};
use crate::telemetry::Code;

/// Told once changes are delivered; clients look for this text.
const SUBSCRIBED: &str = "Subscribed to PostgreSQL";

/// Pauses before the database is tried again, at least and at most, in milliseconds (7.5).
const RETRY_MS: (u64, u64) = (5_000, 10_000);

/// How long the stream may take to carry the publication; it usually takes a few round trips.
const STREAM_MAX: Duration = Duration::from_secs(15);

/// A channel by the shard it lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriberKey {
    /// Shard.
    pub shard: u16,
    /// Slot of the channel.
    pub channel: u32,
    /// Serial of the channel.
    pub serial: u64,
}

/// A subscribed channel.
pub struct Subscriber {
    /// Where it is.
    pub key: SubscriberKey,
    /// Entries with the ids the client knows them by.
    pub entries: Vec<(u32, Box<str>)>,
    /// Delivered in the old form.
    pub is_legacy: bool,
    token: watch::Sender<Box<str>>,
    gone: watch::Sender<bool>,
    /// Ids of its rows in `realtime.subscription`.
    rows: RefCell<Vec<Uuid>>,
}

/// What one attempt came to.
enum Attempt {
    Subscribed,
    /// The client's mistake; not tried again.
    Refused(String),
    /// To be tried again.
    Failed(String),
}

impl Subscriber {
    pub fn new(key: SubscriberKey, entries: Vec<(u32, Box<str>)>, is_legacy: bool, token: Box<str>) -> Rc<Self> {
        Rc::new(Self {
            key,
            entries,
            is_legacy,
            token: watch::Sender::new(token),
            gone: watch::Sender::new(false),
            rows: RefCell::default(),
        })
    }

    /// The channel's token changed.
    pub fn set_token(&self, token: Box<str>) {
        self.token.send_replace(token);
    }

    /// The channel has ended.
    pub fn end(&self) {
        self.gone.send_replace(true);
    }

    /// The channel has ended.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Runs until the channel ends.
    pub async fn run(self: Rc<Self>, plane: Rc<Plane>, changes: Rc<Changes>) {
        let mut gone = self.gone.subscribe();
        tokio::select! {
            () = self.keep_subscribed(&plane, &changes) => {}
            _ = gone.wait_for(|gone| *gone) => {}
        }
        changes.unbind(&self);
        let rows = std::mem::take(&mut *self.rows.borrow_mut());
        changes.forget_rows(rows);
    }

    async fn keep_subscribed(self: &Rc<Self>, plane: &Rc<Plane>, changes: &Rc<Changes>) {
        let (mut token, mut renewals) = (self.token.subscribe(), changes.renewals());
        let mut was_subscribed = false;
        loop {
            token.mark_unchanged();
            renewals.mark_unchanged();
            let attempt = self.subscribe(plane, changes).await;
            let pause = match attempt {
                Attempt::Subscribed => {
                    self.tell(plane, Status::Ok, SUBSCRIBED);
                    was_subscribed = true;
                    None
                }
                Attempt::Refused(text) => {
                    Code::RealtimeDisabledForConfiguration.log(changes.external_id(), &text);
                    changes.unbind(self);
                    self.tell(plane, Status::Error, &text);
                    // Another token can make it better, and what took the tables away may bring them back.
                    tokio::select! {
                        Ok(()) = token.changed() => {}
                        Ok(()) = renewals.changed(), if was_subscribed => {}
                    }
                    continue;
                }
                Attempt::Failed(text) => {
                    Code::UnableToSubscribeToPostgres.log(changes.external_id(), &text);
                    self.tell(plane, Status::Error, &text);
                    Some(Duration::from_millis(RETRY_MS.0 + database::random() % (RETRY_MS.1 - RETRY_MS.0)))
                }
            };
            tokio::select! {
                Ok(()) = token.changed() => {}
                Ok(()) = renewals.changed() => {}
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => {}
            }
        }
    }

    async fn subscribe(self: &Rc<Self>, plane: &Rc<Plane>, changes: &Rc<Changes>) -> Attempt {
        let mut subscriptions = Vec::with_capacity(self.entries.len());
        for (_, entry) in &self.entries {
            match postgres_changes::parse(entry) {
                Ok(subscription) => subscriptions.push(subscription),
                Err(error) => return Attempt::Refused(error.to_string()),
            }
        }
        let Some(claims) = jwt::claims_text(&self.token.borrow()) else {
            return Attempt::Refused("the claims of a verified token cannot be read".to_owned());
        };
        let live = match database::connected(plane, changes.external_id()).await {
            Ok(live) => live,
            Err(refusal) => return Attempt::Failed(refusal.join_reason()),
        };
        let relations = match self.store(plane, &live, &subscriptions, &claims).await {
            Ok(relations) => relations,
            Err(attempt) => return attempt,
        };
        if tokio::time::timeout(STREAM_MAX, changes.streaming()).await.is_err() {
            return Attempt::Failed("the stream of row changes is not available".to_owned());
        }
        match changes.bind(&live, plane, self, &subscriptions, &relations, &claims).await {
            Ok(()) => Attempt::Subscribed,
            Err(failure) => {
                tracing::debug!("subscriptions could not be bound: {failure}");
                Attempt::Failed(told(&failure).to_owned())
            }
        }
    }

    /// Validates the entries in the database, which also keeps their rows for whoever looks there.
    async fn store(
        &self,
        plane: &Plane,
        live: &Live,
        subscriptions: &[Subscription],
        claims: &str,
    ) -> Result<Vec<Vec<u32>>, Attempt> {
        let old = std::mem::take(&mut *self.rows.borrow_mut());
        let ids: Vec<Uuid> =
            if old.len() == subscriptions.len() { old } else { subscriptions.iter().map(|_| Uuid::now_v1(&node_id())).collect() };
        let entries: Vec<Entry<'_>> = subscriptions
            .iter()
            .zip(&ids)
            .map(|(subscription, id)| Entry {
                subscription_id: *id,
                event: subscription.event.as_str(),
                schema: &subscription.schema,
                table: &subscription.table,
                filters: subscription
                    .filters
                    .iter()
                    .map(|filter| Filter {
                        column: &filter.column,
                        op: filter.op.as_str(),
                        value: &filter.value,
                        negate: filter.negate,
                    })
                    .collect(),
                select: subscription.select.as_ref().map(|columns| columns.iter().map(String::as_str).collect()),
            })
            .collect();
        let rows = plane.config.tenant_database.subscription_rows;
        let stored = subscribing::subscribe(&live.pool, &live.settings.publication, &entries, claims, rows).await;
        match stored {
            Ok(relations) => {
                *self.rows.borrow_mut() = ids;
                Ok(relations)
            }
            Err(SubscribeFailure::NothingPublished { entry }) => {
                Err(Attempt::Refused(message_not_published(&subscriptions[entry])))
            }
            Err(SubscribeFailure::Rejected { entry, severity, sqlstate, message }) => {
                Err(Attempt::Refused(message_rejected(&subscriptions[entry], severity, &sqlstate, &message)))
            }
            Err(SubscribeFailure::Database(failure)) => {
                tracing::debug!("subscriptions could not be stored: {failure}");
                *self.rows.borrow_mut() = ids;
                Err(Attempt::Failed(told(&failure).to_owned()))
            }
        }
    }

    /// A `system` message for the channel.
    pub fn tell(&self, plane: &Plane, status: Status, message: &str) {
        let SubscriberKey { shard, channel, serial } = self.key;
        plane.post.send(shard, ToShard::Notice { channel, serial, status, message: message.into() });
    }
}

/// What a client is told of a failure of the database (11.4 f).
fn told(failure: &DatabaseFailure) -> &'static str {
    match failure {
        DatabaseFailure::PoolExhausted | DatabaseFailure::QueryCanceled(_) => "{:error, \"Too many database timeouts\"}",
        _ => "Realtime was unable to connect to the project database",
    }
}

/// Six random bytes: version 1 ids need some.
fn node_id() -> [u8; 6] {
    let bytes = database::random().to_le_bytes();
    [bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}
