//! The WebSocket upgrade: checks in the order of protocol 1.6, placement, and the hand-over to `connection`.
//!
//! Refusals from the tenant on are delayed by `CONNECT_ERROR_BACKOFF_MS`; only the refused connection waits.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::http::{Incoming, Request, hand_off};
use super::placement::place;
use super::{Shard, connection, now};
use crate::mailbox::Reply;
use crate::mailbox::ToControl;
use crate::protocol::http1::{Response, query_param, switching_protocols};
use crate::protocol::phoenix::Vsn;
use crate::realtime::{OpenSocket, token_code};
use crate::telemetry::Code;

/// What became of the request.
pub(super) enum Handled {
    /// Send this and go on.
    Answer(Box<(Request, Incoming, Response)>),
    /// The connection is a WebSocket now, or another shard's.
    Gone,
}

/// A refusal with its log code; `delayed` as in 1.6.
struct Refused {
    response: Response,
    code: Option<Code>,
    delayed: bool,
}

fn refused(status: u16, code: Code, text: &str) -> Refused {
    let body = serde_json::json!({ "error": text }).to_string();
    Refused { response: Response::json(status, &body), code: Some(code), delayed: true }
}

fn at_once(response: Response) -> Refused {
    Refused { response, code: None, delayed: false }
}

/// `/socket/websocket`, and the path behind the usual API gateway.
pub(super) fn is_socket_path(segments: &[String]) -> bool {
    let path: Vec<&str> = segments.iter().map(String::as_str).collect();
    matches!(path.as_slice(), ["socket", "websocket"] | ["realtime", "v1", "websocket"])
}

/// Serves a request for the socket path. `head` is what was read of it, for another shard to read again.
pub(super) async fn handle(shard: &Rc<Shard>, request: Request, incoming: Incoming, head: Vec<u8>) -> Handled {
    match admit(shard, &request, incoming.placed).await {
        Ok(Admitted::Here(accept, socket)) => {
            let mut answer = Vec::with_capacity(160);
            switching_protocols(&accept, &mut answer);
            shard.state.borrow().io.counters.upgrades_ok.increment();
            connection::open(shard, incoming, answer, socket);
            Handled::Gone
        }
        Ok(Admitted::Elsewhere(target)) => {
            hand_off(shard, incoming, head, target);
            Handled::Gone
        }
        Err(refused) => {
            shard.state.borrow().io.counters.upgrades_refused.increment();
            if let Some(code) = refused.code {
                code.log(
                    request.external_id.as_deref().unwrap_or(""),
                    format_args!("connection refused with {}", refused.response.status),
                );
            }
            if refused.delayed {
                let delay_ms = shard.settings.config.connect_error_backoff_ms;
                monoio::time::sleep(Duration::from_millis(delay_ms)).await;
            }
            Handled::Answer(Box::new((request, incoming, refused.response)))
        }
    }
}

enum Admitted {
    Here([u8; 28], OpenSocket),
    Elsewhere(u16),
}

async fn admit(shard: &Rc<Shard>, request: &Request, placed: bool) -> Result<Admitted, Refused> {
    if request.method != "GET" {
        return Err(at_once(Response::empty(400)));
    }
    let vsn = Vsn::parse(query_param(&request.query, "vsn").as_deref()).ok_or_else(|| at_once(Response::empty(403)))?;
    let external_id = request.external_id.as_deref().unwrap_or("");
    let tenant = shard
        .find_tenant(external_id)
        .await
        .map_err(|LookupFailed| refused(500, Code::ErrorConnectingToWebsocket, "Error connecting to Realtime"))?;
    let Some(tenant) = tenant else { return Err(refused(404, Code::TenantNotFound, "Tenant not found")) };

    let mut state = shard.state.borrow_mut();
    let Some((_, config, shared)) = state.hub.tenant(external_id) else {
        return Err(refused(404, Code::TenantNotFound, "Tenant not found"));
    };
    let (config, shared) = (config.clone(), shared.clone());
    if config.suspended {
        return Err(refused(403, Code::RealtimeDisabledForTenant, "Realtime was disabled for this tenant"));
    }
    if request.upgrade.is_ok() && !placed && shard.settings.shards > 1 {
        let connections: Vec<u64> = shared.connections_by_shard().collect();
        let settings = &shard.settings;
        let target = place(
            external_id,
            &connections,
            usize::from(settings.shard),
            settings.config.spread,
            settings.config.spread_connections,
        );
        if target != usize::from(settings.shard) {
            return Ok(Admitted::Elsewhere(u16::try_from(target).expect("there are at most SHARDS_MAX shards")));
        }
    }
    let token = request.x_api_key.clone().or_else(|| query_param(&request.query, "apikey"));
    let token = token.ok_or_else(|| refused(401, Code::MissingAPIKey, "API key is missing"))?;
    state.hub.verify(&config, &token, now()).map_err(|error| {
        refused(error.upgrade_status(), token_code(&error, Code::ErrorConnectingToWebsocket), &error.upgrade_text())
    })?;
    if shared.users() >= config.limits.concurrent_users_max {
        return Err(refused(429, Code::ConnectionRateLimitReached, "Too many connected users"));
    }
    if shared.joins_triggered.load(Ordering::Relaxed) {
        return Err(refused(429, Code::JoinsRateLimitReached, "Too many joins per second"));
    }
    match &request.upgrade {
        Ok(accept) => Ok(Admitted::Here(
            *accept,
            OpenSocket {
                tenant,
                vsn,
                token: token.into(),
                headers: request.policy_headers.as_deref().filter(|_| config.has_database).map(Arc::from),
            },
        )),
        // Plain text without a type, as the original sends it.
        Err(text) => Err(at_once(Response { status: 400, headers: Vec::new(), body: text.clone().into() })),
    }
}

/// The control plane did not answer.
pub(super) struct LookupFailed;

impl Shard {
    /// Index of a tenant, asked for when this shard does not know it yet.
    pub(super) async fn find_tenant(&self, external_id: &str) -> Result<Option<u32>, LookupFailed> {
        if let Some((tenant, ..)) = self.state.borrow().hub.tenant(external_id) {
            return Ok(Some(tenant));
        }
        if external_id.is_empty() {
            return Ok(None);
        }
        let request = self.waiters.register();
        let lookup = ToControl::Lookup { shard: self.settings.shard, request, external_id: external_id.to_owned() };
        self.control.borrow_mut().send(lookup);
        match self.waiters.wait(request).await {
            Some(Reply::Tenant { found: true }) => Ok(self.state.borrow().hub.tenant(external_id).map(|(tenant, ..)| tenant)),
            Some(Reply::Tenant { found: false }) => Ok(None),
            Some(Reply::Http { .. } | Reply::Database(_)) | None => Err(LookupFailed),
            Some(Reply::Failed(text)) => {
                tracing::error!("looking up tenant {external_id} failed: {text}");
                Err(LookupFailed)
            }
        }
    }
}
