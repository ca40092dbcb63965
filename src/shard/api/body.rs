//! Request bodies by content type (http-api 1): JSON is checked, bytes are kept, other types are not read.

use bytes::Bytes;

use super::super::http::Request;
use crate::protocol::phoenix::json::{self, Numbers};

/// A request body.
#[derive(Debug, PartialEq)]
pub(super) enum Body {
    /// No content type.
    Absent,
    /// Valid JSON text.
    Json(String),
    /// `application/octet-stream`
    Bytes(Bytes),
    /// Another content type.
    Unread,
}

/// The body claims to be JSON and is not.
#[derive(Debug, PartialEq)]
pub(super) struct NotJson;

impl Body {
    pub fn parse(request: &Request, raw: Bytes) -> Result<Self, NotJson> {
        match request.content_type.as_deref() {
            None => Ok(Self::Absent),
            Some(content_type) => Self::of_type(content_type, raw),
        }
    }

    fn of_type(content_type: &str, raw: Bytes) -> Result<Self, NotJson> {
        let media = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match media.as_str() {
            "application/octet-stream" => Ok(Self::Bytes(raw)),
            "application/json" => Self::json(raw),
            other if other.ends_with("+json") => Self::json(raw),
            _ => Ok(Self::Unread),
        }
    }

    fn json(raw: Bytes) -> Result<Self, NotJson> {
        if raw.is_empty() {
            return Ok(Self::Json("{}".to_owned()));
        }
        let text = String::from_utf8(raw.into()).map_err(|_| NotJson)?;
        json::validate(&text, Numbers::Finite).map_err(|_| NotJson)?;
        Ok(Self::Json(text.trim().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_decide() {
        let of = |content_type, raw: &'static [u8]| Body::of_type(content_type, Bytes::from_static(raw));
        assert_eq!(of("application/json; charset=utf-8", b" {} "), Ok(Body::Json("{}".into())));
        assert_eq!(of("application/vnd.x+json", b""), Ok(Body::Json("{}".into())));
        assert_eq!(of("Application/JSON", b"{nope"), Err(NotJson));
        assert_eq!(of("application/json", b"\"\xff\""), Err(NotJson));
        assert_eq!(of("application/octet-stream", b"\x01"), Ok(Body::Bytes(Bytes::from_static(b"\x01"))));
        assert_eq!(of("text/plain", b"{nope"), Ok(Body::Unread));
    }
}
