//! One local server, from its folder to its end.
//!
//! `Instance::start` makes the cluster when there is none, starts `postgres` on a free port of 127.0.0.1 and returns when
//! it accepts connections. One process at a time may use a folder, guarded by a lock that the kernel releases with us. All
//! settings are arguments of `postgres`, so they follow our version and not the one that made the cluster.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{
    Connection,
    account::Account,
    binaries::Binaries,
    cluster::Cluster,
    port, program,
    server_process::{Launch, NotStarted, ServerProcess, running_on},
};

/// How long an earlier process and its server may take to leave the folder: it was perhaps interrupted a moment ago.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
const LEAVE_POLL: Duration = Duration::from_millis(50);

/// Ports that may turn out to be taken after they were found free.
const STARTS_MAX: usize = 5;

/// A larger log is emptied at the next start.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What every local server runs with: enough for a gateway and its tests, modest in memory, the time zone of a hosted
/// database, and an end to what a forgotten replication slot keeps.
const SETTINGS: [(&str, &str); 12] = [
    ("listen_addresses", "127.0.0.1"),
    ("wal_level", "logical"),
    ("max_replication_slots", "20"),
    ("max_wal_senders", "20"),
    ("max_connections", "100"),
    ("max_slot_wal_keep_size", "1GB"),
    ("shared_buffers", "32MB"),
    ("max_wal_size", "256MB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a: "),
    ("logging_collector", "off"),
];

/// What a server without durability runs with besides.
const UNSAFE_SETTINGS: [(&str, &str); 3] = [("fsync", "off"), ("full_page_writes", "off"), ("synchronous_commit", "off")];

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authentication {
    /// The superuser with a password that is generated with the cluster (`scram-sha-256`).
    Password,
    /// Everyone on this machine.
    Trust,
}

/// What kind of server. All but `settings` and `durable` only count when the cluster is made.
#[derive(Debug, Clone)]
pub struct Options {
    pub superuser: &'static str,
    pub authentication: Authentication,
    /// Whether data survives a crash of the machine. Without it everything is faster.
    pub durable: bool,
    /// Further settings of `postgres`: name and value.
    pub settings: Vec<(&'static str, String)>,
}

impl Options {
    /// What `ringcast dev` uses.
    pub fn development() -> Self {
        Self { superuser: "supabase_admin", authentication: Authentication::Password, durable: true, settings: Vec::new() }
    }
}

/// A running local server. Dropping it stops it; see [`Instance::stop`].
pub struct Instance {
    connection: Connection,
    log: PathBuf,
    folder: PathBuf,
    is_elsewhere: bool,
    // The server goes before the lock: fields are dropped in this order.
    process: ServerProcess,
    _lock: File,
}

impl Instance {
    /// Starts a server whose files are in `folder`, which is made when missing. Blocks for a few tenths of a second, the
    /// first time for seconds. The error is for the user: it says what to do, or shows what Postgres said.
    pub fn start(folder: &Path, binaries: &Binaries, options: &Options) -> Result<Self, String> {
        let account = Account::for_server()?;
        let cluster = Cluster::place(folder, account.as_ref())?;
        let is_elsewhere = folder.canonicalize().is_ok_and(|folder| folder != cluster.folder);
        let lock = lock(&cluster, LEAVE_TIMEOUT)?;
        wait_for_former_server(&cluster)?;
        let password = cluster.prepare(binaries, account.as_ref(), options)?;
        let (process, port) = launch(&cluster, binaries, account.as_ref(), options)?;
        port::remember(&cluster.folder, port);
        let connection = Connection {
            host: "127.0.0.1".to_owned(),
            port,
            user: options.superuser.to_owned(),
            password,
            database: "postgres".to_owned(),
        };
        Ok(Self { connection, log: cluster.log(), folder: cluster.folder, is_elsewhere, process, _lock: lock })
    }

    /// How to reach the database `postgres` as the superuser.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the files had to go to another folder than the one asked for, because the account `postgres` cannot reach
    /// it. Worth telling the user: deleting the state folder does not delete them.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// What the server says.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Stops the server: sessions are ended, at most 20 seconds pass. The gateway should have disconnected before, because
    /// the server waits for consumers of its replication slots.
    pub fn stop(self) {
        drop(self);
    }
}

/// Takes the folder for us, waiting at most `limit` for it.
fn lock(cluster: &Cluster, limit: Duration) -> Result<File, String> {
    let path = cluster.lock();
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|e| format!("{} cannot be opened: {e}", path.display()))?;
    let deadline = Instant::now() + limit;
    // SAFETY: touches no memory; the descriptor is open as long as `file` lives.
    while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        if Instant::now() > deadline {
            return Err(format!("the database in {} is in use by another ringcast", cluster.folder.display()));
        }
        thread::sleep(LEAVE_POLL);
    }
    Ok(file)
}

/// Whoever started it has left, so it is either stopping or was started by hand.
fn wait_for_former_server(cluster: &Cluster) -> Result<(), String> {
    let data = cluster.data();
    let deadline = Instant::now() + LEAVE_TIMEOUT;
    while let Some(pid) = running_on(&data) {
        if Instant::now() > deadline {
            return Err(format!("a Postgres that is not ours runs on {}: stop it with `kill -INT {pid}`", data.display()));
        }
        thread::sleep(LEAVE_POLL);
    }
    // Postgres would ask less precisely, and take whoever has the process id now for a server.
    let _ = fs::remove_file(data.join("postmaster.pid"));
    Ok(())
}

fn launch(
    cluster: &Cluster,
    binaries: &Binaries,
    account: Option<&Account>,
    options: &Options,
) -> Result<(ServerProcess, u16), String> {
    let (data, log) = (cluster.data(), cluster.log());
    let failed = |e: std::io::Error| format!("the log {} cannot be written: {e}", log.display());
    for port in port::free_ports(&cluster.folder).take(STARTS_MAX) {
        let is_long = log.metadata().is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX);
        if is_long {
            File::create(&log).map_err(failed)?;
        }
        let said = OpenOptions::new().append(true).create(true).open(&log).map_err(failed)?;
        let log_start_bytes = said.metadata().map_err(failed)?.len();
        let mut command = program::command(&binaries.program("postgres"), account, &data);
        command.arg("-D").arg(&data).args(arguments(port, cluster.socket_folder(account), options));
        command.stdout(said.try_clone().map_err(failed)?).stderr(said);
        let launch = Launch { command, account: account.cloned(), data: data.clone(), port, log: log.clone(), log_start_bytes };
        match ServerProcess::start(launch) {
            Ok(process) => return Ok((process, port)),
            Err(NotStarted::PortTaken) => {}
            Err(NotStarted::Failed(reason)) => return Err(reason),
        }
    }
    Err("no free port was found for Postgres on 127.0.0.1".to_owned())
}

/// Later ones win.
fn arguments(port: u16, socket_folder: Option<PathBuf>, options: &Options) -> Vec<OsString> {
    let unsafe_settings = UNSAFE_SETTINGS.iter().filter(|_| !options.durable);
    let fixed = SETTINGS.iter().chain(unsafe_settings).map(|(name, value)| format!("{name}={value}"));
    let own = options.settings.iter().map(|(name, value)| format!("{name}={value}"));
    // In quotes: the value is a list.
    let sockets = socket_folder.map(|folder| format!("\"{}\"", folder.display())).unwrap_or_default();
    let place = [format!("port={port}"), format!("unix_socket_directories={sockets}")];
    fixed.chain(own).chain(place).flat_map(|setting| [OsString::from("-c"), setting.into()]).collect()
}

#[cfg(test)]
mod tests;
