//! Creating, changing, renaming and deleting.

use super::*;

#[test]
fn create_show_update_and_delete() {
    let server = Server::new();
    let body = tenant(json!({"external_id": "t1", "name": "something else"}));
    let (created, effects) = server.send("POST", "/api/tenants", body);
    let data = created.body.clone().unwrap()["data"].clone();
    assert_eq!(created.status, 201);
    assert_eq!(effects, upserted("t1", true, ChangeEffects::default()));
    assert_eq!((&data["name"], &data["max_concurrent_users"]), (&json!("t1"), &json!(200)));
    let location = format!("/api/tenants/{}", data["id"].as_str().unwrap());
    assert!(created.headers.contains(&("location", location.clone())));
    assert!(created.headers.contains(&("content-type", "application/json; charset=utf-8".to_owned())));
    assert_eq!(data["extensions"][0]["settings"]["db_name"], server.cipher.encrypt("x").unwrap());

    let again = json!({"tenant": {"external_id": "t1", "jwt_secret": JWT_SECRET, "max_joins_per_second": 7,
        "name": "renamed"}});
    let (updated, effects) = server.send("POST", "/api/tenants", again);
    assert_eq!(updated.status, 200);
    assert!(updated.headers.contains(&("location", location)));
    assert_eq!(effects, upserted("t1", false, ChangeEffects { reset_joins: true, ..ChangeEffects::default() }));
    let shown = server.get("/api/tenants/t1");
    assert_eq!(updated.body.unwrap()["data"], shown);
    assert_eq!((&shown["name"], &shown["max_joins_per_second"]), (&json!("renamed"), &json!(7)));
    assert_eq!(shown["extensions"], data["extensions"]);
    assert_eq!(server.get("/api/tenants"), json!([shown]));

    let deleted = vec![ApiEffect::TenantDeleted { external_id: "t1".to_owned() }];
    assert_eq!(server.send("DELETE", "/api/tenants/t1", None), (empty(204), deleted.clone()));
    assert_eq!(server.send("DELETE", "/api/tenants/t1", None), (empty(204), deleted));
    for path in ["/api/tenants/t1", "/api/tenants/t1/health"] {
        assert_eq!(server.send("GET", path, None), (message_not_found(), vec![]));
    }
    assert_eq!(server.get("/api/tenants"), json!([]));
}

#[test]
fn put_and_patch_change_what_is_given() {
    let server = Server::with_tenant();
    let before = server.get("/api/tenants/t1");
    let put = json!({"tenant": {"max_channels_per_client": 77}});
    let (response, effects) = server.send("PUT", "/api/tenants/t1", put);
    assert_eq!((response.status, effects), (200, upserted("t1", false, ChangeEffects::default())));
    let patch = json!({"tenant": {"max_channels_per_client": "78", "presence_enabled": "true", "unknown_key": 1}});
    let (response, _) = server.send("PATCH", "/api/tenants/t1", patch);
    let mut wanted = before;
    wanted["max_channels_per_client"] = json!(78);
    wanted["presence_enabled"] = json!(true);
    assert_eq!(response.body.unwrap()["data"], wanted);
    let suspend = json!({"tenant": {"suspend": true}});
    let (_, effects) = server.send("PUT", "/api/tenants/t1", suspend);
    let wanted = ChangeEffects { disconnect: true, restart_database: true, ..ChangeEffects::default() };
    assert_eq!(effects, upserted("t1", false, wanted));
}

#[test]
fn put_creates_under_the_path() {
    let server = Server::new();
    let body = json!({"tenant": {"external_id": "other", "name": "other", "jwt_secret": "x"}});
    let (response, effects) = server.send("PUT", "/api/tenants/t2", body);
    assert_eq!((response.status, effects), (201, upserted("t2", true, ChangeEffects::default())));
    let shown = server.get("/api/tenants/t2");
    assert_eq!((&shown["external_id"], &shown["name"], &shown["extensions"]), (&json!("t2"), &json!("t2"), &json!([])));
    assert_eq!(server.send("GET", "/api/tenants/other", None).0.status, 404);
}

