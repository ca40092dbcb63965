//! Fills `Config` from the resolved settings, one field per knob.
//!
//! This is the whole validation: types and ranges come from `knobs`, the few rules between knobs
//! are here. It stops at the first error.

use serde_json::Value;

use super::{
    Config, RegistryDatabase, TenantDatabaseSettings, TenantLimitDefaults, accepted,
    error::ConfigError,
    knobs::{Id, knob},
    resolve::{FlagValue, Settings},
    values::{self, CipherKey, Driver, IpVersion, LogFormat, LogLevel, Secret, Spread},
};
use crate::base::cpuset;

impl Config {
    /// Builds the configuration from an environment and an optional profile `(path, text)`.
    ///
    /// # Errors
    /// The first value that is malformed, out of range or unknown, with the place it was written.
    pub fn load(env: &dyn Fn(&str) -> Option<String>, profile: Option<(&str, &str)>) -> Result<Self, ConfigError> {
        Self::load_with_flags(env, profile, &[])
    }

    /// As `load`, with values from the command line that win over everything else.
    ///
    /// # Errors
    /// As `load`.
    pub fn load_with_flags(
        env: &dyn Fn(&str) -> Option<String>,
        profile: Option<(&str, &str)>,
        flags: &[FlagValue],
    ) -> Result<Self, ConfigError> {
        let mut settings = Settings::resolve(env, profile, flags)?;
        let app_name = required(&settings, Id::app_name);
        settings.set_default(Id::node_name, &app_name);
        if let Some(region) = settings.text(Id::region) {
            settings.set_default(Id::db_master_region, &region);
        }
        let s = &settings;
        let mut config = Self {
            port: s.narrow(Id::port)?,
            ip_version: ip_version(s, Id::ip_version)?,
            bind: s.parse(Id::bind, values::parse_address)?,
            max_connections: s.int(Id::max_connections)?,
            max_header_length: s.narrow(Id::max_header_length)?,
            outbox_bytes_max: s.narrow(Id::outbox_bytes_max)?,
            no_channel_timeout_ms: s.int(Id::no_channel_timeout_ms)?,
            connect_error_backoff_ms: s.int(Id::connect_error_backoff_ms)?,
            channel_error_backoff_ms: s.int(Id::channel_error_backoff_ms)?,
            measure_traffic_interval_ms: s.int(Id::measure_traffic_interval_ms)?,
            head_timeout_ms: s.int(Id::head_timeout_ms)?,
            body_timeout_ms: s.int(Id::body_timeout_ms)?,
            idle_timeout_ms: s.int(Id::idle_timeout_ms)?,
            drain_timeout_ms: s.int(Id::drain_timeout_ms)?,
            proxy_protocol: s.boolean(Id::proxy_protocol)?,
            trusted_proxies: s.parse(Id::trusted_proxies, values::parse_networks)?.unwrap_or_default(),
            shards: s.optional_int(Id::shards)?.map(|_| s.narrow(Id::shards)).transpose()?,
            cores: s.parse(Id::cores, cpuset::parse)?,
            spread: s.parse(Id::spread, values::parse_spread)?.unwrap_or(Spread::Auto),
            spread_connections: s.int(Id::spread_connections)?,
            driver: driver(s)?,
            ring_entries: s.narrow(Id::ring_entries)?,
            backlog: s.narrow(Id::backlog)?,
            mailbox_entries: s.narrow(Id::mailbox_entries)?,
            rlimit_nofile: s.optional_int(Id::rlimit_nofile)?,
            tenant_defaults: tenant_defaults(s)?,
            client_presence_max_calls: s.narrow(Id::client_presence_max_calls)?,
            client_presence_window_ms: s.int(Id::client_presence_window_ms)?,
            presence_batch_ms: s.int(Id::presence_batch_ms)?,
            tenant_cache_expiration_ms: s.int(Id::tenant_cache_expiration_ms)?,
            api_jwt_secret: secret(s, Id::api_jwt_secret),
            api_jwt_secret_next: secret(s, Id::api_jwt_secret_next),
            api_token_blocklist: secrets(s, Id::api_token_blocklist),
            api_jwt_jwks: s.parse(Id::api_jwt_jwks, values::parse_json_object)?.map(Value::Object),
            metrics_jwt_secret: secret(s, Id::metrics_jwt_secret),
            metrics_token_blocklist: secrets(s, Id::metrics_token_blocklist),
            jwt_claim_validators: s.parse(Id::jwt_claim_validators, values::parse_json_object)?.unwrap_or_default(),
            db_enc_key: s.parse(Id::db_enc_key, CipherKey::parse)?,
            db_enc_key_gcm: s.parse(Id::db_enc_key_gcm, CipherKey::parse)?,
            db_enc_write_gcm: s.boolean(Id::db_enc_write_gcm)?,
            secret_key_base: secret(s, Id::secret_key_base),
            seed_self_host: s.text(Id::seed_self_host).as_deref() == Some("true"),
            self_host_tenant_name: required(s, Id::self_host_tenant_name),
            loopback_tenant: s.text(Id::loopback_tenant),
            app_name,
            node_name: required(s, Id::node_name),
            region: s.text(Id::region),
            cluster: s.text(Id::cluster),
            state_dir: required(s, Id::state_dir).into(),
            log_level: log_level(s)?,
            log_format: match s.choice(Id::log_format)?.as_deref() {
                Some("json") => LogFormat::Json,
                _ => LogFormat::Text,
            },
            disable_healthcheck_logging: s.boolean(Id::disable_healthcheck_logging)?,
            request_id_baggage_key: required(s, Id::request_id_baggage_key),
            tenant_database: tenant_database(s)?,
            db: registry_database(s)?,
            warnings: Vec::new(),
            inert: Vec::new(),
            settings,
        };
        config.check_together(env)?;
        Ok(config)
    }

