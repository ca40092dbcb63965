//! Whether a join may go on: the checks of 5.4 in their order, and what the database has to be asked for the rest of them.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::database::{Ask, Authorize, DatabaseRefusal, Extensions};
use super::held::ReplyTo;
use super::hub::{Hub, Now};
use super::join_request::{JoinRequest, ReplayRequest, legacy_entry};
use super::refusal::Refusal;
use super::room::sub_topic;
use super::token::UsableToken;
use crate::protocol::phoenix::Push;
use crate::telemetry::Code;

/// Channels that no socket may exceed, whatever its tenant allows (6).
const CHANNELS_HARD_MAX: usize = 99_999;

/// A join that passed every check of the shard: what it takes to carry it out now or after the database has answered.
#[derive(Debug)]
pub(super) struct JoinOrder {
    pub topic: Box<str>,
    pub join_ref: Box<str>,
    pub reference: Box<str>,
    pub topic_json: Box<str>,
    pub ack: bool,
    pub self_broadcast: bool,
    pub private: bool,
    pub replication_ready: bool,
    pub presence_enabled: bool,
    pub presence_key: Option<Box<str>>,
    /// Entries of the reply's `postgres_changes`, as received.
    pub entries: Vec<Box<str>>,
    /// The entry stands for the sub-topic (5.6).
    pub legacy: bool,
    pub replay: ReplayRequest,
    pub token: UsableToken,
    /// `phx_close` of the channel that this join replaces.
    pub replaced: Option<Bytes>,
}

impl JoinOrder {
    /// Memory it takes while it waits.
    pub fn bytes(&self) -> usize {
        let entries: usize = self.entries.iter().map(|entry| entry.len()).sum();
        // The socket's own token is shared.
        let token = if Rc::strong_count(&self.token.text) > 1 { 0 } else { self.token.text.len() };
        size_of::<Self>() + self.topic.len() * 2 + token + entries
    }

    pub fn reply_to(&self) -> ReplyTo<'_> {
        ReplyTo { join_ref: &self.join_ref, reference: &self.reference, topic_json: &self.topic_json }
    }
}

impl Hub {
    pub(super) fn log_invalid(&self, slot: u32, request: &JoinRequest<'_>) {
        if !request.invalid.is_empty() {
            let tenant = &self.tenants[self.conns[slot as usize].tenant as usize].shared.external_id;
            Code::InvalidJoinPayload.log(tenant, request.invalid.join(", "));
        }
    }

    /// The checks of 5.4 in their order, and what has to be asked for the rest of them.
    pub(super) fn admit(
        &mut self,
        slot: u32,
        topic: &str,
        request: &JoinRequest<'_>,
        push: &Push<'_>,
        now: Now,
    ) -> Result<(Box<JoinOrder>, Option<Ask>), Refusal> {
        if sub_topic(topic).is_empty() {
            return Err(Refusal::TopicNameRequired);
        }
        if self.draining {
            return Err(Refusal::Restarting);
        }
        let conn = &self.conns[slot as usize];
        let tenant = &self.tenants[conn.tenant as usize];
        let config = tenant.config.clone().ok_or(Refusal::TenantNotFound)?;
        let database_ready = tenant.shared.database_ready.load(Ordering::Acquire);
        if config.private_only && !request.private {
            return Err(Refusal::PrivateOnly);
        }
        if !conn.counted && tenant.shared.users() >= config.limits.concurrent_users_max {
            return Err(Refusal::TooManyUsers);
        }
        if tenant.shared.joins_triggered.load(Ordering::Relaxed) {
            return Err(Refusal::TooManyJoins);
        }
        tenant.shared.cell(self.settings.shard).joins.add(1);
        let channels = conn.channels.len() + conn.held.as_deref().map_or(0, |held| held.asking());
        if channels >= CHANNELS_HARD_MAX {
            return Err(Refusal::HardChannelLimit);
        }
        if i64::try_from(channels).unwrap_or(i64::MAX) >= config.limits.channels_per_client_max {
            return Err(Refusal::TooManyChannels);
        }
        let headers = conn.headers.clone();
        let text = match &request.token {
            Some(text) if **text != *conn.token => Rc::from(&**text),
            _ => conn.token.clone(),
        };
        let token = self.usable_token(&config, text, now)?;
        if config.suspended {
            return Err(Refusal::TenantSuspended);
        }
        let presence_enabled = request.presence_enabled || config.presence_enabled;
        let ask = match (config.has_database, request.private) {
            (false, true) => return Err(Refusal::Database(DatabaseRefusal::Unavailable)),
            (false, false) if !request.postgres_changes.is_empty() => {
                return Err(Refusal::Database(DatabaseRefusal::Unavailable));
            }
            (true, false) if !database_ready => Some(Ask::Connect),
            (_, false) if request.replay.is_present() => return Err(Refusal::ReplayOnPublic),
            (_, false) => None,
            (true, true) => Some(Ask::Authorize(Box::new(Authorize {
                sub_topic: sub_topic(topic).into(),
                token: (&*token.text).into(),
                headers,
                read: Extensions { broadcast: true, presence: presence_enabled },
                write: false,
                replay: match request.replay {
                    ReplayRequest::Wanted(replay) => Some(replay),
                    _ => None,
                },
            }))),
        };
        let entries = match request.legacy {
            true => vec![legacy_entry(sub_topic(topic)).into()],
            false => request.postgres_changes.iter().map(|&entry| entry.into()).collect(),
        };
        let order = JoinOrder {
            topic: topic.into(),
            join_ref: push.join_ref.as_ref().into(),
            reference: push.reference.as_ref().into(),
            topic_json: push.topic_json.as_ref().into(),
            ack: request.ack,
            self_broadcast: request.self_broadcast,
            private: request.private,
            replication_ready: request.replication_ready,
            presence_enabled,
            presence_key: request.presence_key.as_deref().map(Box::from),
            entries,
            legacy: request.legacy,
            replay: request.replay,
            token,
            replaced: None,
        };
        Ok((Box::new(order), ask))
    }
}
