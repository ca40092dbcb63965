//! Every row of the algorithm table of protocol.md 2.2.

use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _,
};

use super::*;

const RSA_N: &str = "iRZGSPwaJnO1mA8A_ztGPsT2R2kVUvZj1puUYFm6zMePbJtssedicksJ9F-rX7ylloHve6AMxjIPeCcpxB2oHJ6qldbqVpqk0HiU3gChru-KvAENVmr5CJcYaW4Kai1cmZqijIEZScdfjUB_AE2MIXWfyYbnpLgdA9t5IGMBIG9FSbIfBezmKHAKRrUcHcCXjUJ6-YNRbQxH6dQNEgfZsmen18TF6CaG2WP-beiKRuxFcICeW5dAIo07LmC8apTfbZY0pwOp0gl0ZYSS1I5FWVznllPqeT4GriUCIRJNXueuNQWqacbCamR06eqO8dFM4pPuYg2DapOyjTvRvhEfYQ";
const RS_HEADER_REST: &str = "IsImtpZCI6InJzYS0xIn0.eyJyb2xlIjoiYXV0aGVudGljYXRlZCIsImV4cCI6NDEwMjQ0NDgwMH0";
/// Made with a key that was thrown away; the middle differs only in the algorithm's size.
const RS_TOKENS: [(&str, &str); 3] = [
    (
        "eyJhbGciOiJSUzI1Ni",
        "FiJ9E2Qq2umfd73bd4HYSItzfMcD49EI8lTwPzNmN4n1IkmbdTbvAbUuVNHZnH1rMmTe0SyHkxHjUTaJZB6S1p-8B1bdPbcBZPay6w0U6DOxi8nIK_UHv2o9Lkap1f0L_mR20NSlQgY1hUMAtGG5tZg5otaY92M-zg3RRZSI3fEWteSYHvEzGFcXSz953zbnCUWvJJr97t0mSxQ_6Oc55agqfN3-zTCOOZzddqhB2i9gL4dNf-FJwZcvo4w3DfZogKqbM9R0U_Z6aEFwaAAOpOZ8Hj-z1sRz5biyeEH6ka31s8V-IdSvBc-sRk1zN8OziQDWrrmYaZjPcdUGz8Q7ew",
    ),
    (
        "eyJhbGciOiJSUzM4NC",
        "QMm98ZhkyPBSM6yfNfzgAUIdPWjYxOW8L2Yt4FZthwf7Wxo64lYsYNvk6blDb9zlLVd3dFjZ18kk4MvhfbfAq-RDMkjAvnAr1kgySUfdINC71G_ZuJolZ9kKHFqJSw1-JLgbb8lkW7a7shBpdeIscBbnbffQHKaBssmHSHcisz3AohDe4x5v2JlT1SSzGO5ZVceVrOOJ1Mo7T7vqkDTpDEEQmbYpcuOejEK-YBkLDgch1Qvg50UL5KVRKy_yGaptt5OyiYvCEonNn8MqqBXwNE_VWnmu7ezpM8kCAwbbaSZdmDEws19N26XX63OFcHfJzkClNp97dtqE7xGHAO7zLg",
    ),
    (
        "eyJhbGciOiJSUzUxMi",
        "ezVgD9921IgZs33BHTGKi2n0Am_ES_kAsONn6NwQVoJ3jeqfrg1C9fpI2QA4N3EmZxd-jY_6xPq0ldIYWtdjGjAk-zwHw1EtdQcYFMM-MJzOKQ_Dkhmvb1lmtCE4aAnFhZNXz1z5-MBD3a8ZN0oc3VUHs-QOKB8HIoQKKB7swGGpUfiO6SY4N2f-8p8PZRhhyka2gRJ7k28LnT3QetC-yITE7GAPo7U3yfy3xOeA-3TjcOdKK4Bj8GXsPAT1TB5wGqIeC_n25vlJsxOgbKMhpyIQY-EYMlIszK8gcCVETVxfsp4QhysCGFojJpZwgwJr_Wq2DvXHsL7S0f21yi4cDQ",
    ),
];

fn rsa_token(which: usize) -> String {
    let (head, signature) = RS_TOKENS[which];
    format!("{head}{RS_HEADER_REST}.{signature}")
}

fn key_set(keys: Value) -> Keys {
    Keys::new(None, Some(&json!({"keys": keys})))
}

fn good_claims() -> Value {
    json!({"role": "authenticated", "exp": NOW + 60})
}

