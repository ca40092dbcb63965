//! One captured row change: its values, and the JSON texts that subscribers get of it (database 8.3–8.6).
//!
//! A change is shared by every group of subscribers that it concerns. Values are converted once, texts are made once for each
//! combination of visible columns. Columns are those of the catalog, in attribute order; what the stream did not send of a
//! row is absent, which is something else than null.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::Changes;
use super::group::patiently;
use super::table::{Column, Table};
use crate::control::capture::filters::Cell;
use crate::control::capture::values::{self, is_small, write_json};
use crate::control::database::Live;
use crate::control::database::pool::Answer;
use crate::protocol::pgoutput::{self, OldTuple, Relation, Tuple};
use crate::realtime::postgres_changes::{ChangeData, Kind, PAYLOAD_TOO_LARGE};

/// Values of types that only the database can convert are asked for within this time.
const CONVERSION_MAX: Duration = Duration::from_secs(10);

/// A value of a row as the stream sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Not in the stream.
    Absent,
    /// SQL NULL.
    Null,
    /// The type's text form.
    Text(Box<str>),
}

/// JSON texts of a row, by column; `None` where the value is absent.
type JsonRow = Vec<Option<Box<str>>>;

/// A value on its way to JSON.
enum Json {
    Absent,
    Known(Box<str>),
    /// Type and text of a value that only the database can convert.
    Ask(u32, Box<str>),
}

impl Json {
    fn known(self) -> Option<Box<str>> {
        match self {
            Self::Known(text) => Some(text),
            Self::Absent | Self::Ask(..) => None,
        }
    }
}

struct Converted {
    new: JsonRow,
    old: JsonRow,
    is_too_big: bool,
}

/// The transaction of a change.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    /// Its number.
    pub xid: u32,
    /// When it committed, microseconds since 2000-01-01 UTC.
    pub commit_time_us: i64,
}

/// One row change.
pub struct Change {
    /// What happened.
    pub kind: Kind,
    /// The table as it was described when the change was captured.
    pub table: Rc<Table>,
    /// Values after the change, by column of the table.
    pub new: Vec<Value>,
    /// Values of the old row's identity, by column of the table.
    pub old: Vec<Value>,
    /// The transaction that wrote it.
    pub xid: u32,
    commit_time_us: i64,
    converted: OnceCell<Converted>,
    texts: RefCell<Vec<(TextKey, Arc<str>)>>,
}

/// Which columns of a change one text shows: a flag for each.
type TextKey = Box<[bool]>;

impl Change {
    /// Puts the tuples of the stream into the order of the table's columns.
    pub fn new(
        kind: Kind,
        table: Rc<Table>,
        relation: &Relation,
        new: Option<&Tuple<'_>>,
        old: Option<&OldTuple<'_>>,
        written: Written,
    ) -> Self {
        let new_values = new.map_or_else(|| absent(&table), |tuple| values(&table, relation, tuple, |_| true));
        let old_values = match old {
            Some(OldTuple::Full(tuple)) => values(&table, relation, tuple, |_| true),
            Some(OldTuple::Key(tuple)) => values(&table, relation, tuple, |is_key| is_key),
            // The key did not change, so the stream leaves it out.
            None if kind == Kind::Update => match new {
                Some(tuple) => values(&table, relation, tuple, |is_key| is_key),
                None => absent(&table),
            },
            None => absent(&table),
        };
        let mut change = Self {
            kind,
            table,
            new: new_values,
            old: old_values,
            xid: written.xid,
            commit_time_us: written.commit_time_us,
            converted: OnceCell::new(),
            texts: RefCell::default(),
        };
        if matches!(old, Some(OldTuple::Full(_))) {
            // Large values that the update did not touch are in the old row only.
            for (new, old) in change.new.iter_mut().zip(&change.old) {
                if *new == Value::Absent {
                    new.clone_from(old);
                }
            }
        }
        change
    }

