//! Who gets in, and which routes there are.

use super::*;

#[test]
fn only_good_bearer_tokens_open_the_api() {
    let mut server = Server::with_tenant();
    server.settings.api_jwt_secret_next = Some("the next secret".to_owned());
    let blocked = sign_hs256(&json!({"jti": "blocked"}), API_SECRET);
    server.settings.api_token_blocklist = vec![blocked.clone()];
    let good = sign_hs256(&json!({}), API_SECRET);
    let status = |authorization: &[&str]| {
        let (response, effects) = server.handle(&request("GET", "/api/tenants/t1", authorization));
        assert!(effects.is_empty());
        if response.status != 200 {
            assert_eq!(response, empty(403));
        }
        response.status
    };
    let bearer = |token: &str| status(&[&format!("Bearer {token}")]);
    assert_eq!(bearer(&good), 200);
    assert_eq!(bearer(&format!("{good}%20")), 200);
    assert_eq!(bearer(&sign_hs256(&json!({"exp": NOW + 5}), "the next secret")), 200);
    assert_eq!(bearer(&sign_hs256(&json!({"exp": NOW - 5}), API_SECRET)), 403);
    assert_eq!(bearer(&sign_hs256(&json!({}), JWT_SECRET)), 403);
    assert_eq!(bearer(&blocked), 403);
    assert_eq!(bearer(&format!(" {blocked}")), 403);
    assert_eq!(bearer("nonsense"), 403);
    assert_eq!(bearer(""), 403);
    assert_eq!(status(&[]), 403);
    assert_eq!(status(&[&format!("bearer {good}")]), 403);
    assert_eq!(status(&[&good]), 403);
    let value = format!("Bearer {good}");
    assert_eq!(status(&[&value, &value]), 403);
}

#[test]
fn without_a_secret_nobody_gets_in() {
    let mut server = Server::with_tenant();
    for secret in [None, Some(String::new())] {
        server.settings.api_jwt_secret = secret;
        let token = format!("Bearer {}", sign_hs256(&json!({}), ""));
        assert_eq!(server.handle(&request("GET", "/api/tenants", &[&token])).0, empty(403));
    }
}

#[test]
fn claim_validators_hold_for_management_tokens() {
    let mut server = Server::with_tenant();
    server.settings.claim_validators = ClaimValidators::parse(r#"{"iss":"me"}"#).unwrap();
    let allowed = |claims: Value| {
        let value = format!("Bearer {}", sign_hs256(&claims, API_SECRET));
        authorized(&server.settings, &[value], Area::Management, NOW)
    };
    assert!(allowed(json!({})) && allowed(json!({"iss": "me"})));
    assert!(!allowed(json!({"iss": "you"})));
}

#[test]
fn metrics_have_their_own_secret_and_blocklist() {
    let token = |secret: &str| sign_hs256(&json!({"a": secret}), secret);
    let settings = ApiSettings {
        api_jwt_secret: Some(API_SECRET.to_owned()),
        metrics_jwt_secret: Some("metrics".to_owned()),
        api_token_blocklist: vec![token("metrics")],
        ..ApiSettings::default()
    };
    let allowed = |secret: &str, area| authorized(&settings, &[format!("Bearer {}", token(secret))], area, NOW);
    assert!(allowed("metrics", Area::Metrics));
    assert!(!allowed(API_SECRET, Area::Metrics));
    assert!(!allowed("metrics", Area::Management));
    let blocked = ApiSettings { metrics_token_blocklist: vec![token("metrics")], ..settings.clone() };
    assert!(!authorized(&blocked, &[format!("Bearer {}", token("metrics"))], Area::Metrics, NOW));
}

#[test]
fn refusal_comes_before_everything_else() {
    let server = Server::with_tenant();
    for (method, path) in [
        ("GET", "/api/tenants"),
        ("POST", "/api/tenants"),
        ("GET", "/api/tenants/none"),
        ("PUT", "/api/tenants/none"),
        ("PATCH", "/api/tenants/t1"),
        ("DELETE", "/api/tenants/t1"),
        ("POST", "/api/tenants/t1/reload"),
        ("POST", "/api/tenants/none/shutdown"),
        ("GET", "/api/tenants/none/health"),
    ] {
        assert_eq!(server.handle(&request(method, path, &[])), (empty(403), vec![]), "{method} {path}");
    }
    assert!(block_on(server.store.get("t1")).unwrap().is_some());
}

#[test]
fn other_methods_and_paths_have_no_route() {
    let server = Server::with_tenant();
    for (method, path) in [
        ("PUT", "/api/tenants"),
        ("POST", "/api/tenants/t1"),
        ("GET", "/api/tenants/t1/reload"),
        ("POST", "/api/tenants/t1/health"),
        ("GET", "/api/tenants/t1/other"),
        ("GET", "/api/other"),
        ("GET", "/"),
    ] {
        let (response, effects) = server.send(method, path, None);
        assert_eq!((response.status, response.body, effects), (404, Some(json!("Not Found")), vec![]));
    }
    assert_eq!(server.get("//api/tenants/t1/")["external_id"], "t1");
    assert_eq!(server.send("HEAD", "/api/tenants/t1", None).0.status, 200);
}
