//! One line on stderr that says how far a long run is, only when a person watches.
//!
//! At most five updates per second; the line is erased before results are printed.

use crate::machine::monotonic_ns;
use std::cell::Cell;
use std::io::IsTerminal as _;

/// Time between two updates.
const UPDATE_INTERVAL_NS: u64 = 200_000_000;

/// A progress line, prefixed with what is running.
#[derive(Debug, Clone)]
pub struct Progress {
    shown: bool,
    prefix: String,
    told_ns: Cell<u64>,
}

impl Progress {
    /// A line that begins with `prefix`; silent unless stderr is a terminal.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { shown: std::io::stderr().is_terminal(), prefix: prefix.into(), told_ns: Cell::new(0) }
    }

    /// Shows what `text` says, unless something was shown just now.
    pub fn tell(&self, text: impl FnOnce() -> String) {
        if !self.shown {
            return;
        }
        let now = monotonic_ns();
        if now - self.told_ns.get() >= UPDATE_INTERVAL_NS {
            self.told_ns.set(now);
            eprint!("\r\x1b[2K{}: {}", self.prefix, text());
        }
    }

    /// Erases the line.
    pub fn clear(&self) {
        if self.shown {
            self.told_ns.set(0);
            eprint!("\r\x1b[2K");
        }
    }
}
