//! The SQL of this folder, on the server that tests get.

use super::*;
use crate::local_postgres::{demo_policies_sql, demo_sql};

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

#[tokio::test]
async fn databases_are_separate_and_bootstrapped() {
    let server = server();
    let (one, two) = (server.database().await, server.database().await);
    assert_ne!(one, two);
    let (one, two) = (server.connect(&one).await, server.connect(&two).await);
    one.batch_execute("create table only_here ()").await.unwrap();
    assert_eq!(text(&two, "select to_regclass('only_here')::text").await, "");
    assert_eq!(text(&two, "show wal_level").await, "logical");
    assert_eq!(text(&two, "show timezone").await, "UTC");
    assert_eq!(text(&two, "select pubname::text from pg_publication").await, "supabase_realtime");
    two.batch_execute(bootstrap_sql()).await.unwrap();
}

#[tokio::test]
async fn roles_are_as_a_hosted_database_has_them() {
    let server = server();
    let client = server.connect(&server.database().await).await;
    let roles =
        "select string_agg(rolname || ' ' || rolsuper || rolbypassrls || rolcanlogin || rolinherit || rolreplication, E'\n'
                                   order by rolname)
                 from pg_roles where rolname !~ '^pg_'";
    assert_eq!(
        text(&client, roles).await,
        "anon falsefalsefalsefalsefalse\n\
         authenticated falsefalsefalsefalsefalse\n\
         authenticator falsefalsetruefalsefalse\n\
         dashboard_user falsefalsefalsetruetrue\n\
         postgres truetruetruetruetrue\n\
         service_role falsetruefalsefalsefalse\n\
         supabase_admin truetruetruetruetrue\n\
         supabase_realtime_admin falsefalsefalsefalsefalse"
    );
    for member in ["anon", "authenticated", "service_role"] {
        for of in ["authenticator", "supabase_realtime_admin"] {
            assert_eq!(text(&client, &format!("select pg_has_role('{of}', '{member}', 'member')::text")).await, "true");
        }
    }
}

#[tokio::test]
async fn policies_learn_who_is_asking() {
    let server = server();
    let client = server.connect(&server.database().await).await;
    let who = "select concat_ws(' ', auth.role(), auth.uid(), auth.jwt() ->> 'plan')";
    client.batch_execute("set role authenticated").await.unwrap();
    assert_eq!(text(&client, who).await, "");
    let claims = r#"{"role":"authenticated","sub":"11111111-2222-3333-4444-555555555555","plan":"gold"}"#;
    client.execute("select set_config('request.jwt.claims', $1, false)", &[&claims]).await.unwrap();
    assert_eq!(text(&client, who).await, "authenticated 11111111-2222-3333-4444-555555555555 gold");
}

#[tokio::test]
async fn what_an_administrator_creates_is_within_reach_of_the_api() {
    let server = server();
    let client = server.connect(&server.database().await).await;
    for creator in ["postgres", "supabase_admin"] {
        let table = format!("of_{creator}");
        client.batch_execute(&format!("set role {creator}; create table {table} (id serial, v text)")).await.unwrap();
        for reader in ["anon", "authenticated", "service_role"] {
            let insert = format!("set role {reader}; insert into {table} (v) values ('x'); delete from {table}");
            client.batch_execute(&insert).await.unwrap_or_else(|e| panic!("{reader} of {creator}: {e}"));
        }
    }
}

#[tokio::test]
async fn the_demo_table_can_be_read_and_appended_to_but_not_changed() {
    let server = server();
    let client = server.connect(&server.database().await).await;
    for _ in 0..2 {
        client.batch_execute(demo_sql()).await.unwrap();
        let insert = "insert into chat_messages (room, author, body) values ('lobby', 'ana', 'hello')";
        client.batch_execute(&format!("set role anon; {insert}; reset role")).await.unwrap();
    }
    let published = "select string_agg(tablename::text, ',') from pg_publication_tables where pubname = 'supabase_realtime'";
    assert_eq!(text(&client, published).await, "chat_messages");
    client.batch_execute("set role authenticated").await.unwrap();
    assert_eq!(text(&client, "select count(*)::text from chat_messages").await, "2");
    assert_eq!(client.execute("update chat_messages set body = 'forged'", &[]).await.unwrap(), 0);
    assert_eq!(client.execute("delete from chat_messages", &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn the_demo_opens_private_rooms_once_the_server_has_migrated() {
    let server = server();
    let client = server.connect(&server.database().await).await;
    client.batch_execute(demo_policies_sql()).await.unwrap();
    assert_eq!(text(&client, "select count(*)::text from pg_policies").await, "0");
    // As much of the migrations as the policies touch.
    let migrated = "create table realtime.messages (topic text);
                    alter table realtime.messages enable row level security;
                    grant select, insert on realtime.messages to anon, authenticated;
                    grant usage on schema realtime to anon, authenticated;
                    create function realtime.topic() returns text language sql
                      as $$ select current_setting('realtime.topic', true) $$";
    client.batch_execute(migrated).await.unwrap();
    for _ in 0..2 {
        client.batch_execute(demo_policies_sql()).await.unwrap();
    }
    for role in ["anon", "authenticated"] {
        client.batch_execute(&format!("set role {role}; set realtime.topic = 'room:1'")).await.unwrap();
        client.batch_execute("insert into realtime.messages values ('room:1')").await.unwrap();
        assert_ne!(text(&client, "select count(*)::text from realtime.messages").await, "0", "{role}");
        client.batch_execute("set realtime.topic = 'other'").await.unwrap();
        assert_eq!(text(&client, "select count(*)::text from realtime.messages").await, "0", "{role}");
        client.batch_execute("insert into realtime.messages values ('other')").await.unwrap_err();
    }
}
