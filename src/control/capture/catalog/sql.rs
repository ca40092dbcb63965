//! The text of the catalog's questions.
//!
//! All of them start from the same description of the published tables, their columns and the types of those, so the
//! fingerprint covers exactly what is loaded. Works from Postgres 13 on.

use std::sync::LazyLock;

/// `$1` is the publication. Tables of the schema `realtime` are the server's own and never captured. Keys leave out columns
/// that an index merely includes. In `types`, only true arrays count as arrays: `point` and its like have elements, too, and
/// `int2vector` and `oidvector` are printed without braces.
const DESCRIPTION: &str = "
    with recursive published as materialized (
      select c.oid, n.nspname, c.relname, c.relrowsecurity, c.relreplident,
        array(select k.attnum from pg_catalog.pg_index i, pg_catalog.unnest(i.indkey) with ordinality k (attnum, nth)
              where i.indrelid = c.oid and i.indisprimary and k.nth <= i.indnkeyatts order by k.nth) as primary_key,
        array(select k.attnum from pg_catalog.pg_index i, pg_catalog.unnest(i.indkey) with ordinality k (attnum, nth)
              where i.indrelid = c.oid and i.indisreplident and k.nth <= i.indnkeyatts order by k.nth) as identity_key
      from pg_catalog.pg_publication p, lateral pg_catalog.pg_get_publication_tables(p.pubname) g
        join pg_catalog.pg_class c on c.oid = g.relid
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
      where p.pubname = $1 and n.nspname <> 'realtime'
    ), columns as materialized (
      select a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated,
        coalesce(l.collisdeterministic, true) as deterministic
      from published p
        join pg_catalog.pg_attribute a on a.attrelid = p.oid and a.attnum > 0 and not a.attisdropped
        left join pg_catalog.pg_collation l on l.oid = a.attcollation
    ), used as (
      select c.atttypid as type from columns c
      union
      select inner_type.oid
      from used u join pg_catalog.pg_type t on t.oid = u.type, lateral (
        select t.typelem where t.typlen = -1 and t.typelem <> 0 and t.oid not in (22, 30)
        union all
        select t.typbasetype where t.typtype = 'd'
        union all
        select a.atttypid from pg_catalog.pg_attribute a
        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
      ) inner_type (oid)
    ), types as materialized (
      select t.oid, n.nspname, t.typname, t.typtype, t.typarray, t.typbasetype,
        case when t.typlen = -1 and t.typelem <> 0 and t.oid not in (22, 30) then t.typelem else 0::oid end as element,
        t.typdelim as delimiter,
        exists (select from pg_catalog.pg_cast c
                where c.castsource = t.oid and c.casttarget = 114 and c.castmethod = 'f' and t.oid >= 16384) as json_cast,
        array(select a.attname::text from pg_catalog.pg_attribute a
              where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
              order by a.attnum) as attribute_names,
        array(select a.atttypid from pg_catalog.pg_attribute a
              where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
              order by a.attnum) as attribute_types
      from used u
        join pg_catalog.pg_type t on t.oid = u.type
        join pg_catalog.pg_namespace n on n.oid = t.typnamespace
    )";

/// One row if there is such a publication: what it publishes, and the fingerprint.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{DESCRIPTION}
    select p.pubinsert, p.pubupdate, p.pubdelete, pg_catalog.md5(pg_catalog.concat_ws(' ',
      p.oid, p.pubinsert, p.pubupdate, p.pubdelete, p.pubviaroot,
      (select pg_catalog.string_agg(d::text, ' ' order by d.oid) from published d),
      (select pg_catalog.string_agg(d::text, ' ' order by d.attrelid, d.attnum) from columns d),
      (select pg_catalog.string_agg(d::text, ' ' order by d.oid) from types d)))
    from pg_catalog.pg_publication p where p.pubname = $1"
    )
});

/// One row per table, its columns as parallel arrays in attribute order.
pub static TABLES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{DESCRIPTION}
    select p.oid, p.nspname::text, p.relname::text, p.relrowsecurity, p.relreplident::text, p.primary_key, p.identity_key,
      coalesce(pg_catalog.array_agg(c.attnum order by c.attnum) filter (where c.attnum is not null), '{{}}'),
      coalesce(pg_catalog.array_agg(c.attname::text order by c.attnum) filter (where c.attnum is not null), '{{}}'),
      coalesce(pg_catalog.array_agg(c.atttypid order by c.attnum) filter (where c.attnum is not null), '{{}}'),
      coalesce(pg_catalog.array_agg(c.atttypmod order by c.attnum) filter (where c.attnum is not null), '{{}}'),
      coalesce(pg_catalog.array_agg(c.attgenerated::text order by c.attnum) filter (where c.attnum is not null), '{{}}'),
      coalesce(pg_catalog.array_agg(c.deterministic order by c.attnum) filter (where c.attnum is not null), '{{}}')
    from published p left join columns c on c.attrelid = p.oid
    group by p.oid, p.nspname, p.relname, p.relrowsecurity, p.relreplident, p.primary_key, p.identity_key"
    )
});

/// One row per type, elements, bases and attributes included.
pub static TYPES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{DESCRIPTION}
    select t.oid, t.nspname::text, t.typname::text, t.typtype::text, t.typarray, t.typbasetype, t.element,
      t.delimiter::text, t.json_cast, t.attribute_names, t.attribute_types
    from types t"
    )
});

/// `$1` roles and `$2` relations, side by side; one row each, in order. No role, no columns; no relation, no columns.
pub const PRIVILEGES: &str = "
    select r.oid is not null, array(
      select a.attnum from pg_catalog.pg_attribute a
      where a.attrelid = w.relation and a.attnum > 0 and not a.attisdropped
        and pg_catalog.has_column_privilege(r.oid, w.relation, a.attnum, 'SELECT')
      order by a.attnum)
    from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::oid[])) with ordinality w (role, relation, nth)
      left join pg_catalog.pg_roles r on r.rolname = w.role
    order by w.nth";
