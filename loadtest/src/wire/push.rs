//! Phoenix messages: what the generator pushes, how it tells incoming frames apart, and the byte scan by which
//! the floor reads a push without a JSON parser.
//!
//! Protocol sections 3 (serializers), 4 (channels), 5 (join). The generator never parses JSON: a fan-out frame is
//! recognised by its first bytes, everything else is rare and searched for markers.

use memchr::memmem;

/// Serializer of a connection, fixed by `vsn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `vsn=1.0.0`: JSON objects.
    V1,
    /// `vsn=2.0.0`: JSON arrays and binary frames.
    V2,
}

impl Dialect {
    /// Text of the `vsn` query parameter.
    pub fn vsn(self) -> &'static str {
        match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
        }
    }

    /// One message in this dialect; `reference` serves as ref and, if given, `join_ref` as join ref.
    pub fn message(self, join_ref: Option<&str>, reference: &str, topic: &str, event: &str, payload: &str) -> String {
        let join = join_ref.map_or_else(|| "null".to_owned(), |text| format!("\"{text}\""));
        match self {
            Self::V1 => {
                format!(r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":"{reference}","join_ref":{join}}}"#)
            }
            Self::V2 => format!(r#"[{join},"{reference}","{topic}","{event}",{payload}]"#),
        }
    }

    /// The heartbeat message.
    pub fn heartbeat(self) -> String {
        self.message(None, "0", "phoenix", "heartbeat", "{}")
    }

    /// Which kind of message `payload` is.
    #[inline]
    pub fn classify(self, payload: &[u8]) -> Kind {
        match self {
            Self::V2 if payload.starts_with(b"[null,null,") || payload.first() == Some(&4) => Kind::Delivery,
            Self::V2 => classify_control(payload),
            Self::V1 => match classify_control(payload) {
                Kind::Other => Kind::Delivery,
                control => control,
            },
        }
    }
}

/// What an incoming message means to the generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A fan-out message: broadcast or presence diff.
    Delivery,
    /// A `phx_reply` with status ok.
    Accepted,
    /// A `phx_reply` with status error.
    Rejected,
    /// The channel ended: `phx_close`, `phx_error`, or a `system` error that announces it.
    Ended,
    /// A direct push that needs no attention.
    Other,
}

