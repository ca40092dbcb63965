//! How long a request's body is (RFC 9112 section 6).
//!
//! Called by the connection once per head. Strict on purpose: whatever a proxy in
//! front could read differently (two lengths, a length with a transfer coding, an
//! unknown coding, a coding in HTTP/1.0) is refused with 400, since guessing would let
//! one request hide inside another.

use super::error::HeadError;
use super::head::Head;

/// What follows the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// Nothing; also for a declared length of 0.
    None,
    /// Exactly this many bytes, at least one.
    Length(u64),
    /// Chunks up to a last, empty one.
    Chunked,
}

impl Head<'_> {
    /// The framing of this request's body.
    ///
    /// # Errors
    /// `BadRequest` if it is ambiguous or unknown.
    pub fn body(&self) -> Result<BodyKind, HeadError> {
        let mut codings = self.header_values("transfer-encoding");
        let mut lengths = self.header_values("content-length");
        match (codings.next(), lengths.next()) {
            (None, None) => Ok(BodyKind::None),
            (Some(_), Some(_)) => Err(HeadError::BadRequest("both content-length and transfer-encoding")),
            (None, Some(length)) => {
                if lengths.next().is_some() {
                    return Err(HeadError::BadRequest("more than one content-length"));
                }
                Ok(match parse_length(length)? {
                    0 => BodyKind::None,
                    body_bytes => BodyKind::Length(body_bytes),
                })
            }
            (Some(coding), None) => {
                let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
                if !is_chunked || codings.next().is_some() || self.minor_version == 0 {
                    return Err(HeadError::BadRequest("unsupported transfer-encoding"));
                }
                Ok(BodyKind::Chunked)
            }
        }
    }
}

/// Digits only: no sign, no space, no list.
fn parse_length(value: &[u8]) -> Result<u64, HeadError> {
    const INVALID: HeadError = HeadError::BadRequest("invalid content-length");
    if value.is_empty() {
        return Err(INVALID);
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = match byte {
            b'0'..=b'9' => u64::from(byte - b'0'),
            _ => return Err(INVALID),
        };
        let shifted = length.checked_mul(10).ok_or(INVALID)?;
        shifted.checked_add(digit).ok_or(INVALID)
    })
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadLimits;
    use super::super::parse::parse_head;
    use super::*;

    fn framing(version: &str, lines: &str) -> Result<BodyKind, HeadError> {
        let text = format!("POST / HTTP/{version}\r\nhost: a\r\n{lines}\r\n");
        parse_head(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap().body()
    }

    #[test]
    fn accepted_framings() {
        let cases = [
            ("", BodyKind::None),
            ("Content-Length: 0\r\n", BodyKind::None),
            ("Content-Length:   12  \r\n", BodyKind::Length(12)),
            ("content-length: 18446744073709551615\r\n", BodyKind::Length(u64::MAX)),
            ("Transfer-Encoding: Chunked\r\n", BodyKind::Chunked),
        ];
        for (lines, expected) in cases {
            assert_eq!(framing("1.1", lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn whatever_could_be_smuggled_is_refused() {
        let cases = [
            "content-length: 5\r\ncontent-length: 5\r\n",
            "content-length: 5\r\ncontent-length: 6\r\n",
            "content-length: 5, 5\r\n",
            "content-length: +5\r\n",
            "content-length: -5\r\n",
            "content-length: 5 5\r\n",
            "content-length: 0x5\r\n",
            "content-length: \r\n",
            "content-length: 18446744073709551616\r\n",
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked, chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding: xchunked\r\n",
            "transfer-encoding: \r\n",
        ];
        for lines in cases {
            let refused = framing("1.1", lines).unwrap_err();
            assert_eq!(refused.status(), 400, "{lines:?}");
        }
        assert!(framing("1.0", "transfer-encoding: chunked\r\n").is_err());
    }
}
