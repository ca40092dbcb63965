//! Why a token was refused, and every text the protocol derives from that.
//!
//! One kind, four audiences: the upgrade answer (protocol.md 1.6), the reply to a join (6), the `system` message
//! that ends a channel (13.3), and logs. They differ in small ways, so all of them are written here, next to each
//! other, and nowhere else. No text contains the token, a secret or a claim; the `kid` of the token's header is
//! shown because the reference shows it.

use std::borrow::Cow;
use std::fmt;

/// The kinds of protocol.md 2.4. `Display` gives the text of that table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtError {
    /// Not three base64url parts, or a part that is no JSON text.
    Malformed,
    /// The signature is missing or wrong for the selected key.
    Signature,
    /// No key can be used for the token's `alg`; `kid` is set when the key set was consulted.
    Signer {
        /// The `kid` that was looked for.
        kid: Option<String>,
    },
    /// An integer `exp` that is not in the future; 0 when it is exactly now.
    Expired {
        /// now − exp, in seconds.
        seconds_ago: i64,
    },
    /// `role` or `exp` is absent although the caller requires both.
    MissingClaims,
    /// Everything without a fixed text: claims or header of a wrong shape, a validator that does not match,
    /// `exp` or `iat` of a wrong type, an expired decimal `exp`.
    Generic,
}

const MALFORMED: &str = "The token provided is not a valid JWT";
const SIGNATURE: &str = "Failed to validate JWT signature";
const SIGNER: &str = "Failed to generate JWT signer, check your JWT secret or JWKS configuration";
const MISSING_CLAIMS: &str = "Fields `role` and `exp` are required in JWT";

impl JwtError {
    /// Status of the refused upgrade (protocol.md 1.6, rows 6–12).
    pub fn upgrade_status(&self) -> u16 {
        match self {
            Self::Generic => 500,
            _ => 401,
        }
    }

    /// `error` text of the refused upgrade. Unlike `Display`, an expired token is not dated here.
    pub fn upgrade_text(&self) -> Cow<'static, str> {
        match self {
            Self::Expired { .. } => Cow::Borrowed("Token has expired"),
            Self::Generic => Cow::Borrowed("Error connecting to Realtime"),
            other => Cow::Owned(other.to_string()),
        }
    }

    /// The code in front of a refused join's reason (protocol.md 6), also used in logs and as a metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "MalformedJWT",
            Self::Signature => "JwtSignatureError",
            Self::Signer { .. } => "JwtSignerError",
            Self::Expired { .. } | Self::MissingClaims => "InvalidJWTToken",
            Self::Generic => "UnknownErrorOnChannel",
        }
    }

    /// The complete `reason` of a refused join.
    pub fn join_reason(&self) -> String {
        match self {
            Self::Generic => "Unknown Error on Channel".to_owned(),
            other => format!("{}: {other}", other.code()),
        }
    }

    /// The `message` of the `system` message that ends a channel after a bad refresh or at expiry (13.3).
    pub fn close_text(&self) -> String {
        match self {
            Self::Signature => ":signature_error".to_owned(),
            Self::Signer { kid: None } => ":error_generating_signer".to_owned(),
            Self::Generic => ":invalid_token".to_owned(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for JwtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str(MALFORMED),
            Self::Signature => f.write_str(SIGNATURE),
            Self::Signer { kid: None } => f.write_str(SIGNER),
            Self::Signer { kid: Some(kid) } => {
                write!(f, "Failed to generate JWT signer for key ID (kid) {kid:?}, check your JWT secret or JWKS configuration")
            }
            Self::Expired { seconds_ago } => {
                write!(f, "Token has expired {seconds_ago} seconds ago")
            }
            Self::MissingClaims => f.write_str(MISSING_CLAIMS),
            Self::Generic => f.write_str("The token was not accepted"),
        }
    }
}

impl std::error::Error for JwtError {}
