//! Contracts of database.md 6.5 to 6.11.

use super::{Session, migrated};

#[tokio::test]
async fn cast_prints_values_as_clients_get_them() {
    let session = migrated().await;
    session.execute("create type public.pair as (x integer, y text)").await;
    for (value, kind, json) in [
        ("'9007199254740993'", "bigint", "9007199254740993"),
        ("'1.50'", "numeric", "1.50"),
        ("'t'", "boolean", "true"),
        ("'abc'", "character", "\"a\""),
        ("'101'", "bit", "\"1\""),
        ("'0102'", "bytea", "\"0102\""),
        ("null", "integer", "null"),
        ("null", "bytea", "null"),
        ("'{1,null}'", "integer[]", "[1, null]"),
        ("'(5,five)'", "public.pair", "{\"x\": 5, \"y\": \"five\"}"),
        ("'2024-06-01 12:00:00.5'", "timestamp", "\"2024-06-01T12:00:00.5\""),
        ("'it''s'", "text", "\"it's\""),
    ] {
        assert_eq!(session.value(&format!("select realtime.cast({value}, '{kind}')")).await, json, "{value} {kind}");
    }
    assert_eq!(session.refusal("select realtime.cast('x', 'integer')").await.0, "22P02");
}

#[tokio::test]
async fn operators() {
    let session = migrated().await;
    // Operator, type, value, operand, result, result negated.
    for (op, kind, a, b, plain, negated) in [
        ("eq", "integer", "'1'", "'01'", "t", "f"),
        ("neq", "integer", "'1'", "'2'", "t", "f"),
        ("lt", "integer", "'9'", "'10'", "t", "f"),
        ("lt", "text", "'9'", "'10'", "f", "t"),
        ("lte", "numeric", "'1.0'", "'1'", "t", "f"),
        ("gt", "date", "'2024-02-01'", "'2024-01-31'", "t", "f"),
        ("gte", "boolean", "'f'", "'t'", "f", "t"),
        ("in", "text", "'a,b'", "'{\"a,b\",c}'", "t", "f"),
        ("in", "integer", "'3'", "'{1,2}'", "f", "t"),
        ("in", "integer", "'3'", "'{1,null}'", "null", "null"),
        ("like", "text", "'heya'", "'hey%'", "t", "f"),
        ("ilike", "text", "'HEYA'", "'hey%'", "t", "f"),
        ("like", "text", "'HEYA'", "'hey%'", "f", "t"),
        ("match", "text", "'abc'", "'^a.c$'", "t", "f"),
        ("match", "text", "'ABC'", "'^a'", "f", "t"),
        ("imatch", "text", "'ABC'", "'^a'", "t", "f"),
        ("eq", "integer", "null", "'1'", "null", "null"),
        ("neq", "integer", "null", "'1'", "null", "null"),
        ("isdistinct", "integer", "null", "'1'", "t", "f"),
        ("isdistinct", "integer", "null", "null", "f", "t"),
        ("is", "integer", "null", "'null'", "t", "f"),
        ("is", "boolean", "'t'", "'true'", "t", "f"),
        ("is", "boolean", "null", "'unknown'", "t", "f"),
        ("is", "boolean", "null", "'false'", "f", "t"),
    ] {
        for (negate, wanted) in [("false", plain), ("null", plain), ("true", negated)] {
            let call = format!("select realtime.check_equality_op('{op}', '{kind}', {a}, {b}, {negate})");
            assert_eq!(session.value(&call).await, wanted, "{call}");
        }
        let older = format!("select realtime.check_equality_op('{op}', '{kind}', {a}, {b})");
        if ["eq", "neq", "lt", "lte", "gt", "gte", "in"].contains(&op) {
            assert_eq!(session.value(&older).await, plain, "{older}");
        } else {
            assert_eq!(session.refusal(&older).await.1, format!("unsupported equality operator: {op}"));
        }
    }
    let keyword = "invalid value for is filter: must be null, true, false, or unknown";
    for operand in ["'NULL'", "'maybe'", "null"] {
        let call = format!("select realtime.check_equality_op('is', 'boolean', 't', {operand}, false)");
        assert_eq!(session.refusal(&call).await, ("P0001".to_owned(), keyword.to_owned()));
    }
}

