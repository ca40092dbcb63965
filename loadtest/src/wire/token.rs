//! HS256 tokens for the connections of the generator (one day of life, role `anon` unless a scenario needs another).
//!
//! Minting costs about a microsecond, so by default every connection carries a token of its own (a distinct
//! `sub`), as real users do; a server may cache verified tokens but gains nothing from it here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

/// Life of a minted token in seconds.
const TOKEN_LIFE_SECONDS: u64 = 24 * 60 * 60;

/// Signs tokens with a tenant's shared secret.
#[derive(Debug, Clone)]
pub struct Mint {
    key: hmac::Key,
    role: &'static str,
    expires_at_seconds: u64,
}

impl Mint {
    /// A mint for `secret`, role `anon`; tokens expire one day after `now_seconds` (Unix time).
    pub fn new(secret: &str, now_seconds: u64) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { key, role: "anon", expires_at_seconds: now_seconds + TOKEN_LIFE_SECONDS }
    }

    /// The same mint with `role` (a database role, which needs no JSON escapes) in its tokens.
    pub fn for_role(self, role: &'static str) -> Self {
        Self { role, ..self }
    }

    /// The token of user number `user`, whose `sub` is a UUID as `auth.uid()` wants it.
    pub fn token(&self, user: usize) -> String {
        let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = format!(
            r#"{{"role":"{}","exp":{},"sub":"00000000-0000-4000-8000-{user:012x}"}}"#,
            self.role, self.expires_at_seconds
        );
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_verifies_under_its_secret_only() {
        let token = Mint::new("secret", 1_000).token(7);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let key = |secret: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, secret);
        assert!(hmac::verify(&key(b"secret"), signed.as_bytes(), &signature).is_ok());
        assert!(hmac::verify(&key(b"other"), signed.as_bytes(), &signature).is_err());
    }

    #[test]
    fn claims_name_role_expiry_and_user() {
        let token = Mint::new("secret", 1_000).for_role("authenticated").token(7);
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            claims,
            serde_json::json!({"role": "authenticated", "exp": 87_400, "sub": "00000000-0000-4000-8000-000000000007"})
        );
    }
}
