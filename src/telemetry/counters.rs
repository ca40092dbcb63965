//! Counters of one shard, written by that shard only and read by whoever renders the metrics.
//!
//! Each shard owns one `ShardCounters` (shared as an `Arc` or leaked at boot). Because there is one
//! writer, adding is a plain relaxed load and store: no locked instruction on the hot path. The whole
//! block is aligned away from other data so that a reader never slows a second shard down. The list
//! below is the only place where a counter is declared; field, metric name and help come from it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writing thread.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds 1. Only the owning thread may call this.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`. Only the owning thread may call this.
    pub fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Relaxed);
    }

    /// Subtracts `count` (gauges only). Only the owning thread may call this.
    pub fn subtract(&self, count: u64) {
        debug_assert!(self.get() >= count, "a gauge went below zero");
        self.0.store(self.get().saturating_sub(count), Relaxed);
    }

    /// The value as last stored; any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Whether a number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterKind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Name, kind and meaning of one field of `ShardCounters`.
#[derive(Debug, Clone, Copy)]
pub struct CounterField {
    /// Name of the field.
    pub name: &'static str,
    /// Name of the metric, with the unit or `_total` last.
    pub metric: &'static str,
    /// Kind.
    pub kind: CounterKind,
    /// Help text of the metric.
    pub help: &'static str,
}

macro_rules! metric_name {
    (Counter, $name:ident) => {
        concat!("ringcast_shard_", stringify!($name), "_total")
    };
    (Gauge, $name:ident) => {
        concat!("ringcast_shard_", stringify!($name))
    };
}

macro_rules! shard_counters {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident;)+) => {
        /// The counters of one shard. Two cache lines of alignment keep the neighbours' writes away.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct ShardCounters { $($(#[doc = $doc])+ pub $name: Counter),+ }

        /// One reading of a shard's counters.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct ShardSnapshot { $($(#[doc = $doc])+ pub $name: u64),+ }

        /// Every field, in the order of `ShardSnapshot::values`.
        pub const SHARD_FIELDS: &[CounterField] = &[$(CounterField {
            name: stringify!($name),
            metric: metric_name!($kind, $name),
            kind: CounterKind::$kind,
            help: concat!($($doc),+).trim_ascii(),
        }),+];

        impl ShardCounters {
            /// Reads every counter. The values are each exact but not of one common instant.
            pub fn snapshot(&self) -> ShardSnapshot {
                ShardSnapshot { $($name: self.$name.get()),+ }
            }
        }

        impl ShardSnapshot {
            /// The values in the order of `SHARD_FIELDS`.
            pub fn values(&self) -> [u64; SHARD_FIELDS.len()] {
                [$(self.$name),+]
            }
        }
    };
}

shard_counters! {
    /// Connections open now.
    connections_open: Gauge;
    /// Connections accepted by the listener.
    connections_accepted: Counter;
    /// WebSocket upgrades answered 101.
    upgrades_ok: Counter;
    /// WebSocket upgrades refused.
    upgrades_refused: Counter;
    /// Joins answered ok.
    joins_ok: Counter;
    /// Joins answered with an error.
    joins_error: Counter;
    /// WebSocket messages received.
    frames_in: Counter;
    /// WebSocket frames queued to sockets.
    frames_out: Counter;
    /// Bytes read from sockets.
    bytes_in: Counter;
    /// Bytes written to sockets.
    bytes_out: Counter;
    /// Write calls; frames_out divided by this is the batching.
    writes: Counter;
    /// Sockets dropped because their outbox was full.
    slow_consumers: Counter;
    /// Messages sent to other threads.
    mailbox_sent: Counter;
    /// Messages that waited because a mailbox ring was full.
    mailbox_spilled: Counter;
    /// Messages to other threads lost because the spill queue was full.
    mailbox_dropped: Counter;
    /// Sockets received from other shards.
    handoffs_in: Counter;
    /// Sockets given to other shards.
    handoffs_out: Counter;
    /// WebSocket messages that could not be decoded.
    malformed_frames: Counter;
    /// Broadcasts accepted.
    broadcasts: Counter;
    /// Copies of broadcasts queued to members.
    deliveries: Counter;
    /// Presence diffs sent.
    presence_diffs: Counter;
    /// Turns of the event loop that did work.
    turns: Counter;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_the_fields_in_table_order() {
        let counters = ShardCounters::default();
        counters.connections_open.add(5);
        counters.connections_open.subtract(2);
        counters.turns.increment();
        let snapshot = counters.snapshot();
        assert_eq!((snapshot.connections_open, snapshot.turns), (3, 1));
        let values = snapshot.values();
        let last = SHARD_FIELDS.len() - 1;
        assert_eq!((values[0], SHARD_FIELDS[0].name), (3, "connections_open"));
        assert_eq!((values[last], SHARD_FIELDS[last].name), (1, "turns"));
        assert_eq!(values.iter().sum::<u64>(), 4, "all others are zero");
    }

    #[test]
    fn two_shards_never_share_a_cache_line() {
        assert_eq!(align_of::<ShardCounters>(), 128);
        assert_eq!(size_of::<ShardCounters>() % 128, 0);
    }

    #[test]
    fn metric_names_tell_the_kind() {
        assert_eq!(SHARD_FIELDS[0].metric, "ringcast_shard_connections_open");
        assert_eq!(SHARD_FIELDS[8].metric, "ringcast_shard_bytes_in_total");
    }
}
