//! The `Sec-WebSocket-Accept` value of the opening handshake (RFC 6455 section 4.2.2).
//!
//! Called once per upgrade, after `http1::websocket_key` has found the client's key.
//! SHA-1 is what the protocol demands here; nothing secret depends on it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

/// Appended to the client's key before hashing, fixed by the RFC.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The accept value for `client_key`, which is used exactly as it stood in the header.
pub fn accept_key(client_key: &[u8]) -> [u8; 28] {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(client_key);
    context.update(KEY_SUFFIX);
    let digest = context.finish();
    let mut accept = [0; 28];
    STANDARD.encode_slice(digest.as_ref(), &mut accept).expect("20 digest bytes are 28 base64 characters");
    accept
}

#[cfg(test)]
mod tests {
    use super::accept_key;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn any_key_has_an_answer() {
        assert_ne!(accept_key(b""), accept_key(&[0xff; 4096]));
    }
}
