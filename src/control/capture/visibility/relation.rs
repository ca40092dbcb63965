//! A table whose rows can be looked up by primary key, and the statement that does it.

use tokio_postgres::types::{Kind, Oid, Type};

use super::super::catalog::{Catalog, CatalogType, Table, TypeKind};

/// Key types whose `=` the database trusts not to leak what it compares: only with such a key it looks into the index before
/// it asks the policies.
const LEAKPROOF: [Type; 25] = [
    Type::BOOL,
    Type::BYTEA,
    Type::CHAR,
    Type::NAME,
    Type::INT8,
    Type::INT2,
    Type::INT4,
    Type::TEXT,
    Type::OID,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::INET,
    Type::CIDR,
    Type::BPCHAR,
    Type::VARCHAR,
    Type::DATE,
    Type::TIME,
    Type::TIMETZ,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::INTERVAL,
    Type::BIT,
    Type::VARBIT,
    Type::MACADDR,
    Type::UUID,
];

/// Where to look for keys. Made once per table and catalog.
#[derive(Debug, Clone)]
pub struct KeyedRelation {
    /// Array types of the parameters.
    pub(super) parameters: Vec<Type>,
    /// The statement behind `select … as "…" `.
    from: String,
}

impl KeyedRelation {
    /// `None` when the table has no primary key, or the catalog does not know its types.
    pub fn of(table: &Table, catalog: &Catalog) -> Option<Self> {
        let keys: Option<Vec<Key<'_>>> = table
            .key_columns()
            .map(|column| {
                let base = catalog.base_type(column.type_oid)?;
                Some(Key { column: &column.name, declared: catalog.types.get(&column.type_oid)?, base })
            })
            .collect();
        let keys = keys.filter(|keys| !keys.is_empty() && keys.len() == table.primary_key.len())?;
        Some(Self { parameters: keys.iter().map(Key::parameter).collect(), from: lookup(table, &keys) })
    }

    /// Columns of a key.
    pub fn key_width(&self) -> usize {
        self.parameters.len()
    }

    /// Selects the positions, from 1, of the keys whose row is visible. The role is a column alias, so that every role gets a
    /// statement of its own: the policies in a plan are those for one role, and it would be made anew at every change of it.
    pub(super) fn statement(&self, role: &str) -> String {
        format!("select k.nth as {}{}", quoted(role), self.from)
    }
}

/// A column of the primary key.
struct Key<'a> {
    column: &'a str,
    declared: &'a CatalogType,
    base: &'a CatalogType,
}

impl Key<'_> {
    /// Arrays of arrays do not exist, so a key that is an array travels as text.
    fn array(&self) -> Option<Oid> {
        self.base.array_type.filter(|_| !matches!(self.base.kind, TypeKind::Array { .. }))
    }

    fn parameter(&self) -> Type {
        let Some(oid) = self.array() else { return Type::TEXT_ARRAY };
        // Name, schema and element serve nothing; the statement is prepared with the oid.
        Type::from_oid(oid).unwrap_or_else(|| Type::new(String::new(), oid, Kind::Simple, String::new()))
    }
}

/// The keys are hidden behind a `select`, so that the planner expects the same number of them whether it sees them or not:
/// only then it keeps a plan for good instead of making one at every execution.
///
/// With a usable index, `limit` keeps the lookup from being turned into a join: as many index lookups as keys, whatever the
/// statistics say. Without, one pass over the table that all keys are compared with is better than one for each.
fn lookup(table: &Table, keys: &[Key<'_>]) -> String {
    let list = |item: &dyn Fn(usize) -> String, separator: &str| (1..=keys.len()).map(item).collect::<Vec<_>>().join(separator);
    let arrays = list(&|n| format!("pg_catalog.unnest((select ${n}))"), ", ");
    let names = list(&|n| format!("k{n}"), ", ");
    let condition = list(
        &|n| {
            let key = &keys[n - 1];
            let CatalogType { schema, name, .. } = key.declared;
            let cast = if key.array().is_some() { String::new() } else { format!("::{}.{}", quoted(schema), quoted(name)) };
            format!("t.{} = k.k{n}{cast}", quoted(key.column))
        },
        " and ",
    );
    let keys_list = format!("rows from ({arrays}) with ordinality k ({names}, nth)");
    let row = format!("select from {}.{} t where {condition}", quoted(&table.schema), quoted(&table.name));
    if keys.iter().any(|key| LEAKPROOF.iter().any(|leakproof| leakproof.oid() == key.base.oid)) {
        format!(" from {keys_list}, lateral ({row} limit 1) v")
    } else {
        format!(" from {keys_list} where exists ({row})")
    }
}

/// An identifier in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
