//! Outbox: queueing frames for a socket and handing them to the kernel at the end of the turn.
//!
//! Guards P1 (flood: many frames per write), P2 (one frame per write) and P7 (a full socket must cost nothing to the
//! others). `bare_write` sends the same bytes with one call and nothing else: the difference to `push_and_flush` is what
//! the outbox costs.
//!
//! The socket is one end of a Unix pair, whose other end is emptied outside of the measurement, so that the kernel's part
//! is small and steady; a TCP socket pays more for the same call. A sample holds as many iterations as its buffer takes.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use bytes::Bytes;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringcast::realtime::Frame;
use ringcast::shard::outbox::{Flushed, Outbox, WriteRoom};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fits the socket buffer with frames of 100 bytes, even 32 of them per iteration.
const SMALL_SAMPLE: u32 = 16;

/// One write of 64 KB fills a third of the buffer.
const LARGE_SAMPLE: u32 = 1;

fn main() {
    divan::main();
}

fn frame(bytes: usize) -> Frame {
    Rc::new(Bytes::from(vec![b'x'; bytes]))
}

/// A pair of sockets, neither of which blocks.
fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair can be made");
    for end in [&ours, &theirs] {
        end.set_nonblocking(true).expect("a socket can be non-blocking");
    }
    (ours, theirs)
}

/// Reads until nothing is left.
fn empty(socket: &UnixStream) {
    let mut buffer = [0; 16_384];
    let mut socket = socket;
    while socket.read(&mut buffer).is_ok_and(|bytes| bytes > 0) {}
}

fn push_and_flush(bencher: Bencher, frames: usize, frame_bytes: usize) {
    let (ours, theirs) = pair();
    let shared = frame(frame_bytes);
    let mut room = WriteRoom::default();
    let mut outbox = Outbox::default();
    bencher.counter(ItemsCount::new(frames)).with_inputs(|| empty(&theirs)).bench_local_values(|()| {
        for _ in 0..frames {
            outbox.push(black_box(&shared), &mut room);
        }
        assert_eq!(outbox.flush(ours.as_raw_fd(), &mut room), Flushed::All);
    });
}

fn bare_write(bencher: Bencher, bytes: usize) {
    let (mut ours, theirs) = pair();
    let data = vec![b'x'; bytes];
    bencher.with_inputs(|| empty(&theirs)).bench_local_values(|()| {
        let written = ours.write(black_box(&data)).expect("the socket has room");
        assert_eq!(written, bytes);
    });
}

#[divan::bench(sample_count = 500, sample_size = SMALL_SAMPLE)]
fn push_and_flush_1x100_b(bencher: Bencher) {
    push_and_flush(bencher, 1, 100);
}

#[divan::bench(sample_count = 500, sample_size = SMALL_SAMPLE)]
fn push_and_flush_32x100_b(bencher: Bencher) {
    push_and_flush(bencher, 32, 100);
}

#[divan::bench(sample_count = 500, sample_size = LARGE_SAMPLE)]
fn push_and_flush_1x64_kb(bencher: Bencher) {
    push_and_flush(bencher, 1, 65_536);
}

#[divan::bench(sample_count = 500, sample_size = SMALL_SAMPLE, args = [100, 3_200])]
fn bare_write_small(bencher: Bencher, bytes: usize) {
    bare_write(bencher, bytes);
}

#[divan::bench(sample_count = 500, sample_size = LARGE_SAMPLE)]
fn bare_write_64_kb(bencher: Bencher) {
    bare_write(bencher, 65_536);
}

/// Queueing alone, for 32 frames that are then forgotten: what a slow consumer costs until it is dropped.
#[divan::bench]
fn push_32_and_clear(bencher: Bencher) {
    let shared = frame(100);
    let mut room = WriteRoom::default();
    let mut outbox = Outbox::default();
    bencher.counter(ItemsCount::new(32usize)).bench_local(|| {
        for _ in 0..32 {
            outbox.push(black_box(&shared), &mut room);
        }
        black_box(outbox.queued_bytes());
        outbox.clear();
    });
}
