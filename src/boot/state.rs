//! The state folder: tenant store, encryption key, seed tenant.

use std::path::Path;

use super::tenant_defaults;
use crate::base::clock;
use crate::config::{self, Config};
use crate::control::tenants::seed::{Seed, SeedDatabase};
use crate::control::tenants::{
    ChangeContext, Cipher, EmbeddedStore, IpVersion, PostgresStore, RegistrySettings, TenantStore, load_or_create_key,
};

/// Key file of the state folder, used when no key is configured.
const KEY_FILE: &str = "encryption.key";

/// Opens the store and its cipher, and plants the seed tenant when asked to, or when the store of this process is empty. It
/// gets `database`, or the registry's own one, or none. Runs on the control thread's runtime, which keeps the store's connections.
pub async fn open(config: &Config, reseed: bool, database: Option<&SeedDatabase>) -> Result<(TenantStore, Cipher), String> {
    let folder = &config.state_dir;
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("the state folder {} cannot be created: {error}", folder.display()))?;
    let cipher = cipher(config, folder)?;
    let store = match registry(config) {
        Some(settings) => {
            let opened = PostgresStore::open(&settings).await;
            TenantStore::Postgres(opened.map_err(|error| format!("the tenant registry cannot be used: {error}"))?)
        }
        None => {
            let opened = EmbeddedStore::open(folder);
            let failed = |error| format!("the tenant store in {} cannot be opened: {error}", folder.display());
            TenantStore::Embedded(opened.map_err(failed)?)
        }
    };
    let fail = |error: &dyn std::fmt::Display| format!("the seed tenant cannot be stored: {error}");
    // A registry that others share gets a tenant with a well-known secret only when asked to.
    let is_empty = matches!(store, TenantStore::Embedded(_)) && store.list().await.map_err(|error| fail(&error))?.is_empty();
    if is_empty || reseed || config.seed_self_host {
        let context = ChangeContext {
            cipher: &cipher,
            defaults: &tenant_defaults(config),
            now_unix_secs: i64::try_from(clock::unix_secs()).unwrap_or(i64::MAX),
        };
        let tenant = seed(config, database).tenant(context).map_err(|error| fail(&error))?;
        store.put(&tenant).await.map_err(|error| fail(&error))?;
        if config.api_jwt_secret.is_none() {
            tracing::warn!(
                "tenant {} uses the publicly known development secret; set API_JWT_SECRET before exposing this server",
                tenant.external_id
            );
        }
    }
    Ok((store, cipher))
}

fn cipher(config: &Config, folder: &Path) -> Result<Cipher, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ecb = config.db_enc_key.as_ref().map(|key| text(key.bytes()));
    let gcm = config.db_enc_key_gcm.as_ref().map(|key| text(key.bytes()));
    let cipher = if ecb.is_none() && gcm.is_none() {
        let path = folder.join(KEY_FILE);
        let key =
            load_or_create_key(&path).map_err(|error| format!("the key file {} cannot be used: {error}", path.display()))?;
        Cipher::from_keys(None, Some(&key), true)
    } else {
        Cipher::from_keys(ecb.as_deref(), gcm.as_deref(), config.db_enc_write_gcm)
    };
    cipher.map_err(|error| error.to_string())
}

/// The shared registry, if one is configured.
fn registry(config: &Config) -> Option<RegistrySettings> {
    let db = &config.db;
    Some(RegistrySettings {
        host: db.host.clone()?,
        port: db.port,
        user: db.user.clone(),
        password: db.password.to_string(),
        name: db.name.clone(),
        pool_size: db.pool_size,
        queue_target_ms: db.queue_target_ms,
        after_connect_query: db.after_connect_query.clone(),
        ip_version: match db.ip_version {
            config::IpVersion::Auto => None,
            config::IpVersion::V4 => Some(IpVersion::Ipv4),
            config::IpVersion::V6 => Some(IpVersion::Ipv6),
        },
        tls: db.ssl,
        ca_file: db.ssl_ca_cert.clone(),
        replica_host: db.replica_host.clone(),
    })
}

fn seed(config: &Config, database: Option<&SeedDatabase>) -> Seed {
    let configured = config.db.host.as_ref().map(|host| SeedDatabase {
        host: host.clone(),
        port: config.db.port,
        name: config.db.name.clone(),
        user: config.db.user.clone(),
        password: config.db.password.to_string(),
    });
    Seed {
        external_id: Some(config.self_host_tenant_name.clone()),
        jwt_secret: config.api_jwt_secret.as_deref().map(str::to_owned),
        jwt_jwks: config.api_jwt_jwks.clone(),
        database: database.cloned().or(configured),
    }
}
