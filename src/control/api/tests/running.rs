//! Calls about running tenants, and failures.

use super::*;

#[test]
fn reload_and_shutdown_reach_known_tenants_only() {
    let server = Server::with_tenant();
    let external_id = "t1".to_owned();
    for _ in 0..2 {
        let reload = vec![ApiEffect::Reload { external_id: external_id.clone() }];
        assert_eq!(server.send("POST", "/api/tenants/t1/reload", None), (empty(204), reload));
        let shutdown = vec![ApiEffect::Shutdown { external_id: external_id.clone() }];
        assert_eq!(server.send("POST", "/api/tenants/t1/shutdown", None), (empty(204), shutdown));
    }
    for call in ["reload", "shutdown"] {
        let path = format!("/api/tenants/none/{call}");
        assert_eq!(server.send("POST", &path, None), (message_not_found(), vec![]));
    }
}

#[test]
fn health_follows_connection_users_and_migrations() {
    let mut server = Server::with_tenant();
    let migrate = vec![ApiEffect::Migrate { external_id: "t1".to_owned() }];
    let up = DatabaseState { connected: true, replication: true };
    let down = DatabaseState::default();
    for (database, users, migrations, healthy, effects) in [
        (up, 3, 0, true, vec![]),
        (DatabaseState { connected: true, replication: false }, 0, 0, true, vec![]),
        (down, 3, 81, false, vec![]),
        (down, 0, 81, true, vec![]),
        (down, 0, 80, false, migrate),
    ] {
        server.runtime = FakeRuntime { users, database, region: Some("us-east-1".to_owned()) };
        let stored = block_on(server.store.get("t1")).unwrap().unwrap();
        let stored = crate::control::tenants::Tenant { migrations_ran: migrations, ..stored };
        block_on(server.store.put(&stored)).unwrap();
        let (response, seen) = server.send("GET", "/api/tenants/t1/health", None);
        assert_eq!((response.status, seen), (200, effects));
        let wanted = json!({"healthy": healthy, "db_connected": database.connected,
            "replication_connected": database.replication, "connected_cluster": users, "region": "us-east-1",
            "node": "realtime@127.0.0.1"});
        assert_eq!(response.body.unwrap()["data"], wanted);
    }
}

#[test]
fn a_tenant_without_database_is_healthy() {
    let mut server = Server::new();
    let body = json!({"tenant": {"external_id": "t1", "jwt_secret": "x"}});
    assert_eq!(server.send("POST", "/api/tenants", body).0.status, 201);
    server.runtime.users = 4;
    let health = server.get("/api/tenants/t1/health");
    let wanted = json!({"healthy": true, "db_connected": false, "replication_connected": false,
        "connected_cluster": 4, "region": null, "node": "realtime@127.0.0.1"});
    assert_eq!(health, wanted);
}

#[test]
fn a_failing_store_is_an_internal_error_without_details() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(folder.path()).unwrap();
    embedded.put_raw("t1", b"\x01{\"jwt_secret\":\"leaked\"}");
    let server = Server { store: TenantStore::Embedded(embedded), ..Server::new() };
    for (method, path) in
        [("GET", "/api/tenants"), ("GET", "/api/tenants/t1"), ("PUT", "/api/tenants/t1"), ("POST", "/api/tenants/t1/reload")]
    {
        let (response, effects) = server.send(method, path, json!({"tenant": {}}));
        assert_eq!((response.status, effects), (500, vec![]));
        assert_eq!(response.body, Some(json!("Internal Server Error")));
        let failure = response.failure.unwrap();
        assert!(failure.contains("\"t1\"") && !failure.contains("leaked"), "{failure}");
    }
}

#[test]
fn an_external_id_another_node_took_first_is_a_validation_error() {
    let response = ApiResponse::from(crate::control::tenants::StoreError::Taken { external_id: "t2".to_owned() });
    assert_eq!((response.status, response.failure), (422, None));
    assert_eq!(response.body, Some(json!({"errors": {"external_id": ["has already been taken"]}})));
}
