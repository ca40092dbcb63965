//! The table of every setting: its variable, its key in a tuning profile, its type and range, its
//! default and one line of explanation.
//!
//! This table is the only place where any of those is written. `resolve` walks it to find the
//! effective values, the field of `Config` is filled through the generated `Id` (so a field and its
//! entry cannot drift apart), and `explain` prints it. A knob marked `Place::Both` may be set in a
//! profile under its own name; secrets, identities and connection data are `Place::Environment`
//! only, because profiles are meant to be committed.

/// Most shards one process starts; keeps the number of mailboxes (its square) sane.
pub const SHARDS_MAX: u64 = 256;

/// Longest duration accepted in milliseconds: 24 hours.
const DAY_MS: u64 = 86_400_000;

/// Largest of the limits that count things per second or per client.
const LIMIT_MAX: u64 = 1_000_000_000;

/// Whether the reference server knows the variable (operations, "Applicability marks").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Same name and meaning as in the reference.
    Keep,
    /// Name of the reference, meaning mapped to this server.
    Adapt,
    /// This server's own.
    Own,
}

/// Where a knob may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Environment variable or tuning profile.
    Both,
    /// Environment variable only.
    Environment,
}

/// Type and range of a knob's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole number within inclusive bounds.
    Int {
        /// Smallest accepted value.
        min: u64,
        /// Largest accepted value.
        max: u64,
    },
    /// Truth value.
    Bool,
    /// On only when the text is exactly `true`; anything else is off (never an error).
    ExactlyTrue,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text.
    Text,
    /// Text that is shown as `<set>` only.
    Secret,
    /// Secret of exactly this many bytes.
    Key(usize),
    /// Comma-separated secrets.
    SecretList,
    /// JSON object.
    JsonObject,
    /// CPU list such as `0,2-3`.
    Cpus,
    /// `auto`, `all` or a number.
    Spread,
    /// IP address.
    Address,
    /// Comma-separated addresses or networks.
    Networks,
}

impl Kind {
    /// Whether the value must be hidden wherever it is shown.
    pub const fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretList | Self::Key(_))
    }

    /// What may be written, for help and error texts.
    pub fn range(self) -> String {
        match self {
            Self::Int { min, max } => format!("{min} to {max}"),
            Self::Bool => "true or false".to_owned(),
            Self::ExactlyTrue => "exactly true, else off".to_owned(),
            Self::Choice(words) => words.join(", "),
            Self::Text | Self::Secret => "text".to_owned(),
            Self::Key(bytes) => format!("text of {bytes} bytes"),
            Self::SecretList => "comma-separated texts".to_owned(),
            Self::JsonObject => "JSON object".to_owned(),
            Self::Cpus => "CPU list such as 0,2-3".to_owned(),
            Self::Spread => format!("auto, all or 1 to {SHARDS_MAX}"),
            Self::Address => "IP address".to_owned(),
            Self::Networks => "comma-separated addresses or networks".to_owned(),
        }
    }
}

/// One entry of the table.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// Name of the field of `Config`, and key in a profile if `place` allows it.
    pub name: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Where it may be set.
    pub place: Place,
    /// Type and range.
    pub kind: Kind,
    /// Default as it would be written; empty means "not set".
    pub default: &'static str,
    /// Relation to the reference server.
    pub mark: Mark,
    /// Explanation, one or two sentences.
    pub doc: &'static str,
}

impl Knob {
    /// The default for display; `<unset>` for none, and hidden where the value is.
    pub const fn shown_default(&self) -> &'static str {
        if self.default.is_empty() {
            "<unset>"
        } else if self.kind.is_secret() {
            "<set>"
        } else {
            self.default
        }
    }
}

const fn int(min: u64, max: u64) -> Kind {
    Kind::Int { min, max }
}

