//! From a row of `realtime.messages` to the message it stands for (section 11.3). Pure.

use std::sync::Arc;

use crate::protocol::pgoutput::{Column, Relation, Tuple};
use crate::realtime::database::{StoredBody, StoredMessage};

/// Where the columns of one description of the table are.
#[derive(Debug, Clone, Copy)]
pub struct MessageColumns {
    id: usize,
    topic: usize,
    event: usize,
    private: usize,
    inserted_at: usize,
    payload: usize,
    binary_payload: Option<usize>,
}

impl MessageColumns {
    /// `None` when the relation is not `realtime.messages` or one of its partitions.
    pub fn find(relation: &Relation) -> Option<Self> {
        if relation.namespace != "realtime" || !relation.name.starts_with("messages") {
            return None;
        }
        let column = |name| relation.column_index(name);
        Some(Self {
            id: column("id")?,
            topic: column("topic")?,
            event: column("event")?,
            private: column("private")?,
            inserted_at: column("inserted_at")?,
            payload: column("payload")?,
            binary_payload: column("binary_payload"),
        })
    }

    /// The message of an inserted row.
    ///
    /// # Errors
    /// What the row lacks; such a row is no message.
    pub fn message(&self, row: &Tuple<'_>, payload_bytes_max: u64) -> Result<StoredMessage, &'static str> {
        let mut found: [Option<&[u8]>; 7] = [None; 7];
        let wanted = [
            Some(self.inserted_at),
            Some(self.event),
            Some(self.id),
            Some(self.topic),
            Some(self.private),
            Some(self.payload),
            self.binary_payload,
        ];
        for (index, column) in row.columns().enumerate() {
            if let Column::Text(text) = column
                && let Some(place) = wanted.iter().position(|wanted| *wanted == Some(index))
            {
                found[place] = Some(text);
            }
        }
        let [inserted_at, event, id, topic, private, payload, binary] = found;
        inserted_at.ok_or("inserted_at_missing")?;
        let event = text(event.ok_or("event_missing")?)?;
        let id = text(id.ok_or("id_missing")?)?;
        let topic = text(topic.ok_or("topic_missing")?)?;
        let private = private.ok_or("private_missing")? == b"t";
        let body = match (binary, payload) {
            (Some(hex), _) => StoredBody::Binary(bytes_of(hex)?),
            (None, Some(json)) => StoredBody::Json(text(json)?.into()),
            (None, None) => return Err("payload_missing"),
        };
        let body_bytes = body.as_user_body().bytes();
        // The size rule of one string (protocol 8.5).
        if body_bytes as u64 + 6 > payload_bytes_max {
            return Err("payload_size_exceeded");
        }
        Ok(StoredMessage {
            id: uuid::Uuid::try_parse(id).map_err(|_| "id_malformed")?.into_bytes(),
            private,
            sub_topic: Arc::from(topic),
            event: event.into(),
            body,
        })
    }
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| "text_malformed")
}

/// The bytes of a `bytea` in its hexadecimal text form, which the session asks for.
fn bytes_of(text: &[u8]) -> Result<Box<[u8]>, &'static str> {
    const MALFORMED: &str = "binary_payload_malformed";
    let digits = text.strip_prefix(b"\\x").ok_or(MALFORMED)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(MALFORMED);
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<_>>().ok_or(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::pgoutput::encode::{self, ColumnOf, Value};
    use crate::protocol::pgoutput::{Message, Relations};

    const COLUMNS: [&str; 9] =
        ["topic", "extension", "payload", "event", "private", "updated_at", "inserted_at", "id", "binary_payload"];

    fn relation(namespace: &str, name: &str) -> Relation {
        let columns: Vec<ColumnOf> = COLUMNS
            .iter()
            .map(|name| ColumnOf { name: (*name).to_owned(), type_oid: 25, typmod: -1, is_key: *name == "id" })
            .collect();
        let bytes = encode::relation(7, namespace, name, b'd', &columns);
        let Ok(Message::Relation(message)) = Message::decode(&bytes) else { panic!("a relation") };
        Relations::default().describe(&message).clone()
    }

    fn row(changes: &[(&str, Option<&str>)]) -> Result<StoredMessage, &'static str> {
        let value = |name: &&str| {
            let given = changes.iter().find(|(changed, _)| changed == name).map(|(_, value)| *value);
            let default = match *name {
                "id" => Some("00000000-0000-0000-0000-0000000000ff"),
                "private" => Some("t"),
                "payload" => Some(r#"{"a": 1.50}"#),
                "binary_payload" => None,
                other => Some(other),
            };
            given.unwrap_or(default).map_or(Value::Null, |text| Value::Text(text.as_bytes().to_vec()))
        };
        let bytes = encode::insert(7, &COLUMNS.iter().map(value).collect::<Vec<_>>());
        let Ok(Message::Insert { new, .. }) = Message::decode(&bytes) else { panic!("an insert") };
        MessageColumns::find(&relation("realtime", "messages_2026_01_01")).unwrap().message(&new, 1_500)
    }

    #[test]
    fn rows_become_messages() {
        let message = row(&[]).unwrap();
        assert_eq!((&*message.sub_topic, &*message.event, message.private, message.id[15]), ("topic", "event", true, 255));
        assert_eq!(message.body, StoredBody::Json(r#"{"a": 1.50}"#.into()));
        let binary = row(&[("payload", None), ("binary_payload", Some("\\x00fF10")), ("private", Some("f"))]).unwrap();
        assert_eq!((binary.body, binary.private), (StoredBody::Binary([0, 255, 16].into()), false));
    }

    #[test]
    fn what_is_missing_is_named() {
        for name in ["inserted_at", "event", "id", "topic", "private", "payload"] {
            assert_eq!(row(&[(name, None)]), Err(format!("{name}_missing")).map_err(|text| &*text.leak()), "{name}");
        }
        assert_eq!(row(&[("binary_payload", Some("\\x0"))]), Err("binary_payload_malformed"));
        assert_eq!(row(&[("binary_payload", Some("00"))]), Err("binary_payload_malformed"));
        assert_eq!(row(&[("id", Some("x"))]), Err("id_malformed"));
        let large = format!("\"{}\"", "x".repeat(1_493));
        assert_eq!(row(&[("payload", Some(&large))]), Err("payload_size_exceeded"));
        assert!(row(&[("payload", Some(&large[1..]))]).is_ok());
    }

    #[test]
    fn only_the_messages_table_counts() {
        assert!(MessageColumns::find(&relation("public", "messages")).is_none());
        assert!(MessageColumns::find(&relation("realtime", "subscription")).is_none());
        assert!(MessageColumns::find(&relation("realtime", "messages")).is_some());
    }
}
