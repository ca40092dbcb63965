//! Which CPUs this process may use, and the text form of a CPU list (`0,2-3`).
//!
//! Used by the configuration (parsing `RINGCAST_CORES`), by boot (pinning shards) and by
//! `ringcast check`. The allowed set is that of the calling thread (`sched_getaffinity`), which a
//! container runtime or `taskset` narrows; it is never larger than the machine.

use std::io;

/// The highest CPU number accepted in a list: the size of the kernel's fixed `cpu_set_t`, which
/// `allowed` reads and thread pinning writes.
pub const CPU_NUMBER_MAX: usize = libc::CPU_SETSIZE as usize - 1;

/// The CPU numbers the calling thread may run on, ascending.
///
/// # Errors
/// The error of `sched_getaffinity`, for instance on a machine with more than 1024 CPUs.
pub fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: `cpu_set_t` is plain bits for which all zeros is valid (the empty set).
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is owned by this frame and its exact size is passed; pid 0 is this thread.
    let status = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((0..=CPU_NUMBER_MAX)
        // SAFETY: `cpu` is below CPU_SETSIZE, the number of bits of the initialised set.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect())
}

/// Parses `0,2-3` into ascending CPU numbers without repeats.
///
/// # Errors
/// A message naming the item that is no CPU number and no ascending range.
pub fn parse(text: &str) -> Result<Vec<usize>, String> {
    let mut cpus = Vec::new();
    for item in text.split(',').map(str::trim) {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        match (cpu_number(first), cpu_number(last)) {
            (Some(first), Some(last)) if first <= last => cpus.extend(first..=last),
            _ => {
                return Err(format!("`{item}` is not a CPU number or an ascending range such as 2-5 (0 to {CPU_NUMBER_MAX})"));
            }
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// Writes a list of ascending CPU numbers the short way: `[0, 2, 3]` becomes `0,2-3`.
pub fn format(cpus: &[usize]) -> String {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &cpu in cpus {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => ranges.push((cpu, cpu)),
        }
    }
    ranges
        .iter()
        .map(|&(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        })
        .collect::<Vec<_>>()
        .join(",")
}

fn cpu_number(text: &str) -> Option<usize> {
    let text = text.trim();
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&cpu| cpu <= CPU_NUMBER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_merged_in_order() {
        assert_eq!(parse("0,2-3"), Ok(vec![0, 2, 3]));
        assert_eq!(parse(" 5 , 1-2,2 "), Ok(vec![1, 2, 5]));
        assert_eq!(parse("7"), Ok(vec![7]));
    }

    #[test]
    fn nonsense_is_refused_by_item() {
        for bad in ["", "a", "3-1", "1-", "-1", "1,,2", "+1", "1024"] {
            let message = parse(bad).expect_err(bad);
            assert!(message.contains("not a CPU number"), "{bad}: {message}");
        }
    }

    #[test]
    fn formatting_is_the_inverse_of_parsing() {
        for text in ["0", "0,2-3", "0-3,7,9-10"] {
            assert_eq!(format(&parse(text).expect(text)), text);
        }
        assert_eq!(format(&[]), "");
    }

    #[test]
    fn this_thread_may_run_somewhere() {
        let cpus = allowed().expect("affinity is readable");
        assert!(!cpus.is_empty());
        assert!(cpus.is_sorted());
    }
}
