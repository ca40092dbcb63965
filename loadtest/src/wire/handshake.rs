//! The WebSocket opening handshake, both sides (RFC 6455 section 4).
//!
//! The generator sends the same key on every connection, since the key protects against caching proxies and
//! there are none here; the answer is still checked. The floor answers any request that has a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use std::fmt;

/// The key of every upgrade the generator sends: 16 bytes in base64.
pub const CLIENT_KEY: &str = "cmluZ2Nhc3Qtc3dhcm0tMQ==";
/// Appended to the key before hashing, fixed by RFC 6455.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest head accepted on either side, in bytes; the protocol refuses single header values above 4096.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why the server did not upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandshakeError {
    /// Answered with something other than 101; the head and what came of the body.
    Refused(String),
    /// Upgraded with a wrong `Sec-WebSocket-Accept`.
    WrongAccept,
    /// The head does not end within [`HEAD_BYTES_MAX`].
    HeadTooLarge,
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(answer) => write!(f, "upgrade refused: {}", answer.trim().replace("\r\n", " | ")),
            Self::WrongAccept => f.write_str("upgrade answered with a wrong Sec-WebSocket-Accept"),
            Self::HeadTooLarge => f.write_str("upgrade answered with a head above 16 KiB"),
        }
    }
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept_for(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(ACCEPT_GUID);
    STANDARD.encode(hash.finish())
}

/// The upgrade request of the generator for `target` (path and query) at `host`.
pub fn request(target: &str, host: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {CLIENT_KEY}\r\n\r\n"
    )
    .into_bytes()
}

/// Length of the HTTP head at the start of `bytes`, its empty line included; `None` while it is incomplete.
pub fn head_length(bytes: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// Checks the answer to [`request`]; `Ok(Some(n))` when upgraded, with the frames starting at `n`.
///
/// # Errors
/// [`HandshakeError`] when the server refused or answered something that is not this handshake.
pub fn check_answer(bytes: &[u8], expected_accept: &str) -> Result<Option<usize>, HandshakeError> {
    let Some(length) = head_length(bytes) else {
        return if bytes.len() > HEAD_BYTES_MAX { Err(HandshakeError::HeadTooLarge) } else { Ok(None) };
    };
    let head = String::from_utf8_lossy(&bytes[..length]);
    if !head.starts_with("HTTP/1.1 101") {
        return Err(HandshakeError::Refused(String::from_utf8_lossy(bytes).into_owned()));
    }
    match header(&bytes[..length], b"sec-websocket-accept") {
        Some(accept) if accept == expected_accept.as_bytes() => Ok(Some(length)),
        _ => Err(HandshakeError::WrongAccept),
    }
}

/// The value of header `name` (given in lower case) in `head`, without surrounding spaces.
pub fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(name).then(|| line[colon + 1..].trim_ascii())
    })
}

/// The 101 answer of a server to a request whose head is `head`; `None` if it has no key.
pub fn answer(head: &[u8]) -> Option<String> {
    let accept = accept_for(header(head, b"sec-websocket-key")?);
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_matches_the_example_of_the_rfc() {
        assert_eq!(accept_for(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn request_and_answer_agree() {
        let request = request("/socket/websocket?vsn=2.0.0", "a.localhost");
        assert_eq!(head_length(&request), Some(request.len()));
        let mut answer = answer(&request).unwrap().into_bytes();
        let head_bytes = answer.len();
        answer.extend_from_slice(&[0x81, 0]);
        assert_eq!(check_answer(&answer, &accept_for(CLIENT_KEY.as_bytes())), Ok(Some(head_bytes)));
    }

    #[test]
    fn refusals_say_what_the_server_said() {
        let refused = check_answer(b"HTTP/1.1 401 Unauthorized\r\n\r\n{\"error\":\"API key is missing\"}", "x");
        assert!(refused.unwrap_err().to_string().contains("API key is missing"));
        assert_eq!(check_answer(b"HTTP/1.1 101 Switching", "x"), Ok(None));
        let forged = b"HTTP/1.1 101 OK\r\nSec-WebSocket-Accept: y\r\n\r\n";
        assert_eq!(check_answer(forged, "x"), Err(HandshakeError::WrongAccept));
    }
}
