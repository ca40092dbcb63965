//! Reads what `judge` needs to know about this host. Facts that cannot be read are `None`.

use std::{fs, io, path::Path};

use super::probe;
use crate::{base::cpuset, config::Config};

/// Facts about the host, as read; nothing is judged here.
#[derive(Debug)]
pub(super) struct Host {
    /// `uname -r`.
    pub kernel_release: String,
    /// `Err` holds the errno of the refusal.
    pub io_uring: Result<(), i32>,
    /// Soft and hard limit of open files.
    pub open_files: Option<(u64, u64)>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.core.netdev_max_backlog`.
    pub netdev_backlog: Option<u64>,
    /// First and last port of `net.ipv4.ip_local_port_range`.
    pub local_ports: Option<(u64, u64)>,
    /// Low, pressure and maximum of `net.ipv4.tcp_mem`, in bytes.
    pub tcp_memory: Option<[u64; 3]>,
    /// Minimum, default and maximum of `net.ipv4.tcp_rmem`, in bytes.
    pub tcp_read_buffer: Option<[u64; 3]>,
    /// Minimum, default and maximum of `net.ipv4.tcp_wmem`, in bytes.
    pub tcp_write_buffer: Option<[u64; 3]>,
    /// CPUs this process may use.
    pub allowed_cpus: Vec<usize>,
    /// The chosen word of transparent huge pages: always, madvise or never.
    pub huge_pages: Option<String>,
    /// Memory of the machine, in bytes.
    pub memory_total: Option<u64>,
    /// Limit of the memory control group, in bytes.
    pub memory_limit: Option<u64>,
    /// Whether the state folder can be written, else why not.
    pub state_dir: Result<(), String>,
}

/// Reads everything.
pub(super) fn read(config: &Config) -> Host {
    let pages = numbers::<3>("/proc/sys/net/ipv4/tcp_mem");
    Host {
        kernel_release: text("/proc/sys/kernel/osrelease").unwrap_or_default(),
        io_uring: probe::io_uring().map_err(|e| e.raw_os_error().unwrap_or(0)),
        open_files: probe::open_files_limits(),
        somaxconn: number("/proc/sys/net/core/somaxconn"),
        syn_backlog: number("/proc/sys/net/ipv4/tcp_max_syn_backlog"),
        netdev_backlog: number("/proc/sys/net/core/netdev_max_backlog"),
        local_ports: numbers::<2>("/proc/sys/net/ipv4/ip_local_port_range").map(|[a, b]| (a, b)),
        tcp_memory: pages.map(|pages| pages.map(|p| p.saturating_mul(probe::page_bytes()))),
        tcp_read_buffer: numbers::<3>("/proc/sys/net/ipv4/tcp_rmem"),
        tcp_write_buffer: numbers::<3>("/proc/sys/net/ipv4/tcp_wmem"),
        allowed_cpus: cpuset::allowed().unwrap_or_default(),
        huge_pages: text("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|words| chosen_word(&words)),
        memory_total: text("/proc/meminfo").and_then(|info| total_memory(&info)),
        memory_limit: memory_limit(),
        state_dir: probe::writable(&config.state_dir),
    }
}

fn text(path: &str) -> Option<String> {
    let read: io::Result<String> = fs::read_to_string(path);
    read.ok().map(|text| text.trim().to_owned())
}

fn number(path: &str) -> Option<u64> {
    text(path)?.parse().ok()
}

fn numbers<const N: usize>(path: &str) -> Option<[u64; N]> {
    let numbers: Option<Vec<u64>> = text(path)?.split_whitespace().map(|word| word.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// The word in brackets of `always [madvise] never`.
fn chosen_word(words: &str) -> Option<String> {
    let (_, rest) = words.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest memory limit of this process's control group and those above it.
fn memory_limit() -> Option<u64> {
    let groups = text("/proc/self/cgroup")?;
    groups
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            match (parts.next()?, parts.next()?) {
                ("", path) => Some(("/sys/fs/cgroup", path, "memory.max")),
                ("memory", path) => Some(("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes")),
                _ => None,
            }
        })
        .filter_map(|(root, path, file)| limit_of_group(Path::new(root), path, file))
        .min()
}

fn limit_of_group(root: &Path, group: &str, file: &str) -> Option<u64> {
    let folder = root.join(group.trim_start_matches('/'));
    let folders = folder.ancestors().take_while(|path| path.starts_with(root));
    folders.filter_map(|path| fs::read_to_string(path.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts_are_understood() {
        assert_eq!(chosen_word("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen_word(""), None);
        let info = "MemFree: 1 kB\nMemTotal:       24689048 kB\n";
        assert_eq!(total_memory(info), Some(24_689_048 * 1024));
    }

    #[test]
    fn the_smallest_limit_of_the_path_counts() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).expect("made");
        std::fs::write(inner.join("memory.max"), "max\n").expect("written");
        std::fs::write(root.path().join("a/memory.max"), "1000\n").expect("written");
        assert_eq!(limit_of_group(root.path(), "/a/b", "memory.max"), Some(1000));
        assert_eq!(limit_of_group(root.path(), "/", "memory.max"), None);
    }
}
