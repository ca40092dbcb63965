//! The Postgres store against a real server: the reference's databases, change notices, failures.

mod failing;
mod notices;
mod preparing;
mod sharing;

use serde_json::{Value, json};

use super::*;
use crate::control::tenants::{ChangeContext, Cipher, TenantDefaults, changeset};
use crate::local_postgres::testing::server;

const NOW: i64 = 1_750_000_000;

/// Settings for a database of the test server.
pub(in crate::control::tenants) fn settings_of(database: &str) -> RegistrySettings {
    RegistrySettings {
        host: "127.0.0.1".to_owned(),
        port: server().port(),
        user: "postgres".to_owned(),
        password: "hunter2".to_owned(),
        name: database.to_owned(),
        pool_size: 3,
        queue_target_ms: 2_000,
        after_connect_query: None,
        ip_version: None,
        tls: false,
        ca_file: None,
        replica_host: None,
    }
}

/// A connection as psql or the reference would have one, with the registry's schema first in its path.
async fn other_client(database: &str) -> Client {
    let url = format!("{}/{database}", server().url());
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("set search_path to _realtime, public").await.unwrap();
    client
}

async fn text_of(client: &Client, sql: &str) -> String {
    client.query_one(&format!("select ({sql})::text"), &[]).await.unwrap().get(0)
}

/// The reference's cipher of old.
fn cipher() -> Cipher {
    Cipher::from_keys(Some("1234567890123456"), None, false).unwrap()
}

fn database_settings() -> Value {
    json!({"region": "us-east-1", "db_host": "localhost", "db_port": "5432", "db_name": "x", "db_user": "y",
        "db_password": "z"})
}

/// A tenant with a database and an extension of another kind.
fn tenant(external_id: &str) -> Tenant {
    let fields = json!({"jwt_secret": "a secret", "extensions": [
        {"type": "other", "settings": {"a": [1, null, "ü"]}}, {"type": "postgres", "settings": database_settings()}]});
    let context = ChangeContext { cipher: &cipher(), defaults: &TenantDefaults::default(), now_unix_secs: NOW };
    changeset::create(external_id, fields.as_object().unwrap(), context).unwrap()
}

/// Extensions in an order of their own, for comparisons.
fn sorted(mut tenant: Tenant) -> Tenant {
    tenant.extensions.sort_by(|one, other| one.kind.cmp(&other.kind));
    tenant
}

fn assert_same(one: Tenant, other: Tenant) {
    let (one, other) = (sorted(one), sorted(other));
    assert!(one == other, "{}\n{}", serde_json::to_string(&one).unwrap(), serde_json::to_string(&other).unwrap());
}
