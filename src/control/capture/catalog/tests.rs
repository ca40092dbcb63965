//! Catalogs of real databases.

use tokio_postgres::types::Type;

use super::super::super::database::authorization::testing::{fixture_client, settings};
use super::*;
use crate::local_postgres::testing::server;

const PUBLICATION: &str = "changes";

struct Fixture {
    client: tokio_postgres::Client,
    pool: DatabasePool,
}

/// A database of its own with `sql` applied.
async fn fixture(sql: &str) -> Fixture {
    let name = server().database().await;
    let client = fixture_client(&name).await;
    let fixture = Fixture { client, pool: DatabasePool::new(settings(&name)) };
    fixture.execute(sql).await;
    fixture
}

impl Fixture {
    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn catalog(&self) -> Catalog {
        load(&self.pool, PUBLICATION).await.unwrap().unwrap()
    }

    async fn oid(&self, relation: &str) -> Oid {
        self.client.query_one("select $1::text::regclass::oid", &[&relation]).await.unwrap().get(0)
    }
}

fn names(columns: &[Column]) -> Vec<(i16, &str)> {
    columns.iter().map(|column| (column.number, column.name.as_str())).collect()
}

#[tokio::test]
async fn tables_are_described_as_they_are() {
    let fixture = fixture(
        r#"create schema "Odd ""Schema";
           create collation "Odd ""Schema".loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
           create table "Odd ""Schema"."T, 'a'.b" (gone int, "ID" bigint, name varchar(40) collate "Odd ""Schema".loose,
             twice bigint generated always as ("ID" * 2) stored, part int, primary key (part, "ID") include (twice));
           alter table "Odd ""Schema"."T, 'a'.b" drop column gone, enable row level security, replica identity full;
           create table public.bare ();
           create table public.indexed (a int not null, b text not null);
           create unique index by_b on public.indexed (b, a);
           alter table public.indexed replica identity using index by_b;
           create table public.none (a int); alter table public.none replica identity nothing;
           create table public.unpublished (id int primary key);
           create table realtime.own (id int primary key);
           create publication changes for table "Odd ""Schema"."T, 'a'.b", public.bare, public.indexed, public.none, realtime.own
             with (publish = 'insert, delete')"#,
    )
    .await;
    let catalog = fixture.catalog().await;
    assert_eq!(catalog.actions, PublishedActions { insert: true, update: false, delete: true });
    assert_eq!(catalog.tables.len(), 4, "realtime's are left out");

    let odd = &catalog.tables[&fixture.oid(r#""Odd ""Schema"."T, 'a'.b""#).await];
    assert_eq!((odd.schema.as_str(), odd.name.as_str()), (r#"Odd "Schema"#, "T, 'a'.b"));
    assert!(odd.row_security);
    assert_eq!(odd.replica_identity, ReplicaIdentity::Full);
    assert_eq!(names(&odd.columns), [(2, "ID"), (3, "name"), (4, "twice"), (5, "part")]);
    assert_eq!(odd.primary_key, [5, 2], "in the order of the key, without what is merely included");
    assert_eq!(odd.key_columns().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["part", "ID"]);
    assert_eq!(odd.column(1), None);
    let name = odd.column(3).unwrap();
    assert_eq!((name.type_oid, name.type_modifier, name.deterministic), (Type::VARCHAR.oid(), 44, false));
    let twice = odd.column(4).unwrap();
    assert_eq!((twice.generated, twice.deterministic, twice.type_modifier), (Generated::Stored, true, -1));
    assert_eq!(odd.column(2).unwrap().generated, Generated::No);

    let bare = &catalog.tables[&fixture.oid("bare").await];
    assert_eq!((bare.columns.len(), bare.primary_key.len(), bare.row_security), (0, 0, false));
    assert_eq!(bare.replica_identity, ReplicaIdentity::Default);
    assert_eq!(catalog.tables[&fixture.oid("indexed").await].replica_identity, ReplicaIdentity::Index(vec![2, 1]));
    assert_eq!(catalog.tables[&fixture.oid("none").await].replica_identity, ReplicaIdentity::Nothing);
}

#[tokio::test]
async fn leaves_or_roots_of_partitioned_tables_and_whole_schemas() {
    let fixture = fixture(
        "create table root (id int primary key, v text) partition by range (id);
         create table leaf partition of root for values from (0) to (10);
         create table middle partition of root for values from (10) to (20) partition by range (id);
         create table deep partition of middle for values from (10) to (20);
         create publication changes for table root;",
    )
    .await;
    let listed = async || {
        let mut names: Vec<String> = fixture.catalog().await.tables.into_values().map(|table| table.name).collect();
        names.sort();
        names
    };
    let leaves = fixture.catalog().await;
    assert_eq!(listed().await, ["deep", "leaf"]);
    assert!(leaves.tables.values().all(|table| table.primary_key == [1]));
    fixture.execute("alter publication changes set (publish_via_partition_root = true)").await;
    assert_eq!(listed().await, ["root"]);
    let root = fixture.catalog().await;
    assert_ne!(root.version, leaves.version);
    assert!(root.tables.values().all(|table| table.primary_key == [1]));
    fixture.execute("drop publication changes; create publication changes for all tables; create table more (id int)").await;
    assert_eq!(listed().await, ["deep", "leaf", "more"]);
}

#[tokio::test]
async fn types_are_complete() {
    let fixture = fixture(
        "create schema kinds;
         create type kinds.mood as enum ('calm', 'busy');
         create domain kinds.positive as int check (value > 0);
         create domain kinds.small as kinds.positive check (value < 10);
         create type kinds.pair as (x kinds.small, gone int, moods kinds.mood[]);
         alter type kinds.pair drop attribute gone;
         create table kinds.every (id kinds.small primary key, pairs kinds.pair[], b box[], p point, v int2vector, n name,
           r int4range, m int4multirange, row_of kinds.pair, j jsonb);
         create function kinds.mood_to_json(kinds.mood) returns json language sql immutable as $$ select to_json('!' || $1::text) $$;
         create cast (kinds.mood as json) with function kinds.mood_to_json;
         create publication changes for table kinds.every",
    )
    .await;
    let catalog = fixture.catalog().await;
    let every = catalog.tables.values().next().unwrap();
    let of = |name: &str| {
        let column = every.columns.iter().find(|column| column.name == name).unwrap();
        &catalog.types[&column.type_oid]
    };
    let small = of("id");
    let TypeKind::Domain { base } = small.kind else { panic!("{small:?}") };
    assert_eq!((small.name.as_str(), small.schema.as_str()), ("small", "kinds"));
    assert_eq!(catalog.types[&base].kind, TypeKind::Domain { base: Type::INT4.oid() });
    assert_eq!(catalog.base_type(small.oid).unwrap().name, "int4");
    assert_eq!(catalog.base_type(small.oid).unwrap().array_type, Some(Type::INT4_ARRAY.oid()));

    let TypeKind::Array { element, delimiter: ',' } = of("pairs").kind else { panic!("{:?}", of("pairs")) };
    let pair = &catalog.types[&element];
    assert_eq!(pair, of("row_of"));
    let TypeKind::Composite { attributes } = &pair.kind else { panic!("{pair:?}") };
    assert_eq!(attributes[0], ("x".to_owned(), small.oid));
    assert_eq!((attributes.len(), attributes[1].0.as_str()), (2, "moods"));
    let TypeKind::Array { element, .. } = catalog.types[&attributes[1].1].kind else { panic!() };
    let mood = &catalog.types[&element];
    assert_eq!((mood.name.as_str(), &mood.kind, mood.json_cast), ("mood", &TypeKind::Enum, true));
    assert_eq!((of("pairs").name.as_str(), of("pairs").array_type, of("pairs").json_cast), ("_pair", None, false));

    assert_eq!(of("b").kind, TypeKind::Array { element: Type::BOX.oid(), delimiter: ';' });
    for base in ["p", "v", "n", "j"] {
        assert_eq!(of(base).kind, TypeKind::Base, "{base}");
    }
    assert_eq!((&of("r").kind, &of("m").kind), (&TypeKind::Range, &TypeKind::Multirange));
    for table in catalog.tables.values() {
        assert!(table.columns.iter().all(|column| catalog.types.contains_key(&column.type_oid)));
    }
}

#[tokio::test]
async fn the_version_changes_with_every_kind_of_change_and_with_nothing_else() {
    let fixture = fixture(
        "create type word as enum ('a'); create type pair as (x int, y word);
         create table t (id int primary key, v varchar(10), p pair); create table other (id int primary key);
         create publication changes for table t",
    )
    .await;
    let mut last = fixture.catalog().await.version;
    assert_eq!(version(&fixture.pool, PUBLICATION).await.unwrap(), Some(last.clone()), "loaded or not");
    for sql in [
        "alter publication changes add table other",
        "alter publication changes drop table other",
        "alter publication changes set (publish = 'insert')",
        "alter table t enable row level security",
        "alter table t replica identity full",
        "alter table t add column w int",
        "alter table t rename column w to x",
        "alter table t alter column x type bigint",
        "alter table t alter column v type varchar(20)",
        "alter table t drop column x",
        "create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         alter table t alter column v type varchar(20) collate loose",
        "alter table t drop constraint t_pkey",
        "alter table t add primary key (id, v)",
        "alter table t rename to renamed",
        "alter type pair add attribute z int",
        "alter type word rename to words",
        "create schema s; alter table renamed set schema s",
        "drop table s.renamed; create table s.renamed (id int primary key); alter publication changes add table s.renamed",
    ] {
        fixture.execute(sql).await;
        let now = version(&fixture.pool, PUBLICATION).await.unwrap().unwrap();
        assert_ne!(now, last, "{sql}");
        last = now;
    }
    for sql in [
        "insert into s.renamed select generate_series(1, 1000)",
        "vacuum analyze s.renamed",
        "create table unrelated (id int)",
        "create index on s.renamed (id)",
        "create policy p on s.renamed using (true)",
        "grant select on s.renamed to anon",
        "vacuum full s.renamed",
    ] {
        fixture.execute(sql).await;
        assert_eq!(version(&fixture.pool, PUBLICATION).await.unwrap(), Some(last.clone()), "{sql}");
    }
    fixture.execute("drop publication changes").await;
    assert_eq!(version(&fixture.pool, PUBLICATION).await, Ok(None));
    assert_eq!(load(&fixture.pool, PUBLICATION).await, Ok(None));
    assert_eq!(fixture.pool.status().size, 1, "one good session for all of it");
}

#[tokio::test]
async fn privileges_are_those_of_the_role_per_column() {
    let fixture = fixture(
        "create schema hidden; revoke all on schema hidden from public;
         create table hidden.whole (gone int, a int, b int); alter table hidden.whole drop column gone;
         create table part (id int, shown int, secret int);
         revoke all on part from public, anon, authenticated, service_role;
         grant select (id, shown) on part to authenticated; grant insert (secret) on part to authenticated;
         grant select on hidden.whole to anon",
    )
    .await;
    let (whole, part) = (fixture.oid("hidden.whole").await, fixture.oid("part").await);
    let pairs = [
        ("anon", whole),
        ("authenticated", part),
        ("nobody_here", part),
        ("anon", part),
        ("postgres", part),
        ("anon", 1),
        ("a\0b", part),
        ("", part),
    ];
    let readable = privileges(&fixture.pool, &pairs).await.unwrap();
    let columns = |numbers: &[i16]| Readable::Columns(numbers.into());
    assert_eq!(
        readable,
        [
            columns(&[2, 3]),
            columns(&[1, 2]),
            Readable::UnknownRole,
            columns(&[]),
            columns(&[1, 2, 3]),
            columns(&[]),
            Readable::UnknownRole,
            Readable::UnknownRole,
        ]
    );
    assert!(readable[1].contains(2) && !readable[1].contains(3) && !readable[2].contains(1));
    fixture.execute("revoke select (id) on part from authenticated; revoke select on hidden.whole from anon").await;
    assert_eq!(privileges(&fixture.pool, &pairs[..2]).await.unwrap(), [columns(&[]), columns(&[2])]);
    assert_eq!(privileges(&fixture.pool, &[]).await.unwrap(), []);
}