#[tokio::test]
async fn all_filters_must_match() {
    let session = migrated().await;
    let columns = "array[('a', 'int4', 23, '1', true, true), ('b', 'text', null, '\"x\"', false, true),
        ('n', 'int4', 23, null, false, true)]::realtime.wal_column[]";
    for (filters, wanted) in [
        ("null", "t"),
        ("'{}'", "t"),
        ("array[('a', 'eq', '1', false)]", "t"),
        ("array[('a', 'eq', '1', false), ('b', 'eq', 'x', false)]", "t"),
        ("array[('a', 'eq', '1', false), ('b', 'eq', 'y', false)]", "f"),
        ("array[('a', 'gt', '0', false), ('a', 'lt', '2', null)]", "t"),
        ("array[('a', 'eq', '1', false), ('missing', 'eq', '1', false)]", "f"),
        ("array[('a', 'eq', '1', true)]", "f"),
        ("array[('n', 'neq', '1', false)]", "f"),
        ("array[('n', 'eq', '1', true)]", "f"),
        ("array[('n', 'isdistinct', '1', false)]", "t"),
        ("array[('n', 'is', 'null', false)]", "t"),
    ] {
        let call = format!("select realtime.is_visible_through_filters({columns}, {filters}::realtime.user_defined_filter[])");
        assert_eq!(session.value(&call).await, wanted, "{filters}");
    }
    let without_columns =
        "select realtime.is_visible_through_filters(null, array[('a', 'eq', '1', false)]::realtime.user_defined_filter[])";
    assert_eq!(session.value(without_columns).await, "f");
}

#[tokio::test]
async fn names_and_statements_are_quoted() {
    let session = migrated().await;
    session.execute("create schema \"O.d,d\"; create table \"O.d,d\".\"a b\\c\" (\"The Key\" text, k2 int, v text)").await;
    let quoted = "select realtime.quote_wal2json('\"O.d,d\".\"a b\\c\"'::regclass)";
    assert_eq!(session.value(quoted).await, "O\\.d\\,d.a\\ b\\\\c");
    let statement = "select realtime.build_prepared_statement_sql('p', '\"O.d,d\".\"a b\\c\"'::regclass, array[
        ('The Key', 'text', 25, '\"it''s\"', true, true), ('v', 'text', 25, '\"no\"', false, true),
        ('k2', 'int4', 23, null, true, true)]::realtime.wal_column[])";
    assert_eq!(
        session.value(statement).await,
        "prepare p as select exists (select 1 from \"O.d,d\".\"a b\\c\" where \"The Key\" = 'it''s' and k2 = NULL)"
    );
    assert_eq!(session.value("select realtime.to_regrole('anon')").await, "anon");
    let unknown = ("42704".to_owned(), "role \"nobody_at_all\" does not exist".to_owned());
    assert_eq!(session.refusal("select realtime.to_regrole('nobody_at_all')").await, unknown);
}

async fn subscribable() -> Session {
    let session = migrated().await;
    session
        .execute(
            "create table public.items (id bigint primary key, name text, qty integer, done boolean, label varchar(40),
               at timestamptz, secret text);
             revoke all on public.items from authenticated; grant select (id, name, qty, done, label, at) on public.items to authenticated",
        )
        .await;
    session
}

fn subscribe(filters: &str, columns: &str, claims: &str) -> String {
    format!(
        "insert into realtime.subscription (subscription_id, entity, filters, claims, selected_columns)
         values (gen_random_uuid(), 'public.items', {filters}::realtime.user_defined_filter[], '{claims}', {columns})"
    )
}

