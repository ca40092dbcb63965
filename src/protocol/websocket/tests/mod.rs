//! Tests of the codec as a whole: what both kinds share is here, the framing rules one
//! by one are in `rules`, random streams and random cuts in `properties`.

mod properties;
mod rules;

use super::*;

const LIMITS: DecodeLimits = DecodeLimits { message_bytes_max: 5_000_000 };
const KEY: [u8; 4] = [0xa1, 0x02, 0x5f, 0x80];

/// An [`Event`] that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, Vec<u8>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(payload) => Self::Text(payload.to_vec()),
            Event::Binary(payload) => Self::Binary(payload.to_vec()),
            Event::Ping(data) => Self::Ping(data.to_vec()),
            Event::Pong(data) => Self::Pong(data.to_vec()),
            Event::Close { code, reason } => Self::Close(code, reason.to_vec()),
        }
    }
}

type Outcome = (Vec<Seen>, Result<(), DecodeError>);

/// Feeds `stream` in pieces of the given sizes, the last of which repeats.
fn decode_in_pieces(stream: &[u8], piece_bytes: &[usize], limits: &DecodeLimits) -> Outcome {
    let mut decoder = Decoder::new();
    let mut seen = Vec::new();
    let mut rest = stream.to_vec();
    let mut rest = rest.as_mut_slice();
    let mut pieces = piece_bytes.iter().copied();
    let mut piece = usize::MAX;
    while !rest.is_empty() {
        piece = pieces.next().unwrap_or(piece).max(1);
        let (now, later) = rest.split_at_mut(piece.min(rest.len()));
        let fed = decoder.feed(now, limits, |event| {
            seen.push(event.into());
            Flow::Continue
        });
        if fed.is_err() {
            return (seen, fed);
        }
        rest = later;
    }
    (seen, Ok(()))
}

fn decode_whole(stream: &[u8]) -> Outcome {
    decode_in_pieces(stream, &[], &LIMITS)
}

/// A client frame; `first` is the whole first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 10];
    let header_bytes = encode_header(&mut header, Opcode::Text, payload.len());
    let mut bytes = header[..header_bytes].to_vec();
    bytes[0] = first;
    bytes[1] |= 0x80;
    bytes.extend_from_slice(&KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(b, k)| b ^ k));
    bytes
}
