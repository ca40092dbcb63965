//! CONTROL PLANE: everything slow or library-shaped, on a tokio thread; the only user of tokio.
//!
//! Owns the tenant store, answers lookups and management requests of the shards, ticks the rate counters and handles
//! signals. Shards wait for none of it: they ask by mail and go on.

pub mod api;
mod registry;
pub mod tenants;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use registry::Registry;

use crate::base::clock;
use crate::config::Config;
use crate::mailbox::{HttpBody, HttpCall, Receiver, Reply, Sender, TenantNews, ToControl, ToShard};
use crate::realtime::rates::Restart;
use crate::telemetry::metrics::{MetricsInput, NodeLabels, TenantSample, families};
use crate::telemetry::{Code, ShardCounters, prometheus};
use api::{ApiBody, ApiEffect, ApiRequest, ApiSettings, Area, DatabaseState, Runtime};
use registry::{Entry, LoadError};

/// How often due counters are looked for; their ticks are whole seconds.
const TICK: Duration = Duration::from_millis(100);

/// Time beyond the drain's own deadline after which the process ends anyway.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// What the control thread starts with.
pub struct ControlPlan {
    /// Configuration.
    pub config: Arc<Config>,
    /// Settings of the management API.
    pub api: ApiSettings,
    /// Tenants.
    pub registry: Registry,
    /// Mailbox.
    pub inbox: Receiver<ToControl>,
    /// Ends to the shards, by number.
    pub shards: Vec<Sender<ToShard>>,
    /// Counters of the shards, by number.
    pub counters: Vec<Arc<ShardCounters>>,
}

struct Control {
    plan: ControlPlan,
    drained: usize,
    drain_deadline: Option<tokio::time::Instant>,
}

/// Runs until a signal has drained every shard. Blocks the calling thread.
///
/// # Errors
/// When the runtime or the signal handlers cannot be set up.
pub fn run(plan: ControlPlan) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Control { plan, drained: 0, drain_deadline: None }.serve())
}

impl Control {
    async fn serve(mut self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let watch = self.plan.inbox.watch();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.drained < self.plan.shards.len() {
            tokio::select! {
                () = watch.pending() => self.drain_mail(),
                _ = ticks.tick() => {
                    self.plan.registry.tick(clock::now().0);
                    for shard in &mut self.plan.shards {
                        shard.flush();
                    }
                    if self.drain_deadline.is_some_and(|deadline| tokio::time::Instant::now() >= deadline) {
                        tracing::warn!("the drain deadline is over; connections that are left are cut off");
                        return Ok(());
                    }
                }
                _ = terminate.recv() => if self.start_draining("SIGTERM") { return Ok(()) },
                _ = interrupt.recv() => if self.start_draining("SIGINT") { return Ok(()) },
            }
        }
        tracing::info!("all shards are drained");
        Ok(())
    }

    /// True when this is the second signal: end now.
    fn start_draining(&mut self, signal: &str) -> bool {
        if self.drain_deadline.is_some() {
            tracing::warn!("{signal} again: ending at once");
            return true;
        }
        tracing::error!("{signal}: draining, at most {} ms", self.plan.config.drain_timeout_ms);
        let grace = Duration::from_millis(self.plan.config.drain_timeout_ms) + DRAIN_SLACK;
        self.drain_deadline = Some(tokio::time::Instant::now() + grace);
        self.plan.shards.iter_mut().for_each(|shard| {
            shard.send(ToShard::Drain);
        });
        false
    }

    fn drain_mail(&mut self) {
        let mut mail = Vec::new();
        self.plan.inbox.drain(|message| mail.push(message));
        for message in mail {
            match message {
                ToControl::Lookup { shard, request, external_id } => self.look_up(shard, request, &external_id),
                ToControl::Http { shard, request, call } => {
                    let reply = self.serve_http(*call);
                    self.reply(shard, request, reply);
                }
                ToControl::Drained => self.drained += 1,
            }
        }
    }

    fn reply(&mut self, shard: u16, request: u64, reply: Reply) {
        self.plan.shards[usize::from(shard)].send(ToShard::Reply { request, reply });
    }

    fn look_up(&mut self, shard: u16, request: u64, external_id: &str) {
        let reply = match self.plan.registry.load(external_id, clock::now().0) {
            Ok(Some(entry)) => {
                let news = news(entry, false);
                self.plan.shards[usize::from(shard)].send(ToShard::Tenant(news));
                Reply::Tenant { found: true }
            }
            Ok(None) => Reply::Tenant { found: false },
            Err(error) => Reply::Failed(error.to_string()),
        };
        self.reply(shard, request, reply);
    }

