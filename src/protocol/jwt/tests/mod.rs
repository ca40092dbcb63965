//! Tests of the token module: published vectors, every row of the algorithm table, malformed input, claims, cache.

mod algorithms;
mod claims;
mod memory;
mod text;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_750_000_000;
const SECRET: &str = "spec-example-secret-0123456789abcdef";
const HEADER_HS256: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
const CLAIMS: &str = "eyJyb2xlIjoiYXV0aGVudGljYXRlZCIsImV4cCI6NDEwMjQ0NDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJzdWIiOiJ1LTEifQ";
const SIGNATURE_HS256: &str = "yjJX72Y5HmaYEwySeheRfiM7Djxq7C3mcmqnNuPm--Y";

fn valid_token() -> String {
    format!("{HEADER_HS256}.{CLAIMS}.{SIGNATURE_HS256}")
}

fn published_key_set() -> Value {
    json!({"keys": [
        {"kty": "oct", "kid": "oct-1", "k": "YW5vdGhlci1zZWNyZXQtaGVsZC1pbi1hLWp3a3Mtb2N0LWtleQ"},
        {"kty": "EC", "crv": "P-256", "kid": "es-1",
         "x": "4fE9U8HqDs-VHTXD-zEFy8C8FimWN2Ap0HmD5Vkm4iw", "y": "olrM9Y6or0FYjGND-dj6TFA5wvQKWHRk0LqzIV6SVqg"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed-1", "x": "4ShwQEYlrhNb9AgV5AWFIn5iDwpZB28AbvDNDx09tI0"},
    ]})
}

const ES256_TOKEN: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVzLTEifQ.eyJyb2xlIjoiYXV0aGVudGljYXRlZCIsImV4cCI6NDEwMjQ0NDgwMCwiaWF0IjoxNzAwMDAwMDAwLCJzdWIiOiJ1LTEifQ.DB_YhhkWQ0jEB77GEc_oblmxxWAd5aVNhDhkaQTYj2ueuZ9eQ0oO-o-SJw2rZ3ItyZJLdJbvpNlsgLxmSRkg6w";

fn hs_keys() -> Keys {
    Keys::new(Some(SECRET), None)
}

fn check(token: &str, keys: &Keys) -> Result<Verified, JwtError> {
    verify(token, keys, &ClaimValidators::default(), NOW, Require::RoleAndExp)
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let segment = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", segment(header), segment(claims))
}

/// Signs any header and claims with an HMAC, whatever the header says.
fn hmac_token(algorithm: hmac::Algorithm, header: &Value, claims: &Value, secret: &[u8]) -> String {
    let signed = unsigned(header, claims);
    let signature = hmac::sign(&hmac::Key::new(algorithm, secret), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// An HS256 token of the tenant with these claims.
fn token(claims: &Value) -> String {
    sign_hs256(claims, SECRET)
}

fn signer_with(kid: &str) -> JwtError {
    JwtError::Signer { kid: Some(kid.to_owned()) }
}

const SIGNER: JwtError = JwtError::Signer { kid: None };
