//! Policies of real databases.

use std::time::Instant;

use super::super::super::database::authorization::testing::{fixture_client, settings};
use super::super::catalog;
use super::*;
use crate::local_postgres::testing::server;

const OWNER: &str = "3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e01";
const OTHER: &str = "3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e02";

struct Fixture {
    client: tokio_postgres::Client,
    pool: DatabasePool,
}

/// A database of its own with `sql` applied; all tables are published.
async fn fixture(sql: &str) -> Fixture {
    let name = server().database().await;
    let client = fixture_client(&name).await;
    let fixture = Fixture { client, pool: DatabasePool::new(settings(&name)) };
    fixture.execute(sql).await;
    fixture.execute("create publication changes for all tables").await;
    fixture
}

impl Fixture {
    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    async fn relation(&self, name: &str) -> KeyedRelation {
        let catalog = catalog::load(&self.pool, "changes").await.unwrap().unwrap();
        let table = catalog.tables.values().find(|table| table.name == name).unwrap();
        KeyedRelation::of(table, &catalog).unwrap()
    }

    async fn visible(&self, role: &str, sub: &str, probes: &[Probe<'_>]) -> Result<Vec<Vec<bool>>, DatabaseFailure> {
        match visible(&self.pool, role, &claims(role, sub), probes, &[], Duration::from_secs(10)).await? {
            Visible::Known(visible) => Ok(visible),
            Visible::NotYet => panic!("no transaction was named"),
        }
    }
}

fn claims(role: &str, sub: &str) -> String {
    format!(r#"{{"role": "{role}", "sub": "{sub}"}}"#)
}

fn probe<'a>(relation: &'a KeyedRelation, keys: &[&'a str]) -> Probe<'a> {
    Probe { relation, keys: keys.iter().copied().map(Some).collect() }
}

fn notes() -> String {
    format!(
        r#"create table notes (id bigint primary key, owner uuid);
           insert into notes values (1, '{OWNER}'), (2, '{OTHER}'), (3, null);
           create table "Odd ""Name" (a int, "B""b" text, v text, primary key ("B""b", a));
           insert into "Odd ""Name" values (1, 'x', 'free'), (2, 'x', 'free'), (1, 'y"\, {{}}', 'free'), (3, 'x', 'kept');
           alter table notes enable row level security; alter table "Odd ""Name" enable row level security;
           create policy own on notes for select to authenticated using (owner = auth.uid());
           create policy free on "Odd ""Name" for select to authenticated, anon using (v = 'free')"#
    )
}

#[tokio::test]
async fn everybody_sees_what_the_policies_let_them_see() {
    let fixture = fixture(&notes()).await;
    let (notes, odd) = (fixture.relation("notes").await, fixture.relation("Odd \"Name").await);
    assert_eq!((notes.key_width(), odd.key_width()), (1, 2));
    let probes = [
        probe(&notes, &["3", "1", "2", "4", "1"]),
        // Columns in the order of the key.
        probe(&odd, &["x", "1", "x", "2", "y", "1", r#"y"\, {}"#, "1", "x", "3"]),
        probe(&notes, &[]),
    ];
    let free = vec![true, true, false, true, false];
    for round in 0..8 {
        for (role, sub, of_notes, of_odd) in [
            ("authenticated", OWNER, vec![false, true, false, false, true], free.clone()),
            ("authenticated", OTHER, vec![false, false, true, false, false], free.clone()),
            ("anon", OWNER, vec![false; 5], free.clone()),
            ("service_role", "", vec![true, true, true, false, true], vec![true, true, false, true, true]),
        ] {
            let seen = fixture.visible(role, sub, &probes).await;
            assert_eq!(seen, Ok(vec![of_notes, of_odd, vec![]]), "{role} {sub}, round {round}");
        }
    }
    let nothing = Probe { relation: &odd, keys: vec![None, Some("1"), Some("x"), None] };
    assert_eq!(fixture.visible("service_role", "", &[nothing]).await, Ok(vec![vec![false, false]]));
    assert_eq!(fixture.visible("anon", "", &[probe(&notes, &[])]).await, Ok(vec![vec![]]), "without a question");
    assert_eq!(fixture.visible("anon", "", &[]).await, Ok(vec![]));
    fixture.execute("delete from notes where id = 1; update notes set owner = null where id = 2").await;
    assert_eq!(fixture.visible("service_role", "", &probes[..1]).await, Ok(vec![vec![true, false, true, false, false]]));
    assert_eq!(fixture.visible("authenticated", OTHER, &probes[..1]).await, Ok(vec![vec![false; 5]]));
    assert_eq!(fixture.pool.status().size, 1, "one good session for all of it");
    // Nothing of the role stays with the session.
    let who = async |client: &ClientWrapper| {
        Answer::of(client.query_one("select current_user::text, current_setting('request.jwt.claims', true)", &[]).await)
    };
    let row = fixture.pool.run(Duration::from_secs(5), who).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, Option<&str>>(1).unwrap_or_default()), ("postgres", ""));
}

#[tokio::test]
async fn keys_of_all_common_types_are_found_by_their_text() {
    const TYPES: [(&str, &str); 24] = [
        ("smallint", "-7"),
        ("integer", "7"),
        ("bigint", "9007199254740993"),
        ("numeric", "1.50"),
        ("numeric(10,2)", "1.50"),
        ("real", "1.1"),
        ("double precision", "1.1"),
        ("boolean", "t"),
        ("text", "it's a \"{,}\\ \u{e4}"),
        ("varchar(10)", ""),
        ("char(5)", "a    "),
        ("\"char\"", "a"),
        ("name", "n"),
        ("uuid", OWNER),
        ("date", "2024-06-01"),
        ("time", "12:00:00.5"),
        ("timestamp", "2024-06-01 12:00:00.5"),
        ("timestamptz", "2024-06-01 12:00:00.5+02"),
        ("interval", "1 day 02:00:00"),
        ("bytea", "\\x00ff5c"),
        ("inet", "10.0.0.1/8"),
        ("bit(4)", "1010"),
        ("kinds.mood", "busy"),
        ("kinds.code", "c1"),
    ];
    let fixture = fixture(
        "create schema kinds; revoke all on schema kinds from public; create type kinds.mood as enum ('calm', 'busy');
         create domain kinds.code as text check (value like 'c%')",
    )
    .await;
    let others = [("integer[]", "{1,2}"), ("int4range", "[1,5)"), ("kinds.mood[]", "{busy}"), ("kinds.code[]", "{c1}")];
    let kinds: Vec<_> = TYPES.into_iter().chain(others).enumerate().collect();
    let tables = kinds.iter().map(|(index, (name, value))| {
        format!(
            "create table t{index} (id {name} primary key); insert into t{index} values ('{}');
             grant select on t{index} to anon; alter table t{index} enable row level security;
             create policy p on t{index} for select to anon using (true);",
            value.replace('\'', "''")
        )
    });
    fixture.execute(&tables.collect::<String>()).await;
    let catalog = catalog::load(&fixture.pool, "changes").await.unwrap().unwrap();
    for (index, (name, value)) in kinds {
        let table = catalog.tables.values().find(|table| table.name == format!("t{index}")).unwrap();
        let relation = KeyedRelation::of(table, &catalog).unwrap();
        // To name the type of an array, the role must be allowed to.
        if name.starts_with("kinds") && name.ends_with("[]") {
            fixture.execute("grant usage on schema kinds to anon").await;
        }
        let seen = fixture.visible("anon", "", &[probe(&relation, &[value])]).await;
        assert_eq!(seen, Ok(vec![vec![true]]), "{name}");
    }
}

#[tokio::test]
async fn failures_concern_one_question_only() {
    let fixture = fixture(&notes()).await;
    fixture
        .execute(
            "create schema closed; revoke all on schema closed from public; create table closed.t (id int primary key);
             insert into closed.t values (1); grant select on closed.t to anon, authenticated;
             create table raising (id int primary key); insert into raising values (0), (1);
             create table sleeping (id int primary key); insert into sleeping values (1);
             create table logged (id int primary key); insert into logged values (1);
             create table log (id int); grant insert on log to anon;
             create table keyless (id int);
             create function log(id int) returns boolean language sql volatile as
               $$ insert into log values (id) returning true $$;
             alter table closed.t enable row level security; alter table raising enable row level security;
             alter table sleeping enable row level security; alter table logged enable row level security;
             create policy p on closed.t using (true); create policy p on raising using (1 / id = 1);
             create policy p on sleeping to anon using (pg_sleep(60) is not null); create policy p on logged using (log(id))",
        )
        .await;
    let (t, raising, sleeping) =
        (fixture.relation("t").await, fixture.relation("raising").await, fixture.relation("sleeping").await);
    let (notes, logged) = (fixture.relation("notes").await, fixture.relation("logged").await);
    let catalog = catalog::load(&fixture.pool, "changes").await.unwrap().unwrap();
    let keyless = catalog.tables.values().find(|table| table.name == "keyless").unwrap();
    assert!(KeyedRelation::of(keyless, &catalog).is_none());
    let ask = async |role: &str, relation: &KeyedRelation, key: &str| {
        fixture.visible(role, OWNER, &[probe(&notes, &["1"]), probe(relation, &[key])]).await
    };
    let text = |outcome: Result<_, DatabaseFailure>| match outcome {
        Err(DatabaseFailure::RlsPolicy(text)) => text,
        other => panic!("{other:?}"),
    };
    for _ in 0..3 {
        assert_eq!(text(ask("anon", &t, "1").await), "permission denied for schema closed (SQLSTATE 42501)");
        assert_eq!(ask("service_role", &logged, "1").await, Ok(vec![vec![true], vec![true]]));
        assert_eq!(text(ask("anon", &raising, "0").await), "division by zero (SQLSTATE 22012)");
        assert_eq!(ask("authenticated", &raising, "1").await, Ok(vec![vec![true], vec![true]]));
        assert_eq!(ask("anon", &logged, "1").await, Ok(vec![vec![false], vec![true]]), "policies may write");
        assert!(text(ask("nobody_here", &notes, "1").await).contains("\"nobody_here\" does not exist"));
        assert!(text(ask("authenticated", &notes, "one").await).contains("invalid input syntax for type bigint"));
    }
    assert!(matches!(ask("a\0b", &notes, "1").await, Err(DatabaseFailure::RlsPolicy(_))));
    let odd_role = ask(r#"no "body*/"#, &notes, "1").await;
    assert!(text(odd_role).contains("does not exist"));
    let logged_rows = fixture.client.query_one("select count(*) from log", &[]).await.unwrap();
    assert_eq!(logged_rows.get::<_, i64>(0), 0, "but it is rolled back");
    assert_eq!(fixture.pool.status().size, 1);

    let started = Instant::now();
    let (slept, quick) = tokio::join!(ask("anon", &sleeping, "1"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (ask("authenticated", &raising, "1").await, started.elapsed())
    });
    assert!(matches!(slept, Err(DatabaseFailure::QueryCanceled(_))), "{slept:?}");
    assert!((9..13).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert!(quick.0.is_ok() && quick.1 < Duration::from_secs(3), "{:?}", quick.1);

    fixture.execute("alter table notes rename column id to number").await;
    assert!(text(ask("service_role", &logged, "1").await).contains("column t.id does not exist"));
    fixture.execute("drop table notes").await;
    assert!(text(ask("service_role", &logged, "1").await).contains("does not exist"));
}

#[tokio::test]
async fn policies_changed_between_questions_hold_at_once() {
    let fixture = fixture(&notes()).await;
    let notes = fixture.relation("notes").await;
    let ask = async |sub: &str| fixture.visible("authenticated", sub, &[probe(&notes, &["1", "2"])]).await.unwrap().remove(0);
    for _ in 0..7 {
        assert_eq!(ask(OWNER).await, [true, false]);
    }
    fixture.execute("drop policy own on notes").await;
    assert_eq!(ask(OWNER).await, [false, false]);
    fixture.execute("create policy own on notes using (id = 2)").await;
    assert_eq!(ask(OWNER).await, [false, true]);
    fixture.execute("revoke select on notes from authenticated").await;
    let refused = fixture.visible("authenticated", OWNER, &[probe(&notes, &["1"])]).await;
    assert!(matches!(refused, Err(DatabaseFailure::RlsPolicy(text)) if text.contains("permission denied for table notes")));
    fixture.execute("grant select on notes to authenticated").await;
    assert_eq!(ask(OWNER).await, [false, true]);
    fixture
        .execute("drop policy own on notes; alter table notes alter id type int; create policy own on notes using (id = 2)")
        .await;
    // The prepared parameter is still an array of bigint, which int can be compared with.
    assert_eq!(ask(OWNER).await, [false, true]);
}

#[tokio::test]
async fn keys_are_looked_up_in_the_index_whatever_the_statistics_say() {
    let fixture = fixture(&format!(
        "create table big (id bigint primary key, owner uuid);
         insert into big select n, '{OWNER}' from generate_series(1, 200000) n;
         alter table big enable row level security;
         create policy own on big for select to authenticated using (owner = auth.uid()); analyze big"
    ))
    .await;
    let big = fixture.relation("big").await;
    let keys: Vec<String> = (1..=1_000).map(|n| (n * 201).to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    for _ in 0..8 {
        let seen = fixture.visible("authenticated", OWNER, &[probe(&big, &keys)]).await.unwrap().remove(0);
        assert_eq!(seen.iter().filter(|&&visible| visible).count(), 995, "the last five are beyond the end");
    }
    let plan = async |client: &ClientWrapper| {
        let sql = big.statement("authenticated").replace("$1", "'{1,2,3}'::bigint[]");
        client.batch_execute("begin; set local role authenticated").await.unwrap();
        let lines = client.query(&format!("explain (costs off) {sql}"), &[]).await;
        client.batch_execute("rollback").await.unwrap();
        Answer::of(lines)
    };
    let plan = fixture.pool.run(Duration::from_secs(5), plan).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Index Cond: (id = k.k1)")), "{plan:#?}");
}
