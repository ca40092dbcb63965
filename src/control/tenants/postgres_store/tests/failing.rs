//! A database that is away, silent, or refuses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

/// A line to the server that can be cut, or go silent.
struct Line {
    port: u16,
    is_cut: Arc<AtomicBool>,
    is_silent: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Line {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let line = Self { port, is_cut: Arc::default(), is_silent: Arc::default(), changed: Arc::default() };
        let (is_cut, is_silent, changed) = (line.is_cut.clone(), line.is_silent.clone(), line.changed.clone());
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (is_cut, is_silent, changed) = (is_cut.clone(), is_silent.clone(), changed.clone());
                tokio::spawn(async move {
                    if is_cut.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut far = TcpStream::connect(("127.0.0.1", server().port())).await.unwrap();
                    while !is_cut.load(Ordering::Relaxed) {
                        if is_silent.load(Ordering::Relaxed) {
                            changed.notified().await;
                            continue;
                        }
                        tokio::select! {
                            () = changed.notified() => {}
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        }
                    }
                });
            }
        });
        line
    }

    fn set(&self, is_cut: bool, is_silent: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
        self.is_silent.store(is_silent, Ordering::Relaxed);
        self.changed.notify_waiters();
    }
}

async fn store_over(line: &Line) -> PostgresStore {
    let database = server().database().await;
    let settings = RegistrySettings { port: line.port, queue_target_ms: 500, ..settings_of(&database) };
    PostgresStore::open(&settings).await.unwrap()
}

#[tokio::test]
async fn a_database_that_comes_back_is_used_again() {
    let line = Line::open().await;
    let store = store_over(&line).await;
    let mut changes = store.watch();
    assert_eq!(changes.recv().await, Some(StoreChange::Unknown));
    store.put(&tenant("t1")).await.unwrap();
    assert_eq!(changes.recv().await, Some(StoreChange::Tenant("t1".to_owned())));
    line.set(true, false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    let error = store.get("t1").await.unwrap_err();
    assert!(matches!(error, StoreError::Registry { action: "reading a tenant", .. }), "{error}");
    assert!(store.put(&tenant("t2")).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    line.set(false, false);
    assert!(store.get("t1").await.unwrap().is_some());
    assert!(store.get("t2").await.unwrap().is_none());
    let again = tokio::time::timeout(Duration::from_secs(10), changes.recv()).await.unwrap();
    assert_eq!(again, Some(StoreChange::Unknown));
}

#[tokio::test]
async fn a_silent_database_costs_no_more_than_the_deadline() {
    let line = Line::open().await;
    let store = store_over(&line).await;
    line.set(false, true);
    let started = Instant::now();
    // One connection is in the pool and is thrown away; further ones cannot be made.
    let error = store.get("t1").await.unwrap_err().to_string();
    assert!(error.contains("no answer in time"), "{error}");
    assert!(store.delete("t1").await.is_err());
    assert!(started.elapsed() < Duration::from_millis(8_000), "{:?}", started.elapsed());
    line.set(false, false);
    assert!(store.get("t1").await.unwrap().is_none());
}

#[tokio::test]
async fn a_locked_row_ends_in_the_servers_refusal() {
    let database = server().database().await;
    let store = PostgresStore::open(&settings_of(&database)).await.unwrap();
    store.put(&tenant("t1")).await.unwrap();
    let client = other_client(&database).await;
    client.batch_execute("begin; select from tenants for update").await.unwrap();
    let error = store.put(&tenant("t1")).await.unwrap_err().to_string();
    assert!(error.contains("57014"), "{error}");
    client.batch_execute("rollback").await.unwrap();
    store.put(&tenant("t1")).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_opened_says_why_and_keeps_secrets() {
    let settings = settings_of("postgres");
    let shown = format!("{:?}", RegistrySettings { after_connect_query: Some("hunter2".to_owned()), ..settings.clone() });
    assert!(!shown.contains("hunter2") && shown.contains("127.0.0.1"), "{shown}");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        Some(path)
    };
    let tls = RegistrySettings { tls: true, ..settings.clone() };
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (settings, wanted) in [
        (RegistrySettings { name: "no such database".to_owned(), ..settings.clone() }, "3D000"),
        (RegistrySettings { host: "no-such-host.invalid".to_owned(), ..settings.clone() }, "DB_HOST"),
        (RegistrySettings { ip_version: Some(IpVersion::Ipv6), ..settings.clone() }, "no usable address of 127.0.0.1"),
        (RegistrySettings { after_connect_query: Some("nonsense".to_owned()), ..settings.clone() }, "42601"),
        (RegistrySettings { port: 1, ..settings.clone() }, "refused"),
        (RegistrySettings { ca_file: Some(folder.path().join("missing")), ..tls.clone() }, "missing: "),
        (RegistrySettings { ca_file: file("empty", ""), ..tls.clone() }, "contains no certificate"),
        (RegistrySettings { ca_file: file("broken", broken), ..tls.clone() }, "broken: "),
        (tls, "TLS"),
    ] {
        let error = PostgresStore::open(&settings).await.err().unwrap().to_string();
        assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
    }
}
