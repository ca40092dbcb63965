//! The published tables as changes need them: columns with everything there is to know about their types.

use std::rc::Rc;

use hashbrown::HashMap;

use crate::control::capture::catalog::{Catalog, TypeKind as CatalogKind};
use crate::control::capture::values::{TypeInfo, TypeKind};
use crate::control::capture::visibility::KeyedRelation;

/// Types within types that are followed; deeper ones are left to the database.
const TYPE_DEPTH_MAX: usize = 16;

/// A published table.
#[derive(Debug)]
pub struct Table {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// Row-level security is enabled.
    pub has_row_security: bool,
    /// The primary key: positions in `columns`, in the key's order. Empty when there is none.
    pub key: Vec<usize>,
    /// Columns in attribute order.
    pub columns: Vec<Column>,
    /// How rows are looked up by their key; `None` without one.
    pub lookup: Option<KeyedRelation>,
}

/// A column of a published table.
#[derive(Debug)]
pub struct Column {
    /// Name.
    pub name: String,
    /// Attribute number.
    pub attnum: i16,
    /// Its type.
    pub type_oid: u32,
    /// What is known of the type.
    pub info: Rc<TypeInfo>,
    /// Equal only if the bytes are equal.
    pub is_deterministic: bool,
}

impl Table {
    /// The tables of a catalog, by oid.
    pub fn all_of(catalog: &Catalog) -> HashMap<u32, Rc<Self>> {
        let mut types = HashMap::new();
        let table = |table: &crate::control::capture::catalog::Table, types: &mut HashMap<u32, Rc<TypeInfo>>| Self {
            oid: table.oid,
            schema: table.schema.clone(),
            name: table.name.clone(),
            has_row_security: table.row_security,
            lookup: KeyedRelation::of(table, catalog),
            key: table
                .primary_key
                .iter()
                .filter_map(|number| table.columns.iter().position(|column| column.number == *number))
                .collect(),
            columns: table
                .columns
                .iter()
                .map(|column| Column {
                    name: column.name.clone(),
                    attnum: column.number,
                    type_oid: column.type_oid,
                    info: type_info(catalog, column.type_oid, types, 0),
                    is_deterministic: column.deterministic,
                })
                .collect(),
        };
        catalog.tables.values().map(|found| (found.oid, Rc::new(table(found, &mut types)))).collect()
    }

    /// Position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

fn type_info(catalog: &Catalog, oid: u32, made: &mut HashMap<u32, Rc<TypeInfo>>, depth: usize) -> Rc<TypeInfo> {
    if let Some(info) = made.get(&oid) {
        return info.clone();
    }
    let unknown = || Rc::new(TypeInfo { oid, name: String::new(), kind: TypeKind::Other });
    let Some(found) = catalog.types.get(&oid).filter(|_| depth < TYPE_DEPTH_MAX) else { return unknown() };
    let mut inner = |oid: u32| type_info(catalog, oid, made, depth + 1);
    let kind = match &found.kind {
        _ if found.json_cast => TypeKind::Other,
        CatalogKind::Base => TypeKind::Base,
        CatalogKind::Array { element, delimiter } => match u8::try_from(*delimiter) {
            Ok(delimiter) => TypeKind::Array { element: inner(*element), delimiter },
            Err(_) => TypeKind::Other,
        },
        CatalogKind::Enum => TypeKind::Enum,
        CatalogKind::Domain { base } => TypeKind::Domain { base: inner(*base) },
        CatalogKind::Composite { attributes } => {
            TypeKind::Composite { attributes: attributes.iter().map(|(name, oid)| (name.clone(), inner(*oid))).collect() }
        }
        CatalogKind::Range | CatalogKind::Multirange => TypeKind::Range,
        CatalogKind::Other => TypeKind::Other,
    };
    let info = Rc::new(TypeInfo { oid, name: found.name.clone(), kind });
    made.insert(oid, info.clone());
    info
}
