//! Who may use a private channel: row-level security on `realtime.messages` decides (database.md 10).
//!
//! Joins, token refreshes, first writes and HTTP broadcasts ask here, with the tenant's pool and an [`AuthorizationContext`]. A
//! check is one transaction in one network round trip and is always rolled back; its probe rows reach nobody. Denial is an
//! ordinary answer; a [`DatabaseFailure`](super::failure::DatabaseFailure) means that there is none. [`ErrorWindow`] tells when
//! to stop asking.

mod check;
mod error_window;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

pub use check::{read, write};
pub use error_window::ErrorWindow;

pub use crate::realtime::database::Extensions;

/// What policies see of the client (database.md 10.2). Debug output leaves claims and headers out; they may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorizationContext {
    /// Sub-topic, without `realtime:`.
    pub topic: String,
    /// Claim `role`.
    pub role: String,
    /// Claim `sub`.
    pub sub: Option<String>,
    /// All claims, a JSON object.
    pub claims_json: String,
    /// Remembered request headers, a JSON object of strings.
    pub headers_json: String,
}

impl AuthorizationContext {
    /// The context of a client with a verified token, from the JSON text of the token's payload. The text reaches policies as
    /// it is, so numbers keep their digits. A `role` or `sub` that is no string counts as its JSON text, a null `sub` as absent.
    ///
    /// # Errors
    /// When the payload is no object, or has no role. A null role must not pass: setting it would mean the connection's own.
    pub fn from_claims(topic: String, payload_json: &str, headers_json: String) -> Result<Self, ClaimsError> {
        let claims: Map<String, Value> = serde_json::from_str(payload_json).map_err(|_| ClaimsError::NotAnObject)?;
        let text = |name| match claims.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        // `none` is how SQL says "the connection's own role"; no role can have that name.
        let role = text("role").filter(|role| role != "none").ok_or(ClaimsError::NoRole)?;
        Ok(Self { topic, role, sub: text("sub"), claims_json: payload_json.to_owned(), headers_json })
    }
}

impl fmt::Debug for AuthorizationContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationContext").field("topic", &self.topic).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Claims nobody can be authorized with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimsError {
    /// The payload is no JSON object.
    NotAnObject,
    /// `role` is absent or null.
    NoRole,
}

impl fmt::Display for ClaimsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "the claims are no JSON object",
            Self::NoRole => "the claims have no role",
        })
    }
}

impl std::error::Error for ClaimsError {}
