//! Latency of deliveries in an HDR histogram, microsecond reports from nanosecond stamps.
//!
//! Scenarios record `now - stamp`; in an open loop the stamp is the time the message was *due*, so a server that
//! falls behind cannot hide it (coordinated omission).

use super::{Outcome, Quantity};
use hdrhistogram::Histogram;

/// Longest latency told apart, in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Significant decimal digits kept.
const DIGITS: u8 = 3;

/// A latency histogram.
#[derive(Debug, Clone)]
pub struct Latency {
    histogram: Histogram<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("the constant bounds are valid");
        Self { histogram }
    }
}

impl Latency {
    /// Records one latency in nanoseconds.
    #[inline]
    pub fn record(&mut self, latency_ns: u64) {
        self.histogram.saturating_record(latency_ns.max(1));
    }

    /// Recorded values.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Forgets everything, for the end of the warm-up.
    pub fn clear(&mut self) {
        self.histogram.reset();
    }

    /// The value below which `percent` of the records lie, in microseconds.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.histogram.value_at_percentile(percent) as f64 / 1000.0
    }

    /// Adds p50, p95, p99 and the maximum to `outcome`, if anything was recorded.
    pub fn report(&self, outcome: &mut Outcome) {
        if self.count() == 0 {
            return;
        }
        outcome.put(Quantity::LatencyP50, self.percentile_us(50.0));
        outcome.put(Quantity::LatencyP95, self.percentile_us(95.0));
        outcome.put(Quantity::LatencyP99, self.percentile_us(99.0));
        outcome.put(Quantity::LatencyMax, self.histogram.max() as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_out_in_microseconds() {
        let mut latency = Latency::default();
        for us in 1..=1000 {
            latency.record(us * 1000);
        }
        assert!((latency.percentile_us(50.0) - 500.0).abs() < 2.0);
        assert!((latency.percentile_us(99.0) - 990.0).abs() < 2.0);
        latency.record(u64::MAX);
        assert_eq!(latency.count(), 1001);
    }

    #[test]
    fn an_empty_histogram_reports_nothing() {
        let mut outcome = Outcome::default();
        Latency::default().report(&mut outcome);
        assert_eq!(outcome.get(Quantity::LatencyP50), None);
    }
}
