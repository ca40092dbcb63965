//! Checks on the claims of a token whose signature is good (protocol.md 2.3), and the claims that pass them.
//!
//! Every check except the last applies only to a claim that is present. Order matters for the error a client
//! sees: validators, `exp`, `iat`, then the required names.

use std::fmt;

use serde_json::{Map, Value};

use super::JwtError;

/// The `JWT_CLAIM_VALIDATORS` setting: claims that must have a given value *if they are present*.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClaimValidators(Map<String, Value>);

impl ClaimValidators {
    /// Parses the text of the setting, a JSON object such as `{"iss":"me"}`. Blank text means no validators.
    pub fn parse(text: &str) -> Result<Self, ClaimValidatorsError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map(Self).map_err(|_| ClaimValidatorsError)
    }

    /// No validator is configured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The setting is no JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimValidatorsError;

impl fmt::Display for ClaimValidatorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JWT_CLAIM_VALIDATORS must be a JSON object such as {\"iss\":\"me\"}")
    }
}

impl std::error::Error for ClaimValidatorsError {}

/// Which claims must exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Require {
    /// Tenant tokens: both `role` and `exp`, whatever their values.
    RoleAndExp,
    /// Management and metrics tokens.
    Nothing,
}

/// The claims of an accepted token.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// All claims; numeric `exp` and `iat` are rounded to integers.
    pub claims: Map<String, Value>,
    /// Rounded `exp` in Unix seconds, when the claim exists.
    pub exp: Option<i64>,
}

impl Verified {
    /// `role`, when it is a string.
    pub fn role(&self) -> Option<&str> {
        self.claims.get("role").and_then(Value::as_str)
    }

    /// `sub`, when it is a string.
    pub fn sub(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// Seconds until the rounded `exp`, when that is positive. A join needs one; without it the reason is
    /// `Token expiration time is invalid` (protocol.md 2.4).
    pub fn seconds_left(&self, now_unix_secs: i64) -> Option<i64> {
        let left = self.exp?.saturating_sub(now_unix_secs);
        (left > 0).then_some(left)
    }
}

/// Applies 2.3 to signed claims.
pub(super) fn check(
    mut claims: Map<String, Value>,
    validators: &ClaimValidators,
    now_unix_secs: i64,
    require: Require,
) -> Result<Verified, JwtError> {
    for (name, wanted) in &validators.0 {
        if claims.get(name).is_some_and(|claim| claim != wanted) {
            return Err(JwtError::Generic);
        }
    }
    let exp = match claims.get("exp") {
        Some(exp) => Some(check_exp(exp, now_unix_secs)?),
        None => None,
    };
    let iat = match claims.get("iat") {
        Some(iat) => Some(rounded(iat).ok_or(JwtError::Generic)?),
        None => None,
    };
    if require == Require::RoleAndExp && (exp.is_none() || !claims.contains_key("role")) {
        return Err(JwtError::MissingClaims);
    }
    for (name, value) in [("exp", exp), ("iat", iat)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), value.into());
        }
    }
    Ok(Verified { claims, exp })
}

/// The rounded `exp` when it is a number in the future. Only an expired *integer* is reported as expired.
fn check_exp(exp: &Value, now_unix_secs: i64) -> Result<i64, JwtError> {
    let whole = exp.as_i64().or_else(|| exp.as_u64().map(|_| i64::MAX));
    if let Some(whole) = whole {
        let seconds_ago = now_unix_secs.saturating_sub(whole);
        return if seconds_ago >= 0 { Err(JwtError::Expired { seconds_ago }) } else { Ok(whole) };
    }
    match exp.as_f64() {
        Some(decimal) if decimal > now_unix_secs as f64 => Ok(decimal.round() as i64),
        _ => Err(JwtError::Generic),
    }
}

/// A number rounded to the nearest integer, saturating at the ends of `i64`.
fn rounded(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX)).or_else(|| value.as_f64().map(|decimal| decimal.round() as i64))
}
