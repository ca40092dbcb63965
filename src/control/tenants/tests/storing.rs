//! Stores: what holds for each of them, and durability, privacy and damage of the embedded one.

use super::*;
use crate::control::tenants::postgres_store::settings_for_tests as postgres_settings;

fn open(folder: &tempfile::TempDir) -> TenantStore {
    TenantStore::Embedded(EmbeddedStore::open(folder.path()).unwrap())
}

fn tenant_with_database() -> Tenant {
    new_tenant(json!({"extensions": [with_setting("region", json!("eu"))], "max_client_presence_events_per_window": 3})).unwrap()
}

/// What holds for every store: `before` has nothing stored, `after` is the same store opened again.
async fn check_storing(before: TenantStore, after: impl AsyncFnOnce() -> TenantStore) {
    let tenant = tenant_with_database();
    assert!(before.get("t1").await.unwrap().is_none());
    assert!(before.list().await.unwrap().is_empty());
    before.put(&tenant).await.unwrap();
    drop(before);
    let store = after().await;
    assert!(store.get("t1").await.unwrap() == Some(tenant.clone()));
    assert!(store.list().await.unwrap() == vec![tenant.clone()]);
    let renamed = Tenant { external_id: "t0".to_owned(), ..tenant.clone() };
    store.rename("t1", &renamed).await.unwrap();
    assert!(store.list().await.unwrap() == vec![renamed.clone()]);
    let second = Tenant { external_id: "T1".to_owned(), ..tenant_with_database() };
    store.put(&second).await.unwrap();
    assert!(store.list().await.unwrap() == vec![second, renamed.clone()], "ordered by bytes");
    let replaced = Tenant { extensions: Vec::new(), ..Tenant { external_id: "t0".to_owned(), ..tenant_with_database() } };
    store.put(&replaced).await.unwrap();
    assert!(store.get("t0").await.unwrap() == Some(replaced), "a new record under the same external id replaces the old one");
    assert!(store.delete("t0").await.unwrap());
    assert!(!store.delete("t0").await.unwrap());
    assert!(store.delete("T1").await.unwrap());
    assert!(store.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_embedded_store_keeps_tenants() {
    let folder = tempfile::tempdir().unwrap();
    check_storing(open(&folder), async || open(&folder)).await;
}

#[tokio::test]
async fn the_postgres_store_keeps_tenants() {
    let settings = postgres_settings(&crate::local_postgres::testing::server().database().await);
    let open = async || TenantStore::Postgres(PostgresStore::open(&settings).await.unwrap());
    check_storing(open().await, open).await;
}

#[test]
fn the_store_file_is_private_and_used_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let _store = open(&folder);
    let mode = std::fs::metadata(folder.path().join(STORE_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(EmbeddedStore::open(folder.path()), Err(StoreError::Open { .. })));
}

#[test]
fn a_damaged_file_gives_a_clear_error() {
    for content in [vec![b'x'; 10], vec![0; 8192], b"{\"not\": \"a database\"}".repeat(1000)] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(STORE_FILE), content).unwrap();
        let error = EmbeddedStore::open(folder.path()).err().unwrap();
        assert!(error.to_string().starts_with("cannot open the tenant store /"), "{error}");
    }
    let missing = std::path::Path::new("/nonexistent-folder");
    assert!(matches!(EmbeddedStore::open(missing), Err(StoreError::Open { .. })));
}

#[tokio::test]
async fn a_damaged_record_names_its_tenant_only() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(folder.path()).unwrap();
    embedded.put_raw("t1", b"\x01{\"id\":\"s3cret\"}");
    embedded.put_raw("t2", b"\x63{}");
    embedded.put_raw("t3", b"");
    let store = TenantStore::Embedded(embedded);
    for id in ["t1", "t2", "t3"] {
        let text = store.get(id).await.unwrap_err().to_string();
        assert!(text.contains(id) && !text.contains("s3cret"), "{text}");
    }
    assert!(store.list().await.is_err());
}

#[test]
fn a_truncated_file_is_an_error_and_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder));
    let path = folder.path().join(STORE_FILE);
    let whole = std::fs::read(&path).unwrap();
    for kept in [1, 9, 64, 320, 4096, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..kept]).unwrap();
        assert!(matches!(EmbeddedStore::open(folder.path()), Err(StoreError::Open { .. })), "{kept} bytes");
    }
}
