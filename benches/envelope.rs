//! Phoenix messages: from the bytes of one WebSocket message to a routed push, and back into a frame.
//!
//! Guards P4 (CPU per delivery of the mix: every message is decoded once) and P1/P2 (a broadcast is encoded once per
//! serializer, however many receive it). `validate` is the largest part of decoding and therefore stands beside two
//! libraries: the README says how it compares. They do not check the same: only `ringcast_finite` and the parsers that
//! build values refuse numbers that no double can hold; `ringcast_any` and `serde_json_ignored` check the grammar alone.
//!
//! Payload `200 B` is a typical message, `10 KB` many small records, `10 KB text` one long string.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use ringcast::protocol::phoenix::envelope::UserBody;
use ringcast::protocol::phoenix::json::{self, Numbers};
use ringcast::protocol::phoenix::{Vsn, decode_binary, decode_text, encode};
use serde::de::IgnoredAny;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOPIC: &str = "realtime:room-4711";
const TOPIC_JSON: &str = "\"realtime:room-4711\"";
const PAYLOADS: [&str; 3] = ["200 B", "10 KB", "10 KB text"];

fn main() {
    divan::main();
}

/// The payload of a broadcast push with the given name.
fn payload(name: &str) -> String {
    let content = match name {
        "10 KB" => {
            let record =
                |n: u32| format!(r#"{{"id":{n},"x":{}.25,"y":-{n}.5e1,"name":"user {n}","ok":true,"tags":[1,null]}}"#, n * 3);
            format!("[{}]", (0..140).map(record).collect::<Vec<_>>().join(","))
        }
        "10 KB text" => format!("\"{}\"", "lorem ipsum dolor sit amet ".repeat(380)),
        _ => format!(r#"{{"x":104.25,"y":-77.5,"user":"7b0c9d","text":"{}","at":1750000000123}}"#, "hello there ".repeat(7)),
    };
    format!(r#"{{"type":"broadcast","event":"move","payload":{content}}}"#)
}

fn bench_text(bencher: Bencher, vsn: Vsn, message: &str) {
    assert!(decode_text(vsn, message.as_bytes()).is_ok());
    bencher
        .counter(BytesCount::of_str(message))
        .bench_local(|| decode_text(vsn, black_box(message.as_bytes())).map(|push| black_box(push).topic.is_some()));
}

#[divan::bench(args = PAYLOADS)]
fn decode_text_v1(bencher: Bencher, name: &str) {
    let payload = payload(name);
    let message = format!(r#"{{"topic":"{TOPIC}","event":"broadcast","payload":{payload},"ref":"42","join_ref":"1"}}"#);
    bench_text(bencher, Vsn::V1, &message);
}

#[divan::bench(args = PAYLOADS)]
fn decode_text_v2(bencher: Bencher, name: &str) {
    bench_text(bencher, Vsn::V2, &format!(r#"["1","42","{TOPIC}","broadcast",{}]"#, payload(name)));
}

/// Kind 3, the user broadcast of version 2; encoding 0 is bytes, 1 is JSON.
fn bench_kind_3(bencher: Bencher, encoding: u8, name: &str) {
    let mut message = vec![3, 1, 2, TOPIC.len() as u8, 4, 0, encoding];
    message.extend_from_slice(b"142");
    message.extend_from_slice(TOPIC.as_bytes());
    message.extend_from_slice(b"move");
    message.extend_from_slice(payload(name).as_bytes());
    assert!(decode_binary(&message).is_ok());
    bencher
        .counter(BytesCount::of_slice(&message))
        .bench_local(|| decode_binary(black_box(&message)).map(|push| black_box(push).topic.is_some()));
}

#[divan::bench(args = PAYLOADS)]
fn decode_binary_json(bencher: Bencher, name: &str) {
    bench_kind_3(bencher, 1, name);
}

#[divan::bench(args = ["200 B", "10 KB"])]
fn decode_binary_bytes(bencher: Bencher, name: &str) {
    bench_kind_3(bencher, 0, name);
}

/// The same check by this crate and by two libraries.
mod validate {
    use super::*;

    fn ringcast(bencher: Bencher, name: &str, numbers: Numbers) {
        let text = payload(name);
        bencher.counter(BytesCount::of_str(&text)).bench_local(|| json::validate(black_box(&text), numbers));
    }

    #[divan::bench(args = PAYLOADS)]
    fn ringcast_finite(bencher: Bencher, name: &str) {
        ringcast(bencher, name, Numbers::Finite);
    }

    #[divan::bench(args = PAYLOADS)]
    fn ringcast_any(bencher: Bencher, name: &str) {
        ringcast(bencher, name, Numbers::Any);
    }

    /// With its buffers and tape kept; the copy is part of it, because the parser overwrites its input.
    #[divan::bench(args = PAYLOADS)]
    fn simd_json_tape(bencher: Bencher, name: &str) {
        let text = payload(name);
        let mut scratch = Vec::with_capacity(text.len());
        let mut buffers = simd_json::Buffers::new(text.len());
        bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
            scratch.clear();
            scratch.extend_from_slice(black_box(text.as_bytes()));
            simd_json::to_tape_with_buffers(&mut scratch, &mut buffers).is_ok()
        });
    }

    #[divan::bench(args = PAYLOADS)]
    fn serde_json_ignored(bencher: Bencher, name: &str) {
        let text = payload(name);
        bencher.counter(BytesCount::of_str(&text)).bench_local(|| serde_json::from_str::<IgnoredAny>(black_box(&text)).is_ok());
    }

    #[divan::bench(args = PAYLOADS)]
    fn serde_json_value(bencher: Bencher, name: &str) {
        let text = payload(name);
        bencher
            .counter(BytesCount::of_str(&text))
            .bench_local(|| serde_json::from_str::<serde_json::Value>(black_box(&text)).is_ok());
    }
}

/// A broadcast pushed as text, for the members of one serializer.
mod fan_out {
    use super::*;

    fn run(bencher: Bencher, vsn: Vsn, name: &str) {
        let payload = payload(name);
        bencher
            .counter(BytesCount::of_str(&payload))
            .bench_local(|| encode::fan_out(vsn, TOPIC_JSON, "broadcast", black_box(&payload)));
    }

    #[divan::bench(args = ["200 B", "10 KB"])]
    fn v1(bencher: Bencher, name: &str) {
        run(bencher, Vsn::V1, name);
    }

    #[divan::bench(args = ["200 B", "10 KB"])]
    fn v2(bencher: Bencher, name: &str) {
        run(bencher, Vsn::V2, name);
    }
}

/// A broadcast pushed as kind 3: an object in version 1, kind 4 in version 2.
mod user_broadcast {
    use super::*;

    fn run(bencher: Bencher, vsn: Vsn, name: &str) {
        let payload = payload(name);
        bencher
            .counter(BytesCount::of_str(&payload))
            .bench_local(|| encode::user_broadcast(vsn, TOPIC, TOPIC_JSON, "move", "", UserBody::Json(black_box(&payload))));
    }

    #[divan::bench(args = ["200 B", "10 KB"])]
    fn v1(bencher: Bencher, name: &str) {
        run(bencher, Vsn::V1, name);
    }

    #[divan::bench(args = ["200 B", "10 KB"])]
    fn v2(bencher: Bencher, name: &str) {
        run(bencher, Vsn::V2, name);
    }
}
