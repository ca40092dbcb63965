//! Environment and tuning profile, turned into one validated value.
//!
//! `Config::load` is pure: it gets the environment as a function and the profile as text, so every
//! rule is tested without touching the process. `Config::from_process` is what the program uses. The
//! reference's variables keep their names and meaning (operations 2); ours start with `RINGCAST_`.
//! With nothing set the result is a working development server.
//!
//! Invariants: every field is inside the range of its entry in `knobs`; secrets never appear in
//! `Debug` or in `explain`. Failure: one `ConfigError` naming the variable, or the file and line.

mod accepted;
mod cores;
mod error;
pub mod knobs;
mod load;
mod process;
mod profile;
mod resolve;
#[cfg(test)]
mod tests;
mod values;

use std::{net::IpAddr, path::PathBuf};

pub use self::{
    cores::CorePlan,
    error::ConfigError,
    knobs::{KNOBS, Knob, SHARDS_MAX},
    resolve::{Explained, FlagValue, Source},
    values::{CipherKey, Driver, IpVersion, LogFormat, LogLevel, Secret, Spread},
};

/// The one validated configuration of a process. See `knobs` for what each field means.
#[derive(Debug, Clone)]
pub struct Config {
    // Listener
    /// TCP port; 0 lets the kernel choose.
    pub port: u16,
    /// Address family of the wildcard listener.
    pub ip_version: IpVersion,
    /// Address to listen on instead of the wildcard.
    pub bind: Option<IpAddr>,
    /// Soft maximum of simultaneous connections of the process.
    pub max_connections: u64,
    /// Bytes of the longest accepted header value.
    pub max_header_length: usize,
    /// Bytes that may wait unsent for one socket.
    pub outbox_bytes_max: usize,
    /// Period of the sweep for sockets without channels.
    pub no_channel_timeout_ms: u64,
    /// Delay before a refused upgrade is answered.
    pub connect_error_backoff_ms: u64,
    /// Delay before a refused join is answered.
    pub channel_error_backoff_ms: u64,
    /// Period of the per-socket traffic measurement.
    pub measure_traffic_interval_ms: u64,
    /// Time for a complete HTTP head.
    pub head_timeout_ms: u64,
    /// Time for a complete HTTP body.
    pub body_timeout_ms: u64,
    /// Silence allowed between requests of a keep-alive connection.
    pub idle_timeout_ms: u64,
    /// Time sockets get to finish at shutdown.
    pub drain_timeout_ms: u64,
    /// A PROXY protocol header precedes every connection's first byte.
    pub proxy_protocol: bool,
    /// Addresses and networks (validated, as written) whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<String>,

    // Threads and kernel
    /// Number of shards if it was written down; `core_plan` gives the effective one.
    pub shards: Option<usize>,
    /// CPUs for shards if they were written down, ascending; see `core_plan`.
    pub cores: Option<Vec<usize>>,
    /// How many shards one tenant uses.
    pub spread: Spread,
    /// With `Spread::Auto`, connections per shard before a tenant gets one more.
    pub spread_connections: u64,
    /// Kernel interface.
    pub driver: Driver,
    /// Submission entries of each io_uring.
    pub ring_entries: u32,
    /// Accept queue length.
    pub backlog: u32,
    /// Messages per mailbox ring.
    pub mailbox_entries: usize,
    /// Soft open-files limit to set at start.
    pub rlimit_nofile: Option<u64>,

    // Limits
    /// Limits given to a new tenant.
    pub tenant_defaults: TenantLimitDefaults,
    /// Presence pushes per channel and window.
    pub client_presence_max_calls: u32,
    /// That window.
    pub client_presence_window_ms: u64,
    /// Gathering time of one presence diff.
    pub presence_batch_ms: u64,
    /// Life of a cached tenant record.
    pub tenant_cache_expiration_ms: u64,