/// Declares the table and `Id`, whose discriminant is the index of the entry.
macro_rules! knobs {
    ($($(#[doc = $doc:literal])+
       $name:ident = $env:literal, $place:ident, $kind:expr, $default:literal, $mark:ident;)+) => {
        /// Names one knob; `id as usize` is its index in `KNOBS`.
        #[allow(non_camel_case_types)] // the names are those of the fields of `Config`
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Id { $($name),+ }

        /// Every knob, in the order in which they are explained.
        pub const KNOBS: &[Knob] = &[$(Knob {
            name: stringify!($name),
            env: $env,
            place: Place::$place,
            kind: $kind,
            default: $default,
            mark: Mark::$mark,
            doc: concat!($($doc),+).trim_ascii(),
        }),+];
    };
}

knobs! {
    // Listener
    /// TCP port of the one listener that serves everything; 0 lets the kernel choose.
    port = "PORT", Both, int(0, 65_535), "4000", Keep;
    /// Address family of the listener; auto is dual-stack IPv6 where the host has it.
    ip_version = "REALTIME_IP_VERSION", Both, Kind::Choice(&["auto", "ipv4", "ipv6"]), "auto", Keep;
    /// Listen on this address only instead of the wildcard of the address family.
    bind = "RINGCAST_BIND", Both, Kind::Address, "", Own;
    /// Soft maximum of simultaneous connections; needs as many open files plus a reserve.
    max_connections = "MAX_CONNECTIONS", Both, int(1, 16_777_216), "16384", Adapt;
    /// Longest HTTP header value in bytes; a longer one is answered 431.
    max_header_length = "MAX_HEADER_LENGTH", Both, int(256, 65_536), "4096", Keep;
    /// Bytes that may wait unsent for one socket before it is dropped as a slow consumer.
    outbox_bytes_max = "WEBSOCKET_MAX_HEAP_SIZE", Both, int(65_536, 4_294_967_296), "50000000", Adapt;
    /// How often sockets without a channel are dropped, in ms.
    no_channel_timeout_ms = "NO_CHANNEL_TIMEOUT_IN_MS", Both, int(1, DAY_MS), "600000", Keep;
    /// Delay before a refused upgrade is answered, in ms.
    connect_error_backoff_ms = "CONNECT_ERROR_BACKOFF_MS", Both, int(0, 600_000), "2000", Keep;
    /// Delay before a refused join is answered, in ms.
    channel_error_backoff_ms = "CHANNEL_ERROR_BACKOFF_MS", Both, int(0, 600_000), "5000", Keep;
    /// How often per-socket byte counts are added to the traffic metrics, in ms.
    measure_traffic_interval_ms = "MEASURE_TRAFFIC_INTERVAL_IN_MS", Both, int(1, DAY_MS), "10000", Keep;
    /// Time a client has to send a complete HTTP head, in ms.
    head_timeout_ms = "RINGCAST_HEAD_TIMEOUT_MS", Both, int(1, 600_000), "10000", Own;
    /// Time a client has to send a complete HTTP body, in ms.
    body_timeout_ms = "RINGCAST_BODY_TIMEOUT_MS", Both, int(1, 600_000), "30000", Own;
    /// How long a keep-alive HTTP connection may be silent between requests, in ms.
    idle_timeout_ms = "RINGCAST_IDLE_TIMEOUT_MS", Both, int(1, DAY_MS), "60000", Own;
    /// How long shutdown waits for sockets to finish after SIGTERM, in ms.
    drain_timeout_ms = "RINGCAST_DRAIN_TIMEOUT_MS", Both, int(0, 3_600_000), "30000", Own;
    /// Expect a PROXY protocol header before the first byte of every connection.
    proxy_protocol = "RINGCAST_PROXY_PROTOCOL", Both, Kind::Bool, "false", Own;
    /// Peers whose X-Forwarded-For is believed; empty trusts nobody.
    trusted_proxies = "RINGCAST_TRUSTED_PROXIES", Both, Kind::Networks, "", Own;

    // Threads and kernel
    /// Number of data-plane threads; default is one per CPU in use.
    shards = "RINGCAST_SHARDS", Both, int(1, SHARDS_MAX), "", Own;
    /// CPUs that shards are pinned to, in turn; default is every CPU the process may use.
    cores = "RINGCAST_CORES", Both, Kind::Cpus, "", Own;
    /// How many shards the connections of one tenant are spread over.
    spread = "RINGCAST_SPREAD", Both, Kind::Spread, "auto", Own;
    /// With spread auto: connections of a tenant per shard before it gets one more shard.
    spread_connections = "RINGCAST_SPREAD_CONNECTIONS", Both, int(1, 16_777_216), "4000", Own;
    /// Kernel interface; auto falls back to epoll where io_uring is not available.
    driver = "RINGCAST_DRIVER", Both, Kind::Choice(&["auto", "io_uring", "epoll"]), "auto", Own;
    /// Submission entries of each shard's io_uring.
    ring_entries = "RINGCAST_RING_ENTRIES", Both, int(64, 32_768), "4096", Own;
    /// Length of the accept queue; the kernel caps it at net.core.somaxconn.
    backlog = "RINGCAST_BACKLOG", Both, int(1, 1_048_576), "4096", Own;
    /// Messages one mailbox between two threads holds before it spills.
    mailbox_entries = "RINGCAST_MAILBOX_ENTRIES", Both, int(64, 1_048_576), "4096", Own;
    /// Soft open-files limit to set at start; unset raises it as far as needed and allowed.
    rlimit_nofile = "RLIMIT_NOFILE", Both, int(64, 1_073_741_816), "", Keep;

    // Limits of tenants and clients
    /// Connected users allowed to a new tenant.
    tenant_max_concurrent_users = "TENANT_MAX_CONCURRENT_USERS", Both, int(0, LIMIT_MAX), "200", Keep;
    /// Events per second allowed to a new tenant.
    tenant_max_events_per_second = "TENANT_MAX_EVENTS_PER_SECOND", Both, int(0, LIMIT_MAX), "100", Keep;
    /// Joins per second allowed to a new tenant.
    tenant_max_joins_per_second = "TENANT_MAX_JOINS_PER_SECOND", Both, int(0, LIMIT_MAX), "100", Keep;
    /// Channels per socket allowed to a new tenant.
    tenant_max_channels_per_client = "TENANT_MAX_CHANNELS_PER_CLIENT", Both, int(0, LIMIT_MAX), "100", Keep;
    /// Stored with a new tenant; not enforced.
    tenant_max_bytes_per_second = "TENANT_MAX_BYTES_PER_SECOND", Both, int(0, 1_000_000_000_000), "100000", Keep;
    /// Presence pushes per channel and window, unless the tenant overrides it.
    client_presence_max_calls = "CLIENT_PRESENCE_MAX_CALLS", Both, int(1, LIMIT_MAX), "5", Keep;
    /// Length of that window in ms.
    client_presence_window_ms = "CLIENT_PRESENCE_WINDOW_MS", Both, int(1, DAY_MS), "30000", Keep;
    /// Presence changes of a topic are gathered this long into one diff, in ms.
    presence_batch_ms = "RINGCAST_PRESENCE_BATCH_MS", Both, int(0, 60_000), "100", Own;
    /// Life of a cached tenant record, in ms.
    tenant_cache_expiration_ms = "TENANT_CACHE_EXPIRATION_IN_MS", Both, int(1, DAY_MS), "30000", Keep;

    // Secrets and tokens
    /// Verifies management tokens; also the JWT secret of the seeded tenant.
    api_jwt_secret = "API_JWT_SECRET", Environment, Kind::Secret, "", Keep;
    /// Second accepted management secret, for rotation.
    api_jwt_secret_next = "API_JWT_SECRET_NEXT", Environment, Kind::Secret, "", Keep;
    /// Management tokens refused by exact text.
    api_token_blocklist = "API_TOKEN_BLOCKLIST", Environment, Kind::SecretList, "", Keep;
    /// Key set of the seeded tenant.
    api_jwt_jwks = "API_JWT_JWKS", Environment, Kind::JsonObject, "", Keep;
    /// Verifies metrics tokens; unset refuses every scrape.
    metrics_jwt_secret = "METRICS_JWT_SECRET", Environment, Kind::Secret, "", Keep;
    /// Metrics tokens refused by exact text.
    metrics_token_blocklist = "METRICS_TOKEN_BLOCKLIST", Environment, Kind::SecretList, "", Keep;
    /// Claim values every management and metrics token must have.
    jwt_claim_validators = "JWT_CLAIM_VALIDATORS", Environment, Kind::JsonObject, "{}", Keep;
    /// Key of the legacy cipher (AES-128) for stored tenant secrets.
    db_enc_key = "DB_ENC_KEY", Environment, Kind::Key(16), "", Keep;
    /// Key of the current cipher (AES-256-GCM) for stored tenant secrets.
    db_enc_key_gcm = "DB_ENC_KEY_GCM", Environment, Kind::Key(32), "", Keep;
    /// Write new secrets with the current cipher.
    db_enc_write_gcm = "DB_ENC_WRITE_GCM", Environment, Kind::Bool, "false", Keep;
    /// Signs browser session cookies of the operator pages.
    secret_key_base = "SECRET_KEY_BASE", Environment, Kind::Secret, "", Adapt;

    // Identity and seed
    /// Replace the seed tenant at start.
    seed_self_host = "SEED_SELF_HOST", Environment, Kind::ExactlyTrue, "", Keep;
    /// External id and name of the seed tenant.
    self_host_tenant_name = "SELF_HOST_TENANT_NAME", Environment, Kind::Text, "realtime-dev", Keep;
    /// Tenant of requests whose host is localhost or a loopback address; unset: the host's first label, as for any host.
    loopback_tenant = "RINGCAST_LOOPBACK_TENANT", Environment, Kind::Text, "", Own;
    /// Server name.
    app_name = "APP_NAME", Environment, Kind::Text, "realtime", Adapt;
    /// Name of this node; default is the server name.
    node_name = "NODE_NAME", Environment, Kind::Text, "", Adapt;
    /// Region of this node: label of metrics and logs.
    region = "REGION", Environment, Kind::Text, "", Keep;
    /// Name of the cluster, attached to every log line.
    cluster = "CLUSTER", Environment, Kind::Text, "", Keep;
    /// Folder of everything durable or generated.
    state_dir = "RINGCAST_STATE_DIR", Environment, Kind::Text, "./.ringcast", Own;
    /// Tuning profile: a name (tuning/NAME.toml) or a path.
    profile = "RINGCAST_PROFILE", Environment, Kind::Text, "", Own;

    // Logs
    /// Lowest level that is logged.
    log_level = "LOG_LEVEL", Both, Kind::Choice(&["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]), "info", Keep;
    /// One text line or one JSON object per event.
    log_format = "RINGCAST_LOG_FORMAT", Both, Kind::Choice(&["text", "json"]), "text", Own;
    /// No request log for /healthcheck and tenant health.
    disable_healthcheck_logging = "DISABLE_HEALTHCHECK_LOGGING", Both, Kind::Bool, "false", Keep;
    /// W3C baggage entry used as request id.
    request_id_baggage_key = "REQUEST_ID_BAGGAGE_KEY", Both, Kind::Text, "request-id", Keep;

    // Tenant databases
    /// Appended with `_` to the names of replication slots: one value per deployment that shares a Postgres cluster.
    slot_name_suffix = "SLOT_NAME_SUFFIX", Environment, Kind::Text, "", Keep;
    /// Bytes of WAL a slot may hold back before it is dropped and made anew; 0 leaves it to max_slot_wal_keep_size.
    slot_lag_bytes_max = "RINGCAST_SLOT_LAG_BYTES_MAX", Both, int(0, 1_099_511_627_776), "1073741824", Own;
    /// Keep a row in realtime.subscription for every subscription to row changes, as the original does; without, subscribing writes nothing.
    subscription_rows = "RINGCAST_SUBSCRIPTION_ROWS", Both, Kind::Bool, "true", Own;
    /// How often the use of a tenant's database is looked at, in ms; after twelve looks without users it is disconnected.
    database_check_ms = "RINGCAST_DATABASE_CHECK_MS", Both, int(10, DAY_MS), "60000", Own;
    /// How often the replication stream of a tenant is checked from the outside, in ms.
    stream_check_ms = "RINGCAST_STREAM_CHECK_MS", Both, int(10, DAY_MS), "300000", Own;
    /// Drop partitions of realtime.messages after 72 hours; new ones are made in any case.
    run_janitor = "RUN_JANITOR", Environment, Kind::Bool, "true", Adapt;
    /// How often partitions are made and dropped, in ms.
    janitor_schedule_timer_ms = "JANITOR_SCHEDULE_TIMER_IN_MS", Environment, int(1, DAY_MS), "14400000", Keep;
    /// Add 1 to 59 random minutes to each such period.
    janitor_schedule_randomize = "JANITOR_SCHEDULE_RANDOMIZE", Environment, Kind::Bool, "true", Keep;

    // Tenant registry database
    /// Host of the registry database; unset uses the embedded store.
    db_host = "DB_HOST", Environment, Kind::Text, "", Keep;
    /// Port of the registry database.
    db_port = "DB_PORT", Environment, int(1, 65_535), "5432", Keep;
    /// User of the registry database.
    db_user = "DB_USER", Environment, Kind::Text, "supabase_admin", Keep;
    /// Password of the registry database.
    db_password = "DB_PASSWORD", Environment, Kind::Secret, "postgres", Keep;
    /// Name of the registry database.
    db_name = "DB_NAME", Environment, Kind::Text, "postgres", Keep;
    /// Connections to the registry database.
    db_pool_size = "DB_POOL_SIZE", Environment, int(1, 1_000), "5", Keep;
    /// Acceptable wait for a pooled connection, in ms.
    db_queue_target = "DB_QUEUE_TARGET", Environment, int(1, DAY_MS), "5000", Adapt;
    /// Window over which that wait is judged, in ms.
    db_queue_interval = "DB_QUEUE_INTERVAL", Environment, int(1, DAY_MS), "5000", Adapt;
    /// SQL run on each new connection to the registry.
    db_after_connect_query = "DB_AFTER_CONNECT_QUERY", Environment, Kind::Text, "", Keep;
    /// Address family of the registry connection; unset detects it.
    db_ip_version = "DB_IP_VERSION", Environment, Kind::Choice(&["ipv4", "ipv6"]), "", Keep;
    /// Use TLS to the registry database.
    db_ssl = "DB_SSL", Environment, Kind::Bool, "false", Keep;
    /// CA file that verifies the registry's certificate; without it TLS is unverified.
    db_ssl_ca_cert = "DB_SSL_CA_CERT", Environment, Kind::Text, "", Keep;
    /// Host of a read replica of the registry.
    db_replica_host = "DB_REPLICA_HOST", Environment, Kind::Text, "", Keep;
    /// Connections to that replica.
    db_replica_pool_size = "DB_REPLICA_POOL_SIZE", Environment, int(1, 1_000), "5", Keep;
    /// Region that performs writes to the registry; default is this node's region.
    db_master_region = "DB_MASTER_REGION", Environment, Kind::Text, "", Adapt;
}

/// The entry of `id`.
pub(super) const fn knob(id: Id) -> &'static Knob {
    &KNOBS[id as usize]
}
