//! Visibility and shape of changes: database.md 8.3 and 8.4, by hand-written changes as the decoder prints them.

use super::{Session, migrated};

const OWNER: &str = "3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e01";
const OTHER: &str = "3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e02";

/// A database with one table of each kind and nobody subscribed.
async fn tables() -> Session {
    let session = migrated().await;
    session
        .execute(
            "create table public.open (id bigint primary key, name text, qty integer);
             create table public.guarded (id bigint primary key, owner uuid, body text);
             alter table public.guarded enable row level security;
             create policy own on public.guarded for select to authenticated using (owner = auth.uid());
             create table public.keyless (a integer, b text);
             create table public.hidden (id bigint primary key, shown text, secret text);
             revoke all on public.hidden from anon, authenticated;
             grant select (id, shown) on public.hidden to authenticated; grant select (shown) on public.hidden to anon;
             grant select on public.open, public.guarded, public.keyless to anon, authenticated, service_role",
        )
        .await;
    session
}

/// Subscribes number `n`; its id ends in that number.
async fn subscribe(session: &Session, n: u8, table: &str, claims: &str, rest: &str) {
    let (columns, values) =
        rest.split_once('=').map_or((String::new(), String::new()), |(c, v)| (format!(", {c}"), format!(", {v}")));
    session
        .execute(&format!(
            "insert into realtime.subscription (subscription_id, entity, claims{columns})
             values ('00000000-0000-0000-0000-0000000000{n:02}', '{table}', '{claims}'{values})"
        ))
        .await;
}

fn claims(role: &str, sub: &str) -> String {
    format!("{{\"role\": \"{role}\", \"sub\": \"{sub}\"}}")
}

/// What is emitted for a change: last digits of the ids, errors and the change without its constant parts.
async fn emitted(session: &Session, wal: &str, bytes_max: &str) -> Vec<String> {
    session
        .lines(&format!(
            "select coalesce((select string_agg(right(i::text, 2), ' ') from unnest(subscription_ids) i), '-'), errors, is_rls_enabled,
             wal - 'schema' - 'table' - 'commit_timestamp' - 'columns' from realtime.apply_rls('{wal}'::jsonb{bytes_max})"
        ))
        .await
}

fn column(name: &str, kind: &str, oid: u32, value: &str) -> String {
    format!("{{\"name\": \"{name}\", \"type\": \"{kind}\", \"typeoid\": {oid}, \"value\": {value}}}")
}

/// A change in the decoder's second format; tuples as lists of columns, empty where there is none.
fn wal(action: &str, table: &str, new: &[String], old: &[String], key: &str) -> String {
    let tuple = |name: &str, columns: &[String]| match columns {
        [] => String::new(),
        columns => format!(", \"{name}\": [{}]", columns.join(", ")),
    };
    let key = if key.is_empty() { String::new() } else { format!("{{\"name\": \"{key}\", \"type\": \"bigint\"}}") };
    format!(
        "{{\"action\": \"{action}\", \"schema\": \"public\", \"table\": \"{table}\", \"timestamp\": \"2026-11-22 05:11:29.586123+02\", \"pk\": [{key}]{}{}}}",
        tuple("columns", new),
        tuple("identity", old)
    )
}

fn open_row(id: &str, name: &str, qty: &str) -> Vec<String> {
    vec![column("id", "bigint", 20, id), column("name", "text", 25, name), column("qty", "integer", 23, qty)]
}

fn guarded_row(id: &str, owner: &str, body: &str) -> Vec<String> {
    vec![column("id", "bigint", 20, id), column("owner", "uuid", 2950, &format!("\"{owner}\"")), column("body", "text", 25, body)]
}

