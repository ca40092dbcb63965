//! The compact text form of a token: cleaning, splitting, decoding, and signing for our own command line.
//!
//! Nothing here decides whether a token is good; `Parts` only promises that the text is three base64url segments,
//! that the header is a JSON object, and that the bytes covered by the signature are exactly those received.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::percent_decode_str;
use ring::hmac;
use serde_json::{Map, Value};

use super::JwtError;

/// Percent-decodes a token and deletes every white-space character (protocol.md 2.1). Bytes that are no UTF-8
/// after decoding become replacement characters, which no later step accepts.
pub fn clean(token: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    if token.bytes().all(is_plain) {
        return Cow::Borrowed(token);
    }
    let decoded = percent_decode_str(token).decode_utf8_lossy();
    Cow::Owned(decoded.chars().filter(|c| !c.is_whitespace()).collect())
}

/// A token taken apart. Borrows the cleaned text.
pub(super) struct Parts<'a> {
    /// `header.claims` as received: what the signature covers.
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
    claims: &'a str,
    header: Value,
}

impl<'a> Parts<'a> {
    /// Splits cleaned text. The claims segment is checked for its alphabet only, see [`Parts::claims`].
    pub fn split(token: &'a str) -> Result<Self, JwtError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        Ok(Self { signed: signed.as_bytes(), signature: decode(signature)?, claims, header: decode_json(header)? })
    }

    /// The header object; any other JSON value is a generic error.
    pub fn header(&self) -> Result<Header<'_>, JwtError> {
        match &self.header {
            Value::Object(fields) => {
                Ok(Header { alg: fields.get("alg").and_then(Value::as_str), kid: fields.get("kid").and_then(Value::as_str) })
            }
            _ => Err(JwtError::Generic),
        }
    }

    /// Decodes the claims; JSON that is no object is a generic error.
    pub fn claims(&self) -> Result<Map<String, Value>, JwtError> {
        match decode_json(self.claims)? {
            Value::Object(claims) => Ok(claims),
            _ => Err(JwtError::Generic),
        }
    }
}

/// The two header fields that matter. A `kid` that is no string counts as absent.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    pub alg: Option<&'a str>,
    pub kid: Option<&'a str>,
}

fn decode(segment: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| JwtError::Malformed)
}

fn decode_json(segment: &str) -> Result<Value, JwtError> {
    serde_json::from_slice(&decode(segment)?).map_err(|_| JwtError::Malformed)
}

/// The claims of a token that has been verified, as the JSON text that was signed; `None` for anything that is no token.
pub fn claims_text(token: &str) -> Option<String> {
    let token = clean(token);
    let claims = token.split('.').nth(1)?;
    String::from_utf8(decode(claims).ok()?).ok()
}

/// Makes an HS256 token, for the command line and for tests. `claims` should be a JSON object.
pub fn sign_hs256(claims: &Value, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let signed = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}
