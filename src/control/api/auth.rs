//! Who may use the management API and the metrics (http-api.md 3.1).
//!
//! Exactly one `Authorization` header, `Bearer ` in this spelling, a token that is not blocked and that one of the area's
//! secrets signed. No claim is required. Without a secret everybody is refused.

use super::ApiSettings;
use crate::protocol::jwt::{Keys, Require, clean, verify};

/// Which secrets and blocklist apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Area {
    /// `/api/tenants…`
    Management,
    /// `/metrics…`
    Metrics,
}

/// Whether these `Authorization` values open the area at the given Unix time.
pub fn authorized(settings: &ApiSettings, authorization: &[String], area: Area, now_unix_secs: i64) -> bool {
    let (secrets, blocklist) = match area {
        Area::Management => {
            ([settings.api_jwt_secret.as_deref(), settings.api_jwt_secret_next.as_deref()], &settings.api_token_blocklist)
        }
        Area::Metrics => ([settings.metrics_jwt_secret.as_deref(), None], &settings.metrics_token_blocklist),
    };
    let [value] = authorization else {
        return false;
    };
    let Some(token) = value.strip_prefix("Bearer ") else {
        return false;
    };
    let token = clean(token);
    if blocklist.iter().any(|blocked| *blocked == token) {
        return false;
    }
    secrets.into_iter().flatten().any(|secret| {
        let keys = Keys::new(Some(secret), None);
        verify(&token, &keys, &settings.claim_validators, now_unix_secs, Require::Nothing).is_ok()
    })
}
