//! Every framing rule by name, the limits, and what the decoder holds in memory.

use super::super::*;
use super::{KEY, LIMITS, Seen, decode_in_pieces, decode_whole, frame};

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

fn text(payload: &str) -> Seen {
    Seen::Text(payload.into())
}

#[test]
fn rules_that_accept() {
    let cases: Vec<(&str, Vec<u8>, Vec<Seen>)> = vec![
        ("text", frame(0x81, b"hi"), vec![text("hi")]),
        ("binary", frame(0x82, &[0, 255]), vec![Seen::Binary(vec![0, 255])]),
        ("empty text", frame(0x81, b""), vec![text("")]),
        ("empty binary", frame(0x82, b""), vec![Seen::Binary(vec![])]),
        ("text is not checked for UTF-8", frame(0x81, &[0xff]), vec![Seen::Text(vec![0xff])]),
        ("16-bit length", frame(0x81, &[b'a'; 126]), vec![text(&"a".repeat(126))]),
        ("64-bit length", frame(0x81, &[b'a'; 65_536]), vec![text(&"a".repeat(65_536))]),
        (
            "length in a longer form than needed",
            [&[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0, 1], &KEY[..], &[b'x' ^ KEY[0]]].concat(),
            vec![text("x")],
        ),
        ("fragments are joined", [frame(0x01, b"a"), frame(0x00, b"b"), frame(0x80, b"c")].concat(), vec![text("abc")]),
        (
            "empty fragments are joined",
            [frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")].concat(),
            vec![Seen::Binary(vec![])],
        ),
        (
            "control frames between fragments come first",
            [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x8a, b""), frame(0x80, b"b")].concat(),
            vec![Seen::Ping(b"p".to_vec()), Seen::Pong(vec![]), text("ab")],
        ),
        ("longest control frame", frame(0x89, &[7; 125]), vec![Seen::Ping(vec![7; 125])]),
        ("close without code", frame(0x88, b""), vec![Seen::Close(None, vec![])]),
        ("close with code and reason", frame(0x88, &close_payload(3001, "bye")), vec![Seen::Close(Some(3001), b"bye".to_vec())]),
        (
            "nothing is read after a close",
            [frame(0x88, &close_payload(1000, "")), vec![0xff; 20]].concat(),
            vec![Seen::Close(Some(1000), vec![])],
        ),
        ("close inside a fragmented message", [frame(0x01, b"a"), frame(0x88, b"")].concat(), vec![Seen::Close(None, vec![])]),
        ("largest message", frame(0x82, &[1; 5_000_000]), vec![Seen::Binary(vec![1; 5_000_000])]),
    ];
    for (rule, stream, expected) in cases {
        assert_eq!(decode_whole(&stream), (expected, Ok(())), "{rule}");
    }
}

#[test]
fn rules_that_refuse() {
    let unmasked = vec![0x81, 0x02, b'h', b'i'];
    let top_bit = vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1];
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("client frame is not masked", unmasked, 1002),
        ("reserved bit is set", frame(0xc1, b""), 1002),
        ("reserved bit is set", frame(0xa1, b""), 1002),
        ("reserved bit is set", frame(0x91, b""), 1002),
        ("unknown opcode", frame(0x83, b""), 1002),
        ("unknown opcode", frame(0x87, b""), 1002),
        ("unknown opcode", frame(0x8b, b""), 1002),
        ("unknown opcode", frame(0x8f, b""), 1002),
        ("control frame is fragmented", frame(0x09, b""), 1002),
        ("control frame is fragmented", frame(0x08, b""), 1002),
        ("control frame is too long", frame(0x89, &[0; 126]), 1002),
        ("continuation without a message", frame(0x80, b""), 1002),
        ("continuation without a message", [frame(0x01, b""), frame(0x80, b""), frame(0x80, b"")].concat(), 1002),
        ("new message inside a fragmented message", [frame(0x01, b""), frame(0x81, b"")].concat(), 1002),
        ("top bit of a 64-bit length is set", top_bit, 1002),
        ("close payload of one byte", frame(0x88, &[3]), 1002),
    ];
    for (rule, stream, close_code) in cases {
        let (_, fed) = decode_whole(&stream);
        assert_eq!(fed, Err(DecodeError::Protocol(rule)));
        assert_eq!(fed.unwrap_err().close_code(), close_code);
    }
}

