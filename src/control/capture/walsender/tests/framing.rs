//! Framing of a stream: cuts, bounds, garbage.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Join, Sink, duplex, join, sink};

use super::super::wire::Wire;
use super::super::{Event, Streaming, WalsenderError};
use super::{error_body, message};
use crate::protocol::pgoutput::Lsn;

fn data(start: u64, payload: &[u8]) -> Vec<u8> {
    message(b'd', &[b"w", &start.to_be_bytes()[..], &start.to_be_bytes(), &7i64.to_be_bytes(), payload].concat())
}

fn keep_alive(end: u64, reply: bool) -> Vec<u8> {
    message(b'd', &[b"k", &end.to_be_bytes()[..], &8i64.to_be_bytes(), &[u8::from(reply)]].concat())
}

fn data_event(start: u64, payload: &[u8]) -> Event {
    Event::Data { start: Lsn(start), end: Lsn(start), server_time_us: 7, payload: Bytes::copy_from_slice(payload) }
}

/// A stream of exactly these bytes.
fn reading(bytes: &[u8]) -> Streaming<Join<&[u8], Sink>> {
    Streaming::new(Wire::new(join(bytes, sink())), Lsn::INVALID)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What the future gives when polled once.
async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn events_survive_any_cut() {
    let payloads: Vec<Vec<u8>> = [0usize, 1, 200, 5000, 70_000, 3].iter().map(|size| vec![b'x'; *size]).collect();
    let mut bytes = message(b'N', b"a notice\0");
    let mut expected = Vec::new();
    for (start, payload) in (1..).zip(&payloads) {
        bytes.extend(data(start, payload));
        bytes.extend(keep_alive(start, start % 2 == 0));
        expected.push(data_event(start, payload));
        expected.push(Event::KeepAlive { end: Lsn(start), server_time_us: 8, reply_requested: start % 2 == 0 });
    }
    bytes.extend(message(b'c', b""));
    expected.push(Event::Ended);
    block_on(async {
        for piece_bytes in [1, 2, 3, 7, 100, 4096, 1 << 20] {
            let (client, mut server) = duplex(1 << 20);
            let mut stream = Streaming::new(Wire::new(client), Lsn::INVALID);
            let mut events = Vec::new();
            for piece in bytes.chunks(piece_bytes) {
                server.write_all(piece).await.unwrap();
                // A wait that is dropped must lose nothing.
                while let Some(event) = now_or_never(stream.next()).await {
                    events.push(event.unwrap());
                    if events.last() == Some(&Event::Ended) {
                        break;
                    }
                }
            }
            while events.last() != Some(&Event::Ended) {
                events.push(stream.next().await.unwrap());
            }
            assert_eq!(events, expected, "pieces of {piece_bytes} bytes");
        }
    });
}

#[test]
fn next_buffered_never_waits() {
    let bytes = [data(1, b"a"), data(2, b"b"), data(3, b"c")[..20].to_vec()].concat();
    block_on(async {
        let mut stream = reading(&bytes);
        assert_eq!(stream.next_buffered().unwrap(), None);
        assert_eq!(stream.next().await.unwrap(), data_event(1, b"a"));
        assert_eq!(stream.next_buffered().unwrap(), Some(data_event(2, b"b")));
        assert_eq!(stream.next_buffered().unwrap(), None);
        assert!(
            matches!(stream.next().await, Err(WalsenderError::Io(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof)
        );
    });
}

#[test]
fn a_payload_outlives_the_buffer_it_came_in() {
    block_on(async {
        let bytes: Vec<u8> = (0..2000u64).flat_map(|start| data(start, &start.to_be_bytes().repeat(25))).collect();
        let mut stream = reading(&bytes);
        let mut kept = Vec::new();
        while let Ok(Event::Data { payload, .. }) = stream.next().await {
            kept.push(payload);
        }
        assert_eq!(kept.len(), 2000);
        assert!(kept.iter().zip(0u64..).all(|(payload, start)| payload[..] == start.to_be_bytes().repeat(25)));
    });
}

#[test]
fn a_length_alone_allocates_nothing() {
    block_on(async {
        let (client, mut server) = duplex(1 << 20);
        let mut stream = Streaming::new(Wire::new(client), Lsn::INVALID);
        let claimed = data(1, &vec![0; 20 << 20]);
        server.write_all(&claimed[..100]).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), stream.next()).await.is_err());
        assert!(stream.buffer_bytes() <= 8192, "{} bytes for 100", stream.buffer_bytes());
        let rest = server.write_all(&claimed[100..]);
        let (event, written) = tokio::join!(stream.next(), rest);
        written.unwrap();
        assert!(matches!(event, Ok(Event::Data { ref payload, .. }) if payload.len() == 20 << 20));
        drop(event);
        // The large buffer is not kept for the small messages that follow.
        for _ in 0..2 {
            server.write_all(&keep_alive(2, false)).await.unwrap();
            stream.next().await.unwrap();
        }
        assert!(stream.buffer_bytes() <= 512 * 1024, "{} bytes at rest", stream.buffer_bytes());
    });
}

