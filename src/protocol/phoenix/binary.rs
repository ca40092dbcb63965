//! Binary frames of version 2 from the client: kinds 0 and 3 (protocol 3.4).
//!
//! All lengths are one byte, so a header is at most 7 + 5 × 255 bytes; a frame shorter than its header says is dropped.
//! A kind-3 payload flagged as JSON is validated here, because it is spliced unquoted into version 1 objects later.

use std::borrow::Cow;

use super::envelope::{Malformed, Payload, Push, UserBody};
use super::json::{self, Numbers};

/// Decodes one binary message of a version 2 socket.
///
/// # Errors
/// [`Malformed`] for unknown kinds, truncated headers, fields that are not UTF-8, metadata or JSON payloads that are not
/// JSON; the caller drops the frame.
pub fn decode_binary(message: &[u8]) -> Result<Push<'_>, Malformed> {
    match message {
        [0, j, r, t, e, rest @ ..] => {
            let ([join_ref, reference, topic, event], data) = fields([*j, *r, *t, *e], rest)?;
            Ok(push(join_ref, reference, topic, event, Payload::Opaque(data)))
        }
        [3, j, r, t, u, m, encoding, rest @ ..] => {
            let ([join_ref, reference, topic, event, metadata], data) = fields([*j, *r, *t, *u, *m], rest)?;
            if !metadata.is_empty() {
                json::validate(metadata, Numbers::Any).map_err(|_| Malformed::Message("metadata is not JSON"))?;
            }
            let body = if *encoding == 0 { UserBody::Binary(data) } else { UserBody::Json(json_body(data)?) };
            Ok(push(join_ref, reference, topic, "broadcast", Payload::User { event, metadata, body }))
        }
        [0 | 3, ..] => Err(Malformed::Unknown("truncated header")),
        [] => Err(Malformed::Unknown("empty binary message")),
        _ => Err(Malformed::Unknown("unknown kind")),
    }
}

fn json_body(data: &[u8]) -> Result<&str, Malformed> {
    const NOT_JSON: Malformed = Malformed::Message("payload is not JSON");
    let text = simdutf8::basic::from_utf8(data).map_err(|_| NOT_JSON)?;
    json::validate(text, Numbers::Any).map_err(|_| NOT_JSON)?;
    Ok(text)
}

fn fields<const N: usize>(lengths: [u8; N], mut rest: &[u8]) -> Result<([&str; N], &[u8]), Malformed> {
    let mut texts = [""; N];
    for (text, length) in texts.iter_mut().zip(lengths) {
        let (field, tail) = rest.split_at_checked(usize::from(length)).ok_or(Malformed::Unknown("truncated header"))?;
        *text = std::str::from_utf8(field).map_err(|_| Malformed::Unknown("a field is not UTF-8"))?;
        rest = tail;
    }
    Ok((texts, rest))
}

fn push<'a>(join_ref: &str, reference: &str, topic: &'a str, event: &'a str, payload: Payload<'a>) -> Push<'a> {
    Push {
        join_ref: Cow::Owned(quoted(join_ref)),
        reference: Cow::Owned(quoted(reference)),
        topic_json: Cow::Owned(quoted(topic)),
        topic: Some(Cow::Borrowed(topic)),
        event: Cow::Borrowed(event),
        payload,
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always encodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace().map(|b| u8::from_str_radix(b, 16).unwrap()).collect()
    }

    #[test]
    fn the_worked_examples() {
        let bytes = hex("03 01 01 0e 04 00 01 33 37 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 6d 6f 76 65 7b 22 78 22 3a 31 7d");
        let push = decode_binary(&bytes).unwrap();
        assert_eq!((&*push.join_ref, &*push.reference), ("\"3\"", "\"7\""));
        assert_eq!(push.topic.as_deref(), Some("realtime:room1"));
        assert_eq!(push.payload, Payload::User { event: "move", metadata: "", body: UserBody::Json("{\"x\":1}") });

        let bytes = hex("03 01 01 0e 04 00 00 33 38 72 65 61 6c 74 69 6d 65 3a 72 6f 6f 6d 31 62 6c 6f 62 00 ff 10");
        let push = decode_binary(&bytes).unwrap();
        assert_eq!(push.payload, Payload::User { event: "blob", metadata: "", body: UserBody::Binary(&[0, 255, 16]) });
    }

    #[test]
    fn malformed_frames() {
        for text in ["", "00", "03", "03 ff", "03 01 01 0e 04", "09 00", "04 01 01 01 01", "ff ff ff ff ff"] {
            assert!(matches!(decode_binary(&hex(text)), Err(Malformed::Unknown(_))), "{text}");
        }
        // JSON payload that is not JSON, metadata that is not JSON.
        assert!(matches!(decode_binary(b"\x03\0\0\x01\x01\0\x01te{\"x\":"), Err(Malformed::Message(_))));
        assert!(matches!(decode_binary(b"\x03\0\0\x01\x01\x01\x01te{{}"), Err(Malformed::Message(_))));
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode_binary(&bytes);
        }
    }
}