#[tokio::test]
async fn trigger_refuses_what_cannot_be_evaluated() {
    let session = subscribable().await;
    let role = "{\"role\": \"authenticated\"}";
    let list = |values: i32| format!("{{{}}}", (0..values).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    for (column, op, value, state, message) in [
        ("nope", "eq", "1", "P0001", "invalid column for filter nope"),
        ("", "eq", "1", "P0001", "invalid column for filter "),
        ("secret", "eq", "1", "P0001", "invalid column for filter secret"),
        ("id", "eq", "abc", "22P02", "invalid input syntax for type bigint: \"abc\""),
        ("id", "isdistinct", "abc", "22P02", "invalid input syntax for type bigint: \"abc\""),
        ("id", "in", "{1,x}", "22P02", "invalid input syntax for type bigint: \"x\""),
        ("id", "in", &list(101), "P0001", "too many values for `in` filter. Maximum 100"),
        ("qty", "is", "maybe", "P0001", "invalid value for is filter: must be null, true, false, or unknown"),
        ("qty", "is", "true", "P0001", "is true filter requires a boolean column, got integer"),
        ("qty", "like", "1%", "P0001", "operator like requires a text-compatible column type, got integer"),
        ("label", "ilike", "a%", "P0001", "operator ilike requires a text-compatible column type, got character varying"),
        ("qty", "match", "1", "P0001", "operator match requires a text-compatible column type, got integer"),
        ("label", "imatch", "a", "P0001", "operator imatch requires a text-compatible column type, got character varying"),
        (
            "name",
            "match",
            "(",
            "P0001",
            "invalid regular expression for match filter: invalid regular expression: parentheses () not balanced",
        ),
        ("done", "eq", "perhaps", "22P02", "invalid input syntax for type boolean: \"perhaps\""),
        ("at", "gt", "someday", "22007", "invalid input syntax for type timestamp with time zone: \"someday\""),
    ] {
        let insert = subscribe(&format!("array[('{column}', '{op}', '{value}', false)]"), "null", role);
        assert_eq!(session.refusal(&insert).await, (state.to_owned(), message.to_owned()), "{column} {op}");
    }
    let refused = session.refusal(&subscribe("'{}'", "array['id', 'secret']", role)).await;
    assert_eq!(refused, ("P0001".to_owned(), "invalid column for select secret".to_owned()));
    assert_eq!(session.refusal(&subscribe("'{}'", "null", "{}")).await.0, "23502");
    assert_eq!(session.refusal(&subscribe("'{}'", "null", "{\"role\": \"nobody_at_all\"}")).await.0, "42704");
    for (column, op, value) in [
        ("id", "in", list(100)),
        ("qty", "is", "null".into()),
        ("done", "is", "unknown".into()),
        ("name", "imatch", "^a+".into()),
    ] {
        session.execute(&subscribe(&format!("array[('{column}', '{op}', '{value}', true)]"), "null", role)).await;
    }
}

#[tokio::test]
async fn trigger_brings_rows_into_one_form() {
    let session = subscribable().await;
    let role = "{\"role\": \"authenticated\"}";
    let filters =
        "array[('qty', 'gt', '1', false), ('name', 'neq', 'x', false), ('name', 'eq', 'x', true), ('name', 'eq', 'x', false)]";
    session.execute(&subscribe(filters, "array['qty', 'name']", role)).await;
    session.execute(&subscribe("null", "'{}'", role)).await;
    let rows = "select filters, claims_role, action_filter, selected_columns from realtime.subscription order by id";
    assert_eq!(
        session.lines(rows).await,
        [
            "{\"(name,eq,x,f)\",\"(name,eq,x,t)\",\"(name,neq,x,f)\",\"(qty,gt,1,f)\"}|authenticated|*|{name,qty}",
            "{}|authenticated|*|null",
        ]
    );
}
