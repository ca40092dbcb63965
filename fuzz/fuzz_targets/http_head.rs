//! What stands before and around a request: PROXY header, head, target, body.
//!
//! Besides not panicking: what parses as a whole must have asked for more bytes at every
//! shorter length, and a body must read the same however it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringcast::protocol::http1::{
    BodyError, BodyKind, BodyReader, Head, HeadLimits, parse_head, parse_proxy, path_segments,
    query_param, select_request_id, websocket_key,
};

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 2048,
    header_value_bytes_max: 256,
    request_line_bytes_max: 512,
    headers_max: 16,
};

fn ask_everything(head: &Head<'_>) {
    let _ = head.host();
    let _ = head.external_id();
    let _ = head.keep_alive();
    let _ = head.expects_continue();
    let _ = head.header_joined("x-forwarded-for");
    let _ = path_segments(head.path);
    let _ = query_param(head.query, "vsn");
    let _ = websocket_key(head);
    let id = select_request_id(head, "request-id", || "generated".to_owned());
    assert!(id.bytes().all(|byte| matches!(byte, b' '..=b'~')));
}

fn read_body(
    kind: BodyKind,
    stream: &[u8],
    piece_bytes: usize,
) -> Result<(usize, bool), BodyError> {
    let mut reader = BodyReader::new(kind, 4096)?;
    let (mut used_bytes, mut done) = (0, kind == BodyKind::None);
    for piece in stream.chunks(piece_bytes) {
        let (used, now_done) = reader.feed(piece)?;
        used_bytes += used;
        done = now_done;
        if done {
            break;
        }
    }
    Ok((used_bytes, done))
}

fuzz_target!(|data: &[u8]| {
    let mut stream = data;
    if let Ok(Some((_, header_bytes))) = parse_proxy(data) {
        stream = &data[header_bytes..];
    }
    let Ok(Some(head)) = parse_head(stream, &LIMITS) else {
        return;
    };
    for end in 0..head.len {
        assert_eq!(parse_head(&stream[..end], &LIMITS), Ok(None));
    }
    ask_everything(&head);
    if let Ok(kind) = head.body() {
        let rest = &stream[head.len..];
        assert_eq!(read_body(kind, rest, 1), read_body(kind, rest, usize::MAX));
    }
});
