//! The process-wide connection limit: a place travels with its connection between shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Place of one connection within `MAX_CONNECTIONS`; gives it back when dropped, on whatever shard that is.
#[derive(Debug)]
pub struct Permit {
    open: Arc<AtomicU64>,
}

impl Permit {
    /// Takes a place when fewer than `connections_max` are open.
    pub fn take(open: &Arc<AtomicU64>, connections_max: u64) -> Option<Self> {
        let taken = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < connections_max).then_some(n + 1));
        taken.is_ok().then(|| Self { open: open.clone() })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
