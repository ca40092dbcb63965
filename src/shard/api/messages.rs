//! Validation of the batch endpoint's messages (protocol 16.1, http-api 6.5): positional errors, one bad message rejects all.
//!
//! Pure; works on the raw text so that payloads are forwarded as they came.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::protocol::phoenix::json::{as_string, elements, is_object, member, write_string};
use crate::realtime::payload_size;

const BLANK: &str = "can't be blank";
const INVALID: &str = "is invalid";

/// One message of a batch.
#[derive(Debug, PartialEq)]
pub(super) struct Message<'a> {
    pub sub_topic: Cow<'a, str>,
    pub event: Cow<'a, str>,
    pub payload: &'a str,
    pub private: bool,
    /// JSON object text for `meta`, or empty.
    pub metadata: String,
}

/// Reads and checks a batch body.
///
/// # Errors
/// The value of `errors` in the 422 answer.
pub(super) fn read_batch(body: &str, payload_bytes_max: u64) -> Result<Vec<Message<'_>>, Value> {
    let list = match member(body, "messages") {
        None => return Err(json!({ "messages": [BLANK] })),
        Some(list) if list.starts_with('[') => list,
        Some(_) => return Err(json!({ "messages": [INVALID] })),
    };
    let entries: Vec<&str> = elements(list).collect();
    if entries.is_empty() {
        return Err(json!({ "messages": [BLANK] }));
    }
    if !entries.iter().all(|entry| is_object(entry)) {
        return Err(json!({ "messages": [INVALID] }));
    }
    let mut errors = Vec::with_capacity(entries.len());
    let mut messages = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut found = Map::new();
        messages.push(read_message(entry, payload_bytes_max, &mut found));
        errors.push(Value::Object(found));
    }
    if errors.iter().all(|found| found.as_object().is_some_and(Map::is_empty)) {
        return Ok(messages);
    }
    Err(json!({ "messages": errors }))
}

fn read_message<'a>(entry: &'a str, payload_bytes_max: u64, errors: &mut Map<String, Value>) -> Message<'a> {
    let mut fail = |field: &str, text: &str| {
        errors.insert(field.to_owned(), json!([text]));
    };
    let mut required = |field: &str| match member(entry, field) {
        None | Some("null") => {
            fail(field, BLANK);
            None
        }
        Some(span) => match as_string(span) {
            Some(text) if text.trim().is_empty() => {
                fail(field, BLANK);
                None
            }
            Some(text) => Some(text),
            None => {
                fail(field, INVALID);
                None
            }
        },
    };
    let (sub_topic, event) = (required("topic").unwrap_or_default(), required("event").unwrap_or_default());
    let payload = member(entry, "payload").unwrap_or("null");
    match payload {
        "null" => fail("payload", BLANK),
        span if !is_object(span) => fail("payload", INVALID),
        span if payload_size::exceeds(span, payload_bytes_max) => fail("payload", PAYLOAD_TOO_LARGE),
        _ => {}
    }
    let private = match member(entry, "private") {
        None | Some("null" | "false" | "\"false\"" | "\"0\"") => false,
        Some("true" | "\"true\"" | "\"1\"") => true,
        Some(_) => {
            fail("private", INVALID);
            false
        }
    };
    let metadata = match member(entry, "id") {
        None | Some("null") => String::new(),
        Some(span) => match as_string(span) {
            Some(id) if id.trim().is_empty() => String::new(),
            Some(id) => id_metadata(&id),
            None => {
                fail("id", INVALID);
                String::new()
            }
        },
    };
    Message { sub_topic, event, payload, private, metadata }
}

/// Text of the 422 for oversized payloads, of both endpoints.
pub(super) const PAYLOAD_TOO_LARGE: &str = "Payload size exceeds tenant limit";

fn id_metadata(id: &str) -> String {
    let mut out = b"{\"id\":".to_vec();
    write_string(&mut out, id);
    out.push(b'}');
    String::from_utf8(out).expect("only text was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(body: &str) -> Value {
        read_batch(body, 1_500).expect_err(body)
    }

    #[test]
    fn the_shape_of_the_list() {
        for body in ["{}", r#"{"messages":[]}"#, "[1]"] {
            assert_eq!(errors(body), json!({"messages": ["can't be blank"]}), "{body}");
        }
        for body in [r#"{"messages":null}"#, r#"{"messages":"x"}"#, r#"{"messages":["x"]}"#] {
            assert_eq!(errors(body), json!({"messages": ["is invalid"]}), "{body}");
        }
    }

    #[test]
    fn errors_are_positional() {
        assert_eq!(
            errors(r#"{"messages":[{"topic":"a","event":"b"},{"topic":"a","event":"b","payload":{}}]}"#),
            json!({"messages": [{"payload": ["can't be blank"]}, {}]})
        );
        assert_eq!(
            errors(r#"{"messages":[{"topic":5,"event":" ","payload":[1],"private":"maybe","id":7}]}"#),
            json!({"messages": [{"topic": ["is invalid"], "event": ["can't be blank"], "payload": ["is invalid"], "private": ["is invalid"], "id": ["is invalid"]}]})
        );
        let big = format!(r#"{{"messages":[{{"topic":"a","event":"b","payload":{{"x":"{}"}}}}]}}"#, "y".repeat(2_000));
        assert_eq!(errors(&big), json!({"messages": [{"payload": ["Payload size exceeds tenant limit"]}]}));
    }

    #[test]
    fn good_messages_keep_their_payload() {
        let body = r#"{"messages":[{"topic":"a","event":"b","payload":{ "n" : 1.0 },"private":"true","id":"m\"1"}]}"#;
        let messages = read_batch(body, 1_500).unwrap();
        assert_eq!((messages[0].payload, messages[0].private), (r#"{ "n" : 1.0 }"#, true));
        assert_eq!(messages[0].metadata, r#"{"id":"m\"1"}"#);
    }
}
