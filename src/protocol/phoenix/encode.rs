//! Server messages as whole WebSocket frames (protocol 3.2–3.4).
//!
//! Every function returns header and body in one buffer, so a frame is encoded once per serializer and then shared.
//! `*_json` arguments are JSON texts (strings with quotes), spliced as they are.

use bytes::Bytes;

use super::Vsn;
use super::envelope::UserBody;
use super::json::write_string;
use crate::protocol::websocket::{Opcode, encode_header};

/// Longest WebSocket header of a server frame.
const HEADER_BYTES_MAX: usize = 10;

/// Longest topic, event or metadata of a kind-4 frame: their length fields are one byte.
pub const BINARY_FIELD_BYTES_MAX: usize = 255;

/// Builds one frame: the body is written behind room for the header.
fn frame(opcode: Opcode, body_bytes_hint: usize, body: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut buffer = Vec::with_capacity(HEADER_BYTES_MAX + body_bytes_hint);
    buffer.resize(HEADER_BYTES_MAX, 0);
    body(&mut buffer);
    let mut header = [0; HEADER_BYTES_MAX];
    let header_len = encode_header(&mut header, opcode, buffer.len() - HEADER_BYTES_MAX);
    let start = HEADER_BYTES_MAX - header_len;
    buffer[start..HEADER_BYTES_MAX].copy_from_slice(&header[..header_len]);
    let mut bytes = Bytes::from(buffer);
    bytes::Buf::advance(&mut bytes, start);
    bytes
}

/// The five fields of a message; `reference` and `join_ref` are JSON texts.
struct Envelope<'a> {
    join_ref: &'a str,
    reference: &'a str,
    topic_json: &'a str,
    event: &'a str,
}

impl Envelope<'_> {
    fn write(&self, vsn: Vsn, body_bytes_hint: usize, payload: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let hint = body_bytes_hint + self.topic_json.len() + self.event.len() + self.join_ref.len() + self.reference.len() + 64;
        frame(Opcode::Text, hint, |out| match vsn {
            Vsn::V1 => {
                out.extend_from_slice(b"{\"topic\":");
                out.extend_from_slice(self.topic_json.as_bytes());
                out.extend_from_slice(b",\"event\":");
                write_string(out, self.event);
                out.extend_from_slice(b",\"payload\":");
                payload(out);
                out.extend_from_slice(b",\"ref\":");
                out.extend_from_slice(self.reference.as_bytes());
                out.push(b'}');
            }
            Vsn::V2 => {
                out.push(b'[');
                out.extend_from_slice(self.join_ref.as_bytes());
                out.push(b',');
                out.extend_from_slice(self.reference.as_bytes());
                out.push(b',');
                out.extend_from_slice(self.topic_json.as_bytes());
                out.push(b',');
                write_string(out, self.event);
                out.push(b',');
                payload(out);
                out.push(b']');
            }
        })
    }
}

/// Outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// `ok`
    Ok,
    /// `error`
    Error,
}

/// A `phx_reply`; `response_json` is the value of `response`.
pub fn reply(vsn: Vsn, join_ref: &str, reference: &str, topic_json: &str, status: Status, response_json: &str) -> Bytes {
    let head: &[u8] = match status {
        Status::Ok => b"{\"status\":\"ok\",\"response\":",
        Status::Error => b"{\"status\":\"error\",\"response\":",
    };
    Envelope { join_ref, reference, topic_json, event: "phx_reply" }.write(vsn, head.len() + response_json.len() + 1, |out| {
        out.extend_from_slice(head);
        out.extend_from_slice(response_json.as_bytes());
        out.push(b'}');
    })
}

/// A message of one channel to its own client: carries the join reference in version 2.
pub fn direct(vsn: Vsn, join_ref: &str, topic_json: &str, event: &str, payload_json: &str) -> Bytes {
    Envelope { join_ref, reference: "null", topic_json, event }
        .write(vsn, payload_json.len(), |out| out.extend_from_slice(payload_json.as_bytes()))
}

/// `phx_close` or `phx_error`: both references are the join reference (4.8).
pub fn channel_end(vsn: Vsn, join_ref: &str, topic_json: &str, event: &str, payload_json: &str) -> Bytes {
    Envelope { join_ref, reference: join_ref, topic_json, event }
        .write(vsn, payload_json.len(), |out| out.extend_from_slice(payload_json.as_bytes()))
}

/// A message for every member of a topic.
pub fn fan_out(vsn: Vsn, topic_json: &str, event: &str, payload_json: &str) -> Bytes {
    Envelope { join_ref: "null", reference: "null", topic_json, event }
        .write(vsn, payload_json.len(), |out| out.extend_from_slice(payload_json.as_bytes()))
}

/// A user broadcast as its receivers see it (8.3): kind 4 in version 2, an object in version 1.
/// `metadata` is JSON object text or empty. `None` when the serializer cannot carry it: binary payloads in version 1, and
/// in version 2 when a name does not fit its length byte.
pub fn user_broadcast(vsn: Vsn, topic: &str, topic_json: &str, event: &str, metadata: &str, body: UserBody<'_>) -> Option<Bytes> {
    let fits = [topic, event, metadata].iter().all(|field| field.len() <= BINARY_FIELD_BYTES_MAX);
    match (vsn, body) {
        (Vsn::V2, _) if fits => Some(kind_4(topic, event, metadata, body)),
        (_, UserBody::Json(json)) => Some(user_text(vsn, topic_json, event, metadata, json)),
        (_, UserBody::Binary(_)) => None,
    }
}

