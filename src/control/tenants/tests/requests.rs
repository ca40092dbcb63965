//! From request objects to records and validation errors.

use super::*;

#[test]
fn a_new_tenant_has_the_documented_defaults() {
    let tenant = new_tenant(json!({"name": "ignored", "external_id": "ignored", "unknown": 1})).unwrap();
    assert_eq!(tenant.external_id, "t1");
    assert_eq!(tenant.name.as_deref(), Some("t1"));
    assert_eq!(tenant.id.len(), 36);
    let limits = [
        tenant.max_concurrent_users,
        tenant.max_events_per_second,
        tenant.max_joins_per_second,
        tenant.max_channels_per_client,
        tenant.max_bytes_per_second,
        tenant.max_presence_events_per_second,
        tenant.max_payload_size_in_kb,
        tenant.migrations_ran,
    ];
    assert_eq!(limits, [11, 12, 13, 14, 15, 1000, 3000, 0]);
    assert!(!tenant.presence_enabled && !tenant.private_only && !tenant.suspend);
    assert_eq!(tenant.postgres_cdc_default, "postgres_cdc_rls");
    assert_eq!(tenant.broadcast_adapter, "gen_rpc");
    assert!(tenant.extensions.is_empty());
    assert_eq!((tenant.inserted_at, tenant.updated_at), (NOW, NOW));
}

#[test]
fn secrets_are_encrypted_and_can_be_read_back() {
    let tenant = new_tenant(json!({"extensions": [{"type": "postgres", "settings": settings()}]})).unwrap();
    assert_ne!(tenant.jwt_secret.as_deref(), Some("a secret"));
    assert_eq!(tenant.jwt_secret_plain(&cipher()).unwrap().as_deref(), Some("a secret"));
    let database = tenant.database().unwrap();
    for (name, plain) in [("db_host", "localhost"), ("db_port", "5432"), ("db_password", "z")] {
        assert!(database.settings[name].as_str().unwrap().starts_with("g1:"));
        assert_eq!(database.text(name, &cipher()).unwrap().as_deref(), Some(plain));
    }
    assert_eq!(database.settings["region"], "us-east-1");
    assert_eq!(database.text("region", &cipher()).unwrap().as_deref(), Some("us-east-1"));
    assert_eq!(database.text("absent", &cipher()).unwrap(), None);
}

#[test]
fn extension_defaults_lie_under_given_settings_and_the_pool_alias_wins() {
    let mut given = settings();
    given["publication"] = json!("mine");
    given["subcriber_pool_size"] = json!(1);
    given["postgres_changes_pool"] = json!(9);
    given["ssl_enforced"] = json!("kept as given");
    let tenant = new_tenant(json!({"extensions": [{"type": "postgres_cdc_rls", "settings": given}]})).unwrap();
    let stored = &tenant.extensions[0].settings;
    assert_eq!(stored["publication"], "mine");
    assert_eq!(stored["slot_name"], "supabase_realtime_replication_slot");
    assert_eq!(stored["poll_interval_ms"], 100);
    assert_eq!(stored["subcriber_pool_size"], 9);
    assert_eq!(stored["ssl_enforced"], "kept as given");
    assert!(!stored.contains_key("postgres_changes_pool"));
}

#[test]
fn extensions_of_a_new_tenant_are_filtered_and_reversed() {
    let other = json!({"type": "other", "settings": {"db_host": "plain"}});
    let list = json!([other, {"type": "x"}, {"settings": {}}, with_setting("region", json!("eu"))]);
    let tenant = new_tenant(json!({"extensions": list})).unwrap();
    let kinds: Vec<_> = tenant.extensions.iter().map(|extension| extension.kind.as_str()).collect();
    assert_eq!(kinds, ["postgres_cdc_rls", "other"]);
    assert_eq!(tenant.extensions[1].settings["db_host"], "plain");
}

#[test]
fn refused_creations_name_their_fields() {
    assert_eq!(errors_as_new(json!({"jwt_secret": "x", "extensions": []})), json!({"external_id": ["can't be blank"]}));
    assert_eq!(
        errors_as_new(json!({"external_id": "t", "extensions": [{"type": "postgres", "settings": {"region": "r"}}]})),
        json!({"extensions": [{"settings": ["db_password can't be blank", "db_user can't be blank",
            "db_name can't be blank", "db_port can't be blank", "db_host can't be blank"]}]})
    );
    assert_eq!(
        errors_as_new(json!({"external_id": 5, "max_concurrent_users": 1.5, "suspend": "maybe", "jwt_jwks": [],
            "name": 1, "broadcast_adapter": "carrier pigeon", "feature_flags": "x"})),
        json!({"external_id": ["is invalid"], "max_concurrent_users": ["is invalid"], "suspend": ["is invalid"],
            "jwt_jwks": ["is invalid"], "name": ["is invalid"], "broadcast_adapter": ["is invalid"],
            "feature_flags": ["is invalid"]})
    );
    for external_id in [json!(null), json!(""), json!("  ")] {
        assert_eq!(errors_as_new(json!({"external_id": external_id})), json!({"external_id": ["can't be blank"]}));
    }
}

