//! Descriptions of types, read from the catalog of a database.
//!
//! Called when a relation with unknown column types shows up. One round trip for all types and those they are made of.
//! Fails with the error of the statement; types that do not exist are absent from the answer.

use std::collections::HashMap;
use std::rc::Rc;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use super::{TypeInfo, TypeKind};

/// Deepest nesting of types. Postgres allows no type to contain itself, but stacks are finite.
const DEPTH_MAX: usize = 32;

/// The types asked for and, transitively, their elements, base types and attributes. `to_jsonb` obeys casts to json only
/// of types that came after the built-in ones.
const TYPES: &str = "with recursive wanted(oid) as ( \
    select unnest($1::oid[]) \
    union \
    select part.oid from wanted w join pg_catalog.pg_type t on t.oid = w.oid cross join lateral ( \
        select t.typelem where t.typtype = 'b' and t.typoutput = 'pg_catalog.array_out'::regproc \
        union all select t.typbasetype where t.typtype = 'd' \
        union all select a.atttypid from pg_catalog.pg_attribute a \
            where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped \
    ) part(oid)) \
select t.oid, t.typname::text as name, \
    case when t.typtype = 'b' and t.typoutput = 'pg_catalog.array_out'::regproc then 'a' \
        when t.oid >= 16384 and t.typtype in ('b', 'e', 'r', 'm') and exists ( \
            select from pg_catalog.pg_cast c where c.castsource = t.oid and c.casttarget = 114 and c.castmethod = 'f') then 'j' \
        else t.typtype::text end as kind, \
    case when t.typtype = 'd' then t.typbasetype else t.typelem end as inner_oid, \
    coalesce((select e.typdelim::text from pg_catalog.pg_type e where e.oid = t.typelem), ',') as delimiter, \
    attributes.names, attributes.types \
from wanted w join pg_catalog.pg_type t on t.oid = w.oid cross join lateral ( \
    select coalesce(array_agg(a.attname::text order by a.attnum), '{}') as names, \
        coalesce(array_agg(a.atttypid order by a.attnum), '{}') as types \
    from pg_catalog.pg_attribute a \
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) attributes";

/// Reads the descriptions of `oids`.
///
/// # Errors
/// Of the statement. It runs under the session's own statement timeout: bound the call when that may be none.
pub async fn load(client: &Client, oids: &[u32]) -> Result<HashMap<u32, Rc<TypeInfo>>, Error> {
    let rows = client.query_typed(TYPES, &[(&oids, Type::OID_ARRAY)]).await?;
    let rows: HashMap<u32, Row> = rows.into_iter().map(|row| (row.get(0), row)).collect();
    let mut known = HashMap::new();
    let found = |oid: &u32| rows.contains_key(oid);
    Ok(oids.iter().copied().filter(found).map(|oid| (oid, describe(oid, &rows, &mut known, 0))).collect())
}

fn describe(oid: u32, rows: &HashMap<u32, Row>, known: &mut HashMap<u32, Rc<TypeInfo>>, depth: usize) -> Rc<TypeInfo> {
    if let Some(type_info) = known.get(&oid) {
        return Rc::clone(type_info);
    }
    let Some(row) = rows.get(&oid).filter(|_| depth < DEPTH_MAX) else {
        return Rc::new(TypeInfo { oid, name: String::new(), kind: TypeKind::Other });
    };
    let mut part = |oid: u32| describe(oid, rows, known, depth + 1);
    let kind = match row.get::<_, &str>("kind") {
        "a" => TypeKind::Array {
            element: part(row.get("inner_oid")),
            delimiter: row.get::<_, &str>("delimiter").bytes().next().unwrap_or(b','),
        },
        "b" => TypeKind::Base,
        "c" => {
            let types = row.get::<_, Vec<u32>>("types").into_iter().map(part);
            TypeKind::Composite { attributes: row.get::<_, Vec<String>>("names").into_iter().zip(types).collect() }
        }
        "d" => TypeKind::Domain { base: part(row.get("inner_oid")) },
        "e" => TypeKind::Enum,
        "m" | "r" => TypeKind::Range,
        _ => TypeKind::Other,
    };
    let type_info = Rc::new(TypeInfo { oid, name: row.get("name"), kind });
    known.insert(oid, Rc::clone(&type_info));
    type_info
}
