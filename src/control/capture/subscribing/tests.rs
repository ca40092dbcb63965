//! Subscriptions in a migrated database.

use super::super::super::database::authorization::testing::{fixture_client, settings};
use super::super::super::database::failure::DatabaseFailure;
use super::super::super::database::migrations;
use super::*;
use crate::local_postgres::testing::server;

const PUBLICATION: &str = "supabase_realtime";
const CLAIMS: &str = r#"{"role": "authenticated", "sub": "3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e01"}"#;

struct Fixture {
    client: tokio_postgres::Client,
    pool: DatabasePool,
}

async fn fixture() -> Fixture {
    let name = server().database().await;
    let mut client = fixture_client(&name).await;
    migrations::run(&mut client).await.unwrap();
    let fixture = Fixture { client, pool: DatabasePool::new(settings(&name)) };
    fixture
        .execute(
            r#"create table items (id bigint primary key, name text, qty int, done boolean, label varchar(40), code char(3),
                 at timestamptz, amount numeric(4, 2), bytes bytea, data jsonb, ip inet);
               create table "Conf Odd, ""Name" (id int primary key, "Mixed Col" text);
               create table my_table (id int primary key); create table "myXtable" (id int primary key);
               create table unpublished (id int primary key);
               create table columns (id int primary key, shown text, secret text);
               revoke all on columns from anon, authenticated; grant select (id, shown) on columns to authenticated;
               create schema other; create table other.things (id int primary key);
               grant select on other.things to authenticated;
               alter publication supabase_realtime
                 set table items, "Conf Odd, ""Name", my_table, "myXtable", columns, other.things"#,
        )
        .await;
    fixture
}

