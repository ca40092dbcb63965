//! Runs: counting, repeating, two at once, and what refuses a run.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{Applied, LOCK_KEY, MigrationError, VERSIONS, applied, refuse_missing_roles, run, shut_out_other_nodes};
use super::inventory::snapshot;
use super::{connect, empty, migrated};
use crate::local_postgres::testing::server;

#[test]
fn versions_ascend() {
    assert!(VERSIONS.is_sorted_by(|a, b| a < b));
    assert_eq!((VERSIONS[0], VERSIONS[80]), (20211116024918, 20260709120000));
}

#[tokio::test]
async fn second_run_changes_nothing() {
    let mut session = empty().await;
    assert_eq!(applied(&session.client).await.unwrap(), 0);
    assert_eq!(run(&mut session.client).await.unwrap(), Applied { already: 0, added: 81 });
    assert_eq!(applied(&session.client).await.unwrap(), 81);

    let before = snapshot(&session).await;
    // Would be repaired if anything ran: proof that nothing does.
    session.execute("drop function realtime.topic()").await;
    assert_eq!(run(&mut session.client).await.unwrap(), Applied { already: 81, added: 0 });
    let after = snapshot(&session).await;
    assert_eq!(after.len(), before.len() - 1);
}

#[tokio::test]
async fn settings_of_the_session_survive() {
    let mut session = empty().await;
    session.execute("set search_path = public, auth; set statement_timeout = '33s'").await;
    run(&mut session.client).await.unwrap();
    assert_eq!(session.value("show search_path").await, "public, auth");
    assert_eq!(session.value("show statement_timeout").await, "33s");
}

#[tokio::test]
async fn of_two_at_once_one_applies() {
    let database = server().database().await;
    let (mut one, mut other) = (connect(&database).await, connect(&database).await);
    let (first, second) = tokio::join!(run(&mut one.client), run(&mut other.client));
    let mut added = [first.unwrap().added, second.unwrap().added];
    added.sort_unstable();
    assert_eq!(added, [0, 81]);
    assert_eq!(applied(&one.client).await.unwrap(), 81);
}

#[tokio::test]
async fn node_that_holds_on_is_reported() {
    let database = server().database().await;
    let (holder, mut waiter) = (connect(&database).await, connect(&database).await);
    holder.execute(&format!("select pg_advisory_lock({LOCK_KEY})")).await;
    let transaction = waiter.client.transaction().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let refusal = shut_out_other_nodes(&transaction, deadline, 50).await.unwrap_err();
    assert!(matches!(refusal, MigrationError::Busy), "{refusal:?}");
}

#[tokio::test]
async fn login_does_not_matter() {
    let mut session = empty().await;
    session.execute("set session authorization supabase_admin").await;
    run(&mut session.client).await.unwrap();
    assert_eq!(snapshot(&session).await, snapshot(&migrated().await).await);
}

#[tokio::test]
async fn missing_roles_are_named() {
    let mut session = empty().await;
    // Roles belong to all tests: take one away only inside a transaction that never commits.
    let transaction = session.client.transaction().await.unwrap();
    transaction.batch_execute("alter role dashboard_user rename to ringcast_renamed_role").await.unwrap();
    let refusal = refuse_missing_roles(&transaction).await.unwrap_err();
    assert!(matches!(&refusal, MigrationError::MissingRoles(roles) if *roles == ["dashboard_user"]), "{refusal:?}");
    assert_eq!(refusal.to_string(), "the database lacks the roles dashboard_user");
}

#[tokio::test]
async fn failing_part_is_named_and_leaves_nothing() {
    let mut session = empty().await;
    // A view is in the way of the table.
    session.execute("create view realtime.messages as select 1 as topic").await;
    let refusal = run(&mut session.client).await.unwrap_err();
    assert_eq!(refusal.to_string(), "migration failed at \"table messages\": \"messages\" is not a table (SQLSTATE 42809)");
    assert_eq!(session.value("select to_regclass('realtime.schema_migrations')").await, "null");
    assert_eq!(applied(&session.client).await.unwrap(), 0);
}

#[tokio::test]
async fn leftover_publications_go() {
    let mut session = empty().await;
    session
        .execute(
            "create table public.t (); create publication realtime_messages_old for table public.t;
             create publication supabase_realtime_messages_publication_v2 for table public.t;
             create publication realtimeXmessages for table public.t",
        )
        .await;
    run(&mut session.client).await.unwrap();
    let left = session.lines("select pubname from pg_publication order by pubname").await;
    assert_eq!(left, ["realtimexmessages", "supabase_realtime"]);
}

#[tokio::test]
async fn platform_with_policy_grants_takes_create_from_postgres() {
    let mut session = empty().await;
    session.execute("grant create on schema realtime to dashboard_user, postgres").await;
    session.execute("set supautils.policy_grants = '{\"postgres\": [\"realtime.messages\", \"realtime.subscription\"]}'").await;
    run(&mut session.client).await.unwrap();
    let acl = session.value("select array_to_string(nspacl, ' ') from pg_namespace where nspname = 'realtime'").await;
    assert!(acl.contains(" postgres=U*/") || acl.starts_with("postgres=U*/"), "{acl}");
    assert!(acl.contains("dashboard_user=C/"), "{acl}");
}
