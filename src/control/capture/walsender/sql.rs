//! Names and values inside command text.
//!
//! The simple query protocol has no parameters, and the replication grammar is not SQL: its
//! strings know the doubled quote but neither backslash escapes nor `E''`. All quoting of
//! this folder happens here.

use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::error::WalsenderError;

/// Longest identifier, in bytes (NAMEDATALEN - 1). The server cuts longer ones, which would
/// make two names one.
const IDENTIFIER_BYTES_MAX: usize = 63;

/// A name for SQL and for replication commands, in double quotes.
pub(super) fn identifier(name: &str) -> Result<String, WalsenderError> {
    if name.is_empty() || name.len() > IDENTIFIER_BYTES_MAX || name.contains('\0') {
        return Err(WalsenderError::Name("identifier: it must have 1 to 63 bytes, none of them zero"));
    }
    Ok(escape_identifier(name))
}

/// A string for SQL.
pub(super) fn literal(text: &str) -> String {
    escape_literal(text)
}

/// A string for replication commands.
pub(super) fn option_value(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Checks the name of a replication slot, for which the server allows `[a-z0-9_]` only
/// (spec 5.5).
pub(super) fn slot_name(name: &str) -> Result<&str, WalsenderError> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || name.len() > IDENTIFIER_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(WalsenderError::Name("slot name: it must be 1 to 63 of a-z, 0-9 and _"));
    }
    Ok(name)
}

/// The value of the option `publication_names`: a list of quoted identifiers.
///
/// # Errors
/// [`WalsenderError::Name`] for a name no publication can have.
pub fn publication_names(names: &[&str]) -> Result<String, WalsenderError> {
    let quoted: Result<Vec<String>, WalsenderError> = names.iter().map(|name| identifier(name)).collect();
    Ok(quoted?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(identifier(r#"a"b\"#).unwrap(), r#""a""b\""#);
        assert_eq!(option_value(r"it's \n"), r"'it''s \n'");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\'").trim(), r"E'\\'''");
        assert_eq!(publication_names(&["p", "q,\""]).unwrap(), r#""p","q,""""#);
    }

    #[test]
    fn impossible_names_are_refused() {
        let longest = "x".repeat(IDENTIFIER_BYTES_MAX);
        assert!(identifier(&longest).is_ok() && slot_name(&longest).is_ok());
        for name in ["", "a\0b", &"x".repeat(64)] {
            assert!(matches!(identifier(name), Err(WalsenderError::Name(_))), "{name:?}");
            assert!(matches!(slot_name(name), Err(WalsenderError::Name(_))), "{name:?}");
        }
        for name in ["Slot", "a-b", "a b", "é", "a'"] {
            assert!(slot_name(name).is_err(), "{name:?}");
        }
    }
}
