//! The operating system's clocks, read here and nowhere else.
//!
//! Everything with rules about time (`realtime`, `protocol`, rate windows, timers) takes the time as
//! an argument; the threads that drive it read it here once per turn. `Millis` is monotonic and
//! counts from the first reading in this process, so it fits timers and never goes backwards; the
//! wall clock is for tokens, identifiers and logs only, because it may jump.

use std::{
    ops::{Add, Sub},
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Monotonic milliseconds since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds from `earlier` to `self`, 0 if `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Millis {
    type Output = Self;
    /// The time `ms` later, saturating.
    fn add(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Sub<u64> for Millis {
    type Output = Self;
    /// The time `ms` earlier, not before the start of the process.
    fn sub(self, ms: u64) -> Self {
        Self(self.0.saturating_sub(ms))
    }
}

/// Now, on the monotonic clock. The first call of the process defines zero.
pub fn now() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    Millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

/// Whole seconds of the wall clock since 1970, 0 on a clock set before that.
pub fn unix_secs() -> u64 {
    since_epoch().as_secs()
}

/// Milliseconds of the wall clock since 1970, 0 on a clock set before that.
pub fn unix_millis() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_advances_with_real_time() {
        let before = now();
        std::thread::sleep(Duration::from_millis(12));
        let passed = now().since(before);
        assert!((10..10_000).contains(&passed), "{passed}");
    }

    #[test]
    fn differences_saturate() {
        assert_eq!(Millis(5).since(Millis(9)), 0);
        assert_eq!(Millis(5) - 9, Millis(0));
        assert_eq!(Millis(u64::MAX) + 1, Millis(u64::MAX));
    }

    #[test]
    fn both_wall_clock_units_agree() {
        let secs = unix_secs();
        assert!(unix_millis() / 1000 - secs <= 1);
        assert!(secs > 1_700_000_000, "the clock is past 2023");
    }
}