    // Secrets and tokens
    /// Verifies management tokens.
    pub api_jwt_secret: Option<Secret>,
    /// Second accepted management secret.
    pub api_jwt_secret_next: Option<Secret>,
    /// Refused management tokens.
    pub api_token_blocklist: Vec<Secret>,
    /// Key set of the seeded tenant, a JSON object.
    pub api_jwt_jwks: Option<serde_json::Value>,
    /// Verifies metrics tokens.
    pub metrics_jwt_secret: Option<Secret>,
    /// Refused metrics tokens.
    pub metrics_token_blocklist: Vec<Secret>,
    /// Required claim values.
    pub jwt_claim_validators: serde_json::Map<String, serde_json::Value>,
    /// Legacy cipher key.
    pub db_enc_key: Option<CipherKey<16>>,
    /// Current cipher key.
    pub db_enc_key_gcm: Option<CipherKey<32>>,
    /// Write with the current cipher; true only if its key is there.
    pub db_enc_write_gcm: bool,
    /// Signs session cookies.
    pub secret_key_base: Option<Secret>,

    // Identity and seed
    /// Replace the seed tenant at start.
    pub seed_self_host: bool,
    /// External id of the seed tenant.
    pub self_host_tenant_name: String,
    /// Tenant of requests to localhost or a loopback address (`RINGCAST_LOOPBACK_TENANT`).
    pub loopback_tenant: Option<String>,
    /// Server name.
    pub app_name: String,
    /// Node name.
    pub node_name: String,
    /// Region of this node.
    pub region: Option<String>,
    /// Cluster name.
    pub cluster: Option<String>,
    /// Folder of durable state.
    pub state_dir: PathBuf,

    // Logs
    /// Lowest logged level.
    pub log_level: LogLevel,
    /// Line format.
    pub log_format: LogFormat,
    /// Leave health checks out of the request log.
    pub disable_healthcheck_logging: bool,
    /// Baggage entry used as request id.
    pub request_id_baggage_key: String,

    /// How the databases of tenants are used.
    pub tenant_database: TenantDatabaseSettings,

    /// The tenant registry's own database.
    pub db: RegistryDatabase,

    /// Things the operator should know, one sentence each; logged as warnings at start.
    pub warnings: Vec<String>,
    /// Accepted variables that mean nothing here; listed in the debug log at start.
    pub inert: Vec<&'static str>,

    settings: resolve::Settings,
}

/// Limits a tenant gets when its creator names none (operations 2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantLimitDefaults {
    /// Users with at least one joined channel.
    pub max_concurrent_users: u64,
    /// Events per second, averaged over a minute.
    pub max_events_per_second: u64,
    /// Joins per second, averaged over a minute.
    pub max_joins_per_second: u64,
    /// Joined channels per socket.
    pub max_channels_per_client: u64,
    /// Stored, never enforced.
    pub max_bytes_per_second: u64,
}

/// Use of tenant databases (operations 2.6, 2.7, 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantDatabaseSettings {
    /// Lower-case letters, digits and underscores.
    pub slot_name_suffix: Option<String>,
    /// Store subscriptions to row changes in the tenant's database.
    pub subscription_rows: bool,
    /// WAL bytes a slot may hold back; 0: no bound of ours.
    pub slot_lag_bytes_max: u64,
    /// Period of the look at its users.
    pub check_ms: u64,
    /// Period of the check of the replication stream.
    pub stream_check_ms: u64,
    /// Drop old partitions.
    pub drop_partitions: bool,
    /// Period of partition housekeeping.
    pub partitions_ms: u64,
    /// Add up to an hour to that period.
    pub partitions_randomized: bool,
}

/// How to reach the registry database (operations 2.2); `host` unset means the embedded store.
#[derive(Debug, Clone)]
pub struct RegistryDatabase {
    /// Host name or address.
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
    /// User, expected to be a superuser.
    pub user: String,
    /// Password.
    pub password: Secret,
    /// Database name.
    pub name: String,
    /// Connections.
    pub pool_size: usize,
    /// Acceptable wait for a connection.
    pub queue_target_ms: u64,
    /// Window over which that wait is judged.
    pub queue_interval_ms: u64,
    /// SQL run on each new connection.
    pub after_connect_query: Option<String>,
    /// Forced address family; `Auto` detects it.
    pub ip_version: IpVersion,
    /// Use TLS.
    pub ssl: bool,
    /// CA file to verify the server with.
    pub ssl_ca_cert: Option<PathBuf>,
    /// Host of a read replica.
    pub replica_host: Option<String>,
    /// Connections to the replica.
    pub replica_pool_size: usize,
    /// Region that writes to the registry.
    pub master_region: Option<String>,
}

impl Config {
    /// Every knob with its effective value (secrets hidden) and where it was written.
    pub fn explain(&self) -> Vec<Explained> {
        self.settings.explain()
    }
}