    fn serve_http(&mut self, call: HttpCall) -> Reply {
        let path: Vec<&str> = call.segments.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["metrics"] => self.metrics(&call.authorization, None),
            ["metrics", region] => self.metrics(&call.authorization, Some(region)),
            ["api", "openapi"] => json(200, &api::document(env!("CARGO_PKG_VERSION"))),
            _ => self.manage(call),
        }
    }

    fn manage(&mut self, call: HttpCall) -> Reply {
        let body = match call.body {
            HttpBody::None => ApiBody::None,
            HttpBody::Json(value) => ApiBody::Json(value),
        };
        let request = ApiRequest { method: call.method, segments: call.segments, authorization: call.authorization, body };
        let plan = &self.plan;
        let node = Node { config: &plan.config, registry: &plan.registry };
        let (response, effects) = api::handle(&request, &plan.registry.store, &plan.registry.cipher, &plan.api, &node);
        if let Some(failure) = &response.failure {
            Code::HttpServerError.log("", failure);
        }
        for effect in effects {
            if let Err(error) = self.apply(effect) {
                Code::HttpServerError.log("", error);
            }
        }
        let body = response.body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        Reply::Http { status: response.status, headers: response.headers, body }
    }

    /// Tells every shard what a management request changed, before the request is answered.
    fn apply(&mut self, effect: ApiEffect) -> Result<(), LoadError> {
        let now_ms = clock::now().0;
        let registry = &mut self.plan.registry;
        let news = match effect {
            ApiEffect::TenantUpserted { external_id, effects, .. } => {
                let restart =
                    Restart { events: effects.reset_events, joins: effects.reset_joins, presence: effects.reset_presence };
                registry.reload(&external_id, restart, now_ms)?.map(|entry| news(entry, effects.disconnect))
            }
            ApiEffect::TenantDeleted { external_id } => {
                registry.remove(&external_id).map(|entry| TenantNews { config: None, ..news(&entry, true) })
            }
            ApiEffect::Reload { external_id } => registry.load(&external_id, now_ms)?.map(|entry| news(entry, true)),
            // Nothing to stop or migrate as long as tenants have no database side.
            ApiEffect::Shutdown { .. } | ApiEffect::Migrate { .. } => None,
        };
        if let Some(news) = news {
            for shard in &mut self.plan.shards {
                shard.send(ToShard::Tenant(news.clone()));
            }
        }
        Ok(())
    }

    fn metrics(&self, authorization: &[String], region: Option<&str>) -> Reply {
        let now = i64::try_from(clock::unix_secs()).unwrap_or(i64::MAX);
        if !api::authorized(&self.plan.api, authorization, Area::Metrics, now) {
            return Reply::Http { status: 403, headers: Vec::new(), body: Bytes::new() };
        }
        let config = &self.plan.config;
        let own_region = config.region.as_deref().unwrap_or("");
        let text =
            if region.is_some_and(|region| region != own_region) { String::new() } else { self.render_metrics(own_region) };
        let headers = vec![("content-type", "text/plain; charset=utf-8".to_owned())];
        Reply::Http { status: 200, headers, body: text.into() }
    }

    fn render_metrics(&self, region: &str) -> String {
        let tenant = |entry: &Entry| TenantSample {
            external_id: entry.shared.external_id.to_string(),
            connected: u64::try_from(entry.shared.users()).unwrap_or(0),
            joins: entry.shared.sum(|cell| &cell.joins),
            events: entry.shared.sum(|cell| &cell.events),
            presence_events: entry.shared.sum(|cell| &cell.presence_events),
            http_requests: entry.shared.sum(|cell| &cell.http_requests),
        };
        let config = &self.plan.config;
        prometheus::render(&families(&MetricsInput {
            node: NodeLabels { region: region.to_owned(), host: host_name(), id: config.node_name.clone() },
            shards: self.plan.counters.iter().map(|counters| counters.snapshot()).collect(),
            tenants: self.plan.registry.entries().map(tenant).collect(),
            connections_max: config.max_connections,
        }))
    }
}

fn news(entry: &Entry, disconnect: bool) -> TenantNews {
    TenantNews {
        external_id: entry.config.external_id.clone(),
        config: Some(entry.config.clone()),
        shared: entry.shared.clone(),
        disconnect,
    }
}

fn json(status: u16, value: &serde_json::Value) -> Reply {
    let headers = vec![("content-type", "application/json; charset=utf-8".to_owned())];
    Reply::Http { status, headers, body: value.to_string().into() }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// What the management API asks about this node.
struct Node<'a> {
    config: &'a Config,
    registry: &'a Registry,
}

impl Runtime for Node<'_> {
    fn connected_users(&self, external_id: &str) -> u64 {
        self.registry.shared(external_id).map_or(0, |shared| u64::try_from(shared.users()).unwrap_or(0))
    }

    fn region(&self) -> Option<&str> {
        self.config.region.as_deref()
    }

    fn node(&self) -> &str {
        &self.config.node_name
    }

    fn database(&self, _external_id: &str) -> DatabaseState {
        DatabaseState::default()
    }

    fn migrations_total(&self) -> i32 {
        0
    }

    fn now_unix_secs(&self) -> i64 {
        i64::try_from(clock::unix_secs()).unwrap_or(i64::MAX)
    }
}
