//! The delivered change (protocol 11.5, database 8.6): the JSON text of `data`, and of the payload around it.
//!
//! Pure encoders over pieces that are converted already. The text of `data` is made once per set of visible columns and
//! shared by every subscriber that sees the same; only the ids in front differ ([`payload`]). Legacy channels get `data`
//! alone, under the name of its kind.
//! Invariant: which records are present depends on the kind alone. The values of a record are spliced in unchecked: the
//! caller vouches that each is one JSON value.

use std::fmt::Write;

use time::format_description::BorrowedFormatItem;
use time::macros::{datetime, format_description};
use time::{Duration, PrimitiveDateTime};

use crate::protocol::phoenix::json::write_string;

/// Replaces rows that are larger than the tenant's limit; the small values are still delivered.
pub const PAYLOAD_TOO_LARGE: &str = "Error 413: Payload Too Large";

/// The role may not read a column of the primary key.
pub const UNAUTHORIZED: &str = "Error 401: Unauthorized";

/// The table of an inserted or updated row has no primary key.
pub const NO_PRIMARY_KEY: &str = "Error 400: Bad Request, no primary key";

/// An id of 27 bits in decimal and a comma.
const ID_CHARS_MAX: usize = 10;

/// Where Postgres counts time from.
const EPOCH: PrimitiveDateTime = datetime!(2000-01-01 00:00);

const COMMIT_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It is new.
    Insert,
    /// It has changed.
    Update,
    /// It is gone.
    Delete,
}

impl Kind {
    /// The value of `type`, and the event of a legacy channel.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// Column names with the JSON text of their values.
pub type Fields<'a> = &'a [(&'a str, &'a str)];

/// One change as the subscribers of one variant (visible columns) see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeData<'a> {
    /// Schema of the table.
    pub schema: &'a str,
    /// Name of the table.
    pub table: &'a str,
    /// What happened.
    pub kind: Kind,
    /// Commit time in microseconds since 2000-01-01 UTC; `None` is null.
    pub commit_timestamp: Option<i64>,
    /// Visible columns in attribute order: name and internal type name (`int8`, `_text`).
    pub columns: &'a [(&'a str, &'a str)],
    /// The new row, for inserts and updates; `None` is the empty object.
    pub record: Option<Fields<'a>>,
    /// The identity of the old row, for updates and deletes; `None` is the empty object.
    pub old_record: Option<Fields<'a>>,
    /// [`PAYLOAD_TOO_LARGE`], [`UNAUTHORIZED`] or [`NO_PRIMARY_KEY`].
    pub errors: Option<&'a str>,
}

impl<'a> ChangeData<'a> {
    /// A change of which nothing may be told ([`UNAUTHORIZED`], [`NO_PRIMARY_KEY`]): no columns, empty records, no time.
    pub fn withheld(schema: &'a str, table: &'a str, kind: Kind, error: &'a str) -> Self {
        Self { schema, table, kind, commit_timestamp: None, columns: &[], record: None, old_record: None, errors: Some(error) }
    }

    /// The JSON text of `data`.
    pub fn encode(&self) -> String {
        debug_assert!(self.kind != Kind::Delete || self.record.is_none(), "a deleted row has no new version");
        debug_assert!(self.kind != Kind::Insert || self.old_record.is_none(), "an inserted row has no old version");
        let mut out = Vec::with_capacity(self.encoded_bytes_guess());
        out.extend_from_slice(b"{\"schema\":");
        write_string(&mut out, self.schema);
        out.extend_from_slice(b",\"table\":");
        write_string(&mut out, self.table);
        out.extend_from_slice(b",\"type\":");
        write_string(&mut out, self.kind.as_str());
        out.extend_from_slice(b",\"commit_timestamp\":");
        match self.commit_timestamp.and_then(commit_timestamp_text) {
            Some(text) => write_string(&mut out, &text),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"columns\":[");
        for (position, (name, type_name)) in self.columns.iter().enumerate() {
            out.extend_from_slice(if position == 0 { b"{\"name\":" } else { b",{\"name\":" });
            write_string(&mut out, name);
            out.extend_from_slice(b",\"type\":");
            write_string(&mut out, type_name);
            out.push(b'}');
        }
        out.push(b']');
        if self.kind != Kind::Delete {
            out.extend_from_slice(b",\"record\":");
            write_record(&mut out, self.record.unwrap_or_default());
        }
        if self.kind != Kind::Insert {
            out.extend_from_slice(b",\"old_record\":");
            write_record(&mut out, self.old_record.unwrap_or_default());
        }
        out.extend_from_slice(b",\"errors\":");
        match self.errors {
            Some(error) => {
                out.push(b'[');
                write_string(&mut out, error);
                out.push(b']');
            }
            None => out.extend_from_slice(b"null"),
        }
        out.push(b'}');
        String::from_utf8(out).expect("only text was written")
    }

    /// Enough for texts without escapes, so that the buffer seldom grows.
    fn encoded_bytes_guess(&self) -> usize {
        let pairs = [self.columns, self.record.unwrap_or_default(), self.old_record.unwrap_or_default()];
        let of_pair = |(name, value): &(&str, &str)| name.len() + value.len() + 22;
        192 + self.schema.len() + self.table.len() + pairs.into_iter().flatten().map(of_pair).sum::<usize>()
    }
}

