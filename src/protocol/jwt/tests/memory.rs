//! The memory of verified signatures.

use super::*;

fn check_cached(cache: &mut VerifiedCache, token: &str, keys: &Keys, now: i64) -> Result<Verified, JwtError> {
    cache.verify_cached(token, keys, &ClaimValidators::default(), now, Require::RoleAndExp)
}

#[test]
fn a_remembered_token_gives_the_same_claims() {
    let keys = Keys::new(None, Some(&published_key_set()));
    let mut cache = VerifiedCache::new();
    for _ in 0..2 {
        assert_eq!(check_cached(&mut cache, ES256_TOKEN, &keys, NOW), check(ES256_TOKEN, &keys));
        assert_eq!(cache.len(), 1);
    }
}

#[test]
fn a_remembered_token_still_expires_and_is_still_validated() {
    let keys = Keys::new(None, Some(&published_key_set()));
    let mut cache = VerifiedCache::new();
    assert!(check_cached(&mut cache, ES256_TOKEN, &keys, NOW).is_ok());
    let late = check_cached(&mut cache, ES256_TOKEN, &keys, 4_102_444_805);
    assert_eq!(late, Err(JwtError::Expired { seconds_ago: 5 }));
    let validators = ClaimValidators::parse(r#"{"sub":"someone else"}"#).unwrap();
    let other = cache.verify_cached(ES256_TOKEN, &keys, &validators, NOW, Require::RoleAndExp);
    assert_eq!(other, Err(JwtError::Generic));
}

#[test]
fn another_key_set_never_meets_an_old_entry() {
    let mut cache = VerifiedCache::new();
    assert!(check_cached(&mut cache, ES256_TOKEN, &Keys::new(None, Some(&published_key_set())), NOW).is_ok());
    let without = Keys::new(None, Some(&json!({"keys": []})));
    assert_eq!(check_cached(&mut cache, ES256_TOKEN, &without, NOW), Err(signer_with("es-1")));
}

#[test]
fn symmetric_and_refused_tokens_are_not_remembered() {
    let keys = Keys::new(Some(SECRET), Some(&published_key_set()));
    let mut cache = VerifiedCache::new();
    assert!(check_cached(&mut cache, &valid_token(), &keys, NOW).is_ok());
    let forged = ES256_TOKEN.replace("DB_Y", "DB_Z");
    assert_eq!(check_cached(&mut cache, &forged, &keys, NOW), Err(JwtError::Signature));
    assert!(cache.is_empty());
}

#[test]
fn the_memory_is_bounded_and_keeps_what_is_used() {
    let pair_key = |i: u32| json!({"keys": published_key_set()["keys"], "revision": i});
    let favourite = Keys::new(None, Some(&published_key_set()));
    let mut cache = VerifiedCache::new();
    for i in 0..2500 {
        let keys = Keys::new(None, Some(&pair_key(i)));
        cache.remember_for_test(ES256_TOKEN, &keys);
        if i % 500 == 0 {
            assert!(check_cached(&mut cache, ES256_TOKEN, &favourite, NOW).is_ok());
        }
    }
    assert!(cache.len() <= 2048);
    assert!(cache.contains_for_test(ES256_TOKEN, &favourite));
    assert!(!cache.contains_for_test(ES256_TOKEN, &Keys::new(None, Some(&pair_key(0)))));
}
