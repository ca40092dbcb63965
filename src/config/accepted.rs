//! Variables of the reference server that are accepted without a `Config` field.
//!
//! An existing deployment must start unchanged, so every documented variable is known here. Inert ones
//! concern the Erlang VM or one hosting platform (operations, mark I). The others belong to features
//! this server does not have; setting one is worth a warning because the operator expects an effect.
//! Malformed numbers and truth values stop the start in either case, as they do in the reference.

use super::{error::ConfigError, values};

/// How the text of a variable without effect is still checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Text,
    Int,
    Bool,
    JsonObject,
}

/// Mark I: nothing an operator could miss.
const INERT: &[(Check, &[&str])] = &[
    (
        Check::Int,
        &[
            "NUM_ACCEPTORS",
            "POSTGRES_CDC_SCOPE_SHARDS",
            "CONNECT_PARTITION_SLOTS",
            "USERS_SCOPE_SHARDS",
            "MUSTER_SCOPE_SHARDS",
            "GEN_RPC_TCP_SERVER_PORT",
            "GEN_RPC_TCP_CLIENT_PORT",
            "GEN_RPC_SSL_SERVER_PORT",
            "GEN_RPC_SSL_CLIENT_PORT",
            "GEN_RPC_CONNECT_TIMEOUT_IN_MS",
            "GEN_RPC_SEND_TIMEOUT_IN_MS",
            "GEN_RPC_MAX_BATCH_SIZE",
            "GEN_RPC_COMPRESS",
            "GEN_RPC_COMPRESSION_THRESHOLD_IN_BYTES",
            "GEN_RPC_SOCKET_BUFFER",
            "GEN_RPC_SOCKET_RECEIVE_BUFFER",
            "GEN_RPC_SOCKET_SEND_BUFFER",
            "MAX_GEN_RPC_CLIENTS",
            "MAX_GEN_RPC_CALL_CLIENTS",
        ],
    ),
    (Check::Bool, &["GEN_RPC_IPV6_ONLY"]),
    (
        Check::Text,
        &[
            "DB_HOST_REPLICA_FRA",
            "DB_HOST_REPLICA_IAD",
            "DB_HOST_REPLICA_SIN",
            "DB_HOST_REPLICA_SJC",
            "AWS_EXECUTION_ENV",
            "ERL_AFLAGS",
            "ERL_CRASH_DUMP",
            "ERL_EPMD_PORT",
            "RELEASE_COOKIE",
            "GENERATE_CLUSTER_CERTS",
            "CLUSTER_SECRET_ID",
            "CLUSTER_SECRET_REGION",
            "ENABLE_ERL_CRASH_DUMP",
            "ERL_CRASH_DUMP_FOLDER",
            "ERL_CRASH_DUMP_FILE_NAME",
            "ERL_CRASH_DUMP_S3_BUCKET",
            "ERL_CRASH_DUMP_S3_HOST",
            "ERL_CRASH_DUMP_S3_PORT",
            "ERL_CRASH_DUMP_S3_KEY",
            "ERL_CRASH_DUMP_S3_SECRET",
            "ERL_CRASH_DUMP_S3_SSL",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "ECTO_IPV6",
            "GEN_RPC_SOCKET_IP",
            "GEN_RPC_CERTFILE",
            "GEN_RPC_KEYFILE",
            "GEN_RPC_CACERTFILE",
        ],
    ),
];

/// Meaningful variables (marks K and A) of features that are absent.
const WITHOUT_EFFECT: &[(Check, &[&str])] = &[
    (
        Check::Int,
        &[
            "HTTP_DYNAMIC_BUFFER_MIN",
            "HTTP_DYNAMIC_BUFFER_MAX",
            "MIGRATION_PARTITION_SLOTS",
            "RPC_TIMEOUT",
            "JANITOR_RUN_AFTER_IN_MS",
            "JANITOR_MAX_CHILDREN",
            "JANITOR_CHILDREN_TIMEOUT",
            "JANITOR_CHUNK_SIZE",
            "PRESENCE_POOL_SIZE",
            "PRESENCE_BROADCAST_PERIOD_IN_MS",
            "PRESENCE_PERMDOWN_PERIOD_IN_MS",
            "BROADCAST_POOL_SIZE",
            "NODE_BALANCE_UPTIME_THRESHOLD_IN_MS",
            "REBALANCE_CHECK_INTERVAL_IN_MS",
            "PROM_POLL_RATE",
            "METRICS_RPC_TIMEOUT_IN_MS",
            "METRICS_CLEANER_SCHEDULE_TIMER_IN_MS",
            "METRICS_PUSHER_INTERVAL_MS",
            "METRICS_PUSHER_TIMEOUT_MS",
            "LOG_THROTTLE_JANITOR_INTERVAL_IN_MS",
        ],
    ),
    (Check::Bool, &["METRICS_PUSHER_ENABLED", "METRICS_PUSHER_COMPRESS"]),
    (Check::JsonObject, &["REGION_MAPPING"]),
    (
        Check::Text,
        &[
            "DASHBOARD_AUTH",
            "DASHBOARD_USER",
            "DASHBOARD_PASSWORD",
            "CF_TEAM_DOMAIN",
            "CLUSTER_STRATEGIES",
            "DNS_NODES",
            "POD_IP",
            "ECS_CONTAINER_METADATA_URI_V4",
            "METRICS_PUSHER_URL",
            "METRICS_PUSHER_USER",
            "METRICS_PUSHER_AUTH",
            "METRICS_PUSHER_EXTRA_LABELS",
            "LOGS_ENGINE",
            "LOGFLARE_LOGGER_BACKEND_URL",
            "LOGFLARE_API_KEY",
            "LOGFLARE_SOURCE_ID",
            "OTEL_SDK_DISABLED",
            "OTEL_TRACES_EXPORTER",
            "OTEL_TRACES_SAMPLER",
        ],
    ),
];

/// The variables of this page that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// For the debug log.
    pub inert: Vec<&'static str>,
    /// For a warning each.
    pub without_effect: Vec<&'static str>,
}

/// Checks and lists the variables that are set but have no effect.
pub(super) fn collect(env: &dyn Fn(&str) -> Option<String>) -> Result<Accepted, ConfigError> {
    let min = env("HTTP_DYNAMIC_BUFFER_MIN").is_some();
    let max = env("HTTP_DYNAMIC_BUFFER_MAX").is_some();
    if min != max {
        return Err(ConfigError::new("HTTP_DYNAMIC_BUFFER_MIN", "must be set together with HTTP_DYNAMIC_BUFFER_MAX"));
    }
    Ok(Accepted { inert: set_ones(INERT, env)?, without_effect: set_ones(WITHOUT_EFFECT, env)? })
}

fn set_ones(groups: &[(Check, &[&'static str])], env: &dyn Fn(&str) -> Option<String>) -> Result<Vec<&'static str>, ConfigError> {
    let mut set = Vec::new();
    for &(check, names) in groups {
        for &name in names {
            let Some(text) = env(name) else { continue };
            let checked = match check {
                Check::Text => Ok(()),
                Check::Int => values::parse_int(&text, 0, u64::MAX).map(drop),
                Check::Bool => values::parse_bool(&text).map(drop),
                Check::JsonObject => values::parse_json_object(&text).map(drop),
            };
            checked.map_err(|message| ConfigError::new(name, message))?;
            if check != Check::Text || !text.is_empty() {
                set.push(name);
            }
        }
    }
    Ok(set)
}
