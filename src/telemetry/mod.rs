//! What an operator sees of a running server: log lines, error codes, counters, Prometheus text.
//!
//! Shards write to `counters` without contention and to `logs` without blocking; the control plane
//! collects snapshots and renders them through `metrics` and `prometheus`. No tenant rule lives here.

pub mod codes;
pub mod counters;
mod line;
pub mod logs;
pub mod metrics;
pub mod prometheus;
pub mod redact;

pub use self::{
    codes::{Code, Severity},
    counters::{ShardCounters, ShardSnapshot},
};
