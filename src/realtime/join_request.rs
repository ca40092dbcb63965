//! The payload of `phx_join` (section 5): lenient by contract, since validation never rejects (5.2).
//!
//! Works on the raw text, because the entries of `postgres_changes` are echoed exactly as received.

use std::borrow::Cow;

use super::database::Replay;
use super::refusal::Refusal;
use crate::protocol::phoenix::json::{self, as_string, elements, is_object, member};

/// Unix milliseconds that are a date between the years −9999 and 9999.
const UNIX_MS_RANGE: std::ops::RangeInclusive<i64> = -377_705_116_800_000..=253_402_300_799_999;

/// Stored messages to send when a row limit is not given.
const REPLAY_LIMIT_DEFAULT: i64 = 25;

/// The `replay` key (section 9).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum ReplayRequest {
    /// Not there.
    #[default]
    Absent,
    /// There, but not an object: without effect on private channels.
    Ignored,
    /// An object that does not say since when, or not in integers.
    Invalid,
    /// Stored messages are wanted.
    Wanted(Replay),
}

impl ReplayRequest {
    fn parse(span: Option<&str>) -> Self {
        let Some(span) = span else { return Self::Absent };
        if !is_object(span) {
            return Self::Ignored;
        }
        let integer = |span: &str| span.parse::<i64>().ok();
        let since = member(span, "since").and_then(integer).filter(|since| UNIX_MS_RANGE.contains(since));
        let limit = match member(span, "limit") {
            None => Some(REPLAY_LIMIT_DEFAULT),
            Some(span) => integer(span),
        };
        match (since, limit) {
            (Some(since_unix_ms), Some(limit)) => Self::Wanted(Replay { since_unix_ms, limit }),
            _ => Self::Invalid,
        }
    }

    /// The key is there, whatever its value.
    pub fn is_present(self) -> bool {
        self != Self::Absent
    }
}

/// What a join asks for, defaults applied.
#[derive(Debug, Default, PartialEq)]
pub struct JoinRequest<'a> {
    /// Reply to every broadcast.
    pub ack: bool,
    /// Deliver own broadcasts.
    pub self_broadcast: bool,
    /// Private channel.
    pub private: bool,
    /// What `replay` says.
    pub replay: ReplayRequest,
    /// Ask for the message of 7.4.
    pub replication_ready: bool,
    /// Wants `presence_state`.
    pub presence_enabled: bool,
    /// Presence key; `None` means generated.
    pub presence_key: Option<Cow<'a, str>>,
    /// Entries of `postgres_changes` as received, nulls removed.
    pub postgres_changes: Vec<&'a str>,
    /// No `config` key: the sub-topic describes a subscription (5.6).
    pub legacy: bool,
    /// Token named by the payload (5.3); `None` means the connection token.
    pub token: Option<Cow<'a, str>>,
    /// Fields whose value was invalid and replaced by the default, for `InvalidJoinPayload`.
    pub invalid: Vec<&'static str>,
}

impl<'a> JoinRequest<'a> {
    /// Reads the payload text (valid JSON).
    ///
    /// # Errors
    /// [`Refusal::Payload`] for the few shapes that break a join in the original (5.2).
    pub fn parse(payload: &'a str) -> Result<Self, Refusal> {
        if !is_object(payload) {
            return Err(Refusal::Payload("join payload must be an object"));
        }
        let mut request = Self { token: choose_token(payload), ..Self::default() };
        match member(payload, "config") {
            None => request.legacy = true,
            Some("null") => {}
            Some(config) if is_object(config) => request.read_config(config)?,
            Some(_) => return Err(Refusal::Payload("config must be an object")),
        }
        Ok(request)
    }