/// Signs with a fresh curve key and returns the token and the key's public entry.
fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, alg: &str, crv: &str) -> (String, Value) {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let signed = unsigned(&json!({"alg": alg, "kid": "ec"}), &good_claims());
    let signature = pair.sign(&random, signed.as_bytes()).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
    let entry = json!({"kty": "EC", "kid": "ec", "crv": crv,
        "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)});
    (format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), entry)
}

fn eddsa(alg: &str) -> (String, Value) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let signed = unsigned(&json!({"alg": alg, "kid": "ed"}), &good_claims());
    let entry = json!({"kty": "OKP", "kid": "ed", "crv": "Ed25519",
        "x": URL_SAFE_NO_PAD.encode(pair.public_key())});
    (format!("{signed}.{}", URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()))), entry)
}

#[test]
fn published_vectors_pass() {
    let hs512 = format!(
        "eyJhbGciOiJIUzUxMiJ9.{CLAIMS}.t2muVgxXN7W0DXrRx-sQRkNZyj2fmAeOiRe8NAIhGp1xlX7HO44OrrEI_-_RvhUFgrtrizkvswytlwHfOTzfyw"
    );
    assert!(check(&hs512, &hs_keys()).is_ok());
    let keys = Keys::new(Some(SECRET), Some(&published_key_set()));
    let oct = format!("eyJhbGciOiJIUzI1NiIsImtpZCI6Im9jdC0xIn0.{CLAIMS}.tzqEfj0DTWL09Kr2NStdl7FLyPimXciOdS78jiLdYdQ");
    let eddsa = format!(
        "eyJhbGciOiJFZERTQSIsImtpZCI6ImVkLTEifQ.{CLAIMS}.S70veXborORJWK6QePDHu1qpNRXZ2ULX5et3Y_4kUq7ajRCvhz1t8PHE_Y3tFRKzyi6wfKqI4gzLXvJDTjiIBA"
    );
    for token in [&oct, ES256_TOKEN, &eddsa] {
        assert_eq!(check(token, &keys).unwrap().sub(), Some("u-1"));
    }
}

#[test]
fn hmac_sizes_are_not_interchangeable() {
    let sizes = [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)];
    for (alg, _) in sizes {
        for (made_with, algorithm) in sizes {
            let token = hmac_token(algorithm, &json!({"alg": alg}), &good_claims(), SECRET.as_bytes());
            assert_eq!(check(&token, &hs_keys()).is_ok(), alg == made_with);
        }
    }
}

#[test]
fn wrong_or_missing_signatures_are_refused() {
    let unsigned = unsigned(&json!({"alg": "HS256"}), &good_claims());
    assert_eq!(check(&format!("{unsigned}."), &hs_keys()), Err(JwtError::Signature));
    let other = sign_hs256(&good_claims(), "another-secret");
    assert_eq!(check(&other, &hs_keys()), Err(JwtError::Signature));
}

#[test]
fn unknown_algorithms_have_no_signer() {
    let keys = Keys::new(Some(SECRET), Some(&published_key_set()));
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "PS256", "kid": "es-1"}),
        json!({"alg": "hs256"}),
        json!({"alg": 256}),
        json!({"alg": null}),
        json!({}),
    ] {
        let token = hmac_token(hmac::HMAC_SHA256, &header, &good_claims(), SECRET.as_bytes());
        assert_eq!(check(&token, &keys), Err(SIGNER), "{header}");
    }
}

#[test]
fn asymmetric_algorithms_need_a_kid_and_a_key_set() {
    for alg in ["RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"] {
        let with_kid = hmac_token(hmac::HMAC_SHA256, &json!({"alg": alg, "kid": "k1"}), &good_claims(), b"x");
        let numeric = hmac_token(hmac::HMAC_SHA256, &json!({"alg": alg, "kid": 1}), &good_claims(), b"x");
        assert_eq!(check(&with_kid, &hs_keys()), Err(SIGNER));
        assert_eq!(check(&with_kid, &Keys::new(None, Some(&json!({"other": 1})))), Err(SIGNER));
        assert_eq!(check(&with_kid, &key_set(json!([]))), Err(signer_with("k1")));
        assert_eq!(check(&with_kid, &key_set(json!("none"))), Err(signer_with("k1")));
        assert_eq!(check(&numeric, &key_set(json!([]))), Err(SIGNER));
    }
}

