//! Timer wheel of a shard: coarse, allocation-light, never cancelled.
//!
//! Holds everything a shard does later: token checks, back-offs, closing handshakes, presence batches. An entry fires at the first
//! tick at or after its due time; entries further away than one turn of the wheel stay in their slot for another round.
//! Whoever sets a timer recognises a stale one by its serial, so there is nothing to cancel. The number of entries is
//! bounded by what sets them: a few per socket and channel.

/// Resolution. Deadlines of the protocol are whole seconds; batching intervals are at least this long.
pub const TICK_MS: u64 = 16;

/// One turn of the wheel is 16 s.
const SLOTS: usize = 1024;

/// Timers by due time.
#[derive(Debug)]
pub struct Wheel<T> {
    slots: Vec<Vec<(u64, T)>>,
    /// Tick that was handled last.
    tick: u64,
}

impl<T> Wheel<T> {
    /// A wheel that starts at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self { slots: (0..SLOTS).map(|_| Vec::new()).collect(), tick: now_ms / TICK_MS }
    }

    /// Adds a timer; one that is already due fires at the next tick.
    pub fn add(&mut self, due_ms: u64, timer: T) {
        let tick = due_ms.div_ceil(TICK_MS).max(self.tick + 1);
        self.slots[tick as usize % SLOTS].push((tick, timer));
    }

    /// Moves everything due until `now_ms` into `due`.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<T>) {
        let now_tick = now_ms / TICK_MS;
        // After a long pause one turn visits every slot.
        let first = (self.tick + 1).max(now_tick.saturating_sub(SLOTS as u64 - 1));
        for tick in first..=now_tick {
            let slot = &mut self.slots[tick as usize % SLOTS];
            let mut index = 0;
            while index < slot.len() {
                if slot[index].0 <= now_tick {
                    due.push(slot.swap_remove(index).1);
                } else {
                    index += 1;
                }
            }
            if slot.is_empty() && slot.capacity() > 64 {
                *slot = Vec::new();
            }
        }
        self.tick = self.tick.max(now_tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(wheel: &mut Wheel<u32>, now_ms: u64) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now_ms, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn fires_at_or_after_the_due_time() {
        let mut wheel = Wheel::new(1_000);
        wheel.add(1_000, 1);
        wheel.add(1_100, 2);
        wheel.add(60_000, 3);
        assert_eq!(fire(&mut wheel, 1_007), Vec::<u32>::new());
        assert_eq!(fire(&mut wheel, 1_008), [1]);
        assert_eq!(fire(&mut wheel, 1_099), Vec::<u32>::new());
        assert_eq!(fire(&mut wheel, 1_115), [2]);
        assert_eq!(fire(&mut wheel, 59_999), Vec::<u32>::new());
        assert_eq!(fire(&mut wheel, 60_000 + TICK_MS), [3]);
    }

    #[test]
    fn a_long_pause_loses_nothing() {
        let mut wheel = Wheel::new(0);
        for n in 0..2_000 {
            wheel.add(u64::from(n) * 37, n);
        }
        assert_eq!(fire(&mut wheel, 1_000_000).len(), 2_000);
    }
}