    fn read_config(&mut self, config: &'a str) -> Result<(), Refusal> {
        match member(config, "broadcast") {
            None | Some("null") => {}
            Some(broadcast) if is_object(broadcast) => self.read_broadcast(broadcast),
            Some(_) => return Err(Refusal::Payload("config.broadcast must be an object")),
        }
        match member(config, "presence") {
            None | Some("null") => {}
            Some(presence) if is_object(presence) => {
                self.presence_enabled = self.flexible_bool(member(presence, "enabled"), "presence.enabled");
                self.presence_key = member(presence, "key").and_then(key_text);
            }
            Some(_) => self.invalid.push("presence: unable to parse, expected a map"),
        }
        match member(config, "postgres_changes") {
            None | Some("null") => {}
            Some(list) if list.starts_with('[') => {
                self.postgres_changes = elements(list).filter(|entry| *entry != "null").collect();
                if !self.postgres_changes.iter().all(|entry| is_object(entry)) {
                    return Err(Refusal::Payload("postgres_changes entries must be objects"));
                }
            }
            Some(_) => self.invalid.push("postgres_changes: unable to parse, expected an array of maps"),
        }
        self.private = self.flexible_bool(member(config, "private"), "private");
        Ok(())
    }

    fn read_broadcast(&mut self, broadcast: &'a str) {
        self.ack = self.flexible_bool(member(broadcast, "ack"), "broadcast.ack");
        self.self_broadcast = self.flexible_bool(member(broadcast, "self"), "broadcast.self");
        self.replay = ReplayRequest::parse(member(broadcast, "replay"));
        self.replication_ready = member(broadcast, "replication_ready").is_some_and(truthy);
    }

    /// JSON booleans, or the words in any letter case; anything else counts as absent and is reported.
    fn flexible_bool(&mut self, span: Option<&str>, field: &'static str) -> bool {
        match span {
            None | Some("null" | "false") => false,
            Some("true") => true,
            Some(other) => {
                let word = as_string(other);
                let is = |expected: &str| word.as_ref().is_some_and(|word| word.eq_ignore_ascii_case(expected));
                if !is("true") && !is("false") {
                    self.invalid.push(field);
                }
                is("true")
            }
        }
    }
}

fn truthy(span: &str) -> bool {
    !matches!(span, "null" | "false")
}

fn key_text(span: &str) -> Option<Cow<'_, str>> {
    match as_string(span) {
        Some(text) if text.is_empty() => None,
        Some(text) => Some(text),
        None if span == "null" => None,
        // Numbers and booleans by their text; objects and arrays by their compact text (19.12).
        None => Some(Cow::Owned(compact(span))),
    }
}

