//! Text frames of both serializers (protocol 3.2, 3.3): finds topic, event, refs and the raw span of the payload.
//!
//! Called once per text message (and per binary message of a version 1 socket). Nothing is copied unless a string holds
//! escapes. The whole text is validated, so every span handed out is valid JSON.

use std::borrow::Cow;

use super::Vsn;
use super::json::{Numbers, Scanner, as_string, unescape};

/// One client message, whatever frame it came in.
#[derive(Debug, PartialEq)]
pub struct Push<'a> {
    /// JSON text of the join reference, `null` when absent; echoed as received.
    pub join_ref: Cow<'a, str>,
    /// JSON text of the reference, echoed as received.
    pub reference: Cow<'a, str>,
    /// JSON text of the topic, echoed as received even when it is not a string.
    pub topic_json: Cow<'a, str>,
    /// The topic when it is a string.
    pub topic: Option<Cow<'a, str>>,
    /// The event; empty when it is not a string (no such event exists).
    pub event: Cow<'a, str>,
    /// What the message carries.
    pub payload: Payload<'a>,
}

/// The three things a push can carry.
#[derive(Debug, PartialEq)]
pub enum Payload<'a> {
    /// JSON text of a text frame.
    Json(&'a str),
    /// Kind 3: a user broadcast with its own event name.
    User {
        /// User event.
        event: &'a str,
        /// JSON object text, may be empty.
        metadata: &'a str,
        /// User payload.
        body: UserBody<'a>,
    },
    /// Kind 0: opaque bytes under a Phoenix event.
    Opaque(&'a [u8]),
}

/// Payload of a user broadcast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UserBody<'a> {
    /// Valid JSON text.
    Json(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

impl UserBody<'_> {
    /// Bytes of text or of data.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// Why a frame was dropped; decides the log code of 3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// `MalformedWebSocketMessage`: not the serializer's JSON.
    Message(&'static str),
    /// `UnknownErrorOnWebSocketMessage`: nothing the serializer knows.
    Unknown(&'static str),
}

/// Decodes one text message.
///
/// # Errors
/// [`Malformed`] for anything that is not a message of the serializer; the caller drops the frame.
pub fn decode_text(vsn: Vsn, message: &[u8]) -> Result<Push<'_>, Malformed> {
    let text = simdutf8::basic::from_utf8(message).map_err(|_| Malformed::Message("invalid UTF-8"))?;
    match vsn {
        Vsn::V1 => decode_object(text),
        Vsn::V2 => decode_array(text),
    }
}

fn not_json<E>(_: E) -> Malformed {
    Malformed::Message("invalid JSON")
}

fn decode_array(text: &str) -> Result<Push<'_>, Malformed> {
    let mut scanner = Scanner::new(text, Numbers::Finite);
    if scanner.peek() != b'[' {
        super::json::validate(text, Numbers::Finite).map_err(not_json)?;
        return Err(Malformed::Message("not an array"));
    }
    scanner.expect(b'[').map_err(not_json)?;
    let mut parts = [""; 5];
    let mut count = 0;
    if scanner.peek() == b']' {
        return Err(Malformed::Message("fewer than five elements"));
    }
    loop {
        let value = scanner.value().map_err(not_json)?;
        if let Some(part) = parts.get_mut(count) {
            *part = value;
        }
        count += 1;
        if scanner.peek() == b']' {
            break;
        }
        scanner.expect(b',').map_err(not_json)?;
    }
    scanner.expect(b']').map_err(not_json)?;
    if !scanner.at_end() {
        return Err(Malformed::Message("text after the array"));
    }
    if count < 5 {
        return Err(Malformed::Message("fewer than five elements"));
    }
    let [join_ref, reference, topic, event, payload] = parts;
    Ok(push(join_ref, reference, topic, event, payload))
}

fn decode_object(text: &str) -> Result<Push<'_>, Malformed> {
    let mut scanner = Scanner::new(text, Numbers::Finite);
    if scanner.peek() != b'{' {
        super::json::validate(text, Numbers::Finite).map_err(not_json)?;
        return Err(Malformed::Unknown("not an object"));
    }
    scanner.expect(b'{').map_err(not_json)?;
    let [mut topic, mut event, mut payload, mut reference, mut join_ref] = [None; 5];
    let mut open = scanner.peek() != b'}';
    while open {
        let key = unescape(scanner.string().map_err(not_json)?);
        scanner.expect(b':').map_err(not_json)?;
        let value = scanner.value().map_err(not_json)?;
        let slot = match &*key {
            "topic" => Some(&mut topic),
            "event" => Some(&mut event),
            "payload" => Some(&mut payload),
            "ref" => Some(&mut reference),
            "join_ref" => Some(&mut join_ref),
            _ => None,
        };
        if let Some(slot) = slot {
            slot.get_or_insert(value);
        }
        open = scanner.expect(b',').is_ok();
    }
    scanner.expect(b'}').map_err(not_json)?;
    if !scanner.at_end() {
        return Err(Malformed::Message("text after the object"));
    }
    match (topic, event, payload, reference) {
        (Some(topic), Some(event), Some(payload), Some(reference)) => {
            Ok(push(join_ref.unwrap_or("null"), reference, topic, event, payload))
        }
        _ => Err(Malformed::Message("topic, event, payload and ref are required")),
    }
}

