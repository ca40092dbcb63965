//! Counts deliveries and samples their latency.
//!
//! The stamp is searched in every `2^n`-th message only: a flood would otherwise measure the generator's own
//! clock reads.

use super::Counting;
use crate::client::Listener;
use crate::machine::monotonic_ns;
use crate::measure::Latency;
use crate::wire::stamp::Reader;

/// Deliveries so far and the latency of some of them.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Messages delivered to counted connections.
    pub deliveries: u64,
    /// Latencies sampled.
    pub latency: Latency,
    reader: Reader,
    skip_mask: u64,
    /// Connections below this number are counted.
    counted: usize,
}

impl Arrivals {
    /// Counts deliveries to the first `counted` connections and samples every message.
    pub fn sampling_all(counted: usize) -> Self {
        Self { counted, ..Self::default() }
    }

    /// Counts deliveries to the first `counted` connections and samples every 64th message.
    pub fn sampling_some(counted: usize) -> Self {
        Self { counted, skip_mask: 63, ..Self::default() }
    }
}

impl Counting for Arrivals {
    fn count(&self) -> u64 {
        self.deliveries
    }

    fn begin(&mut self) {
        self.latency.clear();
    }
}

impl Listener for Arrivals {
    #[inline]
    fn on_delivery(&mut self, seat: usize, message: &[u8], _answer: &mut Vec<u8>) {
        if seat >= self.counted {
            return;
        }
        self.deliveries += 1;
        if self.deliveries & self.skip_mask == 0
            && let Some(stamp_ns) = self.reader.read(message)
        {
            self.latency.record(monotonic_ns().saturating_sub(stamp_ns));
        }
    }
}
