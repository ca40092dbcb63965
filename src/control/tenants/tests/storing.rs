//! The embedded store: durability, privacy, damage.

use super::*;

fn open(folder: &tempfile::TempDir) -> TenantStore {
    TenantStore::Embedded(EmbeddedStore::open(folder.path()).unwrap())
}

#[test]
fn stored_tenants_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let tenant =
        new_tenant(json!({"extensions": [with_setting("region", json!("eu"))], "max_client_presence_events_per_window": 3}));
    let tenant = tenant.unwrap();
    {
        let store = open(&folder);
        assert!(store.get("t1").unwrap().is_none());
        store.put(&tenant).unwrap();
    }
    let store = open(&folder);
    assert!(store.get("t1").unwrap() == Some(tenant.clone()));
    assert!(store.list().unwrap() == vec![tenant.clone()]);
    let renamed = Tenant { external_id: "t0".to_owned(), ..tenant };
    store.rename("t1", &renamed).unwrap();
    assert!(store.list().unwrap() == vec![renamed]);
    assert!(store.delete("t0").unwrap());
    assert!(!store.delete("t0").unwrap());
    assert!(store.list().unwrap().is_empty());
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

#[test]
fn a_damaged_record_names_its_tenant_only() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(folder.path()).unwrap();
    embedded.put_raw("t1", b"\x01{\"id\":\"s3cret\"}");
    embedded.put_raw("t2", b"\x63{}");
    embedded.put_raw("t3", b"");
    let store = TenantStore::Embedded(embedded);
    for id in ["t1", "t2", "t3"] {
        let text = store.get(id).unwrap_err().to_string();
        assert!(text.contains(id) && !text.contains("s3cret"), "{text}");
    }
    assert!(store.list().is_err());
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
