//! System calls `ringcast check` makes to see what the kernel allows: io_uring, limits, access.
//!
//! Each one is harmless: the ring is closed at once, limits and permissions are only read.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// Size of the kernel's `struct io_uring_params`, fixed by its ABI.
const IO_URING_PARAMS_BYTES: usize = 120;

/// Tries to make an io_uring; the error is the kernel's reason for refusing.
pub(super) fn io_uring() -> io::Result<()> {
    #[repr(C, align(8))]
    struct Params([u8; IO_URING_PARAMS_BYTES]);
    let mut params = Params([0; IO_URING_PARAMS_BYTES]);
    let entries: libc::c_uint = 8;
    // SAFETY: io_uring_setup(entries, params) writes at most its 120-byte parameter block, which
    // this frame owns, zeroed as the call requires.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) };
    let fd = i32::try_from(fd).unwrap_or(-1);
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nothing else owns.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// Soft and hard limit of open files.
pub(super) fn open_files_limits() -> Option<(u64, u64)> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one `rlimit`, which this frame owns.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limits) };
    (status == 0).then_some((limits.rlim_cur, limits.rlim_max))
}

/// Bytes of a page of memory.
pub(super) fn page_bytes() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// Whether files can be made in `folder`, or in the nearest existing folder above it. Makes none.
pub(super) fn writable(folder: &Path) -> Result<(), String> {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| PathBuf::from(folder));
    let existing = absolute.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/"));
    if !existing.is_dir() {
        return Err(format!("{} is not a folder", existing.display()));
    }
    let path = CString::new(existing.as_os_str().as_bytes()).map_err(|_| "its path contains a zero byte".to_owned())?;
    // SAFETY: `path` is a zero-terminated string that lives until the call returns.
    let status = unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) };
    if status == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!("{}: {error}", existing.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_pages_are_sane() {
        let (soft, hard) = open_files_limits().expect("readable");
        assert!(soft > 0 && soft <= hard);
        assert!(page_bytes().is_power_of_two());
    }

    #[test]
    fn refusing_io_uring_has_a_reason() {
        if let Err(error) = io_uring() {
            assert!(error.raw_os_error().is_some());
        }
    }

    #[test]
    fn a_missing_folder_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(writable(&folder.path().join("a/b")), Ok(()));
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        assert!(writable(&file).is_err());
    }
}
