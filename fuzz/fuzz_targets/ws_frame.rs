//! A client's byte stream after the upgrade.
//!
//! The first byte of the input chooses how the rest is cut into reads. Besides not
//! panicking: the cut must not change the messages or the verdict, and the decoder must
//! not hold more memory than the limit allows.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringcast::protocol::websocket::{DecodeError, DecodeLimits, Decoder, Flow};

const LIMITS: DecodeLimits = DecodeLimits {
    message_bytes_max: 1024,
};

/// The limit, one control frame, and the decoder's own bookkeeping.
const BUFFERED_BYTES_MAX: usize = 1024 + 256 + 256;

fn decode(stream: &[u8], piece_bytes: usize) -> (Vec<String>, Result<(), DecodeError>) {
    let mut stream = stream.to_vec();
    let mut decoder = Decoder::new();
    let mut events = Vec::new();
    for piece in stream.chunks_mut(piece_bytes) {
        let fed = decoder.feed(piece, &LIMITS, |event| {
            events.push(format!("{event:?}"));
            Flow::Continue
        });
        assert!(decoder.buffered_bytes() <= BUFFERED_BYTES_MAX);
        if fed.is_err() {
            return (events, fed);
        }
    }
    (events, Ok(()))
}

fuzz_target!(|data: &[u8]| {
    let Some((piece_bytes, stream)) = data.split_first() else {
        return;
    };
    let whole = decode(stream, usize::MAX);
    let in_pieces = decode(stream, usize::from(*piece_bytes).max(1));
    assert_eq!(whole, in_pieces);
});
