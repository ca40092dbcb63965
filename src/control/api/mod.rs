//! The management API over the tenant store (http-api.md 3.1, 4, 5).
//!
//! Shards parse HTTP and forward an [`ApiRequest`] to the control thread that owns the store; [`handle`] answers with a response
//! and a list of [`ApiEffect`]s for the caller to carry out, in order and before the response is sent. Nothing here knows
//! sockets or databases: what it has to ask about the running server goes through [`Runtime`]. The caller must run one
//! [`handle`] at a time and to its end: an update reads, then writes, and may wait for the store in between, where a second call
//! would read what the first is about to replace. Responses contain no secret, whatever fails.

mod actions;
mod auth;
mod openapi;
mod response;

#[cfg(test)]
mod tests;

use serde_json::Value;

use super::tenants::{ChangeEffects, Cipher, TenantDefaults, TenantStore};
use crate::protocol::jwt::ClaimValidators;

pub use auth::{Area, authorized};
pub use openapi::document;
pub use response::ApiResponse;

/// A request as the transport understood it.
#[derive(Debug, Clone, Default)]
pub struct ApiRequest {
    /// Upper-case method. HEAD is answered like GET; the transport leaves the body out.
    pub method: String,
    /// Decoded path segments, such as `["api", "tenants", "t1"]`. Empty ones are ignored, so slashes may repeat or trail.
    pub segments: Vec<String>,
    /// Values of all `Authorization` headers.
    pub authorization: Vec<String>,
    /// The parsed body.
    pub body: ApiBody,
}

/// A body, when there was one that could be parsed.
#[derive(Debug, Clone, Default)]
pub enum ApiBody {
    /// No body, or one of a type that is not read.
    #[default]
    None,
    /// A JSON body.
    Json(Value),
}

/// Work that a request leaves for the rest of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiEffect {
    /// A tenant was created or changed: replace cached records everywhere, then do what changed.
    TenantUpserted {
        /// Whose record to load again.
        external_id: String,
        /// The tenant is new: run the migrations of its database, if it has one.
        created: bool,
        /// What the change means for what is running.
        effects: ChangeEffects,
    },
    /// A tenant is gone: disconnect its sockets, drop cached records, stop its workers, remove its replication slots. Also
    /// emitted for an unknown tenant, so that a repeated request finishes what an interrupted one left.
    TenantDeleted {
        /// Which tenant.
        external_id: String,
    },
    /// Stop workers and database connection, disconnect sockets.
    Reload {
        /// Which tenant.
        external_id: String,
    },
    /// Stop the database connection only.
    Shutdown {
        /// Which tenant.
        external_id: String,
    },
    /// Run outstanding migrations of an idle tenant in the background.
    Migrate {
        /// Which tenant.
        external_id: String,
    },
}

/// State of a tenant's database connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseState {
    /// The connection is ready.
    pub connected: bool,
    /// The stream of database changes is up.
    pub replication: bool,
}

/// What the API asks about the running server.
pub trait Runtime {
    /// Sockets of the tenant with at least one channel, on all nodes.
    fn connected_users(&self, external_id: &str) -> u64;
    /// `REGION`.
    fn region(&self) -> Option<&str>;
    /// Name of this node.
    fn node(&self) -> &str;
    /// State of a tenant's database connection; all false when there is none.
    fn database(&self, external_id: &str) -> DatabaseState;
    /// How many migrations a tenant database needs to be up to date.
    fn migrations_total(&self) -> i32;
    /// Unix time in seconds.
    fn now_unix_secs(&self) -> i64;
}

/// Settings of the API.
#[derive(Clone, Default)]
pub struct ApiSettings {
    /// `API_JWT_SECRET`; without it and the next one, every management call is refused.
    pub api_jwt_secret: Option<String>,
    /// `API_JWT_SECRET_NEXT`, for rotation.
    pub api_jwt_secret_next: Option<String>,
    /// `API_TOKEN_BLOCKLIST`.
    pub api_token_blocklist: Vec<String>,
    /// `METRICS_JWT_SECRET`.
    pub metrics_jwt_secret: Option<String>,
    /// `METRICS_TOKEN_BLOCKLIST`.
    pub metrics_token_blocklist: Vec<String>,
    /// `JWT_CLAIM_VALIDATORS`.
    pub claim_validators: ClaimValidators,
    /// `TENANT_MAX_*`.
    pub defaults: TenantDefaults,
}

/// The calls of http-api.md 5.
enum Route<'a> {
    List,
    Create,
    Show(&'a str),
    Update(&'a str),
    Delete(&'a str),
    Reload(&'a str),
    Shutdown(&'a str),
    Health(&'a str),
}

impl<'a> Route<'a> {
    fn of(request: &'a ApiRequest) -> Option<Self> {
        let segments: Vec<&str> = request.segments.iter().map(String::as_str).filter(|segment| !segment.is_empty()).collect();
        let ["api", "tenants", rest @ ..] = segments.as_slice() else {
            return None;
        };
        match (request.method.as_str(), rest) {
            ("GET" | "HEAD", []) => Some(Self::List),
            ("POST", []) => Some(Self::Create),
            ("GET" | "HEAD", [id]) => Some(Self::Show(id)),
            ("PUT" | "PATCH", [id]) => Some(Self::Update(id)),
            ("DELETE", [id]) => Some(Self::Delete(id)),
            ("POST", [id, "reload"]) => Some(Self::Reload(id)),
            ("POST", [id, "shutdown"]) => Some(Self::Shutdown(id)),
            ("GET" | "HEAD", [id, "health"]) => Some(Self::Health(id)),
            _ => None,
        }
    }
}

/// Answers one management request. Authentication comes before everything but the choice of the route, also before 404 for
/// an unknown tenant. Waits for the store only, which has its own deadlines; never two at a time, see the module.
pub async fn handle(
    request: &ApiRequest,
    store: &TenantStore,
    cipher: &Cipher,
    settings: &ApiSettings,
    runtime: &dyn Runtime,
) -> (ApiResponse, Vec<ApiEffect>) {
    let Some(route) = Route::of(request) else {
        return (ApiResponse::reason(404), Vec::new());
    };
    let now_unix_secs = runtime.now_unix_secs();
    if !authorized(settings, &request.authorization, Area::Management, now_unix_secs) {
        return (ApiResponse::empty(403), Vec::new());
    }
    let mut call = actions::Call { store, cipher, settings, runtime, now_unix_secs, effects: Vec::new() };
    let response = match route {
        Route::List => call.list().await,
        Route::Create => call.create(&request.body).await,
        Route::Show(id) => call.show(id).await,
        Route::Update(id) => call.update(id, &request.body).await,
        Route::Delete(id) => call.delete(id).await,
        Route::Reload(id) => call.reload(id).await,
        Route::Shutdown(id) => call.shutdown(id).await,
        Route::Health(id) => call.health(id).await,
    };
    // A refusal is an answer like any other; only its effects are dropped, and it has none.
    (response.unwrap_or_else(|refusal| refusal), call.effects)
}
