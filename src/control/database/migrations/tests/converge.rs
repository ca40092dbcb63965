//! Databases that other servers left at an earlier version reach the same installation as empty ones.

use super::super::{Applied, run};
use super::inventory::snapshot;
use super::{Session, empty, migrated};

/// Migrates what the SQL builds, stamped with the first versions, and compares with a fresh installation.
async fn converge(older: &str, stamped: usize) -> Session {
    let mut session = empty().await;
    session
        .execute("create table realtime.schema_migrations (version bigint primary key, inserted_at timestamp(0)); grant all on realtime.schema_migrations to postgres, dashboard_user, anon")
        .await;
    for version in &super::super::VERSIONS[..stamped] {
        session.execute(&format!("insert into realtime.schema_migrations values ({version}, now())")).await;
    }
    session.execute(older).await;
    let (already, total) = (stamped as i64, 81);
    assert_eq!(run(&mut session.client).await.unwrap(), Applied { already, added: total - already });
    assert_eq!(snapshot(&session).await, snapshot(&migrated().await).await);
    session
}

#[tokio::test]
async fn from_the_first_generation() {
    let session = converge(
        "create type realtime.equality_op as enum ('eq', 'neq', 'lt', 'lte', 'gt', 'gte');
         create type realtime.action as enum ('INSERT', 'UPDATE', 'DELETE', 'ERROR');
         create type realtime.user_defined_filter as (column_name text, op realtime.equality_op, value text);
         create type realtime.wal_column as (name text, type text, value jsonb, is_pkey boolean, is_selectable boolean);
         create type realtime.wal_rls as (wal jsonb, is_rls_enabled boolean, users uuid[], errors text[]);
         create table realtime.subscription (id bigserial primary key, user_id uuid not null, email varchar(255),
           entity regclass not null, filters realtime.user_defined_filter[] not null default '{}', created_at timestamp not null default now(),
           unique (entity, user_id, filters));
         create function realtime.is_visible_through_filters(columns realtime.wal_column[], filters realtime.user_defined_filter[])
           returns boolean language sql immutable as 'select true';
         create function realtime.build_prepared_statement_sql(name text, entity regclass, columns realtime.wal_column[])
           returns text language sql as 'select null::text';
         create function realtime.apply_rls(wal jsonb) returns realtime.wal_rls language sql as 'select null::realtime.wal_rls';
         create function realtime.subscription_check_filters() returns trigger language plpgsql as 'begin return new; end';
         create trigger tr_check_filters before insert on realtime.subscription for each row execute function realtime.subscription_check_filters();
         insert into realtime.subscription (user_id, entity) values (gen_random_uuid(), 'realtime.subscription');
         create table realtime.messages (id bigserial primary key, uuid text default gen_random_uuid(), topic text not null, extension text not null,
           event text, private boolean default false, payload jsonb, inserted_at timestamp(0) not null, updated_at timestamp(0) not null);
         alter table realtime.messages enable row level security;
         create policy mine on realtime.messages as restrictive for insert to authenticated, anon
           with check (extension = 'broadcast' and exists (select from pg_roles r where r.rolname = messages.topic));
         create policy read on realtime.messages for select using (topic like 'open%');
         create index on realtime.messages (topic);
         grant all on realtime.messages to anon, authenticator;
         insert into realtime.messages (uuid, topic, extension, event, payload, inserted_at, updated_at) values
           ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 't', 'broadcast', 'e', '{\"n\": 1}', '2024-06-01 10:00', '2024-06-01 11:00'),
           ('not a uuid', 'u', 'presence', null, null, '2024-06-03 10:00', '2024-06-03 10:00');
         revoke all on realtime.messages from authenticator",
        24,
    )
    .await;
    let rows = "select topic, extension, event, payload, inserted_at, updated_at,
        case when topic = 't' then id::text end from realtime.messages order by topic";
    assert_eq!(
        session.lines(rows).await,
        [
            "t|broadcast|e|{\"n\": 1}|2024-06-01 10:00:00|2024-06-01 11:00:00|a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "u|presence|null|null|2024-06-03 10:00:00|2024-06-03 10:00:00|null",
        ]
    );
    let leaves = "select c.relname, pg_get_userbyid(c.relowner), pg_get_expr(c.relpartbound, c.oid) from pg_inherits i
        join pg_class c on c.oid = i.inhrelid where i.inhparent = 'realtime.messages'::regclass order by 1";
    assert_eq!(
        session.lines(leaves).await,
        [
            "messages_2024_06_01|supabase_realtime_admin|FOR VALUES FROM ('2024-06-01 00:00:00') TO ('2024-06-02 00:00:00')",
            "messages_2024_06_03|supabase_realtime_admin|FOR VALUES FROM ('2024-06-03 00:00:00') TO ('2024-06-04 00:00:00')",
        ]
    );
    let policies =
        "select polname, polpermissive, polcmd, array_to_string(array(select unnest(polroles)::regrole::text order by 1), ','),
        polqual is not null, polwithcheck is not null from pg_policy where polrelid = 'realtime.messages'::regclass order by 1";
    assert_eq!(session.lines(policies).await, ["mine|f|a|anon,authenticated|f|t", "read|t|r|-|t|f"]);
    assert!(
        session
            .value("select pg_get_expr(polwithcheck, polrelid) from pg_policy where polname = 'mine'")
            .await
            .contains("messages.topic")
    );
}