#[tokio::test]
async fn whole_change() {
    let session = tables().await;
    subscribe(&session, 1, "open", &claims("anon", OWNER), "").await;
    let insert = wal("I", "open", &open_row("9007199254740993", "\"a\"", "null"), &[], "id");
    assert_eq!(
        session.value(&format!("select wal from realtime.apply_rls('{insert}')")).await,
        "{\"type\": \"INSERT\", \"table\": \"open\", \"record\": {\"id\": 9007199254740993, \"qty\": null, \"name\": \"a\"}, \
         \"schema\": \"public\", \"columns\": [{\"name\": \"id\", \"type\": \"int8\"}, {\"name\": \"name\", \"type\": \"text\"}, \
         {\"name\": \"qty\", \"type\": \"int4\"}], \"commit_timestamp\": \"2026-11-22T03:11:29.586Z\"}"
    );
    assert!(
        session
            .lines("select realtime.apply_rls('{\"action\": \"I\", \"schema\": \"realtime\", \"table\": \"messages\"}')")
            .await
            .is_empty()
    );
    let gone =
        session.refusal("select realtime.apply_rls('{\"action\": \"I\", \"schema\": \"public\", \"table\": \"gone\"}')").await;
    assert_eq!(gone.0, "42P01");
}

#[tokio::test]
async fn actions_and_filters() {
    let session = tables().await;
    let anon = claims("anon", OWNER);
    let filters = |list: &str| format!("filters=array[{list}]::realtime.user_defined_filter[]");
    subscribe(&session, 1, "open", &anon, "").await;
    subscribe(&session, 2, "open", &anon, "action_filter='UPDATE'").await;
    subscribe(&session, 3, "open", &anon, &filters("('qty', 'gt', '3', false)")).await;
    subscribe(&session, 4, "open", &anon, &filters("('id', 'eq', '1', false), ('name', 'eq', 'b', false)")).await;
    let insert = wal("I", "open", &open_row("1", "\"a\"", "5"), &[], "id");
    let record = "{\"id\": 1, \"qty\": 5, \"name\": \"a\"}";
    assert_eq!(emitted(&session, &insert, "").await, [format!("01 03|{{}}|f|{{\"type\": \"INSERT\", \"record\": {record}}}")]);
    let update = wal("U", "open", &open_row("1", "\"b\"", "2"), &[column("id", "bigint", 20, "1")], "id");
    assert_eq!(
        emitted(&session, &update, "").await,
        [
            "01 02 04|{}|f|{\"type\": \"UPDATE\", \"record\": {\"id\": 1, \"qty\": 2, \"name\": \"b\"}, \"old_record\": {\"id\": 1}}"
        ]
    );
    // The deleted row is filtered by what its identity carries.
    let short = wal("D", "open", &[], &[column("id", "bigint", 20, "1")], "id");
    assert_eq!(emitted(&session, &short, "").await, ["01|{}|f|{\"type\": \"DELETE\", \"old_record\": {\"id\": 1}}"]);
    let full = wal("D", "open", &[], &open_row("1", "\"b\"", "9"), "id");
    assert_eq!(
        emitted(&session, &full, "").await,
        ["01 03 04|{}|f|{\"type\": \"DELETE\", \"old_record\": {\"id\": 1, \"qty\": 9, \"name\": \"b\"}}"]
    );
}