#[test]
fn renaming_moves_the_tenant_unless_the_name_is_taken() {
    let server = Server::with_tenant();
    assert_eq!(server.send("POST", "/api/tenants", tenant(json!({"external_id": "t2"}))).0.status, 201);
    let rename = |to: &str| server.send("PUT", "/api/tenants/t1", json!({"tenant": {"external_id": to}}));
    let (response, effects) = rename("t2");
    assert_eq!((response.status, effects), (422, vec![]));
    assert_eq!(response.body, Some(json!({"errors": {"external_id": ["has already been taken"]}})));
    let (response, effects) = rename("t3");
    let mut wanted = vec![ApiEffect::TenantDeleted { external_id: "t1".to_owned() }];
    wanted.extend(upserted("t3", false, ChangeEffects::default()));
    assert_eq!((response.status, effects), (200, wanted));
    assert_eq!(server.send("GET", "/api/tenants/t1", None).0.status, 404);
    assert_eq!(server.get("/api/tenants/t3")["external_id"], "t3");
}

#[test]
fn invalid_creations_are_refused_and_store_nothing() {
    let server = Server::new();
    let errors = |fields: Value| {
        let (response, effects) = server.send("POST", "/api/tenants", json!({"tenant": fields}));
        assert_eq!((response.status, effects), (422, vec![]));
        response.body.unwrap()["errors"].clone()
    };
    let extension = |settings: Value| json!([{"type": "postgres_cdc_rls", "settings": settings}]);
    assert_eq!(errors(json!({"jwt_secret": "x", "extensions": []})), json!({"external_id": ["can't be blank"]}));
    assert_eq!(
        errors(json!({"external_id": "bad", "extensions": extension(settings())})),
        json!({"jwt_secret": ["either jwt_secret or jwt_jwks must be provided"]})
    );
    assert_eq!(
        errors(json!({"external_id": "bad", "jwt_secret": "x", "extensions": extension(json!({"region": "us"}))})),
        json!({"extensions": [{"settings": ["db_password can't be blank", "db_user can't be blank",
            "db_name can't be blank", "db_port can't be blank", "db_host can't be blank"]}]})
    );
    assert_eq!(
        errors(json!({"external_id": "bad", "jwt_secret": "x", "max_concurrent_users": 1.5})),
        json!({"max_concurrent_users": ["is invalid"]})
    );
    assert_eq!(
        errors(json!({"external_id": "bad", "jwt_secret": "x", "extensions": [{"type": "postgres_cdc_rls"}]})),
        json!({"extensions": [{"settings": ["can't be blank"]}]})
    );
    assert_eq!(server.get("/api/tenants"), json!([]));
}

#[test]
fn a_body_without_tenant_is_a_bad_request() {
    let server = Server::with_tenant();
    for body in [None, Some(json!({"other": 1})), Some(json!({"tenant": 5})), Some(json!([1]))] {
        for (method, path) in [("POST", "/api/tenants"), ("PUT", "/api/tenants/t1"), ("PUT", "/api/tenants/new")] {
            let (response, effects) = server.send(method, path, body.clone());
            assert_eq!((response.status, effects), (400, vec![]));
            assert_eq!(response.body, Some(json!("Bad Request")));
        }
    }
}

#[test]
fn wrong_setting_types_are_validation_errors() {
    let server = Server::with_tenant();
    for name in ["db_port", "region"] {
        let mut settings = settings();
        settings[name] = json!(5432);
        let body = json!({"tenant": {"extensions": [{"type": "postgres_cdc_rls", "settings": settings}]}});
        let (response, _) = server.send("PUT", "/api/tenants/t1", body);
        let wanted = json!({"errors": {"extensions": [{}, {"settings": [format!("{name} is invalid")]}]}});
        assert_eq!((response.status, response.body), (422, Some(wanted)));
    }
}
