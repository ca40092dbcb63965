//! What a fleet does by the clock: heartbeats for all, small reads for slow readers.
//!
//! Both are spread out so that they never form a burst in the middle of a measurement.

use super::{Fleet, Listener};
use crate::client::LoadError;
use crate::client::seat::{Phase, Reading};
use crate::machine::monotonic_ns;

/// Every connection says this often that it lives; the server drops those silent for 60 s (protocol 1.7).
const HEARTBEAT_INTERVAL_NS: u64 = 25_000_000_000;
/// Heartbeats sent per poll at most, so that they never form a burst.
const HEARTBEATS_PER_POLL_MAX: usize = 64;
/// How often slow readers read.
const SLOW_READ_INTERVAL_NS: u64 = 250_000_000;

impl Fleet {
    pub(super) fn calm_slow_readers(&mut self) -> Result<(), LoadError> {
        for seat in 0..self.connections.len() {
            match self.connections[seat].reading {
                Reading::Eager => {}
                Reading::Stopped => self.watch(seat)?,
                Reading::Slow(_) => {
                    self.slow.push(seat);
                    self.watch(seat)?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn read_slowly<L: Listener>(&mut self, listener: &mut L) -> Result<(), LoadError> {
        if self.slow.is_empty() || monotonic_ns() < self.slow_read_due_ns {
            return Ok(());
        }
        self.slow_read_due_ns = monotonic_ns() + SLOW_READ_INTERVAL_NS;
        let slow = std::mem::take(&mut self.slow);
        for &seat in &slow {
            let connection = &self.connections[seat];
            if let (Reading::Slow(bytes_per_second), Phase::Joined) = (connection.reading, connection.phase) {
                let share = (bytes_per_second as u64 * SLOW_READ_INTERVAL_NS / 1_000_000_000).max(1);
                self.read(seat, share as usize, &[], listener)?;
            }
        }
        self.slow = slow;
        Ok(())
    }

    /// Sends the heartbeats that are due, spread evenly over the connections and the interval.
    pub(super) fn beat(&mut self) -> Result<(), LoadError> {
        let count = self.connections.len() as u64;
        let elapsed_ns = monotonic_ns() - self.heartbeats_from_ns;
        let due = (u128::from(elapsed_ns) * u128::from(count) / u128::from(HEARTBEAT_INTERVAL_NS)) as u64;
        let heartbeat = std::mem::take(&mut self.heartbeat);
        for _ in 0..HEARTBEATS_PER_POLL_MAX {
            if self.heartbeats_sent >= due {
                break;
            }
            self.send((self.heartbeats_sent % count) as usize, &heartbeat)?;
            self.heartbeats_sent += 1;
        }
        self.heartbeat = heartbeat;
        Ok(())
    }
}
