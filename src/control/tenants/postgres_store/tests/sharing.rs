//! Rows shared with the reference, with other nodes, and with people at a prompt.

use super::*;

async fn fresh() -> (PostgresStore, Client) {
    let database = server().database().await;
    let store = PostgresStore::open(&settings_of(&database)).await.unwrap();
    (store, other_client(&database).await)
}

#[tokio::test]
async fn every_field_survives() {
    let (store, _) = fresh().await;
    let mut wanted = tenant("t1");
    assert!(store.get("t1").await.unwrap().is_none());
    store.put(&wanted).await.unwrap();
    assert_same(store.get("t1").await.unwrap().unwrap(), wanted.clone());
    wanted.name = None;
    wanted.jwt_secret = None;
    wanted.jwt_jwks = Some(json!({"keys": [{"kty": "oct", "k": "YQ"}]}));
    wanted.postgres_cdc_default = "else".to_owned();
    (wanted.max_concurrent_users, wanted.max_events_per_second, wanted.max_joins_per_second) = (-1, i32::MAX, 0);
    (wanted.max_channels_per_client, wanted.max_bytes_per_second) = (4, 5);
    (wanted.max_presence_events_per_second, wanted.max_payload_size_in_kb, wanted.migrations_ran) = (6, 7, 81);
    (wanted.max_client_presence_events_per_window, wanted.client_presence_window_ms) = (Some(8), Some(9));
    (wanted.presence_enabled, wanted.private_only, wanted.suspend) = (true, true, true);
    wanted.broadcast_adapter = "phoenix".to_owned();
    wanted.feature_flags = json!({"one": true, "two": false}).as_object().unwrap().clone();
    wanted.gcm_migrated_at = Some(NOW + 1);
    wanted.extensions.retain(|extension| extension.kind == "other");
    (wanted.inserted_at, wanted.updated_at) = (NOW - 5, NOW + 5);
    store.put(&wanted).await.unwrap();
    assert_same(store.get("t1").await.unwrap().unwrap(), wanted);
}

#[tokio::test]
async fn the_references_rows_are_read() {
    let (store, client) = fresh().await;
    let sealed = |plain: &str| cipher().encrypt(plain).unwrap();
    let settings = json!({"region": "eu", "db_host": sealed("db.example"), "db_password": sealed("p"), "ssl_enforced": false});
    let columns = "insert into tenants (id, name, external_id, jwt_secret, inserted_at, updated_at, suspend, \
        max_presence_events_per_second) values (gen_random_uuid(), 'label', 'dev', $1, '2025-06-15 15:06:40', \
        '2025-06-15 15:06:41', null, null)";
    client.execute(columns, &[&sealed("tenant secret")]).await.unwrap();
    let columns = "insert into extensions (id, type, settings, tenant_external_id, inserted_at, updated_at) \
        values (gen_random_uuid(), 'postgres_cdc_rls', $1, 'dev', '2025-06-15 15:06:40', '2025-06-15 15:06:40')";
    client.execute(columns, &[&settings]).await.unwrap();

    let tenant = store.get("dev").await.unwrap().unwrap();
    assert_eq!(tenant.name.as_deref(), Some("label"));
    assert_eq!(tenant.jwt_secret_plain(&cipher()).unwrap().as_deref(), Some("tenant secret"));
    assert_eq!((tenant.inserted_at, tenant.updated_at), (NOW, NOW + 1));
    assert_eq!((tenant.max_joins_per_second, tenant.max_presence_events_per_second, tenant.suspend), (500, 1000, false));
    let database = tenant.database().unwrap();
    assert_eq!(database.text("db_host", &cipher()).unwrap().as_deref(), Some("db.example"));
    assert_eq!(database.settings["ssl_enforced"], false);
}

