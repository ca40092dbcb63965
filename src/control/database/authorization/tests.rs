use std::time::{Duration, Instant};

use serde_json::json;
use tokio_postgres::Client;

use super::super::failure::DatabaseFailure;
use super::super::pool::DatabasePool;
use super::testing::{fixture, fixture_client, settings, table_without_partitions};
use super::*;

const OWNER: &str = "3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e01";
const BOTH: Extensions = Extensions { broadcast: true, presence: true };
const BROADCAST: Extensions = Extensions { broadcast: true, presence: false };
const PRESENCE: Extensions = Extensions { broadcast: false, presence: true };

const fn granted(broadcast: bool, presence: bool) -> Extensions {
    Extensions { broadcast, presence }
}

fn context(topic: &str, role: &str) -> AuthorizationContext {
    let claims = json!({"role": role, "sub": OWNER, "exp": 4_102_444_800_u64, "big": 1}).to_string();
    AuthorizationContext::from_claims(topic.to_owned(), &claims, json!({"x-room": "north"}).to_string()).unwrap()
}

/// A tenant with these policies: its pool and a session of its owner.
async fn tenant(policies: &str) -> (DatabasePool, Client) {
    let name = fixture().await;
    let client = fixture_client(&name).await;
    client.batch_execute(policies).await.unwrap();
    (DatabasePool::new(settings(&name)), client)
}

/// A policy of the role `authenticated`.
fn policy(name: &str, condition: &str) -> String {
    let (command, clause) = if name.starts_with("read") { ("select", "using") } else { ("insert", "with check") };
    format!("create policy {name} on realtime.messages for {command} to authenticated {clause} ({condition});")
}

