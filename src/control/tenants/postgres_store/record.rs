//! Maps tenants to JSON rows and back (http-api.md 13.1, 13.2).
//!
//! A missing column and a null both read as the column's default. A value of another type than documented makes the record
//! damaged; the error names its column only.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::control::tenants::StoreError;
use crate::control::tenants::model::{Extension, POSTGRES_CDC_RLS, Tenant, timestamp_text};
use crate::control::tenants::store::corrupt;

use super::rows::Failure;

/// A row and the column of it that made trouble.
struct Fields(Map<String, Value>);

type Field<T> = Result<T, &'static str>;

impl Fields {
    fn of(value: Value) -> Field<Self> {
        if let Value::Object(map) = value { Ok(Self(map)) } else { Err("row") }
    }

    fn option<T>(&mut self, name: &'static str, read: fn(Value) -> Option<T>) -> Field<Option<T>> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or(name),
        }
    }

    fn needed<T>(&mut self, name: &'static str, read: fn(Value) -> Option<T>) -> Field<T> {
        self.option(name, read)?.ok_or(name)
    }

    fn integer(&mut self, name: &'static str, default: i32) -> Field<i32> {
        Ok(self.option(name, integer)?.unwrap_or(default))
    }

    fn flag(&mut self, name: &'static str) -> Field<bool> {
        Ok(self.option(name, |value| value.as_bool())?.unwrap_or(false))
    }
}

fn text(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

fn integer(value: Value) -> Option<i32> {
    value.as_i64()?.try_into().ok()
}

fn seconds(value: Value) -> Option<i64> {
    value.as_i64()
}

fn object(value: Value) -> Option<Map<String, Value>> {
    if let Value::Object(object) = value { Some(object) } else { None }
}

/// A tenant of its row and the array of its extensions' rows.
pub(super) fn tenant(row: Value, extensions: Value) -> Result<Tenant, Failure> {
    let external_id = row.get("external_id").and_then(Value::as_str).unwrap_or_default().to_owned();
    read_tenant(row, extensions)
        .map_err(|column| Failure::Store(corrupt(&external_id, format!("column {column} has an unexpected value"))))
}

fn read_tenant(row: Value, extensions: Value) -> Field<Tenant> {
    let Value::Array(extensions) = extensions else { return Err("extensions") };
    let mut row = Fields::of(row)?;
    Ok(Tenant {
        id: row.needed("id", text)?,
        external_id: row.needed("external_id", text)?,
        name: row.option("name", text)?,
        jwt_secret: row.option("jwt_secret", text)?,
        jwt_jwks: row.option("jwt_jwks", Some)?,
        postgres_cdc_default: row.option("postgres_cdc_default", text)?.unwrap_or_else(|| POSTGRES_CDC_RLS.to_owned()),
        max_concurrent_users: row.integer("max_concurrent_users", 200)?,
        max_events_per_second: row.integer("max_events_per_second", 100)?,
        max_joins_per_second: row.integer("max_joins_per_second", 500)?,
        max_channels_per_client: row.integer("max_channels_per_client", 100)?,
        max_bytes_per_second: row.integer("max_bytes_per_second", 100_000)?,
        max_presence_events_per_second: row.integer("max_presence_events_per_second", 1000)?,
        max_payload_size_in_kb: row.integer("max_payload_size_in_kb", 3000)?,
        max_client_presence_events_per_window: row.option("max_client_presence_events_per_window", integer)?,
        client_presence_window_ms: row.option("client_presence_window_ms", integer)?,
        presence_enabled: row.flag("presence_enabled")?,
        private_only: row.flag("private_only")?,
        suspend: row.flag("suspend")?,
        broadcast_adapter: row.option("broadcast_adapter", text)?.unwrap_or_else(|| "gen_rpc".to_owned()),
        migrations_ran: row.integer("migrations_ran", 0)?,
        feature_flags: row.option("feature_flags", object)?.unwrap_or_default(),
        gcm_migrated_at: row.option("gcm_migrated_at", seconds)?,
        extensions: extensions.into_iter().map(read_extension).collect::<Result<_, _>>()?,
        inserted_at: row.needed("inserted_at", seconds)?,
        updated_at: row.needed("updated_at", seconds)?,
    })
}

fn read_extension(row: Value) -> Field<Extension> {
    let mut row = Fields::of(row)?;
    Ok(Extension {
        kind: row.needed("type", text)?,
        settings: row.option("settings", object)?.unwrap_or_default(),
        inserted_at: row.needed("inserted_at", seconds)?,
        updated_at: row.needed("updated_at", seconds)?,
    })
}

/// The row of a tenant: its stored form has the columns' names but for the extensions, and numbers for times.
pub(super) fn tenant_row(tenant: &Tenant) -> Result<Map<String, Value>, Failure> {
    let unwritable = || -> StoreError { corrupt(&tenant.external_id, "it cannot be written as JSON".to_owned()) };
    let Ok(Value::Object(mut row)) = serde_json::to_value(tenant) else { return Err(Failure::Store(unwritable())) };
    row.remove("extensions");
    row.insert("inserted_at".to_owned(), timestamp_text(tenant.inserted_at).into());
    row.insert("updated_at".to_owned(), timestamp_text(tenant.updated_at).into());
    row.insert("gcm_migrated_at".to_owned(), tenant.gcm_migrated_at.map(timestamp_text).into());
    Ok(row)
}

/// The row of an extension, with a key for the case that it is new.
pub(super) fn extension_row(extension: &Extension, external_id: &str) -> Map<String, Value> {
    let row = json!({
        "id": Uuid::new_v4().to_string(),
        "type": extension.kind,
        "settings": extension.settings,
        "tenant_external_id": external_id,
        "inserted_at": timestamp_text(extension.inserted_at),
        "updated_at": timestamp_text(extension.updated_at),
    });
    object(row).unwrap_or_default()
}
