//! Start and end of the server: limits, listeners, threads, mailboxes, drain.
//!
//! Everything that can fail at start fails here, before the first connection is accepted: configuration, state folder,
//! store, keys, ports. The control plane runs on the calling thread; each shard gets a thread of its own.

mod development;
mod limits;
mod listener;
mod state;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use crate::base::cpuset;
use crate::cli::welcome;
use crate::config::{Config, Driver};
use crate::control::api::ApiSettings;
use crate::control::tenants::TenantDefaults;
use crate::control::{self, ControlPlan};
use crate::mailbox::{self, ToControl, ToShard};
use crate::protocol::jwt::ClaimValidators;
use crate::realtime::HubSettings;
use crate::shard::{self, DriverKind, ShardPlan};
use crate::telemetry::{ShardCounters, logs};
use development::Development;

/// How the server is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As a service.
    Service,
    /// For a developer: the development tenant is made anew, with a private Postgres where there is one, and the terminal is
    /// told how to use it.
    Development {
        /// Start a private Postgres.
        with_postgres: bool,
    },
}

/// Runs the server until a signal ends it.
///
/// # Errors
/// One sentence that says what prevented the start.
pub fn serve(config: Config, mode: Mode) -> Result<(), String> {
    let _logs = logs::init(&config)?;
    limits::raise_open_files(&config);
    let allowed = cpuset::allowed().map_err(|error| format!("the allowed CPUs cannot be read: {error}"))?;
    let cores = config.core_plan(&allowed).map_err(|error| error.to_string())?.shard_cores;
    let driver = choose_driver(config.driver)?;
    let runtime = control::runtime().map_err(|error| format!("the control thread cannot run: {error}"))?;
    let development = match mode {
        Mode::Service => None,
        Mode::Development { with_postgres } => Some(Development::start(&config, &runtime, with_postgres)),
    };
    let database = development.as_ref().and_then(|development| development.database.as_ref());
    let (store, cipher) = runtime.block_on(state::open(&config, development.is_some(), database))?;
    let listeners = listener::bind_all(&config, cores.len(), driver)?;
    let port = listeners[0].local_addr().map_err(|error| error.to_string())?.port();

    let config = Arc::new(config);
    let shards = cores.len();
    let counters: Vec<Arc<ShardCounters>> = (0..shards).map(|_| Arc::default()).collect();
    let (mut to_shards, shard_inboxes) = mailbox::mesh::<ToShard>(shards + 1, shards, config.mailbox_entries);
    let (to_control, mut control_inbox) = mailbox::mesh::<ToControl>(shards, 1, config.mailbox_entries);
    let from_control = to_shards.pop().expect("the mesh has a row for the control thread");
    let open_connections = Arc::new(AtomicU64::new(0));
    let room_secret = random::<32>()?;

    let mut threads: Vec<JoinHandle<()>> = Vec::with_capacity(shards);
    let parts = listeners.into_iter().zip(shard_inboxes).zip(to_shards).zip(to_control);
    for (number, (((listener, inbox), peers), control)) in parts.enumerate() {
        let own = number;
        let number = u16::try_from(number).map_err(|_| "too many shards".to_owned())?;
        let plan = ShardPlan {
            shard: number,
            shards: shards as u16,
            config: config.clone(),
            driver,
            core: cores[own],
            listener,
            open_connections: open_connections.clone(),
            hub: HubSettings {
                shard: number,
                shards: shards as u16,
                origin: u64::from_le_bytes(random::<8>()?),
                room_secret,
                channel_error_backoff_ms: config.channel_error_backoff_ms,
                presence_batch_ms: config.presence_batch_ms,
                claim_validators: validators(&config)?,
            },
            counters: counters[own].clone(),
            inbox,
            peers: peers.into_iter().enumerate().map(|(peer, sender)| (peer != own).then_some(sender)).collect(),
            control: control.into_iter().next().expect("the mesh has one control inbox"),
        };
        let thread = std::thread::Builder::new().name(format!("shard-{number}")).spawn(move || {
            if let Err(error) = shard::run(plan) {
                tracing::error!("shard {number} could not run: {error}");
                std::process::exit(1);
            }
        });
        threads.push(thread.map_err(|error| format!("a shard thread cannot be started: {error}"))?);
    }
    tracing::info!("listening on port {port} with {shards} shards on cores {cores:?}, {driver:?}");
    if let Some(development) = &development {
        print!("{}", welcome::banner(&config, port, development.database.is_some(), &development.note));
    }

    let plan = ControlPlan {
        api: api_settings(&config)?,
        store,
        cipher,
        inbox: control_inbox.remove(0),
        shards: from_control,
        counters,
        config,
    };
    control::run(&runtime, plan).map_err(|error| format!("the control thread cannot run: {error}"))
}

fn choose_driver(wanted: Driver) -> Result<DriverKind, String> {
    if wanted == Driver::Epoll {
        return Ok(DriverKind::Epoll);
    }
    match (shard::uring_refusal(), wanted) {
        (None, _) => Ok(DriverKind::IoUring),
        (Some(error), Driver::IoUring) => {
            Err(format!("io_uring is refused here ({error}) and RINGCAST_DRIVER=io_uring forbids epoll"))
        }
        (Some(error), _) => {
            tracing::warn!(
                "io_uring is refused here ({error}): running on epoll, which costs more CPU per message. `ringcast check` tells what to change"
            );
            Ok(DriverKind::Epoll)
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(bytes)
}

fn validators(config: &Config) -> Result<ClaimValidators, String> {
    let text = serde_json::to_string(&config.jwt_claim_validators).map_err(|error| error.to_string())?;
    ClaimValidators::parse(&text).map_err(|error| error.to_string())
}

fn api_settings(config: &Config) -> Result<ApiSettings, String> {
    let secret = |secret: &Option<crate::config::Secret>| secret.as_deref().map(str::to_owned);
    let list = |list: &[crate::config::Secret]| list.iter().map(|entry| entry.to_string()).collect();
    Ok(ApiSettings {
        api_jwt_secret: secret(&config.api_jwt_secret),
        api_jwt_secret_next: secret(&config.api_jwt_secret_next),
        api_token_blocklist: list(&config.api_token_blocklist),
        metrics_jwt_secret: secret(&config.metrics_jwt_secret),
        metrics_token_blocklist: list(&config.metrics_token_blocklist),
        claim_validators: validators(config)?,
        defaults: tenant_defaults(config),
    })
}

fn tenant_defaults(config: &Config) -> TenantDefaults {
    let limit = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
    let defaults = &config.tenant_defaults;
    TenantDefaults {
        max_concurrent_users: limit(defaults.max_concurrent_users),
        max_events_per_second: limit(defaults.max_events_per_second),
        max_joins_per_second: limit(defaults.max_joins_per_second),
        max_channels_per_client: limit(defaults.max_channels_per_client),
        max_bytes_per_second: limit(defaults.max_bytes_per_second),
    }
}
