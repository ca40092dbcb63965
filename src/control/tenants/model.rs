//! A tenant and its extensions as stored (operations.md 3.1, 3.2), and the part of them the API shows.
//!
//! Secrets are held as ciphertext from the moment a request has been validated; plaintext exists only in the return value
//! of the methods that take a [`Cipher`]. Key sets are stored in clear text as in the reference, so neither type
//! prints its content.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use super::cipher::{Cipher, CipherError};
use crate::protocol::jwt::Keys;

/// The extension type that drives Postgres Changes and private channels.
pub const POSTGRES_CDC_RLS: &str = "postgres_cdc_rls";

/// Settings of [`POSTGRES_CDC_RLS`] that are stored encrypted.
pub const ENCRYPTED_SETTINGS: [&str; 5] = ["db_host", "db_port", "db_name", "db_user", "db_password"];

/// Limits a new tenant gets when the request does not name them (`TENANT_MAX_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantDefaults {
    /// `TENANT_MAX_CONCURRENT_USERS`, sockets with at least one channel.
    pub max_concurrent_users: i32,
    /// `TENANT_MAX_EVENTS_PER_SECOND`.
    pub max_events_per_second: i32,
    /// `TENANT_MAX_JOINS_PER_SECOND`.
    pub max_joins_per_second: i32,
    /// `TENANT_MAX_CHANNELS_PER_CLIENT`.
    pub max_channels_per_client: i32,
    /// `TENANT_MAX_BYTES_PER_SECOND`; stored, not enforced.
    pub max_bytes_per_second: i32,
}

impl Default for TenantDefaults {
    fn default() -> Self {
        Self {
            max_concurrent_users: 200,
            max_events_per_second: 100,
            max_joins_per_second: 100,
            max_channels_per_client: 100,
            max_bytes_per_second: 100_000,
        }
    }
}

/// One tenant. Limits may be zero or negative: the reference accepts any 32-bit value.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Internal UUID, in text form.
    pub id: String,
    /// Public, unique name.
    pub external_id: String,
    /// Label; the external id unless an update changed it.
    pub name: Option<String>,
    /// HS* secret as ciphertext. At least one of this and `jwt_jwks` is set.
    pub jwt_secret: Option<String>,
    /// Key set, `{"keys":[…]}`.
    pub jwt_jwks: Option<Value>,
    /// Extension type used for Postgres Changes.
    pub postgres_cdc_default: String,
    /// Sockets with at least one channel.
    pub max_concurrent_users: i32,
    /// Also the limit of HTTP requests and of database changes.
    pub max_events_per_second: i32,
    /// Joins per second.
    pub max_joins_per_second: i32,
    /// Channels per socket.
    pub max_channels_per_client: i32,
    /// Stored, not enforced.
    pub max_bytes_per_second: i32,
    /// Presence messages per second.
    pub max_presence_events_per_second: i32,
    /// Payload of a broadcast or of presence, in units of 1000 bytes.
    pub max_payload_size_in_kb: i32,
    /// Presence pushes per client and window; `None` means the server's setting.
    pub max_client_presence_events_per_window: Option<i32>,
    /// Length of that window; `None` means the server's setting.
    pub client_presence_window_ms: Option<i32>,
    /// Presence is on for clients that do not ask for it.
    pub presence_enabled: bool,
    /// Public channels are refused.
    pub private_only: bool,
    /// Connections and broadcasts are refused.
    pub suspend: bool,
    /// `phoenix` or `gen_rpc`; kept for compatibility, without effect.
    pub broadcast_adapter: String,
    /// Tenant-database migrations applied so far.
    pub migrations_ran: i32,
    /// Overrides of feature flags, name to boolean.
    pub feature_flags: Map<String, Value>,
    /// Unix seconds at which all secrets had been re-encrypted.
    pub gcm_migrated_at: Option<i64>,
    /// At most one per type; their order has no meaning.
    pub extensions: Vec<Extension>,
    /// Unix seconds.
    pub inserted_at: i64,
    /// Unix seconds.
    pub updated_at: i64,
}

