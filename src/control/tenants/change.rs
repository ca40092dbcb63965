//! What a change of a tenant means for the running server (operations.md 3.5, http-api.md 5.7).
//!
//! Secrets are compared as plaintext: randomised encryption alone is no change, so repeating a request disturbs nobody.
//! A secret that cannot be decrypted counts as changed.

use serde_json::Value;

use super::cipher::Cipher;
use super::model::{Extension, Tenant};

/// What has to happen after the new record has replaced the cached one everywhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeEffects {
    /// Disconnect all sockets of the tenant (protocol.md 15.2).
    pub disconnect: bool,
    /// Restart the events and database-events counters.
    pub reset_events: bool,
    /// Restart the joins counter.
    pub reset_joins: bool,
    /// Restart the presence counter.
    pub reset_presence: bool,
    /// Stop the database connection and change worker, which come back on demand, and restart the counters of
    /// database errors.
    pub restart_database: bool,
}

impl ChangeEffects {
    /// Compares two records of one tenant.
    pub fn between(old: &Tenant, new: &Tenant, cipher: &Cipher) -> Self {
        let keys = old.jwt_jwks != new.jwt_jwks || secret_changed(old, new, cipher);
        let suspend = old.suspend != new.suspend;
        Self {
            disconnect: keys || suspend || old.private_only != new.private_only,
            reset_events: old.max_events_per_second != new.max_events_per_second,
            reset_joins: old.max_joins_per_second != new.max_joins_per_second,
            reset_presence: old.max_presence_events_per_second != new.max_presence_events_per_second,
            restart_database: keys || suspend || extensions_changed(old, new, cipher),
        }
    }
}

fn secret_changed(old: &Tenant, new: &Tenant, cipher: &Cipher) -> bool {
    if old.jwt_secret == new.jwt_secret {
        return false;
    }
    match (old.jwt_secret_plain(cipher), new.jwt_secret_plain(cipher)) {
        (Ok(old), Ok(new)) => old != new,
        _ => true,
    }
}

/// By type and not by position: a store need not keep the order.
fn extensions_changed(old: &Tenant, new: &Tenant, cipher: &Cipher) -> bool {
    old.extensions.len() != new.extensions.len()
        || old.extensions.iter().any(|old| {
            new.extensions.iter().find(|new| new.kind == old.kind).is_none_or(|new| extension_changed(old, new, cipher))
        })
}

fn extension_changed(old: &Extension, new: &Extension, cipher: &Cipher) -> bool {
    let same_value = |name: &str, old_value: &Value| {
        new.settings.get(name) == Some(old_value)
            || (old.is_encrypted(name)
                && matches!(
                    (old.text(name, cipher), new.text(name, cipher)),
                    (Ok(Some(old)), Ok(Some(new))) if old == new
                ))
    };
    old.settings.len() != new.settings.len() || !old.settings.iter().all(|(name, value)| same_value(name, value))
}