#[test]
fn a_tenant_needs_a_secret_or_a_key_set() {
    let wanted = json!({"jwt_secret": ["either jwt_secret or jwt_jwks must be provided"]});
    assert_eq!(errors(new_tenant(json!({"jwt_secret": null}))), wanted);
    assert_eq!(errors(new_tenant(json!({"jwt_secret": ""}))), wanted);
    let with_keys = new_tenant(json!({"jwt_secret": null, "jwt_jwks": {"keys": []}})).unwrap();
    assert_eq!(with_keys.jwt_secret, None);
    assert_eq!(errors(changed(&with_keys, json!({"jwt_jwks": null}))), wanted);
}

#[test]
fn wrong_setting_types_are_validation_errors() {
    let stored = new_tenant(json!({"extensions": [with_setting("region", json!("eu"))]})).unwrap();
    for (name, message) in [("db_port", "db_port is invalid"), ("region", "region is invalid")] {
        let extension = with_setting(name, json!(5432));
        let entry = json!({"settings": [message]});
        let as_new = json!({"external_id": "t", "extensions": [extension]});
        assert_eq!(errors_as_new(as_new), json!({"extensions": [entry]}));
        let as_update = json!({"extensions": [extension]});
        assert_eq!(errors(changed(&stored, as_update)), json!({"extensions": [{}, entry]}));
    }
}

#[test]
fn bad_extension_entries_are_reported_by_position() {
    let good = with_setting("region", json!("eu"));
    assert_eq!(
        errors_as_new(json!({"external_id": "t", "extensions": [good, {"type": "x"}, {"settings": {}}, {"type": 1,
            "settings": "no"}, {"type": "postgres", "settings": settings()}]})),
        json!({"extensions": [{}, {"settings": ["can't be blank"]}, {"type": ["can't be blank"]},
            {"type": ["is invalid"], "settings": ["is invalid"]},
            {"tenant_external_id": ["has already been taken"]}]})
    );
    for list in [json!(null), json!({}), json!("x"), json!([1])] {
        assert_eq!(errors_as_new(json!({"external_id": "t", "extensions": list})), json!({"extensions": ["is invalid"]}));
    }
}

#[test]
fn updates_change_only_what_is_given() {
    let stored = new_tenant(json!({"max_channels_per_client": 77})).unwrap();
    let tenant = changed(&stored, json!({"presence_enabled": "true", "max_joins_per_second": "7", "x": 1})).unwrap();
    assert!(tenant.presence_enabled);
    assert_eq!(tenant.max_joins_per_second, 7);
    let back = Tenant { presence_enabled: false, max_joins_per_second: 13, ..tenant.clone() };
    assert!(back == stored);
    let reset = changed(&tenant, json!({"max_joins_per_second": null, "name": "new", "jwt_secret": "a secret"})).unwrap();
    assert_eq!((reset.max_joins_per_second, reset.name.as_deref()), (13, Some("new")));
    assert_eq!(reset.jwt_secret, stored.jwt_secret, "an equal secret keeps its stored form");
    let renamed = changed(&stored, json!({"external_id": "t2"})).unwrap();
    assert_eq!((renamed.external_id.as_str(), renamed.name.as_deref()), ("t2", Some("t1")));
    assert_eq!(errors(changed(&stored, json!({"external_id": ""}))), json!({"external_id": ["can't be blank"]}));
}

#[test]
fn responses_hide_every_secret() {
    let tenant = new_tenant(json!({"jwt_jwks": {"keys": [{"kty": "oct", "k": "aGlkZGVu"}]},
        "extensions": [with_setting("db_password", json!("hunter2"))]}));
    let tenant = tenant.unwrap();
    let shown = tenant.to_public_json();
    let mut keys: Vec<_> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "client_presence_window_ms",
            "extensions",
            "external_id",
            "id",
            "inserted_at",
            "max_channels_per_client",
            "max_client_presence_events_per_window",
            "max_concurrent_users",
            "max_events_per_second",
            "max_joins_per_second",
            "name",
            "presence_enabled",
            "private_only"
        ]
    );
    let extension = &shown["extensions"][0];
    assert!(extension["settings"].get("db_password").is_none());
    assert!(extension["settings"]["db_host"].as_str().unwrap().starts_with("g1:"));
    assert_eq!(extension["inserted_at"], "2025-06-15T15:06:40");
    for text in [shown.to_string(), format!("{tenant:?}"), format!("{:?}", tenant.extensions)] {
        for hidden in ["a secret", "hunter2", "aGlkZGVu", "jwt_secret"] {
            assert!(!text.contains(hidden), "{hidden} in {text}");
        }
    }
}
