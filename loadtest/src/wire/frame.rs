//! WebSocket frames (RFC 6455): header parsing, encoding for both sides, unmasking.
//!
//! Called by the generator for every frame it receives, so a header costs a few byte loads and payloads are
//! never copied. Client frames carry the mask bit with an all-zero key: legal on the wire, and it spares both
//! sides the XOR in a measurement that is not about masking. Fragmented messages are not re-assembled; servers
//! under test send whole messages. A malformed header is a typed error; the caller drops the connection.

use std::fmt;

/// Frame type: UTF-8 text.
pub const OPCODE_TEXT: u8 = 0x1;
/// Frame type: opaque bytes.
pub const OPCODE_BINARY: u8 = 0x2;
/// Frame type: close.
pub const OPCODE_CLOSE: u8 = 0x8;
/// Frame type: ping.
pub const OPCODE_PING: u8 = 0x9;
/// Frame type: pong.
pub const OPCODE_PONG: u8 = 0xA;

/// Largest payload accepted, in bytes. The protocol stops at 5,000,000; presence states of a large room come near.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A decoded frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Low four bits of the first byte.
    pub opcode: u8,
    /// Whether this frame ends its message.
    pub fin: bool,
    /// Masking key, present on client frames.
    pub mask: Option<[u8; 4]>,
    /// Length of the header itself, mask included.
    pub head_bytes: usize,
    /// Length of the payload that follows.
    pub payload_bytes: usize,
}

/// Why a frame cannot be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    /// Payload announced above [`PAYLOAD_BYTES_MAX`].
    TooLarge,
    /// Reserved bits set.
    ReservedBits,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "WebSocket frame larger than 16 MiB",
            Self::ReservedBits => "WebSocket frame with reserved bits set",
        })
    }
}

/// Reads the header at the start of `bytes`; `Ok(None)` when it is not complete yet.
///
/// # Errors
/// [`FrameError`] for a header that no further byte can make valid.
#[inline]
pub fn parse_header(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let masked = second & 0x80 != 0;
    let (length_bytes, payload_bytes) = match second & 0x7f {
        126 => match rest {
            [a, b, ..] => (2, usize::from(u16::from_be_bytes([*a, *b]))),
            _ => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(length) => (8, usize::try_from(u64::from_be_bytes(*length)).map_err(|_| FrameError::TooLarge)?),
            None => return Ok(None),
        },
        short => (0, usize::from(short)),
    };
    if payload_bytes > PAYLOAD_BYTES_MAX {
        return Err(FrameError::TooLarge);
    }
    let mask = if masked {
        match rest[length_bytes..].first_chunk::<4>() {
            Some(key) => Some(*key),
            None => return Ok(None),
        }
    } else {
        None
    };
    let head_bytes = 2 + length_bytes + if masked { 4 } else { 0 };
    Ok(Some(Header { opcode: first & 0x0f, fin: first & 0x80 != 0, mask, head_bytes, payload_bytes }))
}

/// Appends an unmasked (server) frame header for a payload of `payload_bytes`.
pub fn put_server_header(opcode: u8, payload_bytes: usize, out: &mut Vec<u8>) {
    put_header(opcode, payload_bytes, 0, out);
}

/// Appends a whole client frame: mask bit set, key zero, payload as it is.
pub fn put_client_frame(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    put_header(opcode, payload.len(), 0x80, out);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

fn put_header(opcode: u8, payload_bytes: usize, mask_bit: u8, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    if payload_bytes < 126 {
        out.push(mask_bit | payload_bytes as u8);
    } else if let Ok(short) = u16::try_from(payload_bytes) {
        out.push(mask_bit | 126);
        out.extend_from_slice(&short.to_be_bytes());
    } else {
        out.push(mask_bit | 127);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

/// Removes the mask from `payload` in place; free when the key is zero.
pub fn unmask(payload: &mut [u8], key: [u8; 4]) {
    if key == [0; 4] {
        return;
    }
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (chunks, rest) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte ^= key[index % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_frames_of_every_length_class_parse_back() {
        for length in [0usize, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let payload = vec![7u8; length];
            let mut frame = Vec::new();
            put_client_frame(OPCODE_TEXT, &payload, &mut frame);
            let header = parse_header(&frame).unwrap().unwrap();
            assert_eq!(header.payload_bytes, length);
            assert_eq!(header.mask, Some([0; 4]));
            assert!(header.fin);
            assert_eq!(header.opcode, OPCODE_TEXT);
            assert_eq!(&frame[header.head_bytes..], &payload[..]);
        }
    }

    #[test]
    fn an_incomplete_header_asks_for_more() {
        let mut frame = Vec::new();
        put_client_frame(OPCODE_BINARY, &[1; 70_000], &mut frame);
        for cut in 0..14 {
            assert_eq!(parse_header(&frame[..cut]), Ok(None), "cut at {cut}");
        }
        assert!(parse_header(&frame[..14]).unwrap().is_some());
    }

    #[test]
    fn server_headers_carry_no_mask() {
        let mut frame = Vec::new();
        put_server_header(OPCODE_BINARY, 300, &mut frame);
        assert_eq!(frame, [0x82, 126, 1, 44]);
    }

    #[test]
    fn bad_headers_are_typed_errors() {
        assert_eq!(parse_header(&[0xC1, 0]), Err(FrameError::ReservedBits));
        let huge = [0x81, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(parse_header(&huge), Err(FrameError::TooLarge));
    }

    #[test]
    fn unmasking_undoes_masking_at_every_length() {
        let key = [0x12, 0x34, 0x56, 0x78];
        for length in 0..40u8 {
            let plain: Vec<u8> = (0..length).collect();
            let mut masked: Vec<u8> = plain.iter().enumerate().map(|(i, b)| b ^ key[i % 4]).collect();
            unmask(&mut masked, key);
            assert_eq!(masked, plain);
        }
    }
}
