//! Remembers which asymmetric signatures have already been verified.
//!
//! Clients reconnect and join many channels with the same token; an RSA or elliptic-curve verification costs tens
//! of microseconds, a hash of the token about one. Each shard owns one cache. Only the fact that the *signature*
//! is good and the parsed claims are kept: `exp` and all other claims are checked again on every use. The key of an
//! entry covers the key set as well as the token, so a changed key set never meets an old entry. Failures are not
//! remembered, so nobody can fill the cache with tokens they cannot sign.

use hashbrown::HashMap;
use ring::digest;
use serde_json::{Map, Value};

use super::claims::{self, ClaimValidators, Require, Verified};
use super::keys::{self, Keys};
use super::token::{Parts, clean};
use super::{JwtError, signed_claims};

/// Entries per half; two halves make about two thousand live tokens per shard, a few megabytes at usual sizes.
const HALF_ENTRIES_MAX: usize = 1024;

/// Longer tokens are verified every time. Together with the count this bounds the cached text to 8 MiB.
const TOKEN_BYTES_MAX: usize = 4096;

type TokenHash = [u8; 32];
type Entries = HashMap<TokenHash, Map<String, Value>>;

/// Bounded memory of verified signatures. Recently used entries survive: when the young half is full it becomes
/// the old half, and an entry found in the old half moves back to the young one.
#[derive(Default)]
pub struct VerifiedCache {
    young: Entries,
    old: Entries,
}

impl VerifiedCache {
    /// An empty cache; it grows on demand.
    pub fn new() -> Self {
        Self::default()
    }

    /// Same answers as [`super::verify`], cheaper for a token seen before. HS* tokens are not remembered.
    pub fn verify_cached(
        &mut self,
        token: &str,
        keys: &Keys,
        validators: &ClaimValidators,
        now_unix_secs: i64,
        require: Require,
    ) -> Result<Verified, JwtError> {
        let token = clean(token);
        let parts = Parts::split(&token)?;
        let alg = parts.header().ok().and_then(|header| header.alg);
        if token.len() > TOKEN_BYTES_MAX || !keys::is_asymmetric(alg) {
            return claims::check(signed_claims(&parts, keys)?, validators, now_unix_secs, require);
        }
        let hash = entry_hash(keys, &token);
        let signed = match self.find(&hash) {
            Some(claims) => claims.clone(),
            None => {
                let claims = signed_claims(&parts, keys)?;
                self.remember(hash, claims.clone());
                claims
            }
        };
        claims::check(signed, validators, now_unix_secs, require)
    }

    /// Entries held, in both halves.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn find(&mut self, hash: &TokenHash) -> Option<&Map<String, Value>> {
        if let Some(claims) = self.old.remove(hash) {
            self.remember(*hash, claims);
        }
        self.young.get(hash)
    }

    fn remember(&mut self, hash: TokenHash, claims: Map<String, Value>) {
        if self.young.len() >= HALF_ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, claims);
    }
}

fn entry_hash(keys: &Keys, token: &str) -> TokenHash {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(keys.fingerprint());
    context.update(token.as_bytes());
    let mut hash = TokenHash::default();
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
impl VerifiedCache {
    /// Stands in for a verification, which would be slow to repeat thousands of times.
    pub(super) fn remember_for_test(&mut self, token: &str, keys: &Keys) {
        self.remember(entry_hash(keys, token), Map::new());
    }

    pub(super) fn contains_for_test(&self, token: &str, keys: &Keys) -> bool {
        let hash = entry_hash(keys, token);
        self.young.contains_key(&hash) || self.old.contains_key(&hash)
    }
}