#[test]
fn close_codes_that_may_not_be_sent() {
    for code in 0..=u16::MAX {
        let refused = matches!(code, 0..=999 | 1004..=1006 | 1015..=2999 | 5000..);
        let (seen, fed) = decode_whole(&frame(0x88, &close_payload(code, "")));
        if refused {
            assert_eq!(fed, Err(DecodeError::Protocol("close code may not be sent")));
        } else {
            assert_eq!((seen, fed), (vec![Seen::Close(Some(code), vec![])], Ok(())));
        }
    }
}

#[test]
fn too_big_is_known_from_the_length_alone() {
    let header_only = frame(0x82, &[0; 5_000_001])[..10].to_vec();
    assert_eq!(decode_whole(&header_only), (vec![], Err(DecodeError::TooBig)));
    let mut huge = vec![0x82, 0xff, 0x7f];
    huge.extend([0xff; 7]);
    assert_eq!(decode_whole(&huge).1, Err(DecodeError::TooBig));
    assert_eq!(DecodeError::TooBig.close_code(), 1009);
}

#[test]
fn the_limit_covers_the_joined_message() {
    let limits = DecodeLimits { message_bytes_max: 8 };
    let fits = [frame(0x01, b"12345"), frame(0x80, b"678")].concat();
    let (seen, fed) = decode_in_pieces(&fits, &[], &limits);
    assert_eq!((seen, fed), (vec![text("12345678")], Ok(())));
    let larger = [frame(0x01, b"12345"), frame(0x80, b"6789")].concat();
    for piece in [1, 3, usize::MAX] {
        let (seen, fed) = decode_in_pieces(&larger, &[piece], &limits);
        assert_eq!((seen, fed), (vec![], Err(DecodeError::TooBig)), "pieces of {piece}");
    }
}

#[test]
fn whole_frames_are_handed_out_in_place_and_leave_nothing() {
    let mut stream = [frame(0x81, b"one"), frame(0x82, b"two")].concat();
    let bounds = stream.as_ptr_range();
    let mut decoder = Decoder::new();
    let mut messages = 0;
    decoder
        .feed(&mut stream, &LIMITS, |event| {
            if let Event::Text(payload) | Event::Binary(payload) = event {
                assert!(bounds.contains(&payload.as_ptr()));
                messages += 1;
            }
            Flow::Continue
        })
        .unwrap();
    assert_eq!(messages, 2);
    assert!(decoder.is_idle());
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn memory_follows_the_bytes_received_and_is_released() {
    let mut stream = frame(0x82, &vec![9; 4_000_000]);
    let (start, rest) = stream.split_at_mut(1000);
    let mut decoder = Decoder::new();
    let mut message_bytes = 0;
    decoder.feed(start, &LIMITS, |_| Flow::Continue).unwrap();
    assert!(!decoder.is_idle());
    assert!(decoder.buffered_bytes() < 4096, "{}", decoder.buffered_bytes());
    let mut peak_bytes = 0;
    for piece in rest.chunks_mut(16 * 1024) {
        let fed = decoder.feed(piece, &LIMITS, |event| {
            if let Event::Binary(payload) = event {
                message_bytes = payload.len();
            }
            Flow::Continue
        });
        fed.unwrap();
        peak_bytes = peak_bytes.max(decoder.buffered_bytes());
    }
    assert_eq!(message_bytes, 4_000_000);
    assert!(peak_bytes < 4_001_000, "{peak_bytes}");
    assert!(decoder.is_idle());
    assert_eq!(decoder.buffered_bytes(), 0);
}

#[test]
fn stop_drops_the_rest_and_all_later_input() {
    let mut stream = [frame(0x81, b"1"), frame(0x81, b"2")].concat();
    let mut decoder = Decoder::new();
    let mut events = 0;
    for _ in 0..2 {
        let fed = decoder.feed(&mut stream, &LIMITS, |_| {
            events += 1;
            Flow::Stop
        });
        fed.unwrap();
    }
    assert_eq!(events, 1);
}
