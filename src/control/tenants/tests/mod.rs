//! Tests of tenants across files: requests to records, records to the store, changes to effects, seeds.

mod effects;
mod requests;
mod seeding;
mod storing;

use serde_json::{Map, Value, json};

use super::changeset::{create, update, validate_new};
use super::*;

const NOW: i64 = 1_750_000_000;
const DEFAULTS: TenantDefaults = TenantDefaults {
    max_concurrent_users: 11,
    max_events_per_second: 12,
    max_joins_per_second: 13,
    max_channels_per_client: 14,
    max_bytes_per_second: 15,
};

fn cipher() -> Cipher {
    Cipher::from_keys(None, Some("12345678901234567890123456789012"), true).unwrap()
}

fn context(cipher: &Cipher) -> ChangeContext<'_> {
    ChangeContext { cipher, defaults: &DEFAULTS, now_unix_secs: NOW }
}

fn fields(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn settings() -> Value {
    json!({"region": "us-east-1", "db_host": "localhost", "db_port": "5432", "db_name": "x",
        "db_user": "y", "db_password": "z"})
}

fn with_setting(name: &str, value: Value) -> Value {
    let mut settings = settings();
    settings[name] = value;
    json!({"type": "postgres_cdc_rls", "settings": settings})
}

fn new_tenant(extra: Value) -> Result<Tenant, ChangeError> {
    let mut all = fields(json!({"jwt_secret": "a secret"}));
    all.extend(fields(extra));
    create("t1", &all, context(&cipher()))
}

fn changed(stored: &Tenant, change: Value) -> Result<Tenant, ChangeError> {
    update(stored, &fields(change), context(&cipher()))
}

fn errors<T: std::fmt::Debug>(outcome: Result<T, ChangeError>) -> Value {
    match outcome {
        Err(ChangeError::Invalid(errors)) => errors.to_json()["errors"].clone(),
        other => panic!("expected validation errors, got {other:?}"),
    }
}

fn errors_as_new(value: Value) -> Value {
    validate_new(&fields(value), &DEFAULTS).unwrap_err().to_json()["errors"].clone()
}