#[tokio::test]
async fn rows_are_seen_as_policies_allow() {
    let session = tables().await;
    subscribe(&session, 1, "guarded", &claims("authenticated", OWNER), "").await;
    subscribe(&session, 2, "guarded", &claims("authenticated", OTHER), "").await;
    subscribe(&session, 3, "guarded", &claims("service_role", OWNER), "").await;
    subscribe(&session, 4, "guarded", &claims("anon", OWNER), "").await;
    session.execute(&format!("insert into public.guarded values (1, '{OWNER}', 'mine')")).await;
    let insert = wal("I", "guarded", &guarded_row("1", OWNER, "\"mine\""), &[], "id");
    let seen = |rows: Vec<String>| rows.iter().map(|row| row.split('|').next().unwrap().to_owned()).collect::<Vec<_>>();
    // In the order of the roles' names: anon, authenticated, service_role.
    assert_eq!(seen(emitted(&session, &insert, "").await), ["-", "01", "03"]);
    assert_eq!(
        session.value("select current_user, coalesce(current_setting('request.jwt.claims', true), '')").await,
        "postgres|"
    );
    // The row as it is now decides, not as it was.
    session.execute(&format!("update public.guarded set owner = '{OTHER}'")).await;
    assert_eq!(seen(emitted(&session, &insert, "").await), ["-", "02", "03"]);
    let update = wal("U", "guarded", &guarded_row("1", OTHER, "\"mine\""), &guarded_row("1", OWNER, "\"mine\""), "id");
    let rows = emitted(&session, &update, "").await;
    assert!(
        rows[1].starts_with("02|")
            && rows[1].contains(&format!("\"old_record\": {{\"id\": 1, \"body\": \"mine\", \"owner\": \"{OWNER}\"}}"))
    );
    session.execute("delete from public.guarded").await;
    assert_eq!(seen(emitted(&session, &insert, "").await), ["-", "-", "-"]);
    // Deletions reach everybody, with the key only.
    let delete = wal("D", "guarded", &[], &guarded_row("1", OTHER, "\"mine\""), "id");
    let key = "{}|t|{\"type\": \"DELETE\", \"old_record\": {\"id\": 1}}";
    assert_eq!(emitted(&session, &delete, "").await, [format!("04|{key}"), format!("01 02|{key}"), format!("03|{key}")]);
}

#[tokio::test]
async fn raising_policy_fails_the_call_and_the_next_one_works() {
    let session = tables().await;
    subscribe(&session, 1, "guarded", &claims("authenticated", OWNER), "").await;
    session.execute(&format!("insert into public.guarded values (1, '{OWNER}', 'mine')")).await;
    let insert = wal("I", "guarded", &guarded_row("1", OWNER, "\"mine\""), &[], "id");
    session
        .execute(
            "create policy bad on public.guarded as restrictive for select to authenticated using (1 / (length(body) - 4) = 0)",
        )
        .await;
    assert_eq!(session.refusal(&format!("select realtime.apply_rls('{insert}')")).await.0, "22012");
    session.execute("drop policy bad on public.guarded").await;
    assert!(emitted(&session, &insert, "").await[0].starts_with("01|"));
    assert_eq!(session.value("select count(*) from pg_prepared_statements where name like 'realtime%'").await, "0");
}

#[tokio::test]
async fn key_is_required_and_must_be_readable() {
    let session = tables().await;
    let anon = claims("anon", OWNER);
    subscribe(&session, 1, "keyless", &anon, "filters=array[('a', 'eq', '99', false)]::realtime.user_defined_filter[]").await;
    subscribe(&session, 2, "keyless", &anon, "selected_columns=array['b']").await;
    let row = [column("a", "integer", 23, "1"), column("b", "text", 25, "\"x\"")];
    let refused = "{\"Error 400: Bad Request, no primary key\"}|f|{\"type\": \"INSERT\"}";
    assert_eq!(
        emitted(&session, &wal("I", "keyless", &row, &[], ""), "").await,
        [format!("01|{refused}"), format!("02|{refused}")]
    );
    assert_eq!(
        emitted(&session, &wal("D", "keyless", &[], &row, ""), "").await,
        [
            "-|{}|f|{\"type\": \"DELETE\", \"old_record\": {\"a\": 1, \"b\": \"x\"}}",
            "02|{}|f|{\"type\": \"DELETE\", \"old_record\": {\"b\": \"x\"}}"
        ]
    );

    subscribe(&session, 3, "hidden", &anon, "").await;
    subscribe(&session, 4, "hidden", &claims("authenticated", OWNER), "").await;
    let row = [column("id", "bigint", 20, "1"), column("shown", "text", 25, "\"s\""), column("secret", "text", 25, "\"z\"")];
    assert_eq!(
        emitted(&session, &wal("I", "hidden", &row, &[], "id"), "").await,
        [
            "03|{\"Error 401: Unauthorized\"}|f|{\"type\": \"INSERT\"}",
            "04|{}|f|{\"type\": \"INSERT\", \"record\": {\"id\": 1, \"shown\": \"s\"}}",
        ]
    );
    assert_eq!(
        emitted(&session, &wal("D", "hidden", &[], &row, "id"), "").await,
        [
            "03|{}|f|{\"type\": \"DELETE\", \"old_record\": {\"shown\": \"s\"}}",
            "04|{}|f|{\"type\": \"DELETE\", \"old_record\": {\"id\": 1, \"shown\": \"s\"}}",
        ]
    );
}

