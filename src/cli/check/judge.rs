//! The rules of `ringcast check`: facts and configuration in, findings with advice out. Pure.

use semver::Version;

use super::{finding::Finding, host::Host};
use crate::{
    base::{cpuset, sizes::human},
    config::{Config, Driver},
};

/// First kernel whose io_uring has what the shards use.
const KERNEL_IO_URING: Version = Version::new(5, 6, 0);

/// First kernel where io_uring is mature for sockets; older ones lack years of fixes.
const KERNEL_RECOMMENDED: Version = Version::new(5, 15, 0);

/// Descriptors besides client sockets: rings, listeners, databases, store, standard streams.
const FILES_RESERVE: u64 = 256;

/// Memory of one idle connection in this process and in the kernel's socket, measured with a margin.
const CONNECTION_BYTES: u64 = 16 * 1024;

/// Ephemeral ports below which outgoing connections (load tests, databases) may run out.
const LOCAL_PORTS_MIN: u64 = 16_000;

/// Packets the kernel queues per CPU before dropping, from its default.
const NETDEV_BACKLOG_MIN: u64 = 1000;

/// A socket buffer that cannot grow to this limits one fast client of a large broadcast.
const SOCKET_BUFFER_MAX_MIN: u64 = 1 << 20;

/// Judges everything, host first.
pub(super) fn judge(config: &Config, host: &Host) -> Vec<Finding> {
    let mut findings = vec![kernel(host), io_uring(config, host), open_files(config, host)];
    findings.extend(queues(config, host));
    findings.extend(network_memory(config, host));
    findings.push(cpus(config, host));
    findings.extend(memory(config, host));
    findings.push(state_dir(config, host));
    findings.extend(secrets(config));
    findings
}

fn kernel(host: &Host) -> Finding {
    let release = &host.kernel_release;
    match kernel_version(release) {
        Some(version) if version < KERNEL_RECOMMENDED => Finding::warn(
            "kernel",
            format!("{release} is older than {KERNEL_RECOMMENDED}"),
            format!("upgrade the kernel to {KERNEL_RECOMMENDED} or newer; 6.x is best"),
        ),
        Some(_) => Finding::ok("kernel", release),
        None => Finding::warn(
            "kernel",
            format!("release `{release}` is not understood"),
            format!("make sure that it is {KERNEL_RECOMMENDED} or newer"),
        ),
    }
}

/// The numbers at the start of a release such as `5.15.0-1052-aws` or `6.1`.
fn kernel_version(release: &str) -> Option<Version> {
    let end = release.find(|c: char| c != '.' && !c.is_ascii_digit());
    let mut parts = release[..end.unwrap_or(release.len())].split('.');
    let mut part = || parts.next().and_then(|digits| digits.parse().ok());
    let major = part()?;
    Some(Version::new(major, part()?, part().unwrap_or(0)))
}

fn io_uring(config: &Config, host: &Host) -> Finding {
    let Err(errno) = host.io_uring else {
        return Finding::ok(
            "io_uring",
            match config.driver {
                Driver::Epoll => "available, but RINGCAST_DRIVER=epoll",
                Driver::Auto | Driver::IoUring => "available",
            },
        );
    };
    let too_old = kernel_version(&host.kernel_release).is_some_and(|v| v < KERNEL_IO_URING);
    let (reason, advice) = match errno {
        libc::ENOSYS if too_old => {
            ("ENOSYS: the kernel is too old".to_owned(), format!("upgrade the kernel to {KERNEL_RECOMMENDED} or newer"))
        }
        libc::ENOSYS => (
            "ENOSYS: not built into the kernel, or hidden by a sandbox".to_owned(),
            "docker run --security-opt seccomp=unconfined (or a profile with io_uring_*)".to_owned(),
        ),
        libc::EPERM | libc::EACCES => (
            "EPERM: forbidden by seccomp or by kernel.io_uring_disabled".to_owned(),
            "sysctl -w kernel.io_uring_disabled=0\n\
             docker run --security-opt seccomp=unconfined (or a profile with io_uring_*)"
                .to_owned(),
        ),
        libc::ENOMEM => (
            "ENOMEM: the locked-memory limit is too small".to_owned(),
            "systemd: LimitMEMLOCK=infinity; docker: --ulimit memlock=-1".to_owned(),
        ),
        errno => (std::io::Error::from_raw_os_error(errno).to_string(), "see the error in io_uring_setup(2)".to_owned()),
    };
    match config.driver {
        Driver::IoUring => Finding::fail("io_uring", reason, advice),
        Driver::Auto => Finding::warn("io_uring", format!("{reason}; epoll will be used"), advice),
        Driver::Epoll => Finding::ok("io_uring", format!("{reason}; not needed with epoll")),
    }
}