fn push<'a>(join_ref: &'a str, reference: &'a str, topic: &'a str, event: &'a str, payload: &'a str) -> Push<'a> {
    Push {
        join_ref: Cow::Borrowed(join_ref),
        reference: Cow::Borrowed(reference),
        topic_json: Cow::Borrowed(topic),
        topic: as_string(topic),
        event: as_string(event).unwrap_or_default(),
        payload: Payload::Json(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn array_of_five_or_more() {
        let push = decode_text(Vsn::V2, br#" ["1", 7 ,"realtime:a","x",{"n":1e2} , "more", 6] "#).unwrap();
        assert_eq!((&*push.join_ref, &*push.reference), ("\"1\"", "7"));
        assert_eq!(push.topic.as_deref(), Some("realtime:a"));
        assert_eq!((&*push.event, push.payload), ("x", Payload::Json("{\"n\":1e2}")));
    }

    #[test]
    fn object_with_the_four_keys() {
        let push =
            decode_text(Vsn::V1, br#"{"topic":"t","event":"e","payload":{},"ref":null,"topic":"second","x":[1]}"#).unwrap();
        assert_eq!(push.topic.as_deref(), Some("t"));
        assert_eq!((&*push.join_ref, &*push.reference), ("null", "null"));
    }

    #[test]
    fn malformed_messages_are_told_apart() {
        for text in [
            "",
            "not json",
            "{",
            "[]",
            "[1,2]",
            r#"["1","2","realtime:room1","broadcast"]"#,
            "{\"topic\":1}",
            "17",
            "null",
            r#"["1","2","t","e",{}] x"#,
            r#"["1","2","t","e",{"n":1e400}]"#,
            "[1,2,3,4,5",
        ] {
            assert!(matches!(decode_text(Vsn::V2, text.as_bytes()), Err(Malformed::Message(_))), "{text}");
        }
        for text in ["", "not json", "{}", r#"{"topic":"a","event":"b","payload":{}}"#] {
            assert!(matches!(decode_text(Vsn::V1, text.as_bytes()), Err(Malformed::Message(_))), "{text}");
        }
        for text in ["5", "null", r#"["1","1","t","e",{}]"#] {
            assert!(matches!(decode_text(Vsn::V1, text.as_bytes()), Err(Malformed::Unknown(_))), "{text}");
        }
        assert!(decode_text(Vsn::V2, b"[null,\"\xff\",1,2,3]").is_err());
    }

    #[test]
    fn a_topic_that_is_no_string_keeps_its_text() {
        let push = decode_text(Vsn::V2, br#"[null,"1",{"a":1},"heartbeat",{}]"#).unwrap();
        assert_eq!((push.topic.is_none(), &*push.topic_json), (true, "{\"a\":1}"));
    }
}
