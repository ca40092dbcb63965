//! Tokens: verification as every join pays it, with and without the memory of verified signatures.
//!
//! Guards P6 (connect, HS256 and join within 80 µs of CPU; the token is verified at the upgrade and at the join) and the
//! reason for the cache: with asymmetric keys the second join of a client must cost about as much as one with HS256.
//! `signature_only` is the cryptography alone on the same bytes; the rest of `verify` is base64, JSON and claims.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use divan::{Bencher, black_box};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use ring::{hmac, signature};
use ringcast::protocol::jwt::{ClaimValidators, Keys, Require, VerifiedCache, sign_hs256, verify};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &str = "a-secret-for-benchmarks-0123456789abcdef";
const NOW_UNIX_SECS: i64 = 1_750_000_000;
const ALGORITHMS: [&str; 3] = ["HS256", "ES256", "EdDSA"];

fn main() {
    divan::main();
}

/// The claims of a signed-in user, about as many as an auth server puts there.
fn claims() -> Value {
    json!({
        "aud": "authenticated", "role": "authenticated", "sub": "7b0c9d52-6a5e-4f0c-9d0e-2f6a3f1b8c11",
        "iss": "https://example.test/auth/v1", "iat": NOW_UNIX_SECS - 60, "exp": NOW_UNIX_SECS + 3_600,
        "email": "someone@example.test", "phone": "", "is_anonymous": false, "aal": "aal1",
        "session_id": "0b9d1c7e-5f0a-4c51-8d5c-9a2f6f7c1d22",
        "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {"name": "Someone"},
    })
}

/// A token, the keys that accept it, and its signer's public key where there is one.
struct Signed {
    token: String,
    keys: Keys,
    public_key: Vec<u8>,
}

fn signed(alg: &str) -> Signed {
    if alg == "HS256" {
        return Signed { token: sign_hs256(&claims(), SECRET), keys: Keys::new(Some(SECRET), None), public_key: Vec::new() };
    }
    let header = json!({"alg": alg, "kid": "k1"}).to_string();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims().to_string()));
    let random = SystemRandom::new();
    let (signature, public_key, entry) = if alg == "ES256" {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key can be made");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).expect("the key is valid");
        let signature = pair.sign(&random, message.as_bytes()).expect("the key can sign");
        let point = pair.public_key().as_ref().to_vec();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        (signature, point, json!({"kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y}))
    } else {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).expect("a key can be made");
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("the key is valid");
        let point = pair.public_key().as_ref().to_vec();
        let x = URL_SAFE_NO_PAD.encode(&point);
        (pair.sign(message.as_bytes()), point, json!({"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": x}))
    };
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    Signed { token, keys: Keys::new(None, Some(&json!({"keys": [entry]}))), public_key }
}

#[divan::bench(args = ALGORITHMS)]
fn uncached(bencher: Bencher, alg: &str) {
    let Signed { token, keys, .. } = signed(alg);
    let validators = ClaimValidators::default();
    let check = || verify(black_box(&token), &keys, &validators, NOW_UNIX_SECS, Require::RoleAndExp);
    assert!(check().is_ok());
    bencher.bench_local(check);
}

/// A token that was seen before. HS256 is never remembered: this is what going through the cache adds to it.
#[divan::bench(args = ALGORITHMS)]
fn cached(bencher: Bencher, alg: &str) {
    let Signed { token, keys, .. } = signed(alg);
    let validators = ClaimValidators::default();
    let mut cache = VerifiedCache::new();
    let mut check = || cache.verify_cached(black_box(&token), &keys, &validators, NOW_UNIX_SECS, Require::RoleAndExp);
    assert!(check().is_ok());
    bencher.bench_local(check);
}

#[divan::bench(args = ALGORITHMS)]
fn signature_only(bencher: Bencher, alg: &str) {
    let Signed { token, public_key, .. } = signed(alg);
    let (message, signature) = token.rsplit_once('.').expect("a token has three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("the signature is base64");
    let message = message.as_bytes();
    if alg == "HS256" {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        return bencher.bench_local(|| hmac::verify(&key, black_box(message), &signature).is_ok());
    }
    let algorithm: &'static dyn signature::VerificationAlgorithm =
        if alg == "ES256" { &ECDSA_P256_SHA256_FIXED } else { &ED25519 };
    let key = UnparsedPublicKey::new(algorithm, public_key);
    assert!(key.verify(message, &signature).is_ok());
    bencher.bench_local(|| key.verify(black_box(message), &signature).is_ok());
}
