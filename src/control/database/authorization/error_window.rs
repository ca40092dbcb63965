//! When to stop asking a database that cannot answer (database.md 14).
//!
//! Counts failures per second over a short past. Once there are too many, checks and connection attempts are refused without
//! trying, so that a database in trouble is left alone and clients hear of it at once. As everywhere, the verdict only changes
//! at the tick of a second. Pure: time is an argument.

use crate::base::rate::RateWindow;

/// All windows here count per second.
const TICK_MS: u64 = 1_000;

/// Authorization errors are remembered for half a minute.
const AUTHORIZATION_BUCKETS: usize = 30;

/// Failed connection attempts are remembered for five seconds.
const CONNECT_BUCKETS: usize = 5;

/// Failed connection attempts in five seconds that are too many.
const CONNECT_ERRORS: u64 = 3;

/// Failures of the recent past, and how many are too many.
#[derive(Debug, Clone)]
pub struct ErrorWindow {
    window: RateWindow,
    /// Since the last tick.
    counted: u64,
    threshold: u64,
}

impl ErrorWindow {
    /// For exhausted pools: trips at as many errors in 30 s as the pool has sessions (`db_pool`).
    pub fn authorization(pool_size: usize, now_ms: u64) -> Self {
        Self::new(AUTHORIZATION_BUCKETS, u64::try_from(pool_size).unwrap_or(u64::MAX), now_ms)
    }

    /// For failed connection attempts: trips at three in 5 s.
    pub fn connect(now_ms: u64) -> Self {
        Self::new(CONNECT_BUCKETS, CONNECT_ERRORS, now_ms)
    }

    fn new(buckets_max: usize, threshold: u64, now_ms: u64) -> Self {
        Self { window: RateWindow::new(TICK_MS, buckets_max, now_ms), counted: 0, threshold: threshold.max(1) }
    }

    /// Counts one failure at `now_ms` (monotonic).
    pub fn record(&mut self, now_ms: u64) {
        self.advance(now_ms);
        self.counted = self.counted.saturating_add(1);
    }

    /// Whether to refuse at `now_ms`, on the count of the last tick.
    pub fn tripped(&mut self, now_ms: u64) -> bool {
        self.advance(now_ms);
        self.window.sum() >= self.threshold
    }

    /// Nothing is remembered; the window can be dropped.
    pub fn is_quiet(&mut self, now_ms: u64) -> bool {
        self.advance(now_ms);
        self.counted == 0 && self.window.is_quiet()
    }

    fn advance(&mut self, now_ms: u64) {
        if self.window.due(now_ms) {
            self.window.tick(now_ms, std::mem::take(&mut self.counted));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_at_the_tick_after_enough_errors_and_clears_when_they_are_old() {
        let mut window = ErrorWindow::authorization(2, 0);
        window.record(100);
        window.record(200);
        assert!(!window.tripped(900), "the second is not over");
        assert!(window.tripped(1_000));
        assert!(window.tripped(30_999), "still within 30 s");
        assert!(!window.tripped(31_000));
        assert!(window.is_quiet(31_000));
    }

    #[test]
    fn errors_spread_over_the_window_add_up() {
        let mut window = ErrorWindow::connect(0);
        for second in 0..3 {
            assert!(!window.tripped(second * 1_000 + 400));
            window.record(second * 1_000 + 500);
        }
        assert!(window.tripped(3_000));
        assert!(!window.tripped(6_500), "the first one is 5 s old");
    }

    #[test]
    fn a_pool_of_one_trips_at_the_first_error_and_a_quiet_window_never() {
        let mut window = ErrorWindow::authorization(1, 5_000);
        assert!(!window.tripped(9_000) && window.is_quiet(9_000));
        window.record(9_100);
        assert!(!window.is_quiet(9_100));
        assert!(window.tripped(10_000));
        assert!(!ErrorWindow::authorization(0, 0).tripped(0), "a pool of none counts as one");
    }
}
