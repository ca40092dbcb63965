//! The Postgres of the Rust tests.
//!
//! Each test process that asks gets a server of its own: with one process per test (nextest) that makes every test independent
//! of the others' slots, sessions and restarts, and nothing has to be counted or shared. It is affordable because the
//! cluster is copied from a template, made once per Postgres version and `bootstrap.sql` and kept in the folder for
//! temporary files; a database is in turn a copy of a database in that cluster.
//!
//! Nothing is left behind: the kernel ends the server with the process, and a waiting shell, which learns of the end by its
//! input closing, deletes the files then, however the process ended. `RINGCAST_TEST_PG_PORT` names a running server to use
//! instead, one that trusts everyone on 127.0.0.1 and has a superuser `postgres`; databases stay there.

use std::{
    env, fs,
    fs::File,
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use tokio_postgres::{Client, NoTls};

use super::{
    Authentication, Binaries, Instance, Options,
    account::{Account, own_uid},
    bootstrap_sql, cluster, port, program,
};

const PORT_VARIABLE: &str = "RINGCAST_TEST_PG_PORT";
const TEMPLATE: &str = "ringcast_template";
const COPY_TIMEOUT: Duration = Duration::from_secs(60);

/// Waits for the end of the test process, then for the end of its server (which removes its `postmaster.pid`).
const CLEANER: &str = r#"
cat >/dev/null
tries=0
while [ -e "$1/data/postmaster.pid" ] && [ "$tries" -lt 200 ]; do tries=$((tries + 1)); sleep 0.05; done
rm -rf -- "$1"
"#;

/// A server with the superuser `postgres`, who needs no password.
pub struct TestServer {
    port: u16,
    databases: AtomicU32,
    own: Option<Own>,
}

/// Kept until the process ends.
struct Own {
    _instance: Instance,
    _cleaner: Child,
}

/// The server of this test process, started by the first call.
pub fn server() -> &'static TestServer {
    static SERVER: OnceLock<TestServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let running = env::var(PORT_VARIABLE).ok().filter(|port| !port.is_empty());
        let server = match running {
            Some(port) => port
                .parse()
                .map(|port| TestServer { port, databases: AtomicU32::new(0), own: None })
                .map_err(|e| format!("{PORT_VARIABLE}: {e}")),
            None => TestServer::start(),
        };
        server.unwrap_or_else(|reason| panic!("this test needs Postgres (tests/setup.sh installs it): {reason}"))
    })
}

impl TestServer {
    fn start() -> Result<Self, String> {
        let binaries = Binaries::find()?;
        let account = Account::for_server()?;
        let base = base_folder(account.as_ref())?;
        let template = template(&base, &binaries)?;
        let folder = base.join(format!("run-{}", std::process::id()));
        let cleaner = cleaner(&folder).map_err(|e| format!("/bin/sh cannot be run: {e}"))?;
        copy_cluster(&template, &folder, account.as_ref())?;
        let instance = Instance::start(&folder, &binaries, &options())?;
        let port = instance.connection().port;
        Ok(Self { port, databases: AtomicU32::new(0), own: Some(Own { _instance: instance, _cleaner: cleaner }) })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// As superuser, without a database: append `/NAME`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}", self.port)
    }

    /// Makes an empty database with `bootstrap.sql` applied and returns its name.
    pub async fn database(&self) -> String {
        let name = format!("test_{}_{}", std::process::id(), self.databases.fetch_add(1, Ordering::Relaxed));
        let admin = self.connect("postgres").await;
        if self.own.is_some() {
            admin.batch_execute(&format!("create database {name} template {TEMPLATE}")).await.unwrap();
        } else {
            // Roles are shared, and other processes make them at the same time.
            admin.batch_execute(&format!("drop database if exists {name}")).await.unwrap();
            admin.batch_execute(&format!("create database {name}")).await.unwrap();
            admin.batch_execute("select pg_advisory_lock(hashtext('ringcast bootstrap'))").await.unwrap();
            self.connect(&name).await.batch_execute(bootstrap_sql()).await.unwrap();
        }
        name
    }

    /// A session of the superuser, driven by the current runtime.
    pub async fn connect(&self, database: &str) -> Client {
        connect(&format!("{}/{database}", self.url())).await
    }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    tokio::spawn(connection);
    client
}

fn options() -> Options {
    let settings = vec![("shared_buffers", "16MB".to_owned())];
    Options { superuser: "postgres", authentication: Authentication::Trust, durable: false, settings }
}

/// The folder of templates and running servers, one per user.
fn base_folder(account: Option<&Account>) -> Result<PathBuf, String> {
    let places = [env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from("/tmp")];
    let place = places.iter().filter_map(|place| place.canonicalize().ok());
    let place = place.into_iter().find(|place| account.is_none_or(|account| account.reaches(place)));
    let place = place.ok_or_else(|| format!("none of {places:?} can be used"))?;
    let base = place.join(format!("ringcast-test-postgres-{}", own_uid()));
    cluster::make_own_folder(&base, if account.is_some() { 0o711 } else { 0o700 })?;
    Ok(base)
}

/// The data folder to copy: a stopped cluster whose database [`TEMPLATE`] has been bootstrapped.
fn template(base: &Path, binaries: &Binaries) -> Result<PathBuf, String> {
    let contents = format!("{binaries} {} {:?} {}", binaries.folder().display(), options(), bootstrap_sql());
    let template = base.join(format!("template-{:016x}", port::digest(contents.as_bytes())));
    let lock = File::create(base.join("lock")).map_err(|e| format!("{} cannot be locked: {e}", base.display()))?;
    // SAFETY: touches no memory; the descriptor is open as long as `lock` lives.
    unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) };
    if template.exists() {
        return Ok(template);
    }
    let new = base.join("new");
    let _ = fs::remove_dir_all(&new);
    let instance = Instance::start(&new, binaries, &options())?;
    let url = format!("postgres://postgres@127.0.0.1:{}", instance.connection().port);
    // The caller may be inside a runtime already, which allows no second one in its thread.
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let admin = connect(&format!("{url}/postgres")).await;
            admin.batch_execute(bootstrap_sql()).await.unwrap();
            admin.batch_execute(&format!("create database {TEMPLATE}")).await.unwrap();
            connect(&format!("{url}/{TEMPLATE}")).await.batch_execute(bootstrap_sql()).await.unwrap();
        });
    })
    .join()
    .map_err(|_| "the template cannot be bootstrapped".to_owned())?;
    instance.stop();
    fs::rename(new.join("data"), &template).map_err(|e| format!("{} cannot be made: {e}", template.display()))?;
    let _ = fs::remove_dir_all(&new);
    Ok(template)
}

fn copy_cluster(template: &Path, folder: &Path, account: Option<&Account>) -> Result<(), String> {
    let failed = |e| format!("{} cannot be made: {e}", folder.display());
    let data = folder.join("data");
    let _ = fs::remove_dir_all(folder);
    cluster::make_own_folder(folder, if account.is_some() { 0o711 } else { 0o700 })?;
    cluster::make_data_folder(&data, account).map_err(failed)?;
    let mut copy = program::command(Path::new("cp"), account, &data);
    copy.arg("-a").arg(template.join(".")).arg(&data);
    program::succeed(&mut copy, account, COPY_TIMEOUT).map(drop)
}

/// Deletes `folder` when this process has ended.
fn cleaner(folder: &Path) -> std::io::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", CLEANER, "sh"]).arg(folder).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // A test that takes too long has its whole process group killed.
    shell.process_group(0).current_dir("/").spawn()
}

#[cfg(test)]
mod tests;