impl Fixture {
    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// What is stored, one line per row.
    async fn rows(&self) -> Vec<String> {
        let sql = "select concat_ws('|', entity, filters, claims ->> 'sub', claims_role, action_filter, selected_columns)
                   from realtime.subscription order by 1";
        self.client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    async fn store(&self, entries: &[Entry<'_>]) -> Found {
        subscribe(&self.pool, PUBLICATION, entries, CLAIMS, true).await
    }

    /// Names of the tables an entry means, without storing.
    async fn tables(&self, entry: Entry<'_>) -> Vec<String> {
        let found = subscribe(&self.pool, PUBLICATION, &[entry], CLAIMS, false).await.unwrap();
        let sql = "select r::regclass::text from unnest($1::oid[]) r order by 1";
        self.client.query(sql, &[&found[0]]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// The text of the exception.
    async fn refusal(&self, entry: Entry<'_>) -> String {
        let failure = subscribe(&self.pool, PUBLICATION, &[entry], CLAIMS, true).await.unwrap_err();
        assert!(matches!(failure, SubscribeFailure::Rejected { entry: 0, .. }), "{failure:?}");
        failure.to_string()
    }
}

fn entry<'a>(schema: &'a str, table: &'a str) -> Entry<'a> {
    Entry { subscription_id: Uuid::new_v4(), event: "*", schema, table, filters: Vec::new(), select: None }
}

fn filtered<'a>(column: &'a str, op: &'a str, value: &'a str) -> Entry<'a> {
    Entry { filters: vec![Filter { column, op, value, negate: false }], ..entry("public", "items") }
}

#[tokio::test]
async fn entries_are_stored_normalised_and_again_with_new_claims() {
    let fixture = fixture().await;
    let first = Entry {
        event: "INSERT",
        filters: vec![
            Filter { column: "qty", op: "gt", value: "1", negate: true },
            Filter { column: "name", op: "in", value: r#"{a,"b,c"}"#, negate: false },
        ],
        select: Some(vec!["qty", "name"]),
        ..entry("public", "items")
    };
    let second = Entry { select: Some(Vec::new()), ..entry("other", "*") };
    let entries = [first, second];
    let found = fixture.store(&entries).await.unwrap();
    assert_eq!((found.len(), found[0].len(), found[1].len()), (2, 1, 1));
    let oid: Oid = fixture.client.query_one("select 'items'::regclass::oid", &[]).await.unwrap().get(0);
    assert_eq!(found[0], [oid], "in the order of the entries");
    let stored = |sub: &str, role: &str| {
        vec![
            format!(r#"items|{{"(name,in,\"{{a,\"\"b,c\"\"}}\",f)","(qty,gt,1,t)"}}|{sub}|{role}|INSERT|{{name,qty}}"#),
            format!("other.things|{{}}|{sub}|{role}|*"),
        ]
    };
    let rows = fixture.rows().await;
    assert_eq!(rows, stored("3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e01", "authenticated"));

    fixture.execute("update realtime.subscription set created_at = '2001-01-01'").await;
    fixture.execute("grant select on other.things to service_role").await;
    let other = r#"{"role": "service_role", "sub": "new"}"#;
    assert_eq!(subscribe(&fixture.pool, PUBLICATION, &entries, other, true).await.unwrap(), found);
    assert_eq!(fixture.rows().await, stored("new", "service_role"));
    let fresh = "select count(*) from realtime.subscription where created_at > timezone('utc', now()) - interval '1 min'";
    assert_eq!(fixture.client.query_one(fresh, &[]).await.unwrap().get::<_, i64>(0), 2);
    assert_eq!(fixture.store(&[]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn names_are_exact_a_star_or_wildcards() {
    let fixture = fixture().await;
    for (schema, table, expected) in [
        ("public", "items", &["items"][..]),
        ("public", r#"Conf Odd, "Name"#, &[r#""Conf Odd, ""Name""#]),
        ("other", "*", &["other.things"]),
        ("public", "my_table", &[r#""myXtable""#, "my_table"]),
        ("publi%", "i%s", &["items"]),
    ] {
        let mut tables = fixture.tables(entry(schema, table)).await;
        tables.sort();
        assert_eq!(tables, expected, "{schema}.{table}");
    }
    assert_eq!(fixture.tables(entry("*", "*")).await.len(), 6);
    for (schema, table) in [("public", "Items"), ("public", r"item\s"), ("nowhere", "*"), ("public", "unpublished"), ("*", "a*")]
    {
        let refused = fixture.store(&[entry(schema, table)]).await;
        assert_eq!(refused, Err(SubscribeFailure::NothingPublished { entry: 0 }), "{schema}.{table}");
    }
    let unknown = subscribe(&fixture.pool, "nothing", &[entry("*", "*")], CLAIMS, true).await;
    assert_eq!(unknown, Err(SubscribeFailure::NothingPublished { entry: 0 }));
    assert_eq!(fixture.rows().await, Vec::<String>::new(), "checks and refusals store nothing");
    assert_eq!(fixture.pool.status().size, 1, "and do not cost the session");
}

#[tokio::test]
async fn of_several_bad_entries_the_last_is_reported_and_none_is_stored() {
    let fixture = fixture().await;
    let good = || entry("public", "items");
    let (missing, bad) = (|| entry("public", "none"), || filtered("nope", "eq", "1"));
    for store_rows in [true, false] {
        let try_all = async |entries: &[Entry<'_>]| {
            let failure = subscribe(&fixture.pool, PUBLICATION, entries, CLAIMS, store_rows).await.unwrap_err();
            match failure {
                SubscribeFailure::NothingPublished { entry } => (entry, "missing"),
                SubscribeFailure::Rejected { entry, .. } => (entry, "bad"),
                SubscribeFailure::Database(failure) => panic!("{failure:?}"),
            }
        };
        assert_eq!(try_all(&[good(), missing(), good()]).await, (1, "missing"));
        assert_eq!(try_all(&[bad(), missing(), good()]).await, (1, "missing"));
        assert_eq!(try_all(&[missing(), bad(), good()]).await, (1, "bad"));
        assert_eq!(try_all(&[bad(), bad(), good(), missing(), bad()]).await, (4, "bad"));
    }
    let many: Vec<Entry<'_>> = (0..100).map(|_| good()).collect();
    assert_eq!(fixture.store(&many).await.unwrap().len(), 100);
    assert_eq!(fixture.rows().await.len(), 100);
    assert_eq!(fixture.pool.status().size, 1);
}

#[tokio::test]
async fn refusals_are_in_the_words_of_the_database() {
    let fixture = fixture().await;
    let raised = |text: &str| format!("ERROR P0001 (raise_exception) {text}");
    let numbers: Vec<String> = (0..=100).map(|n| n.to_string()).collect();
    let too_many = format!("{{{}}}", numbers.join(","));
    for (column, op, value, expected) in [
        ("nope", "eq", "1", raised("invalid column for filter nope")),
        ("id", "in", too_many.as_str(), raised("too many values for `in` filter. Maximum 100")),
        ("done", "is", "maybe", raised("invalid value for is filter: must be null, true, false, or unknown")),
        ("qty", "is", "true", raised("is true filter requires a boolean column, got integer")),
        ("qty", "like", "a%", raised("operator like requires a text-compatible column type, got integer")),
        ("label", "ilike", "a%", raised("operator ilike requires a text-compatible column type, got character varying")),
        ("code", "match", "a", raised("operator match requires a text-compatible column type, got character")),
        (
            "name",
            "imatch",
            "(",
            raised("invalid regular expression for imatch filter: invalid regular expression: parentheses () not balanced"),
        ),
        (
            "id",
            "eq",
            "abc",
            r#"ERROR 22P02 (invalid_text_representation) invalid input syntax for type bigint: "abc""#.to_owned(),
        ),
        (
            "id",
            "in",
            "{1,x}",
            r#"ERROR 22P02 (invalid_text_representation) invalid input syntax for type bigint: "x""#.to_owned(),
        ),
        (
            "at",
            "gt",
            "someday",
            r#"ERROR 22007 (invalid_datetime_format) invalid input syntax for type timestamp with time zone: "someday""#
                .to_owned(),
        ),
        (
            "qty",
            "eq",
            "3000000000",
            r#"ERROR 22003 (numeric_value_out_of_range) value "3000000000" is out of range for type integer"#.to_owned(),
        ),
        (
            "name",
            "eq",
            "a\0b",
            r#"ERROR 22021 (character_not_in_repertoire) invalid byte sequence for encoding "UTF8": 0x00"#.to_owned(),
        ),
    ] {
        assert_eq!(fixture.refusal(filtered(column, op, value)).await, expected, "{column} {op} {value}");
    }
    let select = Entry { select: Some(vec!["id", "nope"]), ..entry("public", "items") };
    assert_eq!(fixture.refusal(select).await, raised("invalid column for select nope"));
    let secret = Entry { filters: filtered("secret", "eq", "x").filters, ..entry("public", "columns") };
    assert_eq!(fixture.refusal(secret).await, raised("invalid column for filter secret"));
    let secret = Entry { select: Some(vec!["secret"]), ..entry("public", "columns") };
    assert_eq!(fixture.refusal(secret).await, raised("invalid column for select secret"));
    let event = Entry { event: "TRUNCATE", ..entry("public", "items") };
    assert!(fixture.refusal(event).await.starts_with("ERROR 23514 (check_violation) "));

    for (claims, expected) in [
        (r#"{"role": "nobody_here"}"#, r#"ERROR 42704 (undefined_object) role "nobody_here" does not exist"#),
        (r#"{"sub": "x"}"#, r#"ERROR 23502 (not_null_violation) null value in column "claims_role""#),
    ] {
        let failure = subscribe(&fixture.pool, PUBLICATION, &[entry("public", "items")], claims, true).await.unwrap_err();
        assert!(failure.to_string().starts_with(expected), "{failure}");
    }
    assert_eq!(fixture.rows().await, Vec::<String>::new());
    assert_eq!(fixture.pool.status().size, 1);
}

#[tokio::test]
async fn channels_subscribe_side_by_side_and_are_removed() {
    let fixture = fixture().await;
    let (one, two) = ([entry("public", "items"), entry("*", "*")], [entry("*", "*"), filtered("qty", "lt", "3")]);
    let (first, second) = tokio::join!(fixture.store(&one), fixture.store(&two));
    assert_eq!((first.unwrap()[1].len(), second.unwrap()[0].len()), (6, 6));
    assert_eq!(fixture.rows().await.len(), 14);
    // The same channel twice at a time, as when a token comes while it is being subscribed.
    let (first, second) = tokio::join!(fixture.store(&one), fixture.store(&one));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(fixture.rows().await.len(), 14);

    let mut ids: Vec<Uuid> = (0..1_500).map(|_| Uuid::new_v4()).collect();
    ids.extend(one.iter().map(|entry| entry.subscription_id));
    assert_eq!(unsubscribe(&fixture.pool, &ids).await, Ok(7));
    assert_eq!(unsubscribe(&fixture.pool, &ids).await, Ok(0));
    assert_eq!(unsubscribe(&fixture.pool, &[]).await, Ok(0));
    assert_eq!(clear(&fixture.pool).await, Ok(7));
    assert_eq!(fixture.rows().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_missing_table_has_no_rows_and_takes_none() {
    let fixture = fixture().await;
    assert_eq!(clear(&fixture.pool).await, Ok(0));
    fixture.execute("drop table realtime.subscription").await;
    // Prepared already, and not.
    assert_eq!(clear(&fixture.pool).await, Ok(0));
    assert_eq!(unsubscribe(&fixture.pool, &[Uuid::new_v4()]).await, Ok(0));
    let refused = fixture.store(&[entry("public", "items")]).await;
    assert!(matches!(refused, Err(SubscribeFailure::Database(DatabaseFailure::RlsPolicy(_)))), "{refused:?}");
    fixture.execute("drop schema realtime cascade").await;
    assert_eq!(clear(&fixture.pool).await, Ok(0));
}

#[tokio::test]
async fn a_locked_table_is_waited_for_but_not_for_ever() {
    let fixture = fixture().await;
    fixture.execute("begin; lock table realtime.subscription").await;
    let started = std::time::Instant::now();
    let refused = fixture.store(&[entry("public", "items")]).await;
    assert!(matches!(refused, Err(SubscribeFailure::Database(DatabaseFailure::QueryCanceled(_)))), "{refused:?}");
    assert!((9..13).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    fixture.execute("rollback").await;
    assert!(fixture.store(&[entry("public", "items")]).await.is_ok());
    assert_eq!(fixture.rows().await.len(), 1);
}