fn compact(span: &str) -> String {
    let mut out = String::with_capacity(span.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in span.chars() {
        if quoted || !matches!(c, ' ' | '\t' | '\n' | '\r') {
            out.push(c);
        }
        match c {
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
    }
    out
}

/// Which token counts (5.3); `None` is the connection token.
fn choose_token(payload: &str) -> Option<Cow<'_, str>> {
    let access = member(payload, "access_token");
    let user = member(payload, "user_token");
    let first = access.filter(|span| truthy(span)).or(user);
    if first.and_then(as_string).is_some_and(|text| text.starts_with("sb_")) {
        return None;
    }
    user.and_then(as_string).or_else(|| access.and_then(as_string))
}

/// The entry a legacy join stands for: `schema`, `schema:table` or `schema:table:filter` (5.6).
pub fn legacy_entry(sub_topic: &str) -> String {
    let mut parts = sub_topic.splitn(3, ':');
    let mut out = Vec::with_capacity(64);
    for (name, part) in ["schema", "table", "filter"].iter().zip(parts.by_ref()) {
        out.extend_from_slice(if out.is_empty() { b"{" } else { b"," });
        json::write_string(&mut out, name);
        out.push(b':');
        json::write_string(&mut out, part);
    }
    out.push(b'}');
    String::from_utf8(out).expect("only strings were written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_flexible_booleans() {
        let request = JoinRequest::parse(
            r#"{"config":{"broadcast":{"self":"TRUE","ack":"true"},"private":"no","presence":{"enabled":7}}}"#,
        );
        let request = request.unwrap();
        assert!(request.self_broadcast && request.ack && !request.private && !request.presence_enabled);
        assert_eq!(request.invalid, ["presence.enabled", "private"]);
        assert!(!request.legacy);
        assert!(JoinRequest::parse("{}").unwrap().legacy);
        assert!(!JoinRequest::parse(r#"{"config":null}"#).unwrap().legacy);
    }

    #[test]
    fn only_a_few_shapes_break_a_join() {
        for bad in [
            "17",
            "[]",
            r#"{"config":"x"}"#,
            r#"{"config":[]}"#,
            r#"{"config":{"broadcast":"x"}}"#,
            r#"{"config":{"broadcast":[]}}"#,
            r#"{"config":{"postgres_changes":[1,"a"]}}"#,
        ] {
            assert!(matches!(JoinRequest::parse(bad), Err(Refusal::Payload(_))), "{bad}");
        }
        for good in [
            r#"{"config":{"presence":[1]}}"#,
            r#"{"config":{"postgres_changes":"x"}}"#,
            r#"{"config":{"postgres_changes":[null,null]}}"#,
            r#"{"config":{"postgres_changes":{}}}"#,
        ] {
            assert_eq!(JoinRequest::parse(good).unwrap().postgres_changes, Vec::<&str>::new(), "{good}");
        }
    }

    #[test]
    fn presence_keys() {
        let key = |span: &str| {
            let payload = format!(r#"{{"config":{{"presence":{{"key":{span}}}}}}}"#);
            JoinRequest::parse(&payload).unwrap().presence_key.map(Cow::into_owned)
        };
        assert_eq!(key("\"ana\""), Some("ana".into()));
        assert_eq!(key("17"), Some("17".into()));
        assert_eq!(key("{ \"a\" : \"b c\\\"  \" }"), Some("{\"a\":\"b c\\\"  \"}".into()));
        assert_eq!((key("\"\""), key("null")), (None, None));
    }

    #[test]
    fn token_choice() {
        let token = |payload: &str| JoinRequest::parse(payload).unwrap().token.map(Cow::into_owned);
        assert_eq!(token(r#"{"access_token":"sb_x"}"#), None);
        assert_eq!(token(r#"{"user_token":"u","access_token":"a"}"#), Some("u".into()));
        assert_eq!(token(r#"{"access_token":"a"}"#), Some("a".into()));
        assert_eq!(token(r#"{"access_token":null}"#), None);
        assert_eq!(token(r#"{"access_token":17}"#), None);
        assert_eq!(token(r#"{"access_token":null,"user_token":"sb_y"}"#), None);
    }

    #[test]
    fn replay() {
        let replay =
            |span: &str| JoinRequest::parse(&format!(r#"{{"config":{{"broadcast":{{"replay":{span}}}}}}}"#)).unwrap().replay;
        assert_eq!(JoinRequest::parse(r#"{"config":{"broadcast":{}}}"#).unwrap().replay, ReplayRequest::Absent);
        assert_eq!(
            (replay("null"), replay("[1]"), replay("\"x\"")),
            (ReplayRequest::Ignored, ReplayRequest::Ignored, ReplayRequest::Ignored)
        );
        assert_eq!(replay(r#"{"since":5}"#), ReplayRequest::Wanted(Replay { since_unix_ms: 5, limit: 25 }));
        assert_eq!(replay(r#"{"since":5,"limit":-3}"#), ReplayRequest::Wanted(Replay { since_unix_ms: 5, limit: -3 }));
        for bad in
            ["{}", r#"{"since":"5"}"#, r#"{"since":1.0}"#, r#"{"since":5,"limit":"many"}"#, r#"{"since":999999999999999999}"#]
        {
            assert_eq!(replay(bad), ReplayRequest::Invalid, "{bad}");
        }
    }

    #[test]
    fn legacy_topics() {
        assert_eq!(legacy_entry("room1"), r#"{"schema":"room1"}"#);
        assert_eq!(legacy_entry("public:orders:id=eq.1:2"), r#"{"schema":"public","table":"orders","filter":"id=eq.1:2"}"#);
    }
}