    /// The configuration of an empty environment.
    pub fn defaults() -> Self {
        Self::load(&|_| None, None).expect("the defaults of the table are valid")
    }

    /// Rules between knobs, and variables that have no field.
    fn check_together(&mut self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        if self.db_enc_write_gcm && self.db_enc_key_gcm.is_none() {
            self.db_enc_write_gcm = false;
            self.warnings.push("DB_ENC_WRITE_GCM is ignored because DB_ENC_KEY_GCM is not set".to_owned());
        }
        if let (Some(address), IpVersion::V4) = (self.bind, self.ip_version)
            && address.is_ipv6()
        {
            return Err(self
                .settings
                .refuse(Id::bind, format!("{address} is an IPv6 address but the listener is limited to ipv4")));
        }
        let accepted = accepted::collect(env)?;
        self.warnings
            .extend(accepted.without_effect.iter().map(|name| format!("{name} is set but has no effect in this server")));
        self.inert = accepted.inert;
        Ok(())
    }
}

/// The text of a knob that has a non-empty default.
fn required(s: &Settings, id: Id) -> String {
    s.text(id).unwrap_or_else(|| knob(id).default.to_owned())
}

fn secret(s: &Settings, id: Id) -> Option<Secret> {
    s.text(id).map(Secret::new)
}

fn secrets(s: &Settings, id: Id) -> Vec<Secret> {
    let text = s.text(id).unwrap_or_default();
    values::parse_list(&text).into_iter().map(Secret::new).collect()
}

fn ip_version(s: &Settings, id: Id) -> Result<IpVersion, ConfigError> {
    Ok(match s.choice(id)?.as_deref() {
        Some("ipv4") => IpVersion::V4,
        Some("ipv6") => IpVersion::V6,
        _ => IpVersion::Auto,
    })
}

fn driver(s: &Settings) -> Result<Driver, ConfigError> {
    Ok(match s.choice(Id::driver)?.as_deref() {
        Some("io_uring") => Driver::IoUring,
        Some("epoll") => Driver::Epoll,
        _ => Driver::Auto,
    })
}

fn log_level(s: &Settings) -> Result<LogLevel, ConfigError> {
    let word = s.choice(Id::log_level)?;
    Ok(LogLevel::ALL.into_iter().find(|level| Some(level.as_str()) == word.as_deref()).unwrap_or(LogLevel::Info))
}

fn tenant_defaults(s: &Settings) -> Result<TenantLimitDefaults, ConfigError> {
    Ok(TenantLimitDefaults {
        max_concurrent_users: s.int(Id::tenant_max_concurrent_users)?,
        max_events_per_second: s.int(Id::tenant_max_events_per_second)?,
        max_joins_per_second: s.int(Id::tenant_max_joins_per_second)?,
        max_channels_per_client: s.int(Id::tenant_max_channels_per_client)?,
        max_bytes_per_second: s.int(Id::tenant_max_bytes_per_second)?,
    })
}

fn tenant_database(s: &Settings) -> Result<TenantDatabaseSettings, ConfigError> {
    Ok(TenantDatabaseSettings {
        slot_name_suffix: s.parse(Id::slot_name_suffix, values::parse_slot_suffix)?,
        subscription_rows: s.boolean(Id::subscription_rows)?,
        slot_lag_bytes_max: s.int(Id::slot_lag_bytes_max)?,
        check_ms: s.int(Id::database_check_ms)?,
        stream_check_ms: s.int(Id::stream_check_ms)?,
        drop_partitions: s.boolean(Id::run_janitor)?,
        partitions_ms: s.int(Id::janitor_schedule_timer_ms)?,
        partitions_randomized: s.boolean(Id::janitor_schedule_randomize)?,
    })
}

fn registry_database(s: &Settings) -> Result<RegistryDatabase, ConfigError> {
    Ok(RegistryDatabase {
        host: s.text(Id::db_host),
        port: s.narrow(Id::db_port)?,
        user: required(s, Id::db_user),
        password: Secret::new(required(s, Id::db_password)),
        name: required(s, Id::db_name),
        pool_size: s.narrow(Id::db_pool_size)?,
        queue_target_ms: s.int(Id::db_queue_target)?,
        queue_interval_ms: s.int(Id::db_queue_interval)?,
        after_connect_query: s.text(Id::db_after_connect_query),
        ip_version: ip_version(s, Id::db_ip_version)?,
        ssl: s.boolean(Id::db_ssl)?,
        ssl_ca_cert: s.text(Id::db_ssl_ca_cert).map(Into::into),
        replica_host: s.text(Id::db_replica_host),
        replica_pool_size: s.narrow(Id::db_replica_pool_size)?,
        master_region: s.text(Id::db_master_region),
    })
}
