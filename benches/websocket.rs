//! WebSocket framing: what one `read` costs before anything looks at the message, and one header costs on the way out.
//!
//! Guards P3 (echo round trip) and P4 (CPU per delivery of the mix): both pay [`Decoder::feed`] once per message. The
//! figures to watch are the fixed cost of a small frame, bytes per second of a large one (unmasking), and that a frame
//! out of a full buffer costs no more than a frame of its own read.
//!
//! Frames are fed again and again from one buffer: decoding toggles the mask, which changes the payload and not the work.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use ringcast::protocol::websocket::{DecodeLimits, Decoder, Event, Flow, Opcode, encode_header};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LIMITS: DecodeLimits = DecodeLimits { message_bytes_max: 5_000_000 };
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn main() {
    divan::main();
}

/// A masked text frame as a client sends it.
fn client_frame(payload_bytes: usize) -> Vec<u8> {
    let mut header = [0; 10];
    let header_bytes = encode_header(&mut header, Opcode::Text, payload_bytes);
    let mut frame = header[..header_bytes].to_vec();
    frame[1] |= 0x80;
    frame.extend_from_slice(&MASK);
    frame.extend((0..payload_bytes).map(|index| b'x' ^ MASK[index % 4]));
    frame
}

/// Feeds one read and returns the number of messages in it.
fn feed(decoder: &mut Decoder, input: &mut [u8]) -> usize {
    let mut messages = 0;
    let outcome = decoder.feed(input, &LIMITS, |event| {
        if let Event::Text(text) = event {
            black_box(text);
            messages += 1;
        }
        Flow::Continue
    });
    outcome.expect("the frames are valid");
    messages
}

/// One frame, whole in one read.
#[divan::bench(args = [64, 1024, 65_536])]
fn whole_frame(bencher: Bencher, payload_bytes: usize) {
    let mut input = client_frame(payload_bytes);
    let mut decoder = Decoder::new();
    assert_eq!(feed(&mut decoder, &mut input), 1);
    bencher.counter(BytesCount::new(payload_bytes)).bench_local(|| feed(&mut decoder, black_box(&mut input)));
}

/// A read full of frames of 64 bytes: items are messages.
#[divan::bench(args = [16, 256])]
fn frames_in_one_read(bencher: Bencher, frames: usize) {
    let mut input = client_frame(64).repeat(frames);
    let mut decoder = Decoder::new();
    assert_eq!(feed(&mut decoder, &mut input), frames);
    bencher.counter(ItemsCount::new(frames)).bench_local(|| feed(&mut decoder, black_box(&mut input)));
}

/// A frame of 1 KB that arrives in two reads: the price of buffering.
#[divan::bench]
fn frame_in_two_reads(bencher: Bencher) {
    let mut input = client_frame(1024);
    let mut decoder = Decoder::new();
    let mut feed_halves = || {
        let (first, second) = input.split_at_mut(500);
        feed(&mut decoder, first) + feed(&mut decoder, second)
    };
    assert_eq!(feed_halves(), 1);
    bencher.bench_local(feed_halves);
}

/// The header of a server frame, in its three lengths.
#[divan::bench(args = [64, 1024, 65_536])]
fn header(bencher: Bencher, payload_bytes: usize) {
    bencher.bench(|| {
        let mut out = [0; 10];
        let header_bytes = encode_header(&mut out, black_box(Opcode::Text), black_box(payload_bytes));
        (out, header_bytes)
    });
}
