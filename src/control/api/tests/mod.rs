//! Tests of the management API against the recorded behaviour: every route, every status, no secret in any answer.

mod auth;
mod running;
mod saving;

use serde_json::{Value, json};

use super::*;
use crate::control::tenants::EmbeddedStore;
use crate::protocol::jwt::sign_hs256;

const NOW: i64 = 1_750_000_000;
const API_SECRET: &str = "the management secret";
const JWT_SECRET: &str = "tenant-secret-tenant-secret-0000";

#[derive(Default)]
struct FakeRuntime {
    users: u64,
    database: DatabaseState,
    region: Option<String>,
}

impl Runtime for FakeRuntime {
    fn connected_users(&self, _: &str) -> u64 {
        self.users
    }
    fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }
    fn node(&self) -> &str {
        "realtime@127.0.0.1"
    }
    fn database(&self, _: &str) -> DatabaseState {
        self.database
    }
    fn migrations_total(&self) -> i32 {
        81
    }
    fn now_unix_secs(&self) -> i64 {
        NOW
    }
}

struct Server {
    store: TenantStore,
    cipher: Cipher,
    settings: ApiSettings,
    runtime: FakeRuntime,
    _folder: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            store: TenantStore::Embedded(EmbeddedStore::open(folder.path()).unwrap()),
            cipher: Cipher::from_keys(Some("1234567890123456"), None, false).unwrap(),
            settings: ApiSettings { api_jwt_secret: Some(API_SECRET.to_owned()), ..ApiSettings::default() },
            runtime: FakeRuntime::default(),
            _folder: folder,
        }
    }

    /// A server with tenant `t1`, which has a database.
    fn with_tenant() -> Self {
        let server = Server::new();
        let (response, _) = server.send("POST", "/api/tenants", tenant(json!({"external_id": "t1"})));
        assert_eq!(response.status, 201);
        server
    }

    fn handle(&self, request: &ApiRequest) -> (ApiResponse, Vec<ApiEffect>) {
        block_on(handle(request, &self.store, &self.cipher, &self.settings, &self.runtime))
    }

    fn send(&self, method: &str, path: &str, body: impl Into<Option<Value>>) -> (ApiResponse, Vec<ApiEffect>) {
        let token = sign_hs256(&json!({}), API_SECRET);
        let mut request = request(method, path, &[&format!("Bearer {token}")]);
        request.body = body.into().map_or(ApiBody::None, ApiBody::Json);
        let (response, effects) = self.handle(&request);
        check_no_secret(&response);
        (response, effects)
    }

    fn get(&self, path: &str) -> Value {
        let (response, effects) = self.send("GET", path, None);
        assert_eq!((response.status, effects), (200, vec![]));
        response.body.unwrap()["data"].clone()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn request(method: &str, path: &str, authorization: &[&str]) -> ApiRequest {
    ApiRequest {
        method: method.to_owned(),
        segments: path.split('/').map(str::to_owned).collect(),
        authorization: authorization.iter().map(|&value| value.to_owned()).collect(),
        body: ApiBody::None,
    }
}

fn settings() -> Value {
    json!({"region": "us-east-1", "db_host": "localhost", "db_port": "5432", "db_name": "x", "db_user": "y",
        "db_password": "the database password", "ssl_enforced": false})
}

/// A body that creates a tenant with a database.
fn tenant(extra: Value) -> Value {
    let mut fields = json!({"jwt_secret": JWT_SECRET, "jwt_jwks": {"keys": [{"kty": "oct", "k": "a2V5"}]},
        "extensions": [{"type": "postgres", "settings": settings()}]});
    fields.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"tenant": fields})
}

fn check_no_secret(response: &ApiResponse) {
    let text = format!("{response:?}");
    for hidden in [JWT_SECRET, "the database password", "db_password\"", "jwt_jwks\"", "a2V5", API_SECRET] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
}

fn upserted(id: &str, created: bool, effects: ChangeEffects) -> Vec<ApiEffect> {
    vec![ApiEffect::TenantUpserted { external_id: id.to_owned(), created, effects }]
}

fn message_not_found() -> ApiResponse {
    ApiResponse {
        status: 404,
        headers: vec![("content-type", "application/json; charset=utf-8".to_owned())],
        body: Some(json!({"message": "not found"})),
        failure: None,
    }
}

fn empty(status: u16) -> ApiResponse {
    ApiResponse { status, headers: vec![], body: None, failure: None }
}
