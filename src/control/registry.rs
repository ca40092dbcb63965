//! Tenants in use: their settings as the shards know them, their counters, and the ticks of their rates.
//!
//! Owned by the control thread. A tenant enters when a shard first asks for it and leaves when it is deleted. Shards hold
//! the same `Arc`s; a change replaces the settings and is told to all of them before the request that made it is answered.

use std::sync::Arc;

use hashbrown::HashMap;

use super::tenants::{Cipher, CipherError, StoreError, Tenant};
use crate::config::Config;
use crate::mailbox::TenantNews;
use crate::realtime::rates::{Restart, TenantRates, Triggered};
use crate::realtime::tenant::{Limits, TenantConfig, TenantShared};
use crate::telemetry::Code;

/// A tenant in use.
pub struct Entry {
    /// The record the settings were made of.
    pub tenant: Tenant,
    /// Settings.
    pub config: Arc<TenantConfig>,
    /// Counters.
    pub shared: Arc<TenantShared>,
    rates: TenantRates,
}

impl Entry {
    /// What the shards have to know.
    pub fn news(&self, disconnect: bool) -> TenantNews {
        TenantNews {
            external_id: self.config.external_id.clone(),
            config: Some(self.config.clone()),
            shared: self.shared.clone(),
            disconnect,
        }
    }
}

/// Tenants in use.
pub struct Registry {
    shards: usize,
    presence_pushes_default: u32,
    presence_window_ms_default: u64,
    entries: HashMap<String, Entry>,
}

/// Why a tenant could not be loaded. Contains no secret.
#[derive(Debug)]
pub enum LoadError {
    /// The store failed.
    Store(StoreError),
    /// Its secrets cannot be decrypted with the configured keys.
    Cipher(CipherError),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Cipher(error) => error.fmt(f),
        }
    }
}

impl Registry {
    /// No tenants yet, for a process with this many shards.
    pub fn new(config: &Config, shards: usize) -> Self {
        Self {
            shards,
            presence_pushes_default: config.client_presence_max_calls,
            presence_window_ms_default: config.client_presence_window_ms,
            entries: HashMap::new(),
        }
    }

    /// A tenant in use.
    pub fn get(&self, external_id: &str) -> Option<&Entry> {
        self.entries.get(external_id)
    }

    /// Takes a record into use. What is there already stays: it is at least as new as a record that was just read.
    ///
    /// # Errors
    /// When its secrets cannot be decrypted.
    pub fn enter(&mut self, tenant: Tenant, cipher: &Cipher, now_ms: u64) -> Result<&Entry, LoadError> {
        let external_id = tenant.external_id.clone();
        if !self.entries.contains_key(&external_id) {
            let config = Arc::new(self.settings(&tenant, cipher)?);
            let shared = Arc::new(TenantShared::new(config.external_id.clone(), self.shards));
            self.entries.insert(external_id.clone(), Entry { tenant, config, shared, rates: TenantRates::new(now_ms) });
        }
        Ok(&self.entries[&external_id])
    }

    /// Replaces the record of a tenant in use and restarts the counters whose limits changed; `None` when it is not in use.
    ///
    /// # Errors
    /// When its secrets cannot be decrypted.
    pub fn replace(
        &mut self,
        tenant: Tenant,
        cipher: &Cipher,
        restart: Restart,
        now_ms: u64,
    ) -> Result<Option<&Entry>, LoadError> {
        if !self.entries.contains_key(&tenant.external_id) {
            return Ok(None);
        }
        let config = Arc::new(self.settings(&tenant, cipher)?);
        let entry = self.entries.get_mut(&tenant.external_id).expect("it was there above");
        entry.config = config;
        entry.tenant = tenant;
        entry.rates.restart(restart, &entry.shared, now_ms);
        Ok(Some(entry))
    }

    /// Forgets a deleted tenant.
    pub fn remove(&mut self, external_id: &str) -> Option<Entry> {
        self.entries.remove(external_id)
    }

    /// Tenants in use.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Ticks every counter that is due and logs limiters that became triggered.
    pub fn tick(&mut self, now_ms: u64) {
        for (external_id, entry) in &mut self.entries {
            for triggered in entry.rates.tick(&entry.shared, &entry.config.limits, now_ms) {
                match triggered {
                    Triggered::Joins => Code::ClientJoinRateLimitReached.log(external_id, "Too many joins per second"),
                    Triggered::Events => Code::MessagePerSecondRateLimitReached.log(external_id, "Too many messages per second"),
                }
            }
        }
    }

    fn settings(&self, tenant: &Tenant, cipher: &Cipher) -> Result<TenantConfig, LoadError> {
        // Non-positive counts as not set (operations 3.1).
        let positive = |value: Option<i32>| value.filter(|value| *value > 0).and_then(|value| u32::try_from(value).ok());
        Ok(TenantConfig {
            external_id: tenant.external_id.as_str().into(),
            keys: tenant.keys(cipher).map_err(LoadError::Cipher)?,
            suspended: tenant.suspend,
            private_only: tenant.private_only,
            presence_enabled: tenant.presence_enabled,
            has_database: tenant.database().is_some(),
            limits: Limits {
                concurrent_users_max: tenant.max_concurrent_users.into(),
                channels_per_client_max: tenant.max_channels_per_client.into(),
                joins_per_second_max: tenant.max_joins_per_second.into(),
                events_per_second_max: tenant.max_events_per_second.into(),
                presence_events_per_second_max: tenant.max_presence_events_per_second.into(),
                payload_bytes_max: u64::try_from(tenant.max_payload_size_in_kb).unwrap_or(0) * 1000 + 500,
                presence_pushes_per_window_max: positive(tenant.max_client_presence_events_per_window)
                    .unwrap_or(self.presence_pushes_default),
                presence_window_ms: positive(tenant.client_presence_window_ms).map_or(self.presence_window_ms_default, u64::from),
            },
        })
    }
}
