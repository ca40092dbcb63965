//! Keys on their way into a statement: one array parameter per key column, in Postgres' text form.
//!
//! The values are the text the change stream carried, so whatever type the column has, its own input function reads them; no
//! type has to be named in SQL, where a role without rights on the schema of the type could not name it.

use std::error::Error;
use std::fmt::Write as _;

use bytes::BytesMut;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};

/// One column of the keys of a probe, as the text of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyArray(String);

impl KeyArray {
    /// An array of these values.
    pub fn of<'a>(values: impl Iterator<Item = Option<&'a str>>) -> Self {
        let mut text = String::from("{");
        for value in values {
            if text.len() > 1 {
                text.push(',');
            }
            match value {
                // Quoted, so that no value can be taken for structure.
                Some(value) => {
                    text.push('"');
                    for character in value.chars() {
                        if matches!(character, '"' | '\\') {
                            text.push('\\');
                        }
                        text.push(character);
                    }
                    text.push('"');
                }
                None => text.push_str("NULL"),
            }
        }
        text.push('}');
        Self(text)
    }
}

impl ToSql for KeyArray {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.write_str(&self.0)?;
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        // The server reads text; what it cannot read it refuses.
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_and_null_is_not() {
        let values = [Some("7"), None, Some(""), Some("null"), Some(r#"a"b\c,{d}"#)];
        assert_eq!(KeyArray::of(values.into_iter()).0, r#"{"7",NULL,"","null","a\"b\\c,{d}"}"#);
        assert_eq!(KeyArray::of(std::iter::empty()).0, "{}");
    }
}
