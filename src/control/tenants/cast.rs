//! Reads typed fields out of a request object, by the casting rules of http-api.md 5.1.
//!
//! A field that is absent is left alone; JSON null and blank strings mean "no value". Integers may be written as strings
//! of digits and must fit 32 bits, as the database columns of the reference do. Booleans have six spellings.

use serde_json::{Map, Value};

use super::errors::{INVALID, ValidationErrors};

/// The fields of one request object and the errors found in them so far.
pub(super) struct Cast<'a> {
    fields: &'a Map<String, Value>,
    pub errors: ValidationErrors,
}

impl<'a> Cast<'a> {
    pub fn new(fields: &'a Map<String, Value>) -> Self {
        Self { fields, errors: ValidationErrors::default() }
    }

    /// Reads a field. `None`: absent or invalid, leave the target alone. `Some(None)`: explicitly without value.
    pub fn field<T>(&mut self, name: &str, read: fn(&Value) -> Option<T>) -> Option<Option<T>> {
        let value = self.fields.get(name)?;
        if is_blank(value) {
            return Some(None);
        }
        let read = read(value);
        if read.is_none() {
            self.errors.add(name, INVALID);
        }
        read.map(Some)
    }

    /// Reads a field into a target that falls back to a default when the request takes its value away.
    pub fn set<T>(&mut self, name: &str, read: fn(&Value) -> Option<T>, target: &mut T, default: T) {
        if let Some(value) = self.field(name, read) {
            *target = value.unwrap_or(default);
        }
    }

    /// Reads a field into an optional target.
    pub fn set_option<T>(&mut self, name: &str, read: fn(&Value) -> Option<T>, target: &mut Option<T>) {
        if let Some(value) = self.field(name, read) {
            *target = value;
        }
    }
}

/// Null, or a string of nothing but white space.
pub(super) fn is_blank(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

pub(super) fn integer(value: &Value) -> Option<i32> {
    match value {
        Value::Number(number) => number.as_i64()?.try_into().ok(),
        Value::String(digits) => digits.parse().ok(),
        _ => None,
    }
}

pub(super) fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

pub(super) fn object(value: &Value) -> Option<Map<String, Value>> {
    value.as_object().cloned()
}

pub(super) fn object_value(value: &Value) -> Option<Value> {
    value.is_object().then(|| value.clone())
}

/// `broadcast_adapter`: one of the two names the reference knows.
pub(super) fn adapter(value: &Value) -> Option<String> {
    string(value).filter(|name| name == "phoenix" || name == "gen_rpc")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn integers_are_numbers_or_digits_of_32_bits() {
        for (value, wanted) in [
            (json!(7), Some(7)),
            (json!("78"), Some(78)),
            (json!("-3"), Some(-3)),
            (json!(0), Some(0)),
            (json!(2_147_483_647), Some(i32::MAX)),
            (json!(2_147_483_648_u64), None),
            (json!(1.5), None),
            (json!(2.0), None),
            (json!("1.5"), None),
            (json!("seven"), None),
            (json!(true), None),
            (json!([1]), None),
        ] {
            assert_eq!(integer(&value), wanted, "{value}");
        }
    }

    #[test]
    fn booleans_have_six_spellings() {
        for value in [json!(true), json!("true"), json!("1")] {
            assert_eq!(boolean(&value), Some(true));
        }
        for value in [json!(false), json!("false"), json!("0")] {
            assert_eq!(boolean(&value), Some(false));
        }
        for value in [json!(1), json!("yes"), json!("TRUE"), json!({})] {
            assert_eq!(boolean(&value), None);
        }
    }

    #[test]
    fn blank_takes_a_value_away_and_absent_leaves_it() {
        let fields = json!({"null": null, "blank": " ", "bad": 1.5});
        let mut cast = Cast::new(fields.as_object().unwrap());
        assert_eq!(cast.field("null", integer), Some(None));
        assert_eq!(cast.field("blank", integer), Some(None));
        assert_eq!(cast.field("absent", integer), None);
        assert!(cast.errors.is_empty());
        assert_eq!(cast.field("bad", integer), None);
        assert_eq!(cast.errors.to_json(), json!({"errors": {"bad": ["is invalid"]}}));
    }
}