fn open_files(config: &Config, host: &Host) -> Finding {
    let needed = config.max_connections.saturating_add(FILES_RESERVE);
    let advice = format!(
        "systemd: LimitNOFILE={needed}; shell: ulimit -n {needed}; docker: --ulimit nofile={needed}\n\
         or MAX_CONNECTIONS below the limit"
    );
    let Some((soft, hard)) = host.open_files else {
        return Finding::warn("open files", "the limit cannot be read", advice);
    };
    let limit = config.rlimit_nofile.unwrap_or(hard).min(hard);
    let found = format!("soft {soft}, hard {hard}, needed {needed}");
    if limit < needed { Finding::fail("open files", found, advice) } else { Finding::ok("open files", found) }
}

/// Settings that must be at least as large as something: one sysctl each.
fn at_least(subject: &'static str, sysctl: &str, found: Option<u64>, wanted: u64, why: &str) -> Option<Finding> {
    let found = found?;
    Some(if found < wanted {
        Finding::warn(subject, format!("{found} is below {wanted}: {why}"), format!("sysctl -w {sysctl}={wanted}"))
    } else {
        Finding::ok(subject, found.to_string())
    })
}

fn queues(config: &Config, host: &Host) -> Vec<Finding> {
    let backlog = u64::from(config.backlog);
    let ports = host.local_ports.map(|(first, last)| last.saturating_sub(first) + 1);
    let port_finding = ports.map(|count| {
        if count < LOCAL_PORTS_MIN {
            Finding::warn(
                "local ports",
                format!("{count} ports for outgoing connections"),
                "sysctl -w net.ipv4.ip_local_port_range='10240 65535'",
            )
        } else {
            Finding::ok("local ports", format!("{count} for outgoing connections"))
        }
    });
    [
        at_least(
            "somaxconn",
            "net.core.somaxconn",
            host.somaxconn,
            backlog,
            "it cuts RINGCAST_BACKLOG, so bursts of connections are refused",
        ),
        at_least(
            "syn backlog",
            "net.ipv4.tcp_max_syn_backlog",
            host.syn_backlog,
            backlog,
            "handshakes are dropped when many clients reconnect at once",
        ),
        at_least(
            "netdev backlog",
            "net.core.netdev_max_backlog",
            host.netdev_backlog,
            NETDEV_BACKLOG_MIN,
            "packets are dropped under bursts",
        ),
        port_finding,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn network_memory(config: &Config, host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    let wanted = config.max_connections.saturating_mul(CONNECTION_BYTES);
    if let Some([low, pressure, max]) = host.tcp_memory {
        let found = format!("{} / {} / {}", human(low), human(pressure), human(max));
        findings.push(if max < wanted {
            let pages = wanted / 4096;
            Finding::warn(
                "tcp_mem",
                format!("{found}; {} connections may need {}", config.max_connections, human(wanted)),
                format!("sysctl -w net.ipv4.tcp_mem='{} {pages} {}'", pages / 2, pages * 2),
            )
        } else {
            Finding::ok("tcp_mem", found)
        });
    }
    let buffers = [("tcp_rmem", host.tcp_read_buffer), ("tcp_wmem", host.tcp_write_buffer)];
    for (subject, buffer) in buffers {
        let Some([min, default, max]) = buffer else {
            continue;
        };
        let found = format!("{} / {} / {}", human(min), human(default), human(max));
        findings.push(if max < SOCKET_BUFFER_MAX_MIN {
            Finding::warn(
                subject,
                format!("{found}; the maximum is small for large messages"),
                format!("sysctl -w net.ipv4.{subject}='{min} {default} {}'", 4 * SOCKET_BUFFER_MAX_MIN),
            )
        } else {
            Finding::ok(subject, found)
        });
    }
    findings
}

fn cpus(config: &Config, host: &Host) -> Finding {
    let plan = match config.core_plan(&host.allowed_cpus) {
        Ok(plan) => plan,
        Err(error) => {
            return Finding::fail("cpus", error.to_string(), "correct RINGCAST_CORES or the cpuset");
        }
    };
    let shards = plan.shard_cores.len();
    let cores = plan.cores.len();
    let found = format!("{shards} shards on CPUs {}", cpuset::format(&plan.cores));
    if shards > cores {
        return Finding::warn("cpus", format!("{found}: some shards share a CPU"), format!("RINGCAST_SHARDS={cores}"));
    }
    Finding::ok("cpus", found)
}

fn memory(config: &Config, host: &Host) -> Vec<Finding> {
    let mut findings = Vec::new();
    match host.huge_pages.as_deref() {
        Some("always") => findings.push(Finding::warn(
            "huge pages",
            "always: memory of idle connections grows in 2 MiB steps",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )),
        Some(word) => findings.push(Finding::ok("huge pages", word)),
        None => {}
    }
    let limits = [host.memory_limit, host.memory_total];
    let Some(limit) = limits.into_iter().flatten().min() else {
        return findings;
    };
    let origin = match host.memory_limit {
        Some(group) if group == limit => "limit of the control group",
        _ => "memory of the machine",
    };
    let idle = config.max_connections.saturating_mul(CONNECTION_BYTES);
    let found = format!("{} ({origin}); {} idle connections need about {}", human(limit), config.max_connections, human(idle));
    findings.push(if idle > limit / 2 {
        Finding::warn("memory", found, "MAX_CONNECTIONS lower, or more memory")
    } else {
        Finding::ok("memory", found)
    });
    let outbox = config.outbox_bytes_max as u64;
    if outbox > limit / 16 {
        findings.push(Finding::warn(
            "outbox budget",
            format!("{} per socket: 16 stalled clients fill the memory", human(outbox)),
            format!("WEBSOCKET_MAX_HEAP_SIZE={}", (limit / 256).max(4_000_000)),
        ));
    }
    findings
}

fn state_dir(config: &Config, host: &Host) -> Finding {
    let path = config.state_dir.display();
    match &host.state_dir {
        Ok(()) => Finding::ok("state folder", format!("{path} is writable")),
        Err(reason) => Finding::fail(
            "state folder",
            format!("{path} cannot be written ({reason})"),
            "RINGCAST_STATE_DIR=/a/writable/folder, or chown the folder to this user",
        ),
    }
}

fn secrets(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.api_jwt_secret.is_none() {
        findings.push(Finding::warn(
            "API_JWT_SECRET",
            "unset: the development tenant has a publicly known secret and the management API \
             refuses everything",
            "API_JWT_SECRET=$(openssl rand -hex 32)",
        ));
    }
    if config.metrics_jwt_secret.is_none() {
        findings.push(Finding::warn(
            "METRICS_JWT_SECRET",
            "unset: /metrics refuses every scrape",
            "METRICS_JWT_SECRET=$(openssl rand -hex 32)",
        ));
    }
    let warnings = config.warnings.iter();
    findings.extend(warnings.map(|w| Finding::warn("variables", w, "remove the variable")));
    findings
}

#[cfg(test)]
mod tests;
