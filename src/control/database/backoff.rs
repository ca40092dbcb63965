//! The pause before the next attempt to reach a database (database.md 3.4).
//!
//! Random exponential: every pause is drawn between the previous one (but never more than the larger of the minimum and a
//! third of the maximum) and three times the previous one (but never more than the maximum). Pure: the caller brings
//! randomness and sleeps.

use std::time::Duration;

/// Pauses between `min` and `max`, in whole milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    min_ms: u64,
    max_ms: u64,
    previous_ms: u64,
}

impl Backoff {
    /// Before the first attempt. `max` smaller than `min` counts as `min`.
    pub fn new(min: Duration, max: Duration) -> Self {
        let [min_ms, max_ms] = [min, max].map(|bound| u64::try_from(bound.as_millis()).unwrap_or(u64::MAX));
        Self { min_ms, max_ms: max_ms.max(min_ms), previous_ms: min_ms }
    }

    /// The next pause; `random` is any uniformly distributed number.
    pub fn next(&mut self, random: u64) -> Duration {
        let lower = self.min_ms.max(self.max_ms / 3);
        let from = self.previous_ms.min(lower);
        let to = self.previous_ms.saturating_mul(3).min(self.max_ms);
        debug_assert!(from <= to);
        // `u64::MAX` choices and more cannot be counted; the one pause too few then is no loss.
        let choices = (to - from).saturating_add(1);
        self.previous_ms = from + random % choices;
        Duration::from_millis(self.previous_ms)
    }

    /// After a success: the next pause is a first one again.
    pub fn reset(&mut self) {
        self.previous_ms = self.min_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(5), Duration::from_secs(300))
    }

    #[test]
    fn the_longest_draws_triple_up_to_the_maximum() {
        let mut backoff = backoff();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            // A random number that picks the upper end, whatever the number of choices.
            let to = (backoff.previous_ms * 3).min(backoff.max_ms);
            let from = backoff.previous_ms.min(100_000);
            pauses.push(backoff.next(to - from).as_secs());
        }
        assert_eq!(pauses, [15, 45, 135, 300, 300, 300]);
    }

    #[test]
    fn the_shortest_draws_stay_at_the_minimum_or_at_a_third_of_the_maximum() {
        let mut backoff = backoff();
        assert_eq!(backoff.next(0).as_secs(), 5);
        assert_eq!(backoff.next(0).as_secs(), 5);
        backoff.previous_ms = 300_000;
        assert_eq!(backoff.next(0).as_secs(), 100);
    }

    #[test]
    fn every_draw_is_within_the_bounds_and_reset_starts_anew() {
        let mut backoff = backoff();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..10_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pause = backoff.next(random >> 11).as_millis();
            assert!((5_000..=300_000).contains(&pause), "{pause}");
        }
        backoff.reset();
        assert!(backoff.next(u64::MAX / 3).as_millis() <= 15_000);
    }

    #[test]
    fn odd_bounds_do_not_panic() {
        let mut empty = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(empty.next(u64::MAX), Duration::ZERO);
        let mut reversed = Backoff::new(Duration::from_secs(9), Duration::from_secs(1));
        assert_eq!(reversed.next(7).as_secs(), 9);
        let mut vast = Backoff::new(Duration::ZERO, Duration::MAX);
        vast.previous_ms = u64::MAX;
        vast.next(u64::MAX);
    }
}