#[test]
fn an_oversized_change_is_skipped_and_reported() {
    let large: Vec<u8> = b"I\x00\x00\x00\x09N".iter().copied().chain((0u8..=255).cycle().take(50_000)).collect();
    let bytes = [data(1, b"a"), data(2, &large), data(3, b"c")].concat();
    block_on(async {
        let mut stream = reading(&bytes);
        stream.payload_bytes_max = 10_000;
        assert_eq!(stream.next().await.unwrap(), data_event(1, b"a"));
        let Event::Oversized { start, payload_bytes, head } = stream.next().await.unwrap() else { panic!("oversized") };
        assert_eq!((start, payload_bytes, &head[..]), (Lsn(2), large.len(), &large[..1024]));
        assert_eq!(stream.next().await.unwrap(), data_event(3, b"c"));
        let mut exact = reading(&bytes);
        exact.payload_bytes_max = large.len();
        exact.next().await.unwrap();
        assert_eq!(exact.next().await.unwrap(), data_event(2, &large));
    });
}

#[test]
fn a_status_says_what_was_dispatched_and_never_less() {
    block_on(async {
        let (client, mut server) = duplex(4096);
        let mut stream = Streaming::new(Wire::new(client), Lsn(5));
        for (flushed, reply, sent) in [(3u64, false, 5u64), (9, true, 9), (7, false, 9)] {
            stream.send_status(Lsn(flushed), reply).await.unwrap();
            let mut status = [0; 39];
            server.read_exact(&mut status).await.unwrap();
            assert_eq!(status[..6], *b"d\x00\x00\x00\x26r");
            for field in status[6..30].chunks(8) {
                assert_eq!(field, sent.to_be_bytes());
            }
            assert_eq!(status[38], u8::from(reply));
            assert_eq!(stream.acknowledged(), Lsn(sent));
        }
    });
}

#[test]
fn a_status_that_was_given_up_goes_out_whole_with_the_next() {
    block_on(async {
        let (client, mut server) = duplex(10);
        let mut stream = Streaming::new(Wire::new(client), Lsn::INVALID);
        assert!(tokio::time::timeout(Duration::from_millis(5), stream.send_status(Lsn(1), false)).await.is_err());
        let mut statuses = [0; 78];
        let (sent, read) = tokio::join!(stream.send_status(Lsn(2), false), server.read_exact(&mut statuses));
        sent.unwrap();
        read.unwrap();
        assert_eq!((statuses[0], statuses[5], statuses[39], statuses[44]), (b'd', b'r', b'd', b'r'));
        assert_eq!((statuses[13], statuses[52]), (1, 2));
    });
}

#[test]
fn the_servers_last_words_are_found_after_a_failed_write() {
    let bytes = [data(1, b"a"), message(b'E', &error_body("57P01", "going down"))].concat();
    block_on(async {
        // The write side is gone, the read side still has the words.
        let (broken, _) = duplex(1);
        let mut stream = Streaming::new(Wire::new(join(&bytes[..], broken)), Lsn::INVALID);
        let error = stream.send_status(Lsn(1), false).await.unwrap_err();
        assert_eq!(error.to_string(), "FATAL 57P01: going down (more)");

        let (broken, _) = duplex(1);
        let mut stream = Streaming::new(Wire::new(join(&bytes[..20], broken)), Lsn::INVALID);
        assert!(matches!(stream.send_status(Lsn(1), false).await, Err(WalsenderError::Io(_))));
    });
}

#[test]
fn finishing_is_bounded_and_polite() {
    block_on(async {
        let (client, mut server) = duplex(4096);
        let stream = Streaming::new(Wire::new(client), Lsn::INVALID);
        let mut finish = pin!(stream.finish());
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut finish).await.is_err());
        let mut terminate = [0; 5];
        server.read_exact(&mut terminate).await.unwrap();
        assert_eq!(&terminate, b"X\x00\x00\x00\x04");
        server.write_all(&data(1, b"late")).await.unwrap();
        drop(server);
        finish.await.unwrap();
    });
}

#[test]
fn what_belongs_to_no_stream_is_an_error() {
    let cases = [
        message(b'Z', b"I"),
        message(b'd', b""),
        message(b'd', b"w12"),
        message(b'd', b"k12"),
        message(b'd', b"x"),
        b"d\x00\x00\x00\x03".to_vec(),
        b"E\x7f\xff\xff\xff".to_vec(),
    ];
    for bytes in cases {
        let error = block_on(async { reading(&bytes).next().await.unwrap_err() });
        assert!(matches!(error, WalsenderError::Protocol(_)), "{bytes:?}: {error}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(pieces in prop::collection::vec(prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        (any::<u8>(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(tag, body)| message(tag, &body)),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|body| message(b'd', &body)),
        (any::<u64>(), prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(start, payload)| data(start, &payload)),
    ], 0..10), payload_bytes_max in 0usize..60) {
        let bytes = pieces.concat();
        block_on(async {
            let mut stream = reading(&bytes);
            stream.payload_bytes_max = payload_bytes_max;
            while !matches!(stream.next().await, Err(_) | Ok(Event::Ended)) {}
        });
    }
}
