//! One subscription to row changes, read from an entry of a join (protocol 11.1, database 7.2) or from the sub-topic of a
//! legacy join (protocol 5.6).
//!
//! Owns the accepted shapes and the texts for the others (protocol 11.4 a–c). Checks run in a fixed order, which decides the
//! text when an entry is wrong in two ways: selection, target, filter, selection with a wildcard.
//! The database checks the rest (tables, columns, values) when the subscription is stored.

use std::borrow::Cow;
use std::fmt;

use super::change::Kind;
use super::filter::{Filter, FilterError};
use super::inspect;
use crate::protocol::phoenix::json::{as_string, elements, member};

/// Stands for every schema or table.
const WILDCARD: &str = "*";

/// Schema of an entry that names only a table.
const SCHEMA_DEFAULT: &str = "public";

/// Which changes are wanted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Every kind; also what an unknown name means.
    #[default]
    All,
    /// New rows.
    Insert,
    /// Changed rows.
    Update,
    /// Removed rows.
    Delete,
}

impl Event {
    fn named(name: &str) -> Self {
        let all = [Self::Insert, Self::Update, Self::Delete];
        all.into_iter().find(|event| name.eq_ignore_ascii_case(event.as_str())).unwrap_or_default()
    }

    /// The name in texts and in the column `action_filter`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "*",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }

    /// Whether changes of this kind are wanted.
    pub fn includes(self, kind: Kind) -> bool {
        match self {
            Self::All => true,
            Self::Insert => kind == Kind::Insert,
            Self::Update => kind == Kind::Update,
            Self::Delete => kind == Kind::Delete,
        }
    }
}

/// What one entry asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subscription {
    /// Kind of changes.
    pub event: Event,
    /// Schema, or `*`.
    pub schema: String,
    /// Table, or `*`.
    pub table: String,
    /// Conditions that must all hold, in request order.
    pub filters: Vec<Filter>,
    /// Columns to deliver, in request order and never empty; `None` means all.
    pub select: Option<Vec<String>>,
}

/// Why an entry is no subscription; `Display` is the text of the `system` message. Trying again is pointless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryError {
    /// No accepted combination of schema, table and filter; holds the entry in Elixir syntax, or `<redacted>`.
    NoTarget(String),
    /// The filter does not parse.
    Filter(FilterError),
    /// `select` is a string.
    SelectNotAList,
    /// Columns of a wildcard.
    SelectOfWildcard,
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTarget(entry) => write!(
                f,
                "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: {entry}"
            ),
            Self::Filter(reason) => write!(f, "Error parsing `filter` params: {reason}"),
            Self::SelectNotAList => f.write_str(
                "Error parsing `select` params: expected a list of column name strings, e.g. select: [\"col1\", \"col2\"]",
            ),
            Self::SelectOfWildcard => f.write_str(
                "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name.",
            ),
        }
    }
}

impl std::error::Error for EntryError {}

impl From<FilterError> for EntryError {
    fn from(error: FilterError) -> Self {
        Self::Filter(error)
    }
}

/// Reads an entry of `postgres_changes` from its JSON text.
///
/// # Errors
/// The first rule of protocol 11.1 and 11.2 that the entry breaks.
pub fn parse(entry_json: &str) -> Result<Subscription, EntryError> {
    let event = member(entry_json, "event").and_then(as_string).map_or(Event::All, |name| Event::named(&name));
    let select = member(entry_json, "select").map_or(Ok(None), selection)?;
    // The outer `None` is an absent key, the inner one a value that is not a string.
    let text = |name: &str| member(entry_json, name).map(as_string);
    let (schema, table, filter) = match (text("schema"), text("table"), text("filter")) {
        (Some(Some(schema)), Some(Some(table)), Some(Some(filter))) => (schema, table, filter),
        (Some(Some(schema)), Some(Some(table)), None) => (schema, table, Cow::Borrowed("")),
        (Some(Some(schema)), None, None) => (schema, Cow::Borrowed(WILDCARD), Cow::Borrowed("")),
        (None, Some(Some(table)), None) => (Cow::Borrowed(SCHEMA_DEFAULT), table, Cow::Borrowed("")),
        _ => return Err(EntryError::NoTarget(printed(entry_json))),
    };
    let filters = Filter::parse_all(&filter)?;
    if select.is_some() && (schema == WILDCARD || table == WILDCARD) {
        return Err(EntryError::SelectOfWildcard);
    }
    Ok(Subscription { event, schema: schema.into_owned(), table: table.into_owned(), filters, select })
}

/// The subscription a legacy join stands for: `schema`, `schema:table` or `schema:table:filter`, all events.
///
/// # Errors
/// [`EntryError::Filter`] only.
pub fn legacy(sub_topic: &str) -> Result<Subscription, EntryError> {
    let mut parts = sub_topic.splitn(3, ':');
    let schema = parts.next().unwrap_or_default().to_owned();
    let table = parts.next().unwrap_or(WILDCARD).to_owned();
    let filters = Filter::parse_all(parts.next().unwrap_or_default())?;
    Ok(Subscription { event: Event::All, schema, table, filters, select: None })
}

fn selection(span: &str) -> Result<Option<Vec<String>>, EntryError> {
    if span.starts_with('"') {
        return Err(EntryError::SelectNotAList);
    }
    let columns: Vec<String> = elements(span).filter_map(as_string).map(Cow::into_owned).collect();
    Ok(Some(columns).filter(|columns| !columns.is_empty()))
}

/// The entry in Elixir syntax, unless it carries a token.
fn printed(entry_json: &str) -> String {
    if ["user_token", "auth_token"].into_iter().any(|key| member(entry_json, key).is_some()) {
        return "<redacted>".to_owned();
    }
    let mut out = String::new();
    inspect::json(&mut out, entry_json);
    out
}

#[cfg(test)]
#[path = "subscription_tests.rs"]
mod tests;
