//! Column values of captured rows as JSON (database.md 6.5 and 8.5): what `to_jsonb(text::type)` prints, without asking.
//!
//! Values come as text in the output format of their type. What is printed here is byte for byte the text form of the jsonb
//! value, with the deviations of the original: a scalar that is no number is null, `bytea` has no prefix; and one of ours:
//! `char(n)` and `bit(n)` come in full. Called by whoever builds the record of a change.
//!
//! Invariants: the session that sent the text uses `DateStyle` ISO, `bytea_output` hex and the time zone clients shall see.
//! Text that does not look like the type's output is never guessed at: [`NeedsSql`], and `out` is as it was. Nothing here
//! panics on any text.
//!
//! | file | concept |
//! |---|---|
//! | `catalog` | descriptions of types, read from a database |
//! | `number` | digits without exponents |
//! | `document` | json texts in their jsonb form |
//! | `literal` | the text forms of arrays and composites |
//! | `ask` | the database's answer for what is not known here |

mod ask;
#[cfg(test)]
mod catalog;
mod document;
mod literal;
mod number;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::rc::Rc;

pub use ask::{ask, in_batches};
#[cfg(test)]
pub use catalog::load;
pub use literal::items;

use crate::protocol::phoenix::json;

/// Values whose JSON text is at most this long stay in a change that is too large (the 413 case of database.md 8.3).
pub const SMALL_BYTES_MAX: usize = 64;

/// Oids of built-in types that are special here; fixed by Postgres for all versions.
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT2VECTOR: u32 = 22;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const OIDVECTOR: u32 = 30;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const BIT: u32 = 1560;
    pub const VARBIT: u32 = 1562;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
    /// Types of extensions and users start here.
    pub const FIRST_NORMAL: u32 = 16_384;
}

/// What there is to know about a type to print and compare its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeInfo {
    /// `pg_type.oid`
    pub oid: u32,
    /// `pg_type.typname`, which is also what clients are told.
    pub name: String,
    pub kind: TypeKind,
}

/// How a type is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeKind {
    /// A base type, built in or of an extension, whose JSON is its text unless its oid is known here.
    Base,
    /// A true array. The delimiter is the one of the element's type.
    Array {
        element: Rc<TypeInfo>,
        delimiter: u8,
    },
    Enum,
    Domain {
        base: Rc<TypeInfo>,
    },
    /// Attributes that were not dropped, in order.
    Composite {
        attributes: Vec<(String, Rc<TypeInfo>)>,
    },
    /// A range or multirange.
    Range,
    /// Anything with a cast to json of its own, and what was not found in the catalog.
    Other,
}

/// Only the database can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedsSql;

/// Appends the JSON of a value that is not null.
///
/// # Errors
/// [`NeedsSql`] when it is not certain what Postgres would print; `out` is unchanged then.
pub fn write_json(type_info: &TypeInfo, text: &str, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
    let start = out.len();
    let written = match (&type_info.kind, type_info.oid) {
        (TypeKind::Base, oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC) if number::is_special(text) => {
            out.extend_from_slice(b"null");
            Ok(())
        }
        (TypeKind::Base, oid::BYTEA) => match text.strip_prefix("\\x") {
            Some(digits) => {
                json::write_string(out, digits);
                Ok(())
            }
            None => Err(NeedsSql),
        },
        _ => write_nested(type_info, text, out),
    };
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// True when the value stays in a change that is too large (database.md 8.3); nulls do not, which is the caller's business.
pub fn is_small(json: &[u8]) -> bool {
    json.len() <= SMALL_BYTES_MAX
}

/// The same for values inside others, where the deviations of the original do not apply. May leave a part in `out`.
fn write_nested(type_info: &TypeInfo, text: &str, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
    match &type_info.kind {
        TypeKind::Base => write_base(type_info.oid, text, out),
        TypeKind::Array { element, delimiter } => {
            literal::read_array(text, *delimiter, out, &mut |text, out| write_nested(element, text, out))
        }
        TypeKind::Enum | TypeKind::Range => {
            json::write_string(out, text);
            Ok(())
        }
        TypeKind::Domain { base } => write_nested(base, text, out),
        TypeKind::Composite { attributes } => write_composite(attributes, text, out),
        TypeKind::Other => Err(NeedsSql),
    }
}

fn write_base(oid: u32, text: &str, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
    match oid {
        oid::INT2 | oid::INT4 | oid::INT8 => return number::write(text, out),
        oid::FLOAT4 | oid::FLOAT8 | oid::NUMERIC if !number::is_special(text) => return number::write(text, out),
        oid::BOOL => out.extend_from_slice(match text {
            "t" => b"true",
            "f" => b"false",
            _ => return Err(NeedsSql),
        }),
        oid::JSON => return document::write(text, out),
        oid::JSONB => out.extend_from_slice(text.as_bytes()),
        oid::TIMESTAMP => json::write_string(out, &iso_moment(text, false)?),
        oid::TIMESTAMPTZ => json::write_string(out, &iso_moment(text, true)?),
        // These are arrays to `to_jsonb` yet print differently; nobody has columns of them.
        oid::INT2VECTOR | oid::OIDVECTOR => return Err(NeedsSql),
        _ => json::write_string(out, text),
    }
    Ok(())
}

/// The moment with a `T`, and with minutes in its offset.
fn iso_moment(text: &str, with_offset: bool) -> Result<Cow<'_, str>, NeedsSql> {
    if text == "infinity" || text == "-infinity" {
        return Ok(Cow::Borrowed(text));
    }
    let (moment, era) = text.strip_suffix(" BC").map_or((text, ""), |moment| (moment, " BC"));
    let (date, time) = moment.split_once(' ').ok_or(NeedsSql)?;
    let all = |text: &str, other: &[u8]| text.bytes().all(|byte| byte.is_ascii_digit() || other.contains(&byte));
    if date.len() < 10 || !all(date, b"-") || time.len() < 8 || !all(time, b":.+-") {
        return Err(NeedsSql);
    }
    let minutes = match time.find(['+', '-']) {
        None if with_offset => return Err(NeedsSql),
        Some(_) if !with_offset => return Err(NeedsSql),
        Some(at) if time.len() - at == 3 => ":00",
        _ => "",
    };
    Ok(Cow::Owned(format!("{date}T{time}{minutes}{era}")))
}

/// An object with its keys in the order of jsonb.
fn write_composite(attributes: &[(String, Rc<TypeInfo>)], text: &str, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
    let fields = literal::read_composite(text)?;
    if fields.len() != attributes.len() {
        return Err(NeedsSql);
    }
    let mut pairs: Vec<_> = attributes.iter().zip(&fields).collect();
    pairs.sort_by(|((left, _), _), ((right, _), _)| document::key_order(left, right));
    out.push(b'{');
    for (nth, ((name, type_info), field)) in pairs.into_iter().enumerate() {
        if nth > 0 {
            out.extend_from_slice(b", ");
        }
        json::write_string(out, name);
        out.extend_from_slice(b": ");
        match field {
            Some(field) => write_nested(type_info, field, out)?,
            None => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
    Ok(())
}