#[test]
fn hmac_prefers_the_key_set_and_falls_back_to_the_secret() {
    let jwks = json!({"keys": [
        {"kty": "oct", "kid": "no-k"},
        {"kty": "oct", "kid": "bad-k", "k": "not/base64url"},
        {"kty": "oct", "kid": "empty-k", "k": ""},
        {"kty": "oct", "kid": "twice", "k": "Zmlyc3Q"},
        {"kty": "oct", "kid": "twice", "k": "c2Vjb25k"},
    ]});
    let keys = Keys::new(Some(SECRET), Some(&jwks));
    let try_with = |kid: &str, secret: &[u8]| {
        let header = json!({"alg": "HS384", "kid": kid});
        check(&hmac_token(hmac::HMAC_SHA384, &header, &good_claims(), secret), &keys)
    };
    assert!(try_with("unknown", SECRET.as_bytes()).is_ok());
    assert!(try_with("no-k", SECRET.as_bytes()).is_ok());
    assert_eq!(try_with("bad-k", SECRET.as_bytes()), Err(signer_with("bad-k")));
    assert_eq!(try_with("empty-k", b""), Err(signer_with("empty-k")));
    assert!(try_with("twice", b"first").is_ok());
    assert_eq!(try_with("twice", b"second"), Err(JwtError::Signature));
}

#[test]
fn a_tenant_without_secret_has_no_signer_for_hmac() {
    let token = sign_hs256(&good_claims(), "");
    assert_eq!(check(&token, &Keys::new(None, Some(&published_key_set()))), Err(SIGNER));
    assert_eq!(check(&token, &Keys::new(Some(""), None)), Err(SIGNER));
}

#[test]
fn rsa_signatures_of_all_sizes_pass() {
    let keys = key_set(json!([{"kty": "RSA", "kid": "rsa-1", "n": RSA_N, "e": "AQAB", "alg": "RS256"}]));
    let padded = key_set(json!([{"kty": "RSA", "kid": "rsa-1", "n": RSA_N, "e": "AAEAAQ"}]));
    for which in 0..3 {
        assert_eq!(check(&rsa_token(which), &keys).unwrap().role(), Some("authenticated"));
        assert!(check(&rsa_token(which), &padded).is_ok());
    }
    let crossed = format!("{}{RS_HEADER_REST}.{}", RS_TOKENS[0].0, RS_TOKENS[1].1);
    assert_eq!(check(&crossed, &keys), Err(JwtError::Signature));
    let unusable = key_set(json!([{"kty": "RSA", "kid": "rsa-1", "n": "*", "e": "AQAB"}]));
    assert_eq!(check(&rsa_token(0), &unusable), Err(signer_with("rsa-1")));
    let other_family = key_set(json!([{"kty": "EC", "kid": "rsa-1"}]));
    assert_eq!(check(&rsa_token(0), &other_family), Err(signer_with("rsa-1")));
}

#[test]
fn elliptic_curves_pass_for_their_own_algorithm() {
    let (p256, p256_key) = ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256");
    let (p384, p384_key) = ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384");
    assert!(check(&p256, &key_set(json!([p256_key]))).is_ok());
    assert!(check(&p384, &key_set(json!([p384_key]))).is_ok());
    assert_eq!(check(&p256, &key_set(json!([p384_key]))), Err(JwtError::Signature));
    assert_eq!(check(&p384, &key_set(json!([p256_key]))), Err(JwtError::Signature));
    let p521 = key_set(json!([{"kty": "EC", "kid": "ec", "crv": "P-521", "x": "AA", "y": "AA"}]));
    assert_eq!(check(&p256, &p521), Err(signer_with("ec")));
    let too_long = key_set(json!([{"kty": "EC", "kid": "ec", "crv": "P-256", "x": p384_key["x"], "y": "AA"}]));
    assert_eq!(check(&p256, &too_long), Err(signer_with("ec")));
}

#[test]
fn edwards_curves_pass_for_both_names_of_ed25519() {
    for alg in ["EdDSA", "Ed25519"] {
        let (token, key) = eddsa(alg);
        assert!(check(&token, &key_set(json!([key]))).is_ok());
        let shadowed = json!([{"kty": "OKP", "kid": "ed", "crv": "X25519", "x": key["x"]}, key]);
        assert!(check(&token, &key_set(shadowed)).is_ok());
        let ed448 = json!([{"kty": "OKP", "kid": "ed", "crv": "Ed448", "x": "AA"}]);
        assert_eq!(check(&token, &key_set(ed448)), Err(signer_with("ed")));
        let x25519 = json!([{"kty": "OKP", "kid": "ed", "crv": "X25519", "x": key["x"]}]);
        assert_eq!(check(&token, &key_set(x25519)), Err(signer_with("ed")));
    }
    let (token, key) = eddsa("Ed448");
    assert_eq!(check(&token, &key_set(json!([key]))), Err(JwtError::Signature));
}
