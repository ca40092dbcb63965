//! Turns one log event into one line (operations 8).
//!
//! Text: `TIME METADATA[LEVEL] MESSAGE`, METADATA being the known keys as `key=value ` in a fixed
//! order; other fields follow the message. JSON: one object with `time`, `level`, `message`, `region`,
//! `cluster` and every field. Values are redacted, and control characters of text are escaped, so
//! that one event is one line whatever a client put into it. Pure, except that `logs` gives it the time.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};

use super::redact::redact;
use crate::config::LogLevel;

/// Metadata shown before the level, in this order.
const METADATA: [&str; 8] = ["request_id", "project", "external_id", "application_name", "error_code", "sub", "iss", "exp"];

/// Longest message written; the rest is cut (a logged payload may be megabytes).
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The fields of one event, gathered by `tracing`.
#[derive(Debug, Default)]
pub(super) struct Fields {
    message: String,
    severity: Option<LogLevel>,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    /// The event's own level if it names one (`severity = "critical"`), else that of `tracing`.
    pub(super) fn level(&self, level: tracing::Level) -> LogLevel {
        self.severity.unwrap_or(match level {
            tracing::Level::ERROR => LogLevel::Error,
            tracing::Level::WARN => LogLevel::Warning,
            tracing::Level::INFO => LogLevel::Info,
            _ => LogLevel::Debug,
        })
    }

    /// The text form, with the final newline.
    pub(super) fn text(&self, time: &str, level: LogLevel) -> String {
        let mut line = String::with_capacity(128 + self.message.len());
        line.push_str(time);
        line.push(' ');
        for key in METADATA {
            if let Some(value) = self.metadata(key) {
                push_pair(&mut line, key, value);
                line.push(' ');
            }
        }
        line.push('[');
        line.push_str(level.as_str());
        line.push_str("] ");
        push_escaped(&mut line, &redact(cut(&self.message)));
        for (key, value) in &self.others {
            if !METADATA.contains(key) {
                line.push(' ');
                push_pair(&mut line, key, value);
            }
        }
        line.push('\n');
        line
    }

    /// The JSON form, with the final newline.
    pub(super) fn json(&self, time: &str, level: LogLevel, node: &[(&'static str, String)]) -> String {
        let mut object = Map::new();
        object.insert("time".to_owned(), time.into());
        object.insert("level".to_owned(), level.as_str().into());
        object.insert("message".to_owned(), redact(cut(&self.message)).into());
        for (key, value) in node {
            object.insert((*key).to_owned(), value.as_str().into());
        }
        if let Some(project) = self.metadata("project") {
            object.insert("project".to_owned(), project.clone());
        }
        for (key, value) in self.others.iter().filter(|(_, value)| !is_empty(value)) {
            let value = match value {
                Value::String(text) => redact(cut(text)).into(),
                other => other.clone(),
            };
            object.insert((*key).to_owned(), value);
        }
        let mut line = Value::Object(object).to_string();
        line.push('\n');
        line
    }

    /// A metadata value; `project` equals `external_id` unless given.
    fn metadata(&self, key: &str) -> Option<&Value> {
        let find = |key: &str| {
            let found = self.others.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| value).filter(|v| !is_empty(v))
        };
        match key {
            "project" => find("project").or_else(|| find("external_id")),
            _ => find(key),
        }
    }

    fn record(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("severity", Value::String(name)) => {
                self.severity = LogLevel::ALL.into_iter().find(|l| l.as_str() == name);
            }
            (name, value) => self.others.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record(field, format!("{value:?}").into());
    }
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::String(text) if text.is_empty())
}

fn push_pair(line: &mut String, key: &str, value: &Value) {
    line.push_str(key);
    line.push('=');
    match value {
        Value::String(text) => push_escaped(line, &redact(cut(text))),
        other => push_escaped(line, &other.to_string()),
    }
}

/// Appends text without its control characters, so that it stays on the line.
fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() {
            // Writing to a `String` cannot fail.
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
}

fn cut(text: &str) -> &str {
    let end = text.len().min(MESSAGE_BYTES_MAX);
    // A character has at most four bytes, so this looks back at most three times; 0 is a boundary.
    let end = (0..=end).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
