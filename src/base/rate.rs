//! The moving window behind every limit counted per second (operations 4.1).
//!
//! The owner accumulates a count, and once per tick hands it over with `tick`; the window keeps the
//! last `buckets_max` counts. `sum` is their total and `average` is the total divided by the number
//! of buckets *present* and by the tick in seconds, so a young window reacts faster than an old one.
//! A new window has already ticked once, with zero: N events in a quiet first tick of 5 s therefore
//! average N / (2 x 5). Between ticks the measures do not move. Time is an argument, in ms of any
//! monotonic clock; ticks stay on the grid that starts at creation, whatever delay the caller has.

use std::collections::VecDeque;

/// A list of per-tick counts, newest first. Pure; owned by one thread.
#[derive(Debug, Clone)]
pub struct RateWindow {
    tick_ms: u64,
    buckets_max: usize,
    buckets: VecDeque<u64>,
    next_tick_ms: u64,
}

impl RateWindow {
    /// A window of `buckets_max` ticks of `tick_ms`, whose first tick happens now with zero.
    ///
    /// Both sizes come from the program, not from a client; neither may be zero.
    pub fn new(tick_ms: u64, buckets_max: usize, now_ms: u64) -> Self {
        debug_assert!(tick_ms > 0 && buckets_max > 0);
        let mut window = Self {
            tick_ms: tick_ms.max(1),
            buckets_max: buckets_max.max(1),
            buckets: VecDeque::with_capacity(buckets_max),
            next_tick_ms: now_ms,
        };
        window.reset(now_ms);
        window
    }

    /// Whether the next tick's time has come.
    pub fn due(&self, now_ms: u64) -> bool {
        now_ms >= self.next_tick_ms
    }

    /// When the next tick is due, for the owner's timer.
    pub const fn next_tick_ms(&self) -> u64 {
        self.next_tick_ms
    }

    /// Runs every tick that is due: `counted` belongs to the first, later missed ones counted zero.
    /// Does nothing (and must not be given a count that would be lost) before the tick is due.
    pub fn tick(&mut self, now_ms: u64, counted: u64) {
        debug_assert!(self.due(now_ms), "tick called before it was due");
        if !self.due(now_ms) {
            return;
        }
        let elapsed = 1 + now_ms.saturating_sub(self.next_tick_ms) / self.tick_ms;
        self.push(counted);
        // More zeros than buckets change nothing.
        let zeros = (elapsed - 1).min(self.buckets_max as u64);
        for _ in 0..zeros {
            self.push(0);
        }
        self.next_tick_ms = self.next_tick_ms.saturating_add(elapsed.saturating_mul(self.tick_ms));
        debug_assert!(!self.due(now_ms) || now_ms == u64::MAX);
    }

    /// Total of the buckets present.
    pub fn sum(&self) -> u64 {
        self.buckets.iter().copied().fold(0, u64::saturating_add)
    }

    /// Events per second over the buckets present.
    pub fn average(&self) -> f64 {
        let seconds_per_tick = self.tick_ms as f64 / 1000.0;
        self.sum() as f64 / self.buckets.len() as f64 / seconds_per_tick
    }

    /// Starts anew, as after a change of the limit: one bucket of zero, next tick in one tick.
    pub fn reset(&mut self, now_ms: u64) {
        self.buckets.clear();
        self.buckets.push_front(0);
        self.next_tick_ms = now_ms.saturating_add(self.tick_ms);
    }

    /// Whether nothing was counted in any bucket.
    pub fn is_quiet(&self) -> bool {
        self.buckets.iter().all(|&count| count == 0)
    }

    fn push(&mut self, counted: u64) {
        if self.buckets.len() == self.buckets_max {
            self.buckets.pop_back();
        }
        self.buckets.push_front(counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events counter of the specification: 5 s x 12.
    fn minute(now: u64) -> RateWindow {
        RateWindow::new(5_000, 12, now)
    }

    #[test]
    fn burst_in_a_quiet_first_tick_is_averaged_over_two_buckets() {
        let mut window = minute(1_000);
        assert_eq!(window.average(), 0.0);
        assert!(!window.due(5_999));
        assert!(window.due(6_000));
        window.tick(6_000, 1_000);
        assert_eq!(window.sum(), 1_000);
        assert_eq!(window.average(), 100.0); // 1000 / (2 x 5)
        assert!(!window.due(10_999));
    }

    #[test]
    fn a_full_window_is_a_one_minute_average() {
        let mut window = minute(0);
        for tick in 1..=20 {
            window.tick(tick * 5_000, 500);
        }
        assert_eq!(window.sum(), 6_000);
        assert_eq!(window.average(), 100.0);
    }

    #[test]
    fn a_burst_leaves_after_twelve_ticks() {
        let mut window = minute(0);
        window.tick(5_000, 60);
        for tick in 2..=12 {
            window.tick(tick * 5_000, 0);
            assert_eq!(window.sum(), 60, "tick {tick}");
        }
        window.tick(65_000, 0);
        assert_eq!(window.sum(), 0);
        assert!(window.is_quiet());
    }

    #[test]
    fn missed_ticks_count_zero_after_the_first() {
        let mut late = minute(0);
        late.tick(17_300, 90); // ticks of 5, 10 and 15 s
        let mut punctual = minute(0);
        for (time, count) in [(5_000, 90), (10_000, 0), (15_000, 0)] {
            punctual.tick(time, count);
        }
        assert_eq!(late.average(), punctual.average());
        assert_eq!(late.average(), 90.0 / (4.0 * 5.0));
        assert_eq!(late.next_tick_ms(), 20_000, "the grid is kept");
    }

    #[test]
    fn a_long_pause_is_bounded_work_and_empties_the_window() {
        let mut window = minute(0);
        window.tick(u64::MAX / 2, 7);
        assert_eq!(window.sum(), 0);
        assert!(!window.due(u64::MAX / 2));
    }

    #[test]
    fn short_windows_are_sums() {
        let mut window = RateWindow::new(1_000, 5, 0);
        for tick in 1..=4 {
            window.tick(tick * 1_000, 1);
        }
        assert_eq!(window.sum(), 4);
        window.tick(5_000, 1);
        assert_eq!(window.sum(), 5, "the initial zero has left");
        window.tick(6_000, 0);
        assert_eq!(window.sum(), 4);
    }

    #[test]
    fn reset_forgets_and_restarts_the_grid() {
        let mut window = minute(0);
        window.tick(5_000, 500);
        window.reset(7_000);
        assert_eq!(window.average(), 0.0);
        assert!(!window.due(11_999));
        window.tick(12_000, 10);
        assert_eq!(window.average(), 1.0);
    }
}
