//! When the next message goes out: a window of outstanding messages, or instants at a fixed rate.

use crate::client::LoadError;

/// Instants at a fixed rate. What is late is not skipped: an open loop owes every message.
#[derive(Debug, Clone)]
pub struct Instants {
    start_ns: u64,
    interval_ns: f64,
    tick_ns: u64,
    next: u64,
}

impl Instants {
    /// `per_second` instants a second, the first at `start_ns`.
    ///
    /// # Errors
    /// When the rate is not a positive number.
    pub fn at_rate(per_second: f64, start_ns: u64) -> Result<Self, LoadError> {
        if !(per_second.is_finite() && per_second > 0.0) {
            return Err(LoadError::Argument(format!("a rate must be above zero, not {per_second}")));
        }
        Ok(Self { start_ns, interval_ns: 1e9 / per_second, tick_ns: 1, next: 0 })
    }

    /// The same rate with every instant moved to the end of its tick of `tick_ns`, so that messages leave in groups.
    pub fn in_ticks(self, tick_ns: u64) -> Self {
        Self { tick_ns: tick_ns.max(1), ..self }
    }

    fn due_ns(&self) -> u64 {
        let offset_ns = (self.next as f64 * self.interval_ns) as u64;
        self.start_ns + offset_ns.next_multiple_of(self.tick_ns)
    }

    /// The next instant and its running number, if it has come by `now_ns`.
    pub fn take(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        let due_ns = self.due_ns();
        if due_ns > now_ns {
            return None;
        }
        self.next += 1;
        Some((due_ns, self.next - 1))
    }

    /// Time until the next instant.
    pub fn wait_ns(&self, now_ns: u64) -> u64 {
        self.due_ns().saturating_sub(now_ns)
    }

    /// Instants taken so far.
    pub fn taken(&self) -> u64 {
        self.next
    }
}

/// A window over deliveries: `messages` outstanding, each to arrive `copies` times.
#[derive(Debug, Clone)]
pub struct Window {
    messages: u64,
    copies: u64,
    sent: u64,
}

impl Window {
    /// Keeps `messages` outstanding, each counted `copies` times when delivered.
    pub fn new(messages: u64, copies: u64) -> Self {
        Self { messages: messages.max(1), copies: copies.max(1), sent: 0 }
    }

    /// How many messages to send now that `deliveries` have arrived in total; they count as sent.
    pub fn take(&mut self, deliveries: u64) -> u64 {
        let allowed = deliveries / self.copies + self.messages;
        let count = allowed.saturating_sub(self.sent);
        self.sent += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_come_at_their_rate_and_none_is_skipped() {
        let mut instants = Instants::at_rate(1000.0, 5_000).unwrap();
        assert_eq!(instants.take(5_000), Some((5_000, 0)));
        assert_eq!(instants.take(5_001), None);
        assert_eq!(instants.wait_ns(5_000), 1_000_000);
        assert_eq!(instants.take(9_005_000), Some((1_005_000, 1)));
        assert_eq!(instants.take(9_005_000), Some((2_005_000, 2)));
        assert_eq!(instants.taken(), 3);
        assert!(Instants::at_rate(0.0, 0).is_err());
        assert!(Instants::at_rate(f64::NAN, 0).is_err());
    }

    #[test]
    fn ticks_group_instants_without_losing_any() {
        let mut instants = Instants::at_rate(4000.0, 0).unwrap().in_ticks(1_000_000);
        assert_eq!(instants.take(999_999), Some((0, 0)));
        assert_eq!(instants.take(999_999), None);
        let group: Vec<u64> = std::iter::from_fn(|| instants.take(1_999_999)).map(|(due, _)| due).collect();
        assert_eq!(group, [1_000_000; 4]);
        assert_eq!(instants.wait_ns(1_999_999), 1);
    }

    #[test]
    fn a_window_advances_with_the_sum_of_deliveries() {
        let mut window = Window::new(4, 10);
        assert_eq!(window.take(0), 4);
        assert_eq!(window.take(9), 0);
        assert_eq!(window.take(10), 1);
        assert_eq!(window.take(39), 2);
        assert_eq!(window.take(70), 4);
    }
}
