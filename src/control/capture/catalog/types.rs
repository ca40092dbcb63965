//! The types of published columns, as far as it matters how their text form becomes JSON (database.md 8.5).

use tokio_postgres::types::Oid;
use tokio_postgres::{Error, Row};

/// A type in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogType {
    /// Its `pg_type.oid`.
    pub oid: Oid,
    /// Schema, unquoted.
    pub schema: String,
    /// `typname`, which is what clients are told: `int4`, `_int4`, the name of an enum.
    pub name: String,
    /// The type of arrays of it, if there is one.
    pub array_type: Option<Oid>,
    /// An extension's type with a cast to `json` of its own, which `to_jsonb` follows (hstore).
    pub json_cast: bool,
    /// What it consists of.
    pub kind: TypeKind,
}

/// What a type consists of. Types mentioned are in the same catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeKind {
    /// Nothing smaller.
    Base,
    /// Elements, which the text form separates by `delimiter`.
    Array {
        /// Type of the elements.
        element: Oid,
        /// A comma, but for `box`.
        delimiter: char,
    },
    /// One of a list of words.
    Enum,
    /// A type with constraints.
    Domain {
        /// The type; may be a domain itself.
        base: Oid,
    },
    /// Names and types of attributes, in order.
    Composite {
        /// Without dropped ones.
        attributes: Vec<(String, Oid)>,
    },
    /// A range.
    Range,
    /// A list of ranges.
    Multirange,
    /// A pseudo-type.
    Other,
}

impl CatalogType {
    pub(super) fn read(row: &Row) -> Result<Self, Error> {
        let (base, element, array): (Oid, Oid, Oid) = (row.try_get(5)?, row.try_get(6)?, row.try_get(4)?);
        let delimiter = row.try_get::<_, &str>(7)?.chars().next().unwrap_or(',');
        let kind = match row.try_get::<_, &str>(3)? {
            "b" if element != 0 => TypeKind::Array { element, delimiter },
            "b" => TypeKind::Base,
            "e" => TypeKind::Enum,
            "d" => TypeKind::Domain { base },
            "c" => {
                let (names, types): (Vec<String>, Vec<Oid>) = (row.try_get(9)?, row.try_get(10)?);
                TypeKind::Composite { attributes: names.into_iter().zip(types).collect() }
            }
            "r" => TypeKind::Range,
            "m" => TypeKind::Multirange,
            _ => TypeKind::Other,
        };
        Ok(Self {
            oid: row.try_get(0)?,
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            array_type: (array != 0).then_some(array),
            json_cast: row.try_get(8)?,
            kind,
        })
    }
}