#[tokio::test]
async fn from_a_partitioned_table_with_a_number_as_id() {
    let session = converge(
        "create table realtime.messages (id bigserial, uuid uuid not null default gen_random_uuid(), topic text not null, extension text not null,
           payload jsonb, event text, private boolean default false, updated_at timestamp default now(), inserted_at timestamp default now(),
           primary key (id, inserted_at)) partition by range (inserted_at);
         create table realtime.messages_2024_06_01 partition of realtime.messages for values from ('2024-06-01') to ('2024-06-02');
         insert into realtime.messages (topic, extension, inserted_at) values ('t', 'broadcast', '2024-06-01 10:00')",
        58,
    )
    .await;
    assert_eq!(
        session.lines("select topic, private, tableoid::regclass from realtime.messages").await,
        ["t|f|realtime.messages_2024_06_01"]
    );
}

#[tokio::test]
async fn from_types_and_columns_that_came_later() {
    let session = empty().await;
    let mut session = session;
    run(&mut session.client).await.unwrap();
    session.partition_of_today().await;
    let table = session.value("select 'realtime.messages'::regclass::oid").await;
    session
        .execute(
            "select realtime.send('{\"id\": \"kept\"}', 'e', 't');
             create policy read on realtime.messages for select using (realtime.topic() = topic);
             delete from realtime.schema_migrations where version > 20260501000000;
             alter table realtime.messages drop constraint messages_payload_exclusive, drop column binary_payload, alter column updated_at drop not null,
               alter column private drop default, owner to supabase_admin, disable row level security;
             drop index realtime.messages_inserted_at_topic_index;
             create index messages_inserted_at_topic_index on realtime.messages (inserted_at, topic);
             grant delete on realtime.messages to anon;
             drop table realtime.subscription;
             drop function realtime.is_visible_through_filters(realtime.wal_column[], realtime.user_defined_filter[]);
             drop function realtime.check_equality_op(realtime.equality_op, regtype, text, text);
             drop function realtime.check_equality_op(realtime.equality_op, regtype, text, text, boolean);
             drop function realtime.apply_rls(jsonb, integer), realtime.send_binary(bytea, text, text, boolean);
             drop type realtime.user_defined_filter, realtime.equality_op, realtime.wal_rls;
             create type realtime.equality_op as enum ('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'in');
             create type realtime.user_defined_filter as (column_name text, op realtime.equality_op, value text);
             create type realtime.wal_rls as (wal jsonb, is_rls_enabled boolean, subscription_ids uuid[], errors text[]);
             create table realtime.subscription (id bigint generated always as identity constraint pk_subscription primary key, subscription_id uuid not null, entity regclass not null,
               filters realtime.user_defined_filter[] not null default '{}', claims jsonb not null,
               claims_role regrole not null generated always as (realtime.to_regrole(claims ->> 'role')) stored,
               created_at timestamp not null default timezone('utc', now()));
             insert into realtime.subscription (subscription_id, entity, claims) values (gen_random_uuid(), 'realtime.messages', '{\"role\": \"anon\"}')",
        )
        .await;
    assert_eq!(run(&mut session.client).await.unwrap().added, 12);
    let policies = "select count(*) from pg_policy where polrelid = 'realtime.messages'::regclass";
    assert_eq!(session.value(policies).await, "1");
    session.execute("drop policy read on realtime.messages").await;
    assert_eq!(
        session.value("select topic, payload, private, binary_payload from realtime.messages").await,
        "t|{\"id\": \"kept\"}|t|null"
    );
    assert_eq!(session.value("select 'realtime.messages'::regclass::oid").await, table, "the table was altered, not replaced");
    assert_eq!(snapshot(&session).await, snapshot(&migrated().await).await);
}

#[tokio::test]
async fn from_functions_with_other_signatures() {
    converge(
        "create function realtime.to_regrole(name text) returns regrole language sql immutable as 'select name::regrole';
         create table realtime.subscription (id bigint, claims jsonb, claims_role regrole generated always as (realtime.to_regrole(claims ->> 'role')) stored);
         create function realtime.send(payload jsonb, event text, topic text, private boolean) returns void language plpgsql
           security definer set search_path = '' as 'begin end';
         create function realtime.send(payload jsonb, event text, topic text, private boolean, extra text default 'x') returns void language plpgsql as 'begin end';
         create function realtime.topic() returns varchar language sql as 'select null::varchar';
         create function realtime.list_changes(publication name, slot_name name, max_changes int, max_record_bytes int)
           returns setof record language sql set log_min_messages to 'error' as 'select 1, 2';
         create function realtime.quote_wal2json(entity regclass) returns text language sql volatile as 'select null::text';
         create function realtime.broadcast_changes(topic_name text, event_name text, operation text, table_name text, table_schema text,
           new record, old record, level text) returns void language plpgsql as 'begin end';
         create function realtime.wal2json_escape_identifier(name text default 'x') returns text language sql as 'select null::text'",
        40,
    )
    .await;
}

#[tokio::test]
async fn objects_of_users_that_use_an_unconvertible_type_stay() {
    let mut session = empty().await;
    session.execute("create type realtime.wal_rls as (other text); create table public.theirs (r realtime.wal_rls)").await;
    let refusal = run(&mut session.client).await.unwrap_err().to_string();
    assert!(refusal.contains("\"types\"") && refusal.contains("2BP01"), "{refusal}");
    session.execute("insert into public.theirs values (row('x'))").await;
}