fn classify_control(payload: &[u8]) -> Kind {
    let has = |needle: &[u8]| memmem::find(payload, needle).is_some();
    if has(b"\"phx_reply\"") {
        return if has(br#""status":"ok""#) { Kind::Accepted } else { Kind::Rejected };
    }
    if has(b"\"phx_close\"") || has(b"\"phx_error\"") || (has(b"\"system\"") && has(br#""status":"error""#)) {
        return Kind::Ended;
    }
    Kind::Other
}

/// One channel that a connection joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// Full topic, beginning with `realtime:`.
    pub topic: String,
    /// Whether own broadcasts come back.
    pub echo: bool,
    /// Whether the presence state is asked for.
    pub presence: bool,
    /// Whether the policies of the tenant's database decide about the join.
    pub private: bool,
    /// Whether the server is asked to tell when it streams rows from the database (protocol 7.4).
    pub replication_ready: bool,
    /// What is wanted of the database's changes: the elements of `postgres_changes` as JSON (protocol 11).
    pub changes: String,
}

impl Channel {
    /// A channel on `realtime:NAME` that receives others' broadcasts only.
    pub fn named(name: impl std::fmt::Display) -> Self {
        Self {
            topic: format!("realtime:{name}"),
            echo: false,
            presence: false,
            private: false,
            replication_ready: false,
            changes: String::new(),
        }
    }

    /// The same channel with own broadcasts delivered back.
    pub fn echoing(self) -> Self {
        Self { echo: true, ..self }
    }

    /// The payload of this channel's `phx_join`; `access_token` as the official client sends it, if wanted.
    pub fn join_payload(&self, access_token: Option<&str>) -> String {
        let token = access_token.map_or_else(String::new, |token| format!(r#","access_token":"{token}""#));
        let ready = if self.replication_ready { r#","replication_ready":true"# } else { "" };
        format!(
            r#"{{"config":{{"broadcast":{{"ack":false,"self":{}{ready}}},"presence":{{"key":"","enabled":{}}},"postgres_changes":[{}],"private":{}}}{token}}}"#,
            self.echo, self.presence, self.changes, self.private
        )
    }
}

/// The five elements of a V2 text push as raw slices of the frame; strings keep their quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Push<'a> {
    /// First element, raw JSON.
    pub join_ref: &'a [u8],
    /// Second element, raw JSON.
    pub reference: &'a [u8],
    /// Third element, raw JSON.
    pub topic: &'a [u8],
    /// Fourth element, raw JSON.
    pub event: &'a [u8],
    /// Fifth element, raw JSON.
    pub payload: &'a [u8],
}

/// Splits a V2 text push; `None` when it is not an array of strings or nulls followed by a payload.
#[inline]
pub fn split(text: &[u8]) -> Option<Push<'_>> {
    let mut rest = text.strip_prefix(b"[")?;
    let mut next = || {
        let end = if rest.first() == Some(&b'"') { string_end(rest)? } else { memchr::memchr(b',', rest)? };
        let (element, tail) = rest.split_at(end);
        rest = tail.strip_prefix(b",")?;
        Some(element)
    };
    let (join_ref, reference, topic, event) = (next()?, next()?, next()?, next()?);
    let payload = rest.strip_suffix(b"]")?;
    Some(Push { join_ref, reference, topic, event, payload })
}

/// Length of the JSON string at the start of `bytes`, both quotes included.
fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_splits_into_its_five_elements() {
        let push = split(br#"["1",null,"realtime:a,\"b","broadcast",{"x":[1,2]}]"#).unwrap();
        assert_eq!(push.join_ref, br#""1""#);
        assert_eq!(push.reference, b"null");
        assert_eq!(push.topic, br#""realtime:a,\"b""#);
        assert_eq!(push.event, br#""broadcast""#);
        assert_eq!(push.payload, br#"{"x":[1,2]}"#);
    }

    #[test]
    fn what_is_not_a_push_is_none() {
        for text in ["", "[", "{}", "[null,null", r#"["1","2","t"#, r#"["1","2","t\"#, r#"["1","2","t","e"]"#] {
            assert_eq!(split(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn both_dialects_write_valid_json() {
        let channel = Channel::named("room").echoing();
        let payload = channel.join_payload(Some("a.b.c"));
        for dialect in [Dialect::V1, Dialect::V2] {
            let text = dialect.message(Some("1"), "2", &channel.topic, "phx_join", &payload);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            let payload = if dialect == Dialect::V1 { &value["payload"] } else { &value[4] };
            assert_eq!(payload["config"]["broadcast"]["self"], true);
            assert_eq!(payload["access_token"], "a.b.c");
            assert_eq!(payload["config"]["private"], false);
        }
        let changes = r#"{"event":"INSERT","schema":"public"}"#.to_owned();
        let private = Channel { private: true, replication_ready: true, changes, ..channel }.join_payload(None);
        let value: serde_json::Value = serde_json::from_str(&private).unwrap();
        assert_eq!(
            (&value["config"]["private"], &value["config"]["broadcast"]["replication_ready"]),
            (&true.into(), &true.into())
        );
        assert_eq!(value["config"]["postgres_changes"], serde_json::json!([{"event": "INSERT", "schema": "public"}]));
        assert_eq!(Dialect::V2.heartbeat(), r#"[null,"0","phoenix","heartbeat",{}]"#);
    }

    #[test]
    fn incoming_messages_are_told_apart() {
        let v2 = |text: &str| Dialect::V2.classify(text.as_bytes());
        assert_eq!(v2(r#"[null,null,"realtime:a","broadcast",{"event":"phx_close"}]"#), Kind::Delivery);
        assert_eq!(v2("\u{4}\u{1}"), Kind::Delivery);
        assert_eq!(v2(r#"["1","1","realtime:a","phx_reply",{"status":"ok","response":{}}]"#), Kind::Accepted);
        assert_eq!(v2(r#"["1","1","realtime:a","phx_reply",{"status":"error","response":{}}]"#), Kind::Rejected);
        assert_eq!(v2(r#"["1","1","realtime:a","phx_close",{}]"#), Kind::Ended);
        assert_eq!(v2(r#"["1",null,"realtime:a","presence_state",{}]"#), Kind::Other);
        let v1 = |text: &str| Dialect::V1.classify(text.as_bytes());
        assert_eq!(v1(r#"{"topic":"t","event":"broadcast","payload":{},"ref":null}"#), Kind::Delivery);
        assert_eq!(v1(r#"{"topic":"t","event":"phx_reply","payload":{"status":"ok"},"ref":"1"}"#), Kind::Accepted);
    }
}