fn write_record(out: &mut Vec<u8>, fields: Fields<'_>) {
    out.push(b'{');
    for (position, (name, value)) in fields.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        out.extend_from_slice(value.as_bytes());
    }
    out.push(b'}');
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ` of microseconds since 2000-01-01 UTC, cut to milliseconds as Postgres' `to_char` does.
/// `None` outside the years −9999 to 9999, which no commit has.
pub fn commit_timestamp_text(micros_since_2000: i64) -> Option<String> {
    EPOCH.checked_add(Duration::microseconds(micros_since_2000))?.format(COMMIT_FORMAT).ok()
}

/// The payload of a `postgres_changes` message: the ids of the channel's matching entries and the text of `data`.
pub fn payload(ids: &[u32], data: &str) -> String {
    let mut out = String::with_capacity(20 + ids.len() * ID_CHARS_MAX + data.len());
    out.push_str("{\"ids\":[");
    for (position, id) in ids.iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        write!(out, "{comma}{id}").expect("memory can be written to");
    }
    out.push_str("],\"data\":");
    out.push_str(data);
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decoded(change: &ChangeData<'_>) -> Value {
        serde_json::from_str(&change.encode()).unwrap()
    }

    #[test]
    fn the_text_of_an_update() {
        let change = ChangeData {
            schema: "public",
            table: "orders",
            kind: Kind::Update,
            commit_timestamp: Some(825_671_730_123_999),
            columns: &[("id", "int8"), ("tags", "_text")],
            record: Some(&[("id", "7"), ("tags", r#"["x", "y"]"#)]),
            old_record: Some(&[("id", "7")]),
            errors: None,
        };
        assert_eq!(
            change.encode(),
            concat!(
                r#"{"schema":"public","table":"orders","type":"UPDATE","commit_timestamp":"2026-03-01T09:15:30.123Z","#,
                r#""columns":[{"name":"id","type":"int8"},{"name":"tags","type":"_text"}],"#,
                r#""record":{"id":7,"tags":["x", "y"]},"old_record":{"id":7},"errors":null}"#
            )
        );
    }

    #[test]
    fn the_kind_decides_which_records_there_are() {
        let bare = |kind| ChangeData { errors: None, ..ChangeData::withheld("s", "t", kind, "") };
        for (kind, record, old_record) in [(Kind::Insert, true, false), (Kind::Update, true, true), (Kind::Delete, false, true)] {
            let data = decoded(&bare(kind));
            let presence = |present: bool| present.then(|| json!({}));
            assert_eq!(data.get("record").cloned(), presence(record), "{kind:?}");
            assert_eq!(data.get("old_record").cloned(), presence(old_record), "{kind:?}");
        }
    }

    #[test]
    fn withheld_changes() {
        let data = decoded(&ChangeData::withheld("public", "conf_nokey", Kind::Update, NO_PRIMARY_KEY));
        let expected = json!({
            "columns": [], "commit_timestamp": null, "errors": ["Error 400: Bad Request, no primary key"],
            "old_record": {}, "record": {}, "schema": "public", "table": "conf_nokey", "type": "UPDATE",
        });
        assert_eq!(data, expected);
    }

    #[test]
    fn names_are_escaped() {
        let data = decoded(&ChangeData {
            schema: "a\"b",
            table: "c\\d\n",
            kind: Kind::Delete,
            commit_timestamp: Some(0),
            columns: &[("ä\"", "t\u{1}")],
            record: None,
            old_record: Some(&[("ä\"", "{\"k\": 1.500}"), ("", "null")]),
            errors: Some(PAYLOAD_TOO_LARGE),
        });
        let expected = json!({
            "schema": "a\"b", "table": "c\\d\n", "type": "DELETE", "commit_timestamp": "2000-01-01T00:00:00.000Z",
            "columns": [{"name": "ä\"", "type": "t\u{1}"}], "old_record": {"ä\"": {"k": 1.5}, "": null},
            "errors": ["Error 413: Payload Too Large"],
        });
        assert_eq!(data, expected);
    }

    #[test]
    fn commit_times_are_cut_to_milliseconds() {
        for (micros, expected) in [
            (0, Some("2000-01-01T00:00:00.000Z")),
            (999, Some("2000-01-01T00:00:00.000Z")),
            (1_999_999, Some("2000-01-01T00:00:01.999Z")),
            (-1, Some("1999-12-31T23:59:59.999Z")),
            (820_540_800_123_999, Some("2026-01-01T00:00:00.123Z")),
            (5_097_600_000_000, Some("2000-02-29T00:00:00.000Z")),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(commit_timestamp_text(micros).as_deref(), expected, "{micros}");
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(payload(&[82_117_043, 9911], "{\"a\":1}"), r#"{"ids":[82117043,9911],"data":{"a":1}}"#);
        assert_eq!(payload(&[1], "{}"), r#"{"ids":[1],"data":{}}"#);
    }
}
