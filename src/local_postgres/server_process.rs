//! The server's process: started, watched until it is ready, ended.
//!
//! Each server has a thread of its own ("postgres"), which is its parent: on Linux the server is told to stop at
//! once when that thread ends, so it never outlives us, however we end; and a thread of the caller may be shorter-lived than
//! the server. The server is in its own process group, because a Ctrl-C at the terminal is for us: we stop it when we are
//! through with it. The thread alone signals the process and waits for it, so no signal can hit a stranger.

use std::{
    fs,
    io::{self, Read as _, Seek as _},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{account::Account, program};

/// A server that replays the log of a crash needs longest.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause between two looks at a server that starts.
const READY_POLL: Duration = Duration::from_millis(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How a server is stopped: the signal and how long it may take. Fast shutdown (ends sessions, writes a checkpoint), immediate
/// shutdown (the next start replays the log), and the kernel's word.
const STOP_SIGNALS: [(libc::c_int, Duration); 3] =
    [(libc::SIGINT, Duration::from_secs(10)), (libc::SIGQUIT, Duration::from_secs(5)), (libc::SIGKILL, Duration::from_secs(5))];

/// How much of the log is shown when a server does not start.
const SHOWN_LINES: usize = 12;
const SHOWN_BYTES_MAX: u64 = 16 * 1024;

/// What a server says that finds its port taken (`LC_ALL` is C).
const PORT_TAKEN: &str = "could not create any TCP/IP sockets";

/// Why there is no server.
#[derive(Debug)]
pub enum NotStarted {
    /// Somebody else has the port: worth another try.
    PortTaken,
    Failed(String),
}

/// A server to start.
pub struct Launch {
    /// `postgres` with all of its arguments, its output going to `log`.
    pub command: Command,
    pub account: Option<Account>,
    pub data: PathBuf,
    pub port: u16,
    pub log: PathBuf,
    /// Where this start begins in the log.
    pub log_start_bytes: u64,
}

/// A server that accepts connections. Dropping it stops it, which may take as long as [`STOP_SIGNALS`] say.
pub struct ServerProcess {
    pid: u32,
    /// Nothing is sent: closing it tells the thread to stop the server.
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl ServerProcess {
    /// Starts the server and waits until it accepts connections.
    pub fn start(launch: Launch) -> Result<Self, NotStarted> {
        let (report, started) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let keeper = thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || {
                let child = launch.run();
                let pid = child.as_ref().map_or(0, Child::id);
                match child {
                    Ok(mut child) => {
                        // When nobody is there to hear of it, nobody can stop it either.
                        if report.send(Ok(pid)).is_ok() {
                            let _ = stopped.recv();
                        }
                        end(&mut child);
                    }
                    Err(reason) => drop(report.send(Err(reason))),
                }
            })
            .map_err(|e| NotStarted::Failed(format!("no thread can be started: {e}")))?;
        let died = || NotStarted::Failed("the thread that starts Postgres died".to_owned());
        let pid = started.recv().map_err(|_| died())??;
        Ok(Self { pid, stop: Some(stop), keeper: Some(keeper) })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(keeper) = self.keeper.take() {
            // It has nothing to report, not even its own panic.
            let _ = keeper.join();
        }
    }
}

impl Launch {
    fn run(mut self) -> Result<Child, NotStarted> {
        self.command.process_group(0);
        die_with_this_thread(&mut self.command);
        let mut child = program::spawn(&mut self.command, self.account.as_ref()).map_err(NotStarted::Failed)?;
        match self.wait_until_ready(&mut child) {
            Ok(()) => Ok(child),
            Err(reason) => {
                end(&mut child);
                Err(reason)
            }
        }
    }

    fn wait_until_ready(&self, child: &mut Child) -> Result<(), NotStarted> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            let ended = program::ended_within(child, Duration::ZERO).map_err(NotStarted::Failed)?;
            let said = || log_since(&self.log, self.log_start_bytes).unwrap_or_default();
            if let Some(status) = ended {
                let said = said();
                return Err(match said.contains(PORT_TAKEN) {
                    true => NotStarted::PortTaken,
                    false => {
                        NotStarted::Failed(format!("Postgres ended while starting ({status}); it said:\n{}", last_lines(&said)))
                    }
                });
            }
            if announces_ready(&self.data, child.id()) && TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let seconds = READY_TIMEOUT.as_secs();
                let said = said();
                return Err(NotStarted::Failed(format!(
                    "Postgres was not ready within {seconds} s; it said:\n{}",
                    last_lines(&said)
                )));
            }
            thread::sleep(READY_POLL);
        }
    }
}

