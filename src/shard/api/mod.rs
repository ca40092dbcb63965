//! Plain HTTP requests on a shard: what touches only a tenant's rooms is answered here, the rest goes to the control plane.
//!
//! Broadcasts are published on the shard that received the request; rooms elsewhere are reached through the mailboxes.

mod body;
mod broadcast;
mod messages;
mod permission;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::Shard;
use super::http::Request;
use crate::mailbox::{HttpBody, HttpCall, Reply, ToControl};
use crate::protocol::http1::Response;
use crate::realtime::tenant::{TenantConfig, TenantShared};
use body::Body;

/// Answers one request.
pub(super) async fn handle(shard: &Rc<Shard>, request: &Request, raw_body: Bytes) -> Response {
    // Bodies are parsed before anything else, whatever the route (http-api 1).
    let Ok(body) = Body::parse(request, raw_body) else { return by_format(request, 400, "Bad Request") };
    let path: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    let path = path.strip_prefix(["realtime", "v1"].as_slice()).filter(|rest| rest.first() == Some(&"api")).unwrap_or(&path);
    let method = if request.method == "HEAD" { "GET" } else { &request.method };
    match (method, path) {
        ("GET", ["healthcheck"]) => Response::text(200, "ok"),
        ("GET", ["api", "ping"]) => match enter(shard, request).await {
            Ok(tenant) => tenant.with_rate(Response::json(200, "{\"message\":\"Success\"}")),
            Err(response) => response,
        },
        ("POST", ["api", "broadcast"]) => with_cors(request, broadcast::batch(shard, request, &body).await),
        ("POST", ["api", "broadcast", topic, "events", event]) => {
            with_cors(request, broadcast::single(shard, request, topic, event, &body).await)
        }
        ("OPTIONS", ["api", "broadcast"] | ["api", "broadcast", _, "events", _]) => preflight(),
        (_, ["api", "tenants", ..]) | ("GET", ["api", "openapi"] | ["metrics"] | ["metrics", _]) => {
            forward(shard, request, method, path, body).await
        }
        _ => by_format(request, 404, "Not Found"),
    }
}

/// A tenant-facing request past tenant lookup and the request rate (protocol 16.3).
struct TenantRequest {
    config: Arc<TenantConfig>,
    shared: Arc<TenantShared>,
    rolling: i64,
}

impl TenantRequest {
    fn limit(&self) -> i64 {
        self.config.limits.events_per_second_max
    }

    /// Adds the rate headers that every later outcome carries.
    fn with_rate(&self, response: Response) -> Response {
        let (rolling, limit) = (self.rolling, self.limit());
        response
            .with_header("x-rate-rolling", rolling.to_string())
            .with_header("x-rate-limit", limit.to_string())
            .with_header("x-rate-limit-remaining", (limit - rolling).to_string())
    }

    fn refuse(&self, status: u16, message: &str) -> Response {
        self.with_rate(error(status, message))
    }
}

fn error(status: u16, message: &str) -> Response {
    Response::json(status, &serde_json::json!({ "message": message }).to_string())
}

/// Finds the tenant and counts the request against its rate.
async fn enter(shard: &Rc<Shard>, request: &Request) -> Result<TenantRequest, Response> {
    let external_id = request.external_id.as_deref().unwrap_or("");
    let index = shard.find_tenant(external_id).await.map_err(|_| error(503, "Tenant registry unavailable"))?;
    let unknown = || error(401, "Tenant not found in database");
    index.ok_or_else(unknown)?;
    let state = shard.state.borrow();
    let (_, config, shared) = state.hub.tenant(external_id).ok_or_else(unknown)?;
    shared.cell(shard.settings.shard).http_requests.add(1);
    let tenant = TenantRequest { config: config.clone(), shared: shared.clone(), rolling: shared.http_average() as i64 };
    if tenant.rolling >= tenant.limit() {
        return Err(tenant.refuse(429, "Too many requests"));
    }
    Ok(tenant)
}

async fn forward(shard: &Rc<Shard>, request: &Request, method: &str, path: &[&str], body: Body) -> Response {
    let number = shard.waiters.register();
    let body = match body {
        Body::Json(text) => serde_json::from_str(&text).map_or(HttpBody::None, HttpBody::Json),
        Body::Bytes(_) | Body::Unread | Body::Absent => HttpBody::None,
    };
    let call = Box::new(HttpCall {
        method: method.to_owned(),
        segments: path.iter().map(|segment| (*segment).to_owned()).collect(),
        authorization: request.authorization.clone(),
        body,
    });
    shard.control.borrow_mut().send(ToControl::Http { shard: shard.settings.shard, request: number, call });
    match shard.waiters.wait(number).await {
        Some(Reply::Http { status, headers, body }) => {
            let mut response = Response::empty(status);
            response.body = body;
            headers.into_iter().fold(response, |response, (name, value)| response.with_header(name, value))
        }
        Some(Reply::Tenant { .. } | Reply::Database(_) | Reply::Failed(_)) => by_format(request, 500, "Internal Server Error"),
        None => by_format(request, 503, "Service Unavailable"),
    }
}

/// Reason phrase as JSON or as a page, whichever the client asked for (http-api 4).
fn by_format(request: &Request, status: u16, phrase: &str) -> Response {
    let json = request.accept.as_deref().is_some_and(|accept| accept.contains("json") && !accept.contains("text/html"));
    if json { Response::json(status, &format!("\"{phrase}\"")) } else { Response::html(status, phrase) }
}

fn with_cors(request: &Request, response: Response) -> Response {
    if request.has_origin { response.with_header("access-control-allow-origin", "*") } else { response }
}

/// Preflights are answered here, since there may be no gateway in front (http-api 11).
fn preflight() -> Response {
    Response::empty(204)
        .with_header("access-control-allow-origin", "*")
        .with_header("access-control-allow-methods", "POST, OPTIONS")
        .with_header("access-control-allow-headers", "authorization, apikey, content-type, x-client-info")
        .with_header("access-control-max-age", "86400")
}