/// One extension of a tenant.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Extension {
    /// [`POSTGRES_CDC_RLS`], or a type this server does not know.
    #[serde(rename = "type")]
    pub kind: String,
    /// Settings; [`ENCRYPTED_SETTINGS`] of the known type are ciphertext.
    pub settings: Map<String, Value>,
    /// Unix seconds.
    pub inserted_at: i64,
    /// Unix seconds.
    pub updated_at: i64,
}

impl Tenant {
    /// The decrypted HS* secret.
    pub fn jwt_secret_plain(&self, cipher: &Cipher) -> Result<Option<String>, CipherError> {
        self.jwt_secret.as_deref().map(|stored| cipher.decrypt(stored)).transpose()
    }

    /// Verification keys made of the secret and the key set. Make them once per tenant and change.
    pub fn keys(&self, cipher: &Cipher) -> Result<Keys, CipherError> {
        let secret = self.jwt_secret_plain(cipher)?;
        Ok(Keys::new(secret.as_deref(), self.jwt_jwks.as_ref()))
    }

    /// The extension with the tenant's database, if it has one.
    pub fn database(&self) -> Option<&Extension> {
        self.extensions.iter().find(|extension| extension.kind == POSTGRES_CDC_RLS)
    }

    /// The override of a feature flag, if it has one.
    pub fn feature_flag(&self, name: &str) -> Option<bool> {
        self.feature_flags.get(name).and_then(Value::as_bool)
    }

    /// The tenant object of a response (http-api.md 5.3): no secret, no key set, no database password.
    pub fn to_public_json(&self) -> Value {
        json!({
            "id": self.id,
            "external_id": self.external_id,
            "name": self.name,
            "max_concurrent_users": self.max_concurrent_users,
            "max_channels_per_client": self.max_channels_per_client,
            "max_events_per_second": self.max_events_per_second,
            "max_joins_per_second": self.max_joins_per_second,
            "inserted_at": timestamp_text(self.inserted_at),
            "extensions": self.extensions.iter().map(Extension::to_public_json).collect::<Vec<_>>(),
            "private_only": self.private_only,
            "max_client_presence_events_per_window": self.max_client_presence_events_per_window,
            "client_presence_window_ms": self.client_presence_window_ms,
            "presence_enabled": self.presence_enabled,
        })
    }
}

impl Extension {
    /// A setting as text, decrypted when it is one of [`ENCRYPTED_SETTINGS`]; `None` when absent or not a string.
    pub fn text(&self, name: &str, cipher: &Cipher) -> Result<Option<String>, CipherError> {
        let Some(stored) = self.settings.get(name).and_then(Value::as_str) else {
            return Ok(None);
        };
        if self.is_encrypted(name) { cipher.decrypt(stored).map(Some) } else { Ok(Some(stored.to_owned())) }
    }

    /// Whether this setting of this extension is stored as ciphertext.
    pub fn is_encrypted(&self, name: &str) -> bool {
        self.kind == POSTGRES_CDC_RLS && ENCRYPTED_SETTINGS.contains(&name)
    }

    fn to_public_json(&self) -> Value {
        let mut settings = self.settings.clone();
        settings.remove("db_password");
        json!({
            "type": self.kind,
            "settings": settings,
            "inserted_at": timestamp_text(self.inserted_at),
            "updated_at": timestamp_text(self.updated_at),
        })
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenant").field("external_id", &self.external_id).field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// UTC without zone designator, second precision: `2024-05-01T10:20:30`. Seconds outside the calendar give the epoch.
pub(super) fn timestamp_text(unix_secs: i64) -> String {
    let layout = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    OffsetDateTime::from_unix_timestamp(unix_secs).unwrap_or(OffsetDateTime::UNIX_EPOCH).format(layout).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_have_second_precision_and_no_zone() {
        assert_eq!(timestamp_text(1_714_558_830), "2024-05-01T10:20:30");
        assert_eq!(timestamp_text(i64::MAX), "1970-01-01T00:00:00");
    }
}