async fn stored(client: &Client) -> i64 {
    client.query_one("select count(*) from realtime.messages", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn reading_is_decided_by_topic_claims_headers_and_extension() {
    let (pool, client) = tenant(
        &[
            policy("read_topic", "realtime.topic() = 'by-topic' and topic = 'by-topic'"),
            policy("read_own", "realtime.topic() = 'own:' || auth.uid()"),
            policy("read_header", "current_setting('request.headers')::json ->> 'x-room' = realtime.topic()"),
            policy("read_part", "realtime.topic() = 'part' and extension = 'presence'"),
            policy(
                "read_settings",
                "realtime.topic() = 'settings' and current_setting('request.jwt.claim.role') = 'authenticated' \
                and current_setting('request.jwt.claim.sub') = auth.uid()::text and auth.role() = 'authenticated' \
                and auth.jwt() ->> 'big' = '1' and not private and event is null and payload is null",
            ),
        ]
        .concat(),
    )
    .await;
    for (topic, expected) in [
        ("by-topic", granted(true, true)),
        ("elsewhere", granted(false, false)),
        (&format!("own:{OWNER}"), granted(true, true)),
        ("own:3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e02", granted(false, false)),
        ("north", granted(true, true)),
        ("part", granted(false, true)),
        ("settings", granted(true, true)),
    ] {
        assert_eq!(read(&pool, &context(topic, "authenticated"), BOTH).await, Ok(expected), "{topic}");
        // Same session, other role: no plan or setting is left over.
        assert_eq!(read(&pool, &context(topic, "anon"), BOTH).await, Ok(granted(false, false)), "{topic}");
        assert_eq!(read(&pool, &context(topic, "service_role"), BOTH).await, Ok(granted(true, true)), "{topic}");
    }
    assert_eq!(read(&pool, &context("by-topic", "authenticated"), PRESENCE).await, Ok(granted(false, true)));
    assert_eq!(read(&pool, &context("by-topic", "authenticated"), BROADCAST).await, Ok(granted(true, false)));
    let nothing = Extensions { broadcast: false, presence: false };
    assert_eq!(read(&pool, &context("by-topic", "authenticated"), nothing).await, Ok(granted(false, false)));
    assert_eq!(stored(&client).await, 0, "no probe was committed");
    assert_eq!(pool.status().size, 1, "one session served them all");
}

#[tokio::test]
async fn writing_is_decided_by_insert_policies_only() {
    let (pool, client) = tenant(
        &[
            policy("write_all", "realtime.topic() = 'all'"),
            policy("write_broadcast", "realtime.topic() = 'b' and extension = 'broadcast'"),
            policy("write_presence", "realtime.topic() = 'p' and extension = 'presence'"),
        ]
        .concat(),
    )
    .await;
    for (topic, allowed) in
        [("all", granted(true, true)), ("b", granted(true, false)), ("p", granted(false, true)), ("no", granted(false, false))]
    {
        let context = context(topic, "authenticated");
        assert_eq!(write(&pool, &context, BOTH).await, Ok(allowed), "{topic}");
        assert_eq!(write(&pool, &context, BROADCAST).await, Ok(granted(allowed.broadcast, false)), "{topic}");
        assert_eq!(write(&pool, &context, PRESENCE).await, Ok(granted(false, allowed.presence)), "{topic}");
    }
    assert_eq!(stored(&client).await, 0, "no probe was committed");
    client.batch_execute("revoke insert on realtime.messages from authenticated").await.unwrap();
    assert_eq!(write(&pool, &context("all", "authenticated"), BOTH).await, Ok(granted(false, false)), "no grant is a denial");
    assert_eq!(pool.status().size, 1);
}

#[tokio::test]
async fn policies_that_raise_and_unknown_roles_are_failures_and_leave_the_session_clean() {
    let (pool, client) =
        tenant(&[policy("read_odd", "(1 / length(topic)) = 1"), policy("write_odd", "(1 / length(topic)) = 1")].concat()).await;
    for _ in 0..2 {
        for outcome in
            [read(&pool, &context("", "authenticated"), BOTH).await, write(&pool, &context("", "authenticated"), BOTH).await]
        {
            assert_eq!(outcome, Err(DatabaseFailure::RlsPolicy("division by zero (SQLSTATE 22012)".to_owned())));
        }
        for outcome in [read(&pool, &context("x", "nobody"), BOTH).await, write(&pool, &context("x", "nobody"), BROADCAST).await]
        {
            assert!(matches!(&outcome, Err(DatabaseFailure::RlsPolicy(text)) if text.contains("22023")), "{outcome:?}");
        }
        for outcome in
            [read(&pool, &context("x", "authenticated"), BOTH).await, write(&pool, &context("x", "authenticated"), BOTH).await]
        {
            assert_eq!(outcome, Ok(granted(true, true)));
        }
    }
    let unsendable = read(&pool, &context("nul \0", "authenticated"), BOTH).await;
    assert!(matches!(&unsendable, Err(DatabaseFailure::RlsPolicy(text)) if text.contains("22021")), "{unsendable:?}");
    assert_eq!(stored(&client).await, 0);
    assert_eq!((pool.status().size, *pool.losses().borrow()), (1, 0), "the same session all the time");
}

#[tokio::test]
async fn a_sleeping_policy_is_cancelled_and_holds_up_nobody_else() {
    let (pool, client) = tenant(&policy("read_slow", "topic = 'quick' or (select pg_sleep(60)) is not null")).await;
    let name: String = client.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    client.batch_execute(&format!("alter database {name} set statement_timeout = '1s'")).await.unwrap();
    let started = Instant::now();
    let slow_context = context("slow", "authenticated");
    let quick_context = context("quick", "authenticated");
    let slow = async { (read(&pool, &slow_context, BROADCAST).await, started.elapsed()) };
    let quick = async { (read(&pool, &quick_context, BROADCAST).await, started.elapsed()) };
    let ((slow, slow_after), (quick, quick_after)) = tokio::join!(slow, quick);
    assert!(matches!(&slow, Err(DatabaseFailure::QueryCanceled(text)) if text.contains("57014")), "{slow:?}");
    assert!((1_000..3_000).contains(&slow_after.as_millis()), "{slow_after:?}: the operator's timeout is kept");
    assert_eq!(quick, Ok(granted(true, false)));
    assert!(quick_after < Duration::from_millis(900), "{quick_after:?}");
    assert_eq!(stored(&client).await, 0);
    assert_eq!(*pool.losses().borrow(), 0, "the cancelled session is good again");
}

#[tokio::test]
async fn a_pool_full_of_sleeping_policies_is_exhausted() {
    let (pool, _client) = tenant(&policy("read_slow", "(select pg_sleep(3)) is not null")).await;
    let context = context("slow", "authenticated");
    let slow = || read(&pool, &context, BROADCAST);
    let last = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        read(&pool, &context, BROADCAST).await
    };
    let (one, two, three, four, last) = tokio::join!(slow(), slow(), slow(), slow(), last);
    assert_eq!(last, Err(DatabaseFailure::PoolExhausted));
    for served in [one, two, three, four] {
        assert!(served.is_ok(), "{served:?}");
    }
}

#[tokio::test]
async fn no_partition_for_today_is_said_so() {
    let pool = DatabasePool::new(settings(&table_without_partitions().await));
    assert_eq!(read(&pool, &context("x", "authenticated"), BOTH).await, Err(DatabaseFailure::MissingPartition));
    assert_eq!(write(&pool, &context("x", "service_role"), BOTH).await, Err(DatabaseFailure::MissingPartition));
}

#[tokio::test]
async fn a_dropped_check_gives_up_its_session_and_ends_its_statement() {
    let (pool, client) = tenant(&policy("read_slow", "topic = 'quick' or (select pg_sleep(60)) is not null")).await;
    let slow = context("slow", "authenticated");
    assert!(tokio::time::timeout(Duration::from_millis(500), read(&pool, &slow, BROADCAST)).await.is_err());
    assert_eq!(pool.status().size, 0, "it did not go back");
    assert_eq!(read(&pool, &context("quick", "authenticated"), BROADCAST).await, Ok(granted(true, false)));
    let sleeping = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'";
    for attempt in 0.. {
        if client.query_one(sleeping, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            break;
        }
        assert!(attempt < 50, "the policy still sleeps");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(stored(&client).await, 0);
}

#[tokio::test]
async fn a_terminated_session_is_unavailable_once_and_the_pool_recovers() {
    let (pool, client) = tenant(&policy("read_slow", "topic = 'quick' or (select pg_sleep(60)) is not null")).await;
    let mut losses = pool.losses();
    let kill = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where datname = current_database() and application_name = 'realtime_connect'";
        client.execute(sql, &[]).await.unwrap();
    };
    let slow = context("slow", "authenticated");
    let (killed, ()) = tokio::join!(read(&pool, &slow, BROADCAST), kill);
    assert!(matches!(killed, Err(DatabaseFailure::Unavailable(_))), "{killed:?}");
    tokio::time::timeout(Duration::from_secs(5), losses.changed()).await.unwrap().unwrap();
    assert_eq!((*losses.borrow(), *pool.successes().borrow()), (1, 1));
    assert_eq!(read(&pool, &context("quick", "authenticated"), BROADCAST).await, Ok(granted(true, false)));
    assert_eq!((*pool.losses().borrow(), *pool.successes().borrow()), (1, 2));
}

#[tokio::test]
async fn a_probe_without_a_transaction_cannot_be_committed() {
    let (pool, client) = tenant("").await;
    let lease = pool.lease().await.unwrap();
    let error =
        lease.execute("insert into realtime.messages (topic, extension) values ('x', 'broadcast')", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::READ_ONLY_SQL_TRANSACTION));
    lease.finish();
    assert_eq!(stored(&client).await, 0);
}

