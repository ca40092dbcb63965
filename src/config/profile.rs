//! Reads a tuning profile (TOML) into raw values with their line numbers.
//!
//! A profile is a flat list of `knob = value`; keys are the names in `knobs`. Everything is checked
//! here or in `resolve`, so that a typing error is reported with file and line, what is allowed, and
//! the nearest known key, instead of being ignored. TOML types are enforced (a number is not written
//! in quotes); the text then goes through the same parser as the environment variable.

use toml::de::{DeTable, DeValue};

use super::{
    error::ConfigError,
    knobs::{KNOBS, Kind, Knob, Place},
};

/// Unknown keys at most this many edits away from a known one get a suggestion.
const SUGGESTION_EDITS_MAX: usize = 4;

/// A value found in a profile, as the text its environment variable would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProfileValue {
    pub text: String,
    /// 1-based line of the key.
    pub line: usize,
}

/// Parses a profile; the result has one slot per entry of `KNOBS`.
pub(super) fn parse(path: &str, text: &str) -> Result<Vec<Option<ProfileValue>>, ConfigError> {
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        ConfigError::new(format!("{path}:{line}"), error.message().trim().to_owned())
    })?;
    let mut values = vec![None; KNOBS.len()];
    for (key, value) in table.get_ref() {
        let line = line_of(text, key.span().start);
        let refuse = |message: String| ConfigError::new(format!("{path}:{line}"), message);
        let name = key.get_ref().as_ref();
        let (index, knob) = lookup(name).map_err(refuse)?;
        let text = text_of(knob, value.get_ref()).ok_or_else(|| {
            refuse(format!(
                "`{name}` must be {}, not {} (allowed: {})",
                toml_type(knob.kind),
                value.get_ref().type_str(),
                knob.kind.range()
            ))
        })?;
        values[index] = Some(ProfileValue { text, line });
    }
    Ok(values)
}

fn lookup(name: &str) -> Result<(usize, &'static Knob), String> {
    match KNOBS.iter().enumerate().find(|(_, knob)| knob.name == name) {
        Some((_, knob)) if knob.place == Place::Environment => {
            Err(format!("`{name}` cannot be set in a profile, set the environment variable {}", knob.env))
        }
        Some(found) => Ok(found),
        None => Err(match nearest(name) {
            Some(known) => format!("unknown key `{name}`; did you mean `{known}`?"),
            None => format!("unknown key `{name}`; `ringcast check` lists the known ones"),
        }),
    }
}

fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("ringcast_").unwrap_or(&name);
    KNOBS
        .iter()
        .filter(|knob| knob.place == Place::Both)
        .map(|knob| (edit_distance(name, knob.name), knob.name))
        .min()
        .filter(|&(edits, known)| edits <= SUGGESTION_EDITS_MAX.min(known.len() / 2))
        .map(|(_, known)| known)
}

/// Levenshtein distance in bytes; both names are short ASCII.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn toml_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Int { .. } => "an integer",
        Kind::Bool => "true or false without quotes",
        Kind::Spread => "a string or an integer",
        Kind::Cpus | Kind::Networks => "a string or an array",
        _ => "a string",
    }
}

/// The text of a value whose TOML type suits the knob, or `None`.
fn text_of(knob: &Knob, value: &DeValue<'_>) -> Option<String> {
    match (knob.kind, value) {
        (Kind::Int { .. } | Kind::Spread, DeValue::Integer(_)) => integer(value),
        (Kind::Bool, DeValue::Boolean(on)) => Some(on.to_string()),
        (Kind::Int { .. } | Kind::Bool, _) => None,
        (_, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Cpus | Kind::Networks, DeValue::Array(items)) => items
            .iter()
            .map(|item| match (knob.kind, item.get_ref()) {
                (_, DeValue::String(text)) => Some(text.to_string()),
                (Kind::Cpus, number) => integer(number),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(|items| items.join(",")),
        _ => None,
    }
}

/// Decimal text of a TOML integer, which may be written in another radix.
fn integer(value: &DeValue<'_>) -> Option<String> {
    let integer = value.as_integer()?;
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok()?;
    Some(number.to_string())
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}