    /// What filters see of a column: the row after the change, or what is known of a deleted one.
    pub fn cell(&self, column: usize) -> Cell<'_> {
        let row = if self.kind == Kind::Delete { &self.old } else { &self.new };
        match row.get(column) {
            None | Some(Value::Absent) => Cell::Absent,
            Some(Value::Null) => Cell::Null,
            Some(Value::Text(text)) => Cell::Text(text),
        }
    }

    /// Text form of the primary key's columns after the change, in the key's order.
    pub fn key(&self) -> Vec<Option<&str>> {
        let value = |index: &usize| match &self.new[*index] {
            Value::Text(text) => Some(&**text),
            Value::Absent | Value::Null => None,
        };
        self.table.key.iter().map(value).collect()
    }

    /// Memory it takes while it waits.
    pub fn bytes(&self) -> usize {
        let text = |value: &Value| match value {
            Value::Text(text) => text.len(),
            Value::Absent | Value::Null => 0,
        };
        256 + self.new.iter().chain(&self.old).map(|value| 32 + text(value)).sum::<usize>()
    }

    /// Converts the values, once; asks the database for those that need it. What it cannot convert is delivered as text.
    pub async fn convert(&self, changes: &Changes) {
        self.converted
            .get_or_init(|| async {
                let mut rows = [self.to_json(&self.new), self.to_json(&self.old)];
                self.ask_for_json(&mut rows, changes).await;
                let record_bytes_max = changes.live().map_or(usize::MAX, |live| live.settings.record_bytes_max);
                let [new, old] = rows.map(|row| row.into_iter().map(Json::known).collect::<JsonRow>());
                let bytes: usize = new.iter().chain(&old).flatten().map(|text| text.len() + VALUE_OVERHEAD_BYTES).sum();
                Converted { is_too_big: bytes > record_bytes_max, new, old }
            })
            .await;
    }

    fn to_json(&self, row: &[Value]) -> Vec<Json> {
        let convert = |(column, value): (&Column, &Value)| match value {
            Value::Absent => Json::Absent,
            Value::Null => Json::Known("null".into()),
            Value::Text(text) => {
                let mut json = Vec::with_capacity(text.len() + 2);
                let written = write_json(&column.info, text, &mut json).ok().and_then(|()| String::from_utf8(json).ok());
                written.map_or_else(|| Json::Ask(column.type_oid, text.clone()), |json| Json::Known(json.into()))
            }
        };
        self.table.columns.iter().zip(row).map(convert).collect()
    }

    async fn ask_for_json(&self, rows: &mut [Vec<Json>; 2], changes: &Changes) {
        let questions: Vec<(u32, Box<str>)> = rows
            .iter()
            .flatten()
            .filter_map(|json| match json {
                Json::Ask(type_oid, text) => Some((*type_oid, text.clone())),
                Json::Absent | Json::Known(_) => None,
            })
            .collect();
        if questions.is_empty() {
            return;
        }
        let asked: Vec<(u32, &str)> = questions.iter().map(|(type_oid, text)| (*type_oid, &**text)).collect();
        let ask = async |live: &Live| {
            live.pool.run(CONVERSION_MAX, async |client| Answer::of(Ok(values::ask(client, &asked).await))).await
        };
        let answers = patiently(changes, ask).await;
        let mut answers = answers.unwrap_or_default().into_iter();
        for json in rows.iter_mut().flatten() {
            if let Json::Ask(_, text) = json {
                let answer = answers.next().and_then(Result::ok);
                *json = Json::Known(answer.unwrap_or_else(|| serde_json::Value::from(&**text).to_string()).into());
            }
        }
    }

    /// The text of `data` for whoever sees these columns. Values must have been converted.
    pub fn text(&self, shown: &[bool]) -> Arc<str> {
        if let Some((_, text)) = self.texts.borrow().iter().find(|(key, _)| **key == *shown) {
            return text.clone();
        }
        let text: Arc<str> = self.render(shown).into();
        self.texts.borrow_mut().push((shown.into(), text.clone()));
        text
    }

    fn render(&self, shown: &[bool]) -> String {
        let nothing = Converted { new: Vec::new(), old: Vec::new(), is_too_big: false };
        let converted = self.converted.get().unwrap_or(&nothing);
        let columns: Vec<(&str, &str)> =
            self.shown(shown).map(|(_, column)| (column.name.as_str(), column.info.name.as_str())).collect();
        let only_key = self.kind == Kind::Delete && self.table.has_row_security;
        let new = self.record(shown, converted, &converted.new, false);
        let old = self.record(shown, converted, &converted.old, only_key);
        ChangeData {
            schema: &self.table.schema,
            table: &self.table.name,
            kind: self.kind,
            commit_timestamp: Some(self.commit_time_us),
            columns: &columns,
            record: (self.kind != Kind::Delete).then_some(&new),
            old_record: (self.kind != Kind::Insert).then_some(&old),
            errors: converted.is_too_big.then_some(PAYLOAD_TOO_LARGE),
        }
        .encode()
    }

    fn record<'a>(&'a self, shown: &'a [bool], of: &Converted, row: &'a JsonRow, only_key: bool) -> Vec<(&'a str, &'a str)> {
        self.shown(shown)
            .filter(|(index, _)| !only_key || self.table.key.contains(index))
            .filter_map(|(index, column)| Some((column.name.as_str(), row.get(index)?.as_deref()?)))
            .filter(|(_, json)| !of.is_too_big || (is_small(json.as_bytes()) && *json != "null"))
            .collect()
    }

    /// The text for whoever may not be told anything but that there was a change.
    pub fn withheld_text(&self, error: &'static str) -> Arc<str> {
        ChangeData::withheld(&self.table.schema, &self.table.name, self.kind, error).encode().into()
    }

    fn shown<'a>(&'a self, shown: &'a [bool]) -> impl Iterator<Item = (usize, &'a Column)> {
        self.table.columns.iter().enumerate().filter(|(index, _)| shown.get(*index).copied().unwrap_or(false))
    }
}

/// Names, quotes and type names around a value in what the original measures.
const VALUE_OVERHEAD_BYTES: usize = 48;

fn absent(table: &Table) -> Vec<Value> {
    vec![Value::Absent; table.columns.len()]
}

fn values(table: &Table, relation: &Relation, tuple: &Tuple<'_>, takes_part: impl Fn(bool) -> bool) -> Vec<Value> {
    let mut out = absent(table);
    for (described, value) in relation.columns.iter().zip(tuple.columns()) {
        if !takes_part(described.is_key) {
            continue;
        }
        let Some(index) = table.columns.iter().position(|column| column.name == described.name) else { continue };
        out[index] = match value {
            pgoutput::Column::Null => Value::Null,
            pgoutput::Column::Unchanged => Value::Absent,
            pgoutput::Column::Text(bytes) | pgoutput::Column::Binary(bytes) => match simdutf8::basic::from_utf8(bytes) {
                Ok(text) => Value::Text(text.into()),
                Err(_) => Value::Text(String::from_utf8_lossy(bytes).into()),
            },
        };
    }
    out
}
