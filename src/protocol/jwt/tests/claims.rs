//! What is checked after the signature.

use super::*;

fn with(claims: Value) -> Result<Verified, JwtError> {
    check(&token(&claims), &hs_keys())
}

#[test]
fn exp_must_be_in_the_future() {
    let exp = |exp: Value| with(json!({"role": "a", "exp": exp}));
    assert_eq!(exp(json!(NOW + 1)).unwrap().exp, Some(NOW + 1));
    assert_eq!(exp(json!(NOW)), Err(JwtError::Expired { seconds_ago: 0 }));
    assert_eq!(exp(json!(NOW - 10)), Err(JwtError::Expired { seconds_ago: 10 }));
    assert_eq!(exp(json!(i64::MIN)), Err(JwtError::Expired { seconds_ago: i64::MAX }));
    assert_eq!(exp(json!(u64::MAX)).unwrap().exp, Some(i64::MAX));
}

#[test]
fn decimal_times_are_rounded() {
    let verified = with(json!({"role": "a", "exp": NOW as f64 + 9.5, "iat": NOW as f64 - 0.4})).unwrap();
    assert_eq!(verified.exp, Some(NOW + 10));
    assert_eq!(verified.claims["exp"], json!(NOW + 10));
    assert_eq!(verified.claims["iat"], json!(NOW));
}

#[test]
fn an_expired_decimal_is_generic() {
    assert_eq!(with(json!({"role": "a", "exp": NOW as f64 - 0.5})), Err(JwtError::Generic));
    assert_eq!(with(json!({"role": "a", "exp": NOW as f64})), Err(JwtError::Generic));
}

#[test]
fn a_barely_future_decimal_has_no_seconds_left() {
    let verified = with(json!({"role": "a", "exp": NOW as f64 + 0.25})).unwrap();
    assert_eq!(verified.seconds_left(NOW), None);
    assert_eq!(with(json!({"role": "a", "exp": NOW + 7})).unwrap().seconds_left(NOW), Some(7));
}

#[test]
fn times_of_another_type_are_generic() {
    for wrong in [json!("tomorrow"), json!(null), json!([1]), json!(true)] {
        assert_eq!(with(json!({"role": "a", "exp": wrong})), Err(JwtError::Generic));
        assert_eq!(with(json!({"role": "a", "exp": NOW + 1, "iat": wrong})), Err(JwtError::Generic));
    }
}

#[test]
fn role_and_exp_must_exist_for_tenants_only() {
    for claims in [json!({"exp": NOW + 1}), json!({"role": "a"}), json!({})] {
        assert_eq!(with(claims.clone()), Err(JwtError::MissingClaims));
        let loose = verify(&token(&claims), &hs_keys(), &ClaimValidators::default(), NOW, Require::Nothing);
        assert!(loose.is_ok());
    }
    assert_eq!(with(json!({"role": null, "exp": NOW + 1})).unwrap().role(), None);
    assert_eq!(with(json!({"role": "", "exp": NOW + 1})).unwrap().role(), Some(""));
}

#[test]
fn validators_apply_to_present_claims() {
    let validators = ClaimValidators::parse(r#"{"iss":"me","level":{"a":[1]}}"#).unwrap();
    let check = |extra: Value| {
        let mut claims = json!({"role": "a", "exp": NOW + 1});
        claims.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        verify(&token(&claims), &hs_keys(), &validators, NOW, Require::RoleAndExp)
    };
    assert!(check(json!({})).is_ok());
    assert!(check(json!({"iss": "me", "level": {"a": [1]}})).is_ok());
    assert_eq!(check(json!({"iss": "you"})), Err(JwtError::Generic));
    assert_eq!(check(json!({"iss": null})), Err(JwtError::Generic));
    assert_eq!(check(json!({"level": {"a": [2]}})), Err(JwtError::Generic));
}

#[test]
fn the_validator_setting_must_be_an_object() {
    assert!(ClaimValidators::parse("").unwrap().is_empty());
    assert!(ClaimValidators::parse(" {} ").unwrap().is_empty());
    assert!(!ClaimValidators::parse(r#"{"iss":"me"}"#).unwrap().is_empty());
    assert_eq!(ClaimValidators::parse("[]"), Err(ClaimValidatorsError));
    assert_eq!(ClaimValidators::parse("{"), Err(ClaimValidatorsError));
}