#[tokio::test]
async fn an_altered_table_costs_one_session_at_most() {
    let (pool, client) = tenant(&policy("read_all", "true")).await;
    let context = context("x", "authenticated");
    assert_eq!(read(&pool, &context, BOTH).await, Ok(granted(true, true)));
    client
        .batch_execute("alter table realtime.messages add column extra text; drop policy read_all on realtime.messages")
        .await
        .unwrap();
    assert_eq!(read(&pool, &context, BOTH).await, Ok(granted(false, false)), "changed policies count at once");
    let lease = pool.lease().await.unwrap();
    lease.batch_execute("discard all").await.unwrap();
    lease.finish();
    assert!(read(&pool, &context, BOTH).await.is_err(), "prepared statements are gone");
    assert_eq!(read(&pool, &context, BOTH).await, Ok(granted(false, false)));
}

#[test]
fn contexts_come_from_claims_of_any_type_but_not_without_a_role() {
    let from = |payload: &str| AuthorizationContext::from_claims("t".to_owned(), payload, "{}".to_owned());
    let odd = from(r#"{"role":7,"sub":{"a":true},"n":12345678901234567890123}"#).unwrap();
    assert_eq!((odd.role.as_str(), odd.sub.as_deref()), ("7", Some(r#"{"a":true}"#)));
    assert!(odd.claims_json.contains("12345678901234567890123"), "digits survive");
    assert_eq!(from(r#"{"role":"anon","sub":null}"#).unwrap().sub, None);
    for payload in ["[]", "\"anon\"", "", "{\"role\":\"anon\"", "null"] {
        assert_eq!(from(payload), Err(ClaimsError::NotAnObject), "{payload}");
    }
    for payload in ["{}", r#"{"role":null}"#] {
        assert_eq!(from(payload), Err(ClaimsError::NoRole), "{payload}");
    }
    let shown = format!("{:?}", from(r#"{"role":"anon","secret":"hunter2"}"#).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}
