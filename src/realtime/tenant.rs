//! Settings of a tenant as the data plane sees them, and its counters shared by all shards without locks.
//!
//! [`TenantConfig`] is an immutable snapshot; the control plane replaces it on every change. [`TenantShared`] lives as
//! long as the tenant: each shard adds to a cell of its own (one writer, no contention), the control plane sums the cells
//! at every tick and publishes averages and triggers back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use crate::protocol::jwt::Keys;

/// Limits of a tenant (operations 3.1).
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Sockets with at least one join.
    pub concurrent_users_max: i64,
    /// Joined channels of one socket.
    pub channels_per_client_max: i64,
    /// Joins per second, average.
    pub joins_per_second_max: i64,
    /// Messages per second, average; also HTTP requests.
    pub events_per_second_max: i64,
    /// Presence events per second, average.
    pub presence_events_per_second_max: i64,
    /// Payload size by the rule of 8.5.
    pub payload_bytes_max: u64,
    /// Presence pushes of one channel per window.
    pub presence_pushes_per_window_max: u32,
    /// That window.
    pub presence_window_ms: u64,
}

/// Immutable snapshot of a tenant's settings.
#[derive(Debug)]
pub struct TenantConfig {
    /// Public name.
    pub external_id: Arc<str>,
    /// Keys that verify its tokens.
    pub keys: Keys,
    /// Refuse everything.
    pub suspended: bool,
    /// Refuse public channels.
    pub private_only: bool,
    /// Presence on for every channel.
    pub presence_enabled: bool,
    /// Has a database of its own: joins need it, private channels and stored messages exist.
    pub has_database: bool,
    /// Limits.
    pub limits: Limits,
}

/// Counters of one shard: written by that shard only, read by the control plane.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Cell {
    /// Joins counted.
    pub joins: Total,
    /// Messages counted (8.4).
    pub events: Total,
    /// Presence events counted (10.6).
    pub presence_events: Total,
    /// Requests to the tenant's HTTP endpoints.
    pub http_requests: Total,
    /// Sockets of the tenant on the shard.
    pub connections: Total,
}

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Total(AtomicU64);

impl Total {
    /// Adds; only the owning shard may call it.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Subtracts; only the owning shard may call it.
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters and limiter states of a tenant.
#[derive(Debug)]
pub struct TenantShared {
    /// Public name.
    pub external_id: Arc<str>,
    cells: Box<[Cell]>,
    users: AtomicI64,
    /// Joins limiter is triggered.
    pub joins_triggered: AtomicBool,
    /// Message limiter is triggered.
    pub events_triggered: AtomicBool,
    /// The tenant's database is connected and migrated; set by the control plane.
    pub database_ready: AtomicBool,
    /// The stream of database broadcasts is up; set by the control plane.
    pub stream_ready: AtomicBool,
    /// Batches of database rows on their way to a shard; raised by the control plane, lowered by the shard.
    pub stored_in_flight: AtomicU64,
    events_average: AtomicU64,
    presence_average: AtomicU64,
    http_average: AtomicU64,
}

impl TenantShared {
    /// Fresh counters for `shards` shards.
    pub fn new(external_id: Arc<str>, shards: usize) -> Self {
        Self {
            external_id,
            cells: (0..shards).map(|_| Cell::default()).collect(),
            users: AtomicI64::new(0),
            joins_triggered: AtomicBool::new(false),
            events_triggered: AtomicBool::new(false),
            database_ready: AtomicBool::new(false),
            stream_ready: AtomicBool::new(false),
            stored_in_flight: AtomicU64::new(0),
            events_average: AtomicU64::new(0),
            presence_average: AtomicU64::new(0),
            http_average: AtomicU64::new(0),
        }
    }

    /// The cell of a shard.
    pub fn cell(&self, shard: u16) -> &Cell {
        &self.cells[usize::from(shard)]
    }

    /// Sum of one counter over all shards.
    pub fn sum(&self, counter: impl Fn(&Cell) -> &Total) -> u64 {
        self.cells.iter().map(|cell| counter(cell).get()).fold(0, u64::wrapping_add)
    }

    /// Sockets of the tenant on each shard.
    pub fn connections_by_shard(&self) -> impl Iterator<Item = u64> + '_ {
        self.cells.iter().map(|cell| cell.connections.get())
    }

    /// Sockets that have joined at least once (14.3).
    pub fn users(&self) -> i64 {
        self.users.load(Ordering::Relaxed)
    }

    /// A socket joined for the first time, or such a socket went away.
    pub fn add_users(&self, delta: i64) {
        self.users.fetch_add(delta, Ordering::Relaxed);
    }

    /// Message average per second, as of the last tick.
    pub fn events_average(&self) -> f64 {
        f64::from_bits(self.events_average.load(Ordering::Relaxed))
    }

    /// Presence event average per second, as of the last tick.
    pub fn presence_average(&self) -> f64 {
        f64::from_bits(self.presence_average.load(Ordering::Relaxed))
    }

    /// HTTP request average per second, as of the last tick.
    pub fn http_average(&self) -> f64 {
        f64::from_bits(self.http_average.load(Ordering::Relaxed))
    }

    /// Publishes the averages; control plane only.
    pub(super) fn publish_averages(&self, events: f64, presence: f64, http: f64) {
        self.events_average.store(events.to_bits(), Ordering::Relaxed);
        self.presence_average.store(presence.to_bits(), Ordering::Relaxed);
        self.http_average.store(http.to_bits(), Ordering::Relaxed);
    }
}
