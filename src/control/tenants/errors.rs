//! Validation errors of the management API, in the shape the reference answers with (http-api.md 4).
//!
//! Messages sit in a list under the name of their field; extensions have a positional list of such objects, `{}` for a
//! good entry. Only field names and fixed texts end up here, never a value of the request.

use serde_json::{Map, Value, json};

pub(super) const BLANK: &str = "can't be blank";
pub(super) const INVALID: &str = "is invalid";
pub(super) const TAKEN: &str = "has already been taken";
pub(super) const NO_KEYS: &str = "either jwt_secret or jwt_jwks must be provided";

/// Field name to messages. Empty means valid.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ValidationErrors(Map<String, Value>);

impl ValidationErrors {
    /// One message about one field.
    pub fn of(field: &str, message: &str) -> Self {
        let mut errors = Self::default();
        errors.add(field, message);
        errors
    }

    /// The error of an external id that another tenant has.
    pub fn external_id_taken() -> Self {
        Self::of("external_id", TAKEN)
    }

    /// Appends a message to a field.
    pub(super) fn add(&mut self, field: &str, message: &str) {
        let entry = self.0.entry(field).or_insert_with(|| json!([]));
        if let Value::Array(messages) = entry {
            messages.push(message.into());
        }
    }

    /// Sets the positional errors of an embedded list.
    pub(super) fn set_list(&mut self, field: &str, entries: Vec<ValidationErrors>) {
        let entries = entries.into_iter().map(|entry| Value::Object(entry.0)).collect();
        self.0.insert(field.to_owned(), Value::Array(entries));
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The response body, `{"errors":{…}}`.
    pub fn to_json(&self) -> Value {
        json!({"errors": self.0})
    }
}
