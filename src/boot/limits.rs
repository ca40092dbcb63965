//! Process limits that the server raises for itself.

use crate::config::Config;

/// Descriptors beside the client connections: rings, listeners, store, logs.
const OWN_FILES: u64 = 256;

/// Raises the soft limit of open files to `RLIMIT_NOFILE` if set, else as far as `MAX_CONNECTIONS` needs and the hard limit
/// allows. What is missing is a warning: connections beyond it wait.
pub fn raise_open_files(config: &Config) {
    let needed = config.rlimit_nofile.unwrap_or(config.max_connections + OWN_FILES);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the structure that is passed by a valid pointer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return tracing::warn!("the open files limit cannot be read");
    }
    if limit.rlim_cur < needed {
        limit.rlim_cur = needed.min(limit.rlim_max);
        // SAFETY: as above; the kernel only reads the structure.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
            return tracing::warn!("the open files limit cannot be raised");
        }
    }
    if limit.rlim_cur < needed {
        tracing::warn!(
            "only {} open files are allowed where {needed} are needed; raise LimitNOFILE or the hard limit",
            limit.rlim_cur
        );
    }
}