/// A stored message for one channel that just joined (9): text with the channel's join reference, or kind 4 where the payload
/// is binary. `None` when the serializer cannot carry it.
pub fn replayed(
    vsn: Vsn,
    join_ref: &str,
    topic: &str,
    topic_json: &str,
    event: &str,
    metadata: &str,
    body: UserBody<'_>,
) -> Option<Bytes> {
    match body {
        UserBody::Json(json) => Some(user_envelope(vsn, join_ref, topic_json, event, metadata, json)),
        UserBody::Binary(_) => user_broadcast(vsn, topic, topic_json, event, metadata, body),
    }
}

/// A user broadcast with a JSON payload as text in either version (the HTTP batch endpoint, 8.3).
pub fn user_text(vsn: Vsn, topic_json: &str, event: &str, metadata: &str, payload_json: &str) -> Bytes {
    user_envelope(vsn, "null", topic_json, event, metadata, payload_json)
}

fn user_envelope(vsn: Vsn, join_ref: &str, topic_json: &str, event: &str, metadata: &str, payload_json: &str) -> Bytes {
    let hint = payload_json.len() + event.len() + metadata.len() + 64;
    Envelope { join_ref, reference: "null", topic_json, event: "broadcast" }.write(vsn, hint, |out| {
        out.extend_from_slice(b"{\"type\":\"broadcast\",\"event\":");
        write_string(out, event);
        out.extend_from_slice(b",\"payload\":");
        out.extend_from_slice(payload_json.as_bytes());
        if !metadata.is_empty() {
            out.extend_from_slice(b",\"meta\":");
            out.extend_from_slice(metadata.as_bytes());
        }
        out.push(b'}');
    })
}

fn kind_4(topic: &str, event: &str, metadata: &str, body: UserBody<'_>) -> Bytes {
    let (encoding, data) = match body {
        UserBody::Json(json) => (1, json.as_bytes()),
        UserBody::Binary(data) => (0, data),
    };
    let length = |field: &str| u8::try_from(field.len()).expect("callers check that names fit one byte");
    frame(Opcode::Binary, 5 + topic.len() + event.len() + metadata.len() + data.len(), |out| {
        out.extend_from_slice(&[4, length(topic), length(event), length(metadata), encoding]);
        for field in [topic, event, metadata] {
            out.extend_from_slice(field.as_bytes());
        }
        out.extend_from_slice(data);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(frame: &[u8]) -> &[u8] {
        match frame[1] {
            126 => &frame[4..],
            127 => &frame[10..],
            _ => &frame[2..],
        }
    }

    fn text(frame: &[u8]) -> &str {
        std::str::from_utf8(body(frame)).unwrap()
    }

    #[test]
    fn replies_in_both_versions() {
        let v2 = reply(Vsn::V2, "\"1\"", "\"4\"", "\"realtime:a\"", Status::Ok, "{}");
        assert_eq!(text(&v2), r#"["1","4","realtime:a","phx_reply",{"status":"ok","response":{}}]"#);
        let v1 = reply(Vsn::V1, "\"1\"", "\"4\"", "\"realtime:a\"", Status::Error, "{\"reason\":\"x\"}");
        let expected =
            r#"{"topic":"realtime:a","event":"phx_reply","payload":{"status":"error","response":{"reason":"x"}},"ref":"4"}"#;
        assert_eq!(text(&v1), expected);
    }

    #[test]
    fn ends_carry_the_join_reference_twice() {
        let v2 = channel_end(Vsn::V2, "\"1\"", "\"t\"", "phx_close", "{}");
        assert_eq!(text(&v2), r#"["1","1","t","phx_close",{}]"#);
        let v1 = channel_end(Vsn::V1, "null", "\"t\"", "phx_close", "{}");
        assert_eq!(text(&v1), r#"{"topic":"t","event":"phx_close","payload":{},"ref":null}"#);
    }

    #[test]
    fn kind_4_is_the_worked_example() {
        let frame =
            user_broadcast(Vsn::V2, "realtime:room1", "\"realtime:room1\"", "move", "", UserBody::Json("{\"x\":1}")).unwrap();
        assert_eq!(body(&frame), b"\x04\x0e\x04\x00\x01realtime:room1move{\"x\":1}");
        assert!(user_broadcast(Vsn::V1, "t", "\"t\"", "e", "", UserBody::Binary(b"x")).is_none());
    }

    #[test]
    fn names_over_255_bytes_fall_back_to_text() {
        let event = "e".repeat(256);
        let frame = user_broadcast(Vsn::V2, "t", "\"t\"", &event, "", UserBody::Json("1")).unwrap();
        assert!(text(&frame).starts_with(r#"[null,null,"t","broadcast",{"type":"broadcast","event":"eee"#));
        assert!(user_broadcast(Vsn::V2, "t", "\"t\"", &event, "", UserBody::Binary(b"x")).is_none());
    }

    #[test]
    fn header_lengths_follow_the_body() {
        for (payload, header) in [(10, 2), (200, 4), (70_000, 10)] {
            let json = format!("\"{}\"", "x".repeat(payload));
            let frame = fan_out(Vsn::V2, "\"t\"", "e", &json);
            assert!(text(&frame).starts_with("[null,null,\"t\",\"e\",\"x"), "{header}");
            assert_eq!(frame.len() - body(&frame).len(), header);
        }
    }
}
