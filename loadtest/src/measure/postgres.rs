//! CPU time of a whole Postgres: its postmaster, every process alive below it, and those that have ended.
//!
//! Called by [`super::Meter`] at both ends of a measurement. Backends come and go; the postmaster collects its children,
//! so what an ended one used has moved into the postmaster's `cutime` and `cstime` (10 ms steps), and the sum never
//! forgets it. Postgres runs one postmaster per data directory: other clusters of the machine are not counted. Fails
//! when the postmaster is gone.

use super::probe::{cpu_ns, tick_ns};
use std::{fs, io};

/// Watches the processes of one Postgres.
#[derive(Debug, Clone, Copy)]
pub struct PostgresProbe {
    postmaster: u32,
}

/// What a `/proc/PID/stat` line says about the family of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Family {
    parent: u32,
    /// cutime + cstime: the times of children that have ended.
    ended_ticks: u64,
}

impl PostgresProbe {
    /// A probe of the Postgres whose postmaster is process `postmaster`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn new(postmaster: u32) -> io::Result<Self> {
        let probe = Self { postmaster };
        probe.cpu_ns()?;
        Ok(probe)
    }

    /// CPU time consumed so far in nanoseconds, all processes.
    ///
    /// # Errors
    /// When the postmaster is gone.
    pub fn cpu_ns(&self) -> io::Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.postmaster))?;
        let family = Family::of(&stat).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unreadable stat"))?;
        let own_ns = cpu_ns(&self.postmaster.to_string())?;
        let alive_ns: u64 = self.children().filter_map(|child| cpu_ns(&child).ok()).sum();
        Ok(own_ns + family.ended_ticks * tick_ns() + alive_ns)
    }

    /// Ids of the processes below the postmaster that are alive.
    fn children(&self) -> impl Iterator<Item = String> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let postmaster = self.postmaster;
        processes.filter_map(move |process| {
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            let id = process.file_name().into_string().ok()?;
            (Family::of(&stat)?.parent == postmaster).then_some(id)
        })
    }
}

impl Family {
    /// Reads a stat line; the command name may contain anything, parentheses included.
    fn of(stat: &str) -> Option<Self> {
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        let mut times = fields.skip(11);
        let cutime: u64 = times.next()?.parse().ok()?;
        let cstime: u64 = times.next()?.parse().ok()?;
        Some(Self { parent, ended_ticks: cutime + cstime })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_stat_line_tells_the_parent_and_the_ended() {
        let line = "42 (a) b (c) S 31 42 42 0 -1 4194560 100 0 0 0 7 5 3 4 20 0 1 0 100 1 1 18446744073709551615";
        assert_eq!(Family::of(line), Some(Family { parent: 31, ended_ticks: 7 }));
        assert_eq!(Family::of("42 (a) S 31"), None);
    }

    #[test]
    fn children_count_while_they_live_and_after_they_ended() {
        let probe = PostgresProbe::new(std::process::id()).unwrap();
        let before = probe.cpu_ns().unwrap();
        let busy = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; read line";
        let mut child = Command::new("sh").args(["-c", busy]).stdin(Stdio::piped()).spawn().unwrap();
        let id = child.id().to_string();
        let busy_ns = loop {
            let used_ns = cpu_ns(&id).unwrap();
            if used_ns > 50_000_000 {
                break used_ns;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        assert!(probe.children().any(|child| child == id));
        assert!(probe.cpu_ns().unwrap() >= before + busy_ns);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!probe.children().any(|child| child == id));
        assert!(probe.cpu_ns().unwrap() + 2 * tick_ns() >= before + busy_ns);
        assert!(PostgresProbe::new(u32::MAX).is_err());
    }
}
