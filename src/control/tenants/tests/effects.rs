//! What a change means for the running server.

use super::*;

#[test]
fn effects_follow_the_changed_fields() {
    let stored = new_tenant(json!({"extensions": [with_setting("region", json!("eu"))]})).unwrap();
    let effects = |change: Value| ChangeEffects::between(&stored, &changed(&stored, change).unwrap(), &cipher());
    let none = ChangeEffects::default();
    let both = ChangeEffects { disconnect: true, restart_database: true, ..none };
    assert_eq!(effects(json!({"max_concurrent_users": 5, "name": "x", "presence_enabled": true})), none);
    assert_eq!(effects(json!({"max_events_per_second": 5})), ChangeEffects { reset_events: true, ..none });
    assert_eq!(effects(json!({"max_joins_per_second": 5})), ChangeEffects { reset_joins: true, ..none });
    assert_eq!(effects(json!({"max_presence_events_per_second": 5})), ChangeEffects { reset_presence: true, ..none });
    assert_eq!(effects(json!({"private_only": true})), ChangeEffects { disconnect: true, ..none });
    assert_eq!(effects(json!({"suspend": true})), both);
    assert_eq!(effects(json!({"jwt_secret": "another"})), both);
    assert_eq!(effects(json!({"jwt_secret": "a secret"})), none);
    assert_eq!(effects(json!({"jwt_jwks": {"keys": []}})), both);
    let restart = ChangeEffects { restart_database: true, ..none };
    assert_eq!(effects(json!({"extensions": [with_setting("region", json!("eu"))]})), none);
    assert_eq!(effects(json!({"extensions": [with_setting("region", json!("us"))]})), restart);
    assert_eq!(effects(json!({"extensions": [with_setting("db_password", json!("new"))]})), restart);
    assert_eq!(effects(json!({"extensions": []})), restart);
}

#[test]
fn equal_plaintext_under_another_ciphertext_is_no_change() {
    let one = new_tenant(json!({})).unwrap();
    let mut two = one.clone();
    two.jwt_secret = Some(cipher().encrypt("a secret").unwrap());
    assert_ne!(one.jwt_secret, two.jwt_secret);
    assert_eq!(ChangeEffects::between(&one, &two, &cipher()), ChangeEffects::default());
    two.jwt_secret = Some("g1:unreadable".to_owned());
    assert!(ChangeEffects::between(&one, &two, &cipher()).disconnect);
}

#[test]
fn the_order_of_extensions_has_no_meaning() {
    let other = json!({"type": "other", "settings": {}});
    let one = new_tenant(json!({"extensions": [other, with_setting("region", json!("eu"))]})).unwrap();
    let mut two = one.clone();
    two.extensions.reverse();
    assert_eq!(ChangeEffects::between(&one, &two, &cipher()), ChangeEffects::default());
    two.extensions[0].kind = "third".to_owned();
    assert!(ChangeEffects::between(&one, &two, &cipher()).restart_database);
}
