//! The token as text, and the texts of refusals.

use proptest::prelude::*;

use super::*;

#[test]
fn published_hs256_vector_passes() {
    let verified = check(&valid_token(), &hs_keys()).unwrap();
    assert_eq!(verified.role(), Some("authenticated"));
    assert_eq!(verified.sub(), Some("u-1"));
    assert_eq!(verified.exp, Some(4_102_444_800));
}

#[test]
fn published_expired_vector_is_expired() {
    let token = format!(
        "{HEADER_HS256}.eyJyb2xlIjoiYXV0aGVudGljYXRlZCIsImV4cCI6MTcwMDAwMDYwMCwiaWF0IjoxNzAwMDAwMDAwLCJzdWIiOiJ1LTEifQ.AruktNKvW1_m6EMq71dKVDvRUVOEpoZcx8pfHNoLvEI"
    );
    let at = |now| verify(&token, &hs_keys(), &ClaimValidators::default(), now, Require::Nothing);
    assert!(at(1_700_000_599).is_ok());
    assert_eq!(at(1_700_000_600), Err(JwtError::Expired { seconds_ago: 0 }));
    assert_eq!(at(1_700_000_700), Err(JwtError::Expired { seconds_ago: 100 }));
}

#[test]
fn white_space_and_percent_encoding_are_removed() {
    let token = valid_token();
    let spaced = format!(" {}\n\t{} \r", &token[..30], &token[30..]);
    assert!(check(&spaced, &hs_keys()).is_ok());
    assert!(check(&token.replace('.', "%2E"), &hs_keys()).is_ok());
    assert!(check(&token.replace('.', "%20%2e"), &hs_keys()).is_ok());
    assert!(matches!(clean(&token), std::borrow::Cow::Borrowed(_)));
    assert_eq!(clean("a\u{a0}b%"), "ab%");
}

#[test]
fn text_that_is_no_token_is_malformed() {
    let (h, c, s) = (HEADER_HS256, CLAIMS, SIGNATURE_HS256);
    let not_json = URL_SAFE_NO_PAD.encode("role");
    for text in [
        String::new(),
        "nonsense".to_owned(),
        "a.b".to_owned(),
        "..".to_owned(),
        "sb_publishable_abcdefgh".to_owned(),
        format!("{h}.{c}"),
        format!("{h}.{c}.{s}.{s}"),
        format!("{h}.{c}.{s}="),
        format!("{h}.{c}.{}", s.replace('-', "+")),
        format!("{h}.{not_json}.{s}"),
        format!("{not_json}.{c}.{s}"),
        format!("{h}.{}.{s}", URL_SAFE_NO_PAD.encode([0xff, 0xfe])),
        format!("{h}.{c}.%ff"),
    ] {
        assert_eq!(check(&text, &hs_keys()), Err(JwtError::Malformed), "{text:?}");
    }
}

#[test]
fn header_or_claims_of_another_json_type_are_generic() {
    let hs256 = json!({"alg": "HS256"});
    for claims in [json!([1, 2]), json!("x"), json!(null)] {
        let token = hmac_token(hmac::HMAC_SHA256, &hs256, &claims, SECRET.as_bytes());
        assert_eq!(check(&token, &hs_keys()), Err(JwtError::Generic));
    }
    let good = json!({"role": "a", "exp": NOW + 1});
    let token = hmac_token(hmac::HMAC_SHA256, &json!(["HS256"]), &good, SECRET.as_bytes());
    assert_eq!(check(&token, &hs_keys()), Err(JwtError::Generic));
}

#[test]
fn every_kind_has_its_texts() {
    let expired = JwtError::Expired { seconds_ago: 3 };
    let missing = "Fields `role` and `exp` are required in JWT";
    let with_kid = "Failed to generate JWT signer for key ID (kid) \"k1\", check your JWT secret or JWKS configuration";
    let without = "Failed to generate JWT signer, check your JWT secret or JWKS configuration";
    let table = [
        (
            JwtError::Malformed,
            401,
            "The token provided is not a valid JWT",
            "MalformedJWT: The token provided is not a valid JWT",
            "The token provided is not a valid JWT",
        ),
        (
            JwtError::Signature,
            401,
            "Failed to validate JWT signature",
            "JwtSignatureError: Failed to validate JWT signature",
            ":signature_error",
        ),
        (
            expired,
            401,
            "Token has expired",
            "InvalidJWTToken: Token has expired 3 seconds ago",
            "Token has expired 3 seconds ago",
        ),
        (JwtError::MissingClaims, 401, missing, "InvalidJWTToken: Fields `role` and `exp` are required in JWT", missing),
        (
            signer_with("k1"),
            401,
            with_kid,
            "JwtSignerError: Failed to generate JWT signer for key ID (kid) \"k1\", check your JWT secret or JWKS configuration",
            with_kid,
        ),
        (
            SIGNER,
            401,
            without,
            "JwtSignerError: Failed to generate JWT signer, check your JWT secret or JWKS configuration",
            ":error_generating_signer",
        ),
        (JwtError::Generic, 500, "Error connecting to Realtime", "Unknown Error on Channel", ":invalid_token"),
    ];
    for (error, status, upgrade, join, close) in table {
        assert_eq!(error.upgrade_status(), status);
        assert_eq!(error.upgrade_text(), upgrade);
        assert_eq!(error.join_reason(), join);
        assert_eq!(error.close_text(), close);
    }
}

fn strange_token() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        any::<Vec<u8>>().prop_map(|bytes| URL_SAFE_NO_PAD.encode(bytes)),
        "\\{\"(alg|kid|exp|role)\":[-0-9a-zA-Z\"\\[.]{0,12}\\}".prop_map(|json| URL_SAFE_NO_PAD.encode(json)),
        Just(HEADER_HS256.to_owned()),
        Just(CLAIMS.to_owned()),
    ];
    prop_oneof![any::<String>(), proptest::collection::vec(segment, 0..5).prop_map(|segments| segments.join(".")),]
}

proptest! {
    #[test]
    fn no_input_panics_and_the_cache_agrees(text in strange_token(), now in any::<i64>()) {
        let keys = Keys::new(Some(SECRET), Some(&published_key_set()));
        let validators = ClaimValidators::default();
        let mut cache = VerifiedCache::new();
        let once = verify(&text, &keys, &validators, now, Require::RoleAndExp);
        let cached = cache.verify_cached(&text, &keys, &validators, now, Require::RoleAndExp);
        prop_assert!(once.is_err());
        prop_assert_eq!(once, cached);
    }

    #[test]
    fn any_key_set_can_be_prepared(kid in any::<String>(), x in any::<String>(), crv in "(P-256|P-384|P-521|Ed25519|Ed448)") {
        for kty in ["oct", "RSA", "EC", "OKP", "other"] {
            let jwk = json!({"kty": kty, "kid": kid, "crv": crv, "k": x, "x": x, "y": x, "n": x, "e": x});
            let keys = Keys::new(None, Some(&json!({"keys": [jwk, x]})));
            let header = json!({"alg": "RS256", "kid": kid});
            let token = format!("{}.AAAA", unsigned(&header, &json!({})));
            prop_assert!(check(&token, &keys).is_err());
        }
    }

    #[test]
    fn one_changed_character_is_refused(at in 0usize..170, with in "[A-Za-z0-9_-]") {
        let mut token = valid_token().into_bytes();
        let at = at % token.len();
        let with = with.as_bytes()[0];
        prop_assume!(token[at] != with && token[at] != b'.');
        token[at] = with;
        prop_assert!(check(std::str::from_utf8(&token).unwrap(), &hs_keys()).is_err());
    }
}