#[tokio::test]
async fn rows_are_changed_in_place_and_foreign_columns_kept() {
    let (store, client) = fresh().await;
    client.batch_execute("alter table tenants add column of_tomorrow text").await.unwrap();
    let mut tenant = tenant("t1");
    store.put(&tenant).await.unwrap();
    client.batch_execute("update tenants set of_tomorrow = 'kept', notify_private_alpha = true").await.unwrap();
    let keys = "select string_agg(id::text, ' ' order by type) from extensions";
    let before = text_of(&client, keys).await;
    tenant.max_joins_per_second = 7;
    tenant.extensions[0].settings.insert("region".to_owned(), "eu".into());
    store.put(&tenant).await.unwrap();
    assert_eq!(text_of(&client, keys).await, before);
    assert_eq!(text_of(&client, "select of_tomorrow || notify_private_alpha from tenants").await, "kepttrue");
    assert_eq!(text_of(&client, "select id from tenants").await, tenant.id);

    let renamed = Tenant { external_id: "t2".to_owned(), ..tenant };
    store.rename("t1", &renamed).await.unwrap();
    assert_eq!(text_of(&client, keys).await, before);
    assert_same(store.get("t2").await.unwrap().unwrap(), renamed);
    assert!(store.get("t1").await.unwrap().is_none());

    assert!(store.delete("t2").await.unwrap());
    assert_eq!(text_of(&client, "select count(*) from extensions").await, "0");
    assert!(!store.delete("t2").await.unwrap());
}

#[tokio::test]
async fn a_taken_external_id_is_told_and_changes_nothing() {
    let (store, _) = fresh().await;
    let (one, two) = (tenant("t1"), tenant("t2"));
    store.put(&one).await.unwrap();
    store.put(&two).await.unwrap();
    let renamed = Tenant { external_id: "t2".to_owned(), ..one.clone() };
    let error = store.rename("t1", &renamed).await.unwrap_err();
    assert!(matches!(&error, StoreError::Taken { external_id } if external_id == "t2"), "{error}");
    assert_same(store.get("t1").await.unwrap().unwrap(), one);
    assert_same(store.get("t2").await.unwrap().unwrap(), two);
}

#[tokio::test]
async fn concurrent_writes_do_not_mix() {
    let database = server().database().await;
    let settings = settings_of(&database);
    let (first, second) = (PostgresStore::open(&settings).await.unwrap(), PostgresStore::open(&settings).await.unwrap());
    let one = tenant("t1");
    let mut two = tenant("t1");
    two.max_joins_per_second = 2;
    two.extensions[0].settings.insert("region".to_owned(), "two".into());
    two.extensions[1].kind = "third".to_owned();
    for _ in 0..20 {
        let (wrote_one, wrote_two) = tokio::join!(first.put(&one), second.put(&two));
        wrote_one.unwrap();
        wrote_two.unwrap();
        let found = sorted(first.get("t1").await.unwrap().unwrap());
        assert!(found == sorted(one.clone()) || found == sorted(two.clone()), "a mixture was stored");
    }
}

#[tokio::test]
async fn a_record_nobody_understands_names_its_column_only() {
    let (store, client) = fresh().await;
    store.put(&tenant("t1")).await.unwrap();
    client.batch_execute("update extensions set settings = '\"s3cret\"'").await.unwrap();
    let error = store.get("t1").await.unwrap_err().to_string();
    assert!(error.contains("t1") && error.contains("settings") && !error.contains("s3cret"), "{error}");
    assert!(matches!(store.list().await, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn refused_rows_are_not_quoted() {
    let (store, client) = fresh().await;
    client.batch_execute("alter table tenants add check (max_joins_per_second < 1000)").await.unwrap();
    let error = store.put(&Tenant { max_joins_per_second: 5000, ..tenant("t1") }).await.unwrap_err().to_string();
    assert!(error.contains("23514") && !error.contains("5000"), "{error}");
    assert_eq!(text_of(&client, "select count(*) from extensions").await, "0");
    store.put(&tenant("t1")).await.unwrap();
}
