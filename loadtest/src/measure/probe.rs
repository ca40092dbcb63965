//! CPU time and memory of a server process, and CPU time of the generator, from /proc.
//!
//! CPU is utime + stime of `/proc/PID/stat`, which moves in 10 ms steps, refined by the nanosecond counters of the
//! threads alive (`task/*/schedstat`) where the kernel has them. Memory is what the process itself holds
//! (`VmRSS`, `RssAnon`); socket buffers in the kernel are not in it. Fails when the process is gone.

use std::{fs, io};

/// Memory of a process in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Resident set.
    pub rss_bytes: u64,
    /// The anonymous part of it: heap, stacks, rings.
    pub anonymous_bytes: u64,
}

/// Watches one server process.
#[derive(Debug, Clone, Copy)]
pub struct ServerProbe {
    pid: u32,
}

impl ServerProbe {
    /// A probe of process `pid`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn new(pid: u32) -> io::Result<Self> {
        let probe = Self { pid };
        probe.cpu_ns()?;
        Ok(probe)
    }

    /// CPU time consumed so far in nanoseconds, all threads.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        cpu_ns(&self.pid.to_string())
    }

    /// Memory held now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn memory(&self) -> io::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        Ok(Memory { rss_bytes: kilobytes(&status, "VmRSS:"), anonymous_bytes: kilobytes(&status, "RssAnon:") })
    }
}

/// CPU time consumed by this process so far, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    cpu_ns("self").unwrap_or(0)
}

pub(super) fn cpu_ns(process: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let ticks = stat_ticks(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable stat"))?;
    let coarse_ns = ticks * tick_ns();
    Ok(coarse_ns.max(threads_ns(process)))
}

/// Length of one step of the times in `/proc/PID/stat`, in nanoseconds.
pub(super) fn tick_ns() -> u64 {
    // SAFETY: plain system call without pointers.
    let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    1_000_000_000 / ticks_per_second
}

/// Sum of the run times of the threads alive; 0 where the kernel does not count them.
fn threads_ns(process: &str) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return 0;
    };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
        .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// utime + stime of a `/proc/PID/stat` line; the command name may contain anything, parentheses included.
fn stat_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

fn kilobytes(status: &str, key: &str) -> u64 {
    status.lines().find_map(|line| line.strip_prefix(key)?.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_nasty_name_is_read() {
        let line = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 7 5 0 0 20 0 1 0 100 1 1 18446744073709551615";
        assert_eq!(stat_ticks(line), Some(12));
        assert_eq!(stat_ticks("42 (a"), None);
    }

    #[test]
    fn status_lines_are_in_kilobytes() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nRssAnon:\t  1024 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:"), 2 * 1024 * 1024);
        assert_eq!(kilobytes(status, "Absent:"), 0);
    }

    #[test]
    fn this_process_can_be_probed_and_a_missing_one_cannot() {
        let probe = ServerProbe::new(std::process::id()).unwrap();
        assert!(probe.memory().unwrap().rss_bytes > 0);
        assert!(ServerProbe::new(u32::MAX).is_err());
    }
}
