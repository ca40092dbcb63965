//! A level-triggered epoll set with nanosecond timeouts.
//!
//! Level-triggered, so one read per event suffices: what stays unread is reported again. Tokens are the caller's
//! indices. Fails only as the system calls do; an interrupted wait reports nothing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};

/// Events taken from the kernel per wait.
const EVENTS_PER_WAIT_MAX: usize = 1024;

/// What a socket is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Only errors: a reader that has stopped.
    Nothing,
    /// Input.
    Read,
    /// Input, and room for output.
    ReadWrite,
}

impl Interest {
    fn bits(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Read => libc::EPOLLIN as u32,
            Self::ReadWrite => (libc::EPOLLIN | libc::EPOLLOUT) as u32,
        }
    }
}

/// One reported socket.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// The index given at registration.
    pub token: usize,
    /// Input, end of stream or an error waits.
    pub readable: bool,
    /// There is room for output.
    pub writable: bool,
}

/// An epoll instance and its event buffer.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    /// An empty set.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call; the returned descriptor is checked and owned right below.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just returned to us and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_PER_WAIT_MAX] })
    }

    /// Starts watching `socket`; closing it also ends the watch.
    ///
    /// # Errors
    /// As `epoll_ctl` does.
    pub fn add(&self, socket: &impl AsRawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), token, interest)
    }

    /// Changes what `socket` is watched for.
    ///
    /// # Errors
    /// As `epoll_ctl` does.
    pub fn change(&self, socket: &impl AsRawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket.as_raw_fd(), token, interest)
    }

    /// Stops watching `socket`.
    ///
    /// # Errors
    /// As `epoll_ctl` does.
    pub fn remove(&self, socket: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket.as_raw_fd(), 0, Interest::Nothing)
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.bits(), u64: token as u64 };
        // SAFETY: `event` lives through the call, which copies it.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Waits up to `timeout_ns` and returns how many sockets are ready; read them with [`Poller::ready`].
    ///
    /// # Errors
    /// As `epoll_pwait2` does, interruption excepted.
    pub fn wait(&mut self, timeout_ns: u64) -> io::Result<usize> {
        let timeout = libc::timespec {
            tv_sec: (timeout_ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (timeout_ns % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: the kernel writes at most EVENTS_PER_WAIT_MAX events into `self.events`, which has that length;
        // `timeout` is only read; the null signal mask makes the mask size irrelevant.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_PER_WAIT_MAX as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        match usize::try_from(count) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }

    /// The `index`-th socket of the last wait.
    pub fn ready(&self, index: usize) -> Ready {
        let event = self.events[index];
        let bits = event.events;
        let output = libc::EPOLLOUT as u32;
        Ready { token: event.u64 as usize, readable: bits & !output != 0, writable: bits & output != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn input_is_reported_under_its_token_until_interest_ends() {
        let (mut near, far) = UnixStream::pair().unwrap();
        let mut poller = Poller::new().unwrap();
        poller.add(&far, 7, Interest::Read).unwrap();
        assert_eq!(poller.wait(0).unwrap(), 0);
        near.write_all(b"x").unwrap();
        assert_eq!(poller.wait(1_000_000_000).unwrap(), 1);
        let ready = poller.ready(0);
        assert!(ready.token == 7 && ready.readable && !ready.writable);
        poller.change(&far, 7, Interest::Nothing).unwrap();
        assert_eq!(poller.wait(0).unwrap(), 0);
        poller.change(&far, 7, Interest::ReadWrite).unwrap();
        assert_eq!(poller.wait(0).unwrap(), 1);
        assert!(poller.ready(0).writable);
    }
}
