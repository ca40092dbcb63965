//! Server-to-client frames: never masked, never fragmented, no extension bits.
//!
//! The outbox calls [`encode_header`] once per shared frame and appends the payload
//! itself, so that one encoded message serves every member of a topic. Control
//! frames are small enough to be built whole. Nothing here can fail.

use smallvec::SmallVec;

use super::frame::{CONTROL_PAYLOAD_BYTES_MAX, Opcode};

/// The bit that marks the last (here: the only) frame of a message.
const FIN: u8 = 0x80;

/// The size in bytes of the header in front of a payload of `payload_bytes`: 2, 4 or 10.
pub fn frame_header_len(payload_bytes: usize) -> usize {
    match payload_bytes {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

/// Writes the header of a complete unmasked frame and returns its size in bytes.
pub fn encode_header(out: &mut [u8; 10], opcode: Opcode, payload_bytes: usize) -> usize {
    out[0] = FIN | opcode as u8;
    let header_bytes = frame_header_len(payload_bytes);
    match header_bytes {
        2 => out[1] = payload_bytes as u8,
        4 => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(payload_bytes as u16).to_be_bytes());
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(payload_bytes as u64).to_be_bytes());
        }
    }
    header_bytes
}

/// A close frame; the reason is always empty (spec 15.1).
///
/// Without a code the payload is empty, which the peer reports as 1005.
pub fn close_frame(code: Option<u16>) -> SmallVec<[u8; 4]> {
    let mut frame = SmallVec::new();
    frame.push(FIN | Opcode::Close as u8);
    match code {
        None => frame.push(0),
        Some(code) => {
            frame.push(2);
            frame.extend_from_slice(&code.to_be_bytes());
        }
    }
    frame
}

/// The answer to a client's close frame: its own code, or none if it sent none.
pub fn close_reply(code: Option<u16>) -> SmallVec<[u8; 4]> {
    close_frame(code)
}

/// The answer to a ping, carrying the same data.
///
/// `data` comes from a decoded ping and therefore has at most 125 bytes; anything
/// beyond is cut off, because a longer control frame would be a protocol error.
pub fn pong_frame(data: &[u8]) -> Vec<u8> {
    debug_assert!(data.len() <= CONTROL_PAYLOAD_BYTES_MAX);
    let data = &data[..data.len().min(CONTROL_PAYLOAD_BYTES_MAX)];
    let mut frame = Vec::with_capacity(2 + data.len());
    frame.push(FIN | Opcode::Pong as u8);
    frame.push(data.len() as u8);
    frame.extend_from_slice(data);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_use_the_shortest_length_form() {
        let cases: [(usize, &[u8]); 7] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (5_000_000, &[0x81, 127, 0, 0, 0, 0, 0, 0x4c, 0x4b, 0x40]),
            (256, &[0x81, 126, 1, 0]),
        ];
        for (payload_bytes, expected) in cases {
            let mut out = [0; 10];
            let header_bytes = encode_header(&mut out, Opcode::Text, payload_bytes);
            assert_eq!(&out[..header_bytes], expected, "{payload_bytes}");
            assert_eq!(header_bytes, frame_header_len(payload_bytes));
        }
    }

    #[test]
    fn binary_frames_carry_their_opcode() {
        let mut out = [0; 10];
        encode_header(&mut out, Opcode::Binary, 1);
        assert_eq!(out[0], 0x82);
    }

    #[test]
    fn close_frames() {
        assert_eq!(close_frame(Some(1012)).as_slice(), [0x88, 2, 0x03, 0xf4]);
        assert_eq!(close_frame(None).as_slice(), [0x88, 0]);
        assert!(!close_frame(Some(1000)).spilled());
    }

    #[test]
    fn a_close_is_answered_with_its_own_code() {
        assert_eq!(close_reply(Some(3001)).as_slice(), [0x88, 2, 0x0b, 0xb9]);
        assert_eq!(close_reply(None).as_slice(), [0x88, 0]);
    }

    #[test]
    fn pongs_repeat_the_data() {
        assert_eq!(pong_frame(b"abc"), b"\x8a\x03abc");
        assert_eq!(pong_frame(b""), b"\x8a\x00");
    }
}
