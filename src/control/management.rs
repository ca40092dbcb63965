//! HTTP requests that the shards forward: the management API, the metrics and the API document.
//!
//! What a request changed is told to every shard before it is answered. Writers take turns.

use std::rc::Rc;

use bytes::Bytes;

use super::api::{self, ApiBody, ApiEffect, ApiRequest, Area, DatabaseState, Runtime};
use super::database;
use super::plane::Plane;
use super::registry::{Entry, LoadError};
use crate::base::clock;
use crate::mailbox::{HttpBody, HttpCall, Reply, ToShard};
use crate::telemetry::metrics::{MetricsInput, NodeLabels, TenantSample, families};
use crate::telemetry::{Code, prometheus};

/// Answers one request.
pub async fn serve(plane: &Rc<Plane>, call: HttpCall) -> Reply {
    let path: Vec<&str> = call.segments.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["metrics"] => metrics(plane, &call.authorization, None),
        ["metrics", region] => metrics(plane, &call.authorization, Some(region)),
        ["api", "openapi"] => json(200, &api::document(env!("CARGO_PKG_VERSION"))),
        _ => manage(plane, call).await,
    }
}

async fn manage(plane: &Rc<Plane>, call: HttpCall) -> Reply {
    let body = match call.body {
        HttpBody::None => ApiBody::None,
        HttpBody::Json(value) => ApiBody::Json(value),
    };
    let request = ApiRequest { method: call.method, segments: call.segments, authorization: call.authorization, body };
    let turn = plane.writing.lock().await;
    let (response, effects) = api::handle(&request, &plane.store, &plane.cipher, &plane.api, &**plane).await;
    if let Some(failure) = &response.failure {
        Code::HttpServerError.log("", failure);
    }
    for effect in effects {
        if let Err(error) = apply(plane, effect).await {
            Code::HttpServerError.log("", error);
        }
    }
    drop(turn);
    let body = response.body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    Reply::Http { status: response.status, headers: response.headers, body }
}

async fn apply(plane: &Rc<Plane>, effect: ApiEffect) -> Result<(), LoadError> {
    match effect {
        ApiEffect::TenantUpserted { external_id, created, effects } => {
            if let Some(tenant) = plane.store.get(&external_id).await.map_err(LoadError::Store)? {
                plane.changed(tenant, effects)?;
            }
            if created {
                database::migrate_in_background(plane, &external_id);
            }
        }
        ApiEffect::TenantDeleted { external_id } => plane.deleted(&external_id),
        ApiEffect::Reload { external_id } => {
            plane.databases.stop(&external_id);
            if let Some(mut news) = plane.load(&external_id).await? {
                news.disconnect = true;
                plane.post.send_all(|| ToShard::Tenant(news.clone()));
            }
        }
        ApiEffect::Shutdown { external_id } => plane.databases.stop(&external_id),
        ApiEffect::Migrate { external_id } => database::migrate_in_background(plane, &external_id),
    }
    Ok(())
}

fn metrics(plane: &Plane, authorization: &[String], region: Option<&str>) -> Reply {
    let now = i64::try_from(clock::unix_secs()).unwrap_or(i64::MAX);
    if !api::authorized(&plane.api, authorization, Area::Metrics, now) {
        return Reply::Http { status: 403, headers: Vec::new(), body: Bytes::new() };
    }
    let own_region = plane.config.region.as_deref().unwrap_or("");
    let text = if region.is_some_and(|region| region != own_region) { String::new() } else { render(plane, own_region) };
    let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
    Reply::Http { status: 200, headers, body: text.into() }
}

fn render(plane: &Plane, region: &str) -> String {
    let tenant = |entry: &Entry| TenantSample {
        external_id: entry.shared.external_id.to_string(),
        connected: u64::try_from(entry.shared.users()).unwrap_or(0),
        joins: entry.shared.sum(|cell| &cell.joins),
        events: entry.shared.sum(|cell| &cell.events),
        presence_events: entry.shared.sum(|cell| &cell.presence_events),
        http_requests: entry.shared.sum(|cell| &cell.http_requests),
    };
    prometheus::render(&families(&MetricsInput {
        node: NodeLabels { region: region.to_owned(), host: host_name(), id: plane.config.node_name.clone() },
        shards: plane.counters.iter().map(|counters| counters.snapshot()).collect(),
        tenants: plane.registry.borrow().entries().map(tenant).collect(),
        connections_max: plane.config.max_connections,
    }))
}

fn json(status: u16, value: &serde_json::Value) -> Reply {
    let headers = vec![("content-type", "application/json; charset=utf-8".to_owned())];
    Reply::Http { status, headers, body: value.to_string().into() }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

impl Runtime for Plane {
    fn connected_users(&self, external_id: &str) -> u64 {
        self.registry.borrow().get(external_id).map_or(0, |entry| u64::try_from(entry.shared.users()).unwrap_or(0))
    }

    fn region(&self) -> Option<&str> {
        self.config.region.as_deref()
    }

    fn node(&self) -> &str {
        &self.config.node_name
    }

    fn database(&self, external_id: &str) -> DatabaseState {
        self.databases.state(external_id)
    }

    fn migrations_total(&self) -> i32 {
        i32::try_from(database::migrations::VERSIONS.len()).unwrap_or(i32::MAX)
    }

    fn now_unix_secs(&self) -> i64 {
        i64::try_from(clock::unix_secs()).unwrap_or(i64::MAX)
    }
}
