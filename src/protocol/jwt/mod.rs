//! JSON Web Tokens as the protocol uses them (protocol.md 2, http-api.md 3.3).
//!
//! One verification serves the connection token, a join's token, a refresh, the HTTP broadcast endpoints and, with
//! [`Require::Nothing`] and a secret only, the management and metrics endpoints. Callers keep one [`Keys`] per
//! tenant and pass the time in; nothing here reads a clock, does I/O or keeps global state. Every failure is a
//! [`JwtError`], which also knows its texts. No input can cause a panic.

mod cache;
mod claims;
mod error;
mod keys;
mod token;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use cache::VerifiedCache;
pub use claims::{ClaimValidators, ClaimValidatorsError, Require, Verified};
pub use error::JwtError;
pub use keys::Keys;
pub use token::{claims_text, clean, sign_hs256};

use token::Parts;

/// Verifies a token as received: percent-encoding and white space are tolerated (protocol.md 2.1).
pub fn verify(
    token: &str,
    keys: &Keys,
    validators: &ClaimValidators,
    now_unix_secs: i64,
    require: Require,
) -> Result<Verified, JwtError> {
    let token = clean(token);
    let signed = signed_claims(&Parts::split(&token)?, keys)?;
    claims::check(signed, validators, now_unix_secs, require)
}

/// The claims of a token whose signature is good. The claims' shape is judged before the header's, and both before
/// a key is looked for, which decides the error of a token with several faults.
fn signed_claims(parts: &Parts<'_>, keys: &Keys) -> Result<Map<String, Value>, JwtError> {
    let claims = parts.claims()?;
    let verifier = keys.select(parts.header()?)?;
    if !verifier.accepts(parts.signed, &parts.signature) {
        return Err(JwtError::Signature);
    }
    Ok(claims)
}
