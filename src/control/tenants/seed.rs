//! The tenant a server has without anyone creating one (http-api.md 16).
//!
//! `SEED_SELF_HOST` asks for the reference's tenant with a database; without any setting the development tenant has none and
//! offers Broadcast and Presence. Both go through the same validation as an API request. The boot
//! sequence puts the result into the store every time, replacing what is there, so that a changed secret in the
//! environment takes effect.

use serde_json::{Map, Value, json};

use super::changeset::{self, ChangeContext, ChangeError};
use super::model::{POSTGRES_CDC_RLS, Tenant};

/// Default of `SELF_HOST_TENANT_NAME`.
pub const DEFAULT_EXTERNAL_ID: &str = "realtime-dev";

/// The secret every installation has that does not set `API_JWT_SECRET`. It is public: never expose such a server.
pub const WELL_KNOWN_SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";

/// What the environment says about the seeded tenant.
#[derive(Clone, Default)]
pub struct Seed {
    /// `SELF_HOST_TENANT_NAME`.
    pub external_id: Option<String>,
    /// `API_JWT_SECRET`.
    pub jwt_secret: Option<String>,
    /// `API_JWT_JWKS`, parsed.
    pub jwt_jwks: Option<Value>,
    /// The tenant's database, if there is one.
    pub database: Option<SeedDatabase>,
}

/// Settings of the seeded tenant's database (`DB_*`).
#[derive(Clone)]
pub struct SeedDatabase {
    /// `DB_HOST`.
    pub host: String,
    /// `DB_PORT`.
    pub port: u16,
    /// `DB_NAME`.
    pub name: String,
    /// `DB_USER`.
    pub user: String,
    /// `DB_PASSWORD`.
    pub password: String,
}

impl Default for SeedDatabase {
    /// The reference's seed, which differs from its own `DB_HOST` and `DB_PORT` defaults.
    fn default() -> Self {
        Self {
            host: "host.docker.internal".to_owned(),
            port: 5433,
            name: "postgres".to_owned(),
            user: "supabase_admin".to_owned(),
            password: "postgres".to_owned(),
        }
    }
}

impl Seed {
    /// The tenant this seed describes.
    pub fn tenant(&self, context: ChangeContext<'_>) -> Result<Tenant, ChangeError> {
        let mut fields = Map::new();
        let secret = self.jwt_secret.as_deref().unwrap_or(WELL_KNOWN_SECRET);
        fields.insert("jwt_secret".to_owned(), secret.into());
        if let Some(jwks) = &self.jwt_jwks {
            fields.insert("jwt_jwks".to_owned(), jwks.clone());
        }
        let extensions: Vec<Value> = self.database.iter().map(SeedDatabase::extension).collect();
        fields.insert("extensions".to_owned(), extensions.into());
        let external_id = self.external_id.as_deref().unwrap_or(DEFAULT_EXTERNAL_ID);
        changeset::create(external_id, &fields, context)
    }
}

impl SeedDatabase {
    fn extension(&self) -> Value {
        json!({"type": POSTGRES_CDC_RLS, "settings": self.settings()})
    }

    /// Settings of the tenant's extension, in plaintext.
    pub fn settings(&self) -> Map<String, Value> {
        let settings = json!({
            "region": "us-east-1",
            "db_host": self.host,
            "db_port": self.port.to_string(),
            "db_name": self.name,
            "db_user": self.user,
            "db_password": self.password,
            "poll_interval_ms": 100,
            "poll_max_record_bytes": 1_048_576,
            "ssl_enforced": false,
        });
        settings.as_object().cloned().unwrap_or_default()
    }
}