/// Has the kernel end the child when this thread does. Elsewhere than on Linux only `Drop` does.
fn die_with_this_thread(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = libc::pid_t::try_from(std::process::id()).unwrap_or(0);
        // SAFETY: between fork and exec only these two system calls are made, which allocate and lock nothing. It runs after the
        // change of user, which would undo it.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // We may have died before the request was made.
                if libc::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

fn end(child: &mut Child) {
    let Ok(pid) = libc::pid_t::try_from(child.id()) else { return };
    for (signal, limit) in STOP_SIGNALS {
        if !matches!(program::ended_within(child, Duration::ZERO), Ok(None)) {
            return;
        }
        // SAFETY: touches no memory. The process is our child and has not been waited for, so the id is still its own.
        unsafe { libc::kill(pid, signal) };
        if !matches!(program::ended_within(child, limit), Ok(None)) {
            return;
        }
    }
}

/// Whether the server writes in its `postmaster.pid` that it accepts connections: line 1 is its process, line 8 its state.
fn announces_ready(data: &Path, pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let mut lines = text.lines().map(str::trim);
    lines.next() == Some(pid.to_string().as_str()) && lines.nth(6) == Some("ready")
}

/// The server that `postmaster.pid` says is running on `data`, if it does.
pub fn running_on(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid = text.lines().next()?.trim().parse::<u32>().ok()?;
    if !Path::new("/proc/self/comm").exists() {
        // SAFETY: signal 0 only asks, and touches no memory.
        return (unsafe { libc::kill(libc::pid_t::try_from(pid).ok()?, 0) } == 0).then_some(pid);
    }
    // The file of a server that crashed names a process that is gone, has become somebody else, or is a zombie that
    // nobody in this container collects.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let has = |field: &str, value: &str| {
        status.lines().any(|line| line.strip_prefix(field).is_some_and(|v| v.trim().starts_with(value)))
    };
    let elsewhere = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|folder| folder != data);
    (has("Name:", "postgres") && !has("State:", "Z") && !elsewhere).then_some(pid)
}

fn log_since(log: &Path, start_bytes: u64) -> io::Result<String> {
    let mut file = fs::File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(start_bytes.max(end.saturating_sub(SHOWN_BYTES_MAX))))?;
    let mut said = Vec::new();
    file.take(SHOWN_BYTES_MAX).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_the_own_servers() {
        let data = tempfile::tempdir().unwrap();
        let write = |state: &str| {
            let text = format!("4711\n/data\n1700000000\n15400\n/socket\n127.0.0.1\n 123 4\n{state}\n");
            fs::write(data.path().join("postmaster.pid"), text).unwrap();
        };
        assert!(!announces_ready(data.path(), 4711));
        write("starting");
        assert!(!announces_ready(data.path(), 4711));
        write("ready   ");
        assert!(announces_ready(data.path(), 4711));
        assert!(!announces_ready(data.path(), 4712));
    }

    #[test]
    fn a_note_left_by_a_crash_is_no_server() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(running_on(data.path()), None);
        for pid in ["garbage", "4999999", &std::process::id().to_string()] {
            fs::write(data.path().join("postmaster.pid"), format!("{pid}\n/data\n")).unwrap();
            if pid != "garbage" && !Path::new("/proc/self/comm").exists() {
                continue;
            }
            assert_eq!(running_on(data.path()), None, "{pid}");
        }
    }

    #[test]
    fn what_is_shown_of_a_log_is_new_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("postgres.log");
        fs::write(&log, "old\nnew 1\nnew 2\n").unwrap();
        assert_eq!(log_since(&log, 4).unwrap(), "new 1\nnew 2\n");
        fs::write(&log, "line\n".repeat(100_000)).unwrap();
        let said = log_since(&log, 0).unwrap();
        assert_eq!((said.len() as u64, last_lines(&said).lines().count()), (SHOWN_BYTES_MAX, SHOWN_LINES));
    }
}