#[tokio::test]
async fn selection_of_columns_makes_groups() {
    let session = tables().await;
    let anon = claims("anon", OWNER);
    subscribe(&session, 1, "open", &anon, "selected_columns=array['qty']").await;
    subscribe(&session, 2, "open", &anon, "").await;
    subscribe(&session, 3, "open", &anon, "selected_columns=array['name']").await;
    let update = wal(
        "U",
        "open",
        &[column("id", "bigint", 20, "1"), column("qty", "integer", 23, "5")],
        &open_row("1", "\"kept aside\"", "4"),
        "id",
    );
    assert_eq!(
        emitted(&session, &update, "").await,
        [
            "02|{}|f|{\"type\": \"UPDATE\", \"record\": {\"id\": 1, \"qty\": 5, \"name\": \"kept aside\"}, \"old_record\": {\"id\": 1, \"qty\": 4, \"name\": \"kept aside\"}}",
            "03|{}|f|{\"type\": \"UPDATE\", \"record\": {\"id\": 1, \"name\": \"kept aside\"}, \"old_record\": {\"id\": 1, \"name\": \"kept aside\"}}",
            "01|{}|f|{\"type\": \"UPDATE\", \"record\": {\"id\": 1, \"qty\": 5}, \"old_record\": {\"id\": 1, \"qty\": 4}}",
        ]
    );
    let columns = format!("select jsonb_path_query_array(wal, '$.columns[*].name') from realtime.apply_rls('{update}')");
    assert_eq!(session.lines(&columns).await, ["[\"id\", \"name\", \"qty\"]", "[\"id\", \"name\"]", "[\"id\", \"qty\"]"]);
}

#[tokio::test]
async fn large_changes_lose_large_values_and_nulls() {
    let session = tables().await;
    subscribe(&session, 1, "open", &claims("anon", OWNER), "").await;
    // 62 letters are 64 bytes of JSON text.
    let fits = wal("I", "open", &open_row("1", &format!("\"{}\"", "y".repeat(62)), "null"), &[], "id");
    let kept = format!(
        "01|{{\"Error 413: Payload Too Large\"}}|f|{{\"type\": \"INSERT\", \"record\": {{\"id\": 1, \"name\": \"{}\"}}}}",
        "y".repeat(62)
    );
    assert_eq!(emitted(&session, &fits, ", 100").await, [kept]);
    let above = wal("I", "open", &open_row("1", &format!("\"{}\"", "y".repeat(63)), "7"), &[], "id");
    let cut = "01|{\"Error 413: Payload Too Large\"}|f|{\"type\": \"INSERT\", \"record\": {\"id\": 1, \"qty\": 7}}";
    assert_eq!(emitted(&session, &above, ", 100").await, [cut]);
    let bytes = session.value(&format!("select octet_length('{above}'::jsonb::text)")).await;
    assert!(
        emitted(&session, &above, &format!(", {bytes}")).await[0].starts_with("01|{}|"),
        "exactly the limit is not too large"
    );
}

#[tokio::test]
async fn listing_without_tables_reads_nothing() {
    let session = tables().await;
    // No such slot exists: reading it would raise.
    for publication in ["supabase_realtime", "no_such_publication"] {
        let listed =
            session.lines(&format!("select * from realtime.list_changes('{publication}', 'no_such_slot', 100, 1048576)")).await;
        assert_eq!(listed, ["null|null|null|null|0"]);
    }
    session.execute("alter publication supabase_realtime add table public.open").await;
    let read = session.refusal("select * from realtime.list_changes('supabase_realtime', 'no_such_slot', 100, 1048576)").await;
    assert_eq!(read, ("42704".to_owned(), "replication slot \"no_such_slot\" does not exist".to_owned()));
}
