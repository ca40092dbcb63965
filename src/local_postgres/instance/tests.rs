//! A real server in a folder of the test.

use std::{
    fs::Permissions,
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Command, Stdio},
};

use tokio_postgres::NoTls;

use super::*;
use crate::local_postgres::account::own_uid;

fn binaries() -> Binaries {
    Binaries::find().expect("this test needs Postgres; tests/setup.sh installs it")
}

/// A folder that the server's account can reach.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o711)).unwrap();
    folder
}

fn quick() -> Options {
    Options { durable: false, ..Options::development() }
}

async fn ask(connection: &Connection, password: &str, sql: &str) -> Result<String, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    config.host(&connection.host).port(connection.port).user(&connection.user).dbname(&connection.database);
    let (client, driver) = config.password(password).connect(NoTls).await?;
    tokio::spawn(driver);
    Ok(client.query_one(sql, &[]).await?.get(0))
}

fn start_error(folder: &Path) -> String {
    match Instance::start(folder, &binaries(), &quick()) {
        Ok(_) => panic!("it started"),
        Err(reason) => reason,
    }
}

#[tokio::test]
async fn a_restart_keeps_data_port_and_password() {
    let root = open_folder();
    let folder = root.path().join("state").join("post gres");
    let first = Instance::start(&folder, &binaries(), &quick()).unwrap();
    let before = first.connection().clone();
    assert!(!first.is_elsewhere());
    assert_eq!(before.user, "supabase_admin");
    ask(&before, &before.password, "select lo_from_bytea(4711, 'kept')::text").await.unwrap();
    assert_eq!(ask(&before, &before.password, "show wal_level").await.unwrap(), "logical");
    assert_eq!(ask(&before, &before.password, "show listen_addresses").await.unwrap(), "127.0.0.1");
    let refused = ask(&before, "wrong", "select ''").await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "28P01");
    assert!(!format!("{before:?}").contains(&before.password));
    let pid = first.pid();
    first.stop();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());

    let second = Instance::start(&folder, &binaries(), &quick()).unwrap();
    assert_eq!(second.connection(), &before);
    assert_eq!(ask(&before, &before.password, "select convert_from(lo_get(4711), 'UTF8')").await.unwrap(), "kept");
    let occupied = before.port;
    drop(second);

    let taken = TcpListener::bind(("127.0.0.1", occupied)).unwrap();
    let third = Instance::start(&folder, &binaries(), &quick()).unwrap();
    assert_ne!(third.connection().port, occupied);
    drop((third, taken));
}

#[test]
fn one_process_at_a_time() {
    let root = open_folder();
    let cluster = Cluster { folder: root.path().to_owned() };
    let first = lock(&cluster, Duration::ZERO).unwrap();
    let reason = lock(&cluster, Duration::from_millis(20)).unwrap_err();
    assert!(reason.contains("in use by another ringcast"), "{reason}");
    drop(first);
    lock(&cluster, Duration::ZERO).unwrap();
}

#[test]
fn a_cluster_of_another_version_is_explained() {
    let root = open_folder();
    fs::create_dir(root.path().join("data")).unwrap();
    fs::write(root.path().join("data/PG_VERSION"), "9\n").unwrap();
    fs::write(root.path().join("password"), "secret").unwrap();
    let reason = start_error(root.path());
    for part in ["made by PostgreSQL 9", &binaries().to_string(), "RINGCAST_POSTGRES_BIN", "delete"] {
        assert!(reason.contains(part), "{part} is not in: {reason}");
    }
    assert!(!reason.contains("secret"));
}

#[test]
fn what_postgres_said_is_part_of_the_error() {
    let root = open_folder();
    let mut options = quick();
    options.settings.push(("wal_level", "nonsense".to_owned()));
    let reason = Instance::start(root.path(), &binaries(), &options).err().unwrap();
    assert!(reason.contains("invalid value for parameter \"wal_level\": \"nonsense\""), "{reason}");
}

#[test]
fn what_a_crash_left_of_a_new_cluster_is_made_anew() {
    let root = open_folder();
    fs::create_dir_all(root.path().join("data.new/base")).unwrap();
    let server = Instance::start(root.path(), &binaries(), &quick()).unwrap();
    assert!(server.folder().join("data/PG_VERSION").exists());
    assert!(!server.folder().join("data.new").exists());
    assert!(!server.folder().join("password.new").exists());
}

#[test]
fn a_server_that_was_killed_is_started_again() {
    let root = open_folder();
    let killed = Instance::start(root.path(), &binaries(), &quick()).unwrap();
    let data = killed.folder().join("data");
    // SAFETY: touches no memory; the server is a child that has not been waited for.
    unsafe { libc::kill(libc::pid_t::try_from(killed.pid()).unwrap(), libc::SIGKILL) };
    let deadline = Instant::now() + Duration::from_secs(10);
    while running_on(&data).is_some() {
        assert!(Instant::now() < deadline, "a zombie counts as a server");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(data.join("postmaster.pid").exists());
    drop(killed);
    // Ours, as the process id of a crashed server may be by now.
    fs::write(data.join("postmaster.pid"), format!("{}\n{}\n", std::process::id(), data.display())).unwrap();
    drop(Instance::start(root.path(), &binaries(), &quick()).unwrap());
}

#[test]
fn a_folder_the_account_cannot_reach_is_replaced_by_one_it_can() {
    if own_uid() != 0 {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    fs::set_permissions(root.path(), Permissions::from_mode(0o700)).unwrap();
    let server = Instance::start(&root.path().join("postgres"), &binaries(), &quick()).unwrap();
    let elsewhere = server.folder().to_owned();
    assert!(server.is_elsewhere());
    assert_ne!(fs::metadata(elsewhere.join("data")).unwrap().uid(), 0);
    drop(server);
    let again = Instance::start(&root.path().join("postgres"), &binaries(), &quick()).unwrap();
    assert_eq!(again.folder(), elsewhere);
    drop(again);
    fs::remove_dir_all(elsewhere).unwrap();
}

/// Names the folder for the process that [`the_server_ends_with_its_process`] kills.
const HOST_VARIABLE: &str = "RINGCAST_TEST_HOST_FOLDER";

#[test]
#[ignore = "only as the victim of the next test"]
fn host() {
    let Some(folder) = std::env::var_os(HOST_VARIABLE) else { return };
    let server = Instance::start(Path::new(&folder), &binaries(), &quick()).unwrap();
    fs::write(Path::new(&folder).join("host-is-up"), server.pid().to_string()).unwrap();
    thread::sleep(Duration::from_secs(60));
}

#[cfg(target_os = "linux")]
#[test]
fn the_server_ends_with_its_process() {
    let root = open_folder();
    let name = module_path!().split_once("::").unwrap().1.to_owned() + "::host";
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--exact", &name, "--ignored"]).env(HOST_VARIABLE, root.path()).stdout(Stdio::null());
    let mut host = host.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let note = root.path().join("host-is-up");
    while !fs::read_to_string(&note).is_ok_and(|pid| !pid.is_empty()) {
        assert!(Instant::now() < deadline, "the host did not start a server");
        thread::sleep(Duration::from_millis(20));
    }
    let data = root.path().canonicalize().unwrap().join("data");
    assert!(running_on(&data).is_some());
    host.kill().unwrap();
    host.wait().unwrap();
    // What it left is taken over at once, whether its server is through with ending or not.
    let server = Instance::start(root.path(), &binaries(), &quick()).unwrap();
    assert_eq!(running_on(&data), Some(server.pid()));
}
