use super::super::authorization::testing::{fixture_client, settings};
use super::*;
use crate::local_postgres::testing::server;

async fn pool() -> DatabasePool {
    DatabasePool::new(settings(&server().database().await))
}

#[tokio::test]
async fn spares_are_there_and_waiting_is_bounded() {
    let pool = pool().await;
    let mut leases = Vec::new();
    for _ in 0..1 + SPARE_SESSIONS {
        leases.push(pool.lease().await.unwrap());
    }
    let started = std::time::Instant::now();
    assert_eq!(pool.lease().await.err(), Some(DatabaseFailure::PoolExhausted));
    assert!((900..3_000).contains(&started.elapsed().as_millis()), "the queue target of the test is a second");
    leases.drain(..).for_each(Lease::finish);
    assert_eq!((pool.status().size, pool.status().available), (4, 4));
    pool.close_idle_spares();
    assert_eq!(pool.status().size, 4, "they were used just now");
}

#[tokio::test]
async fn a_lease_that_is_not_finished_is_closed() {
    let pool = pool().await;
    drop(pool.lease().await.unwrap());
    assert_eq!(pool.status().size, 0);
    pool.lease().await.unwrap().close();
    assert_eq!(pool.status().size, 0);
    pool.lease().await.unwrap().finish();
    assert_eq!(pool.status().size, 1);
    assert_eq!((*pool.losses().borrow(), *pool.successes().borrow()), (0, 3), "what we close is no loss");
}

#[tokio::test]
async fn a_deadline_cancels_and_closes() {
    let pool = pool().await;
    let sleep = async |client: &ClientWrapper| Answer::of(client.batch_execute("select pg_sleep(60)").await);
    let started = std::time::Instant::now();
    let outcome = pool.run(Duration::from_millis(300), sleep).await;
    assert!(matches!(outcome, Err(DatabaseFailure::QueryCanceled(_))), "{outcome:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(pool.status().size, 0);
    let stuck = async |_: &ClientWrapper| std::future::pending::<Answer<()>>().await;
    let outcome = pool.run(Duration::from_millis(100), stuck).await;
    assert!(matches!(outcome, Err(DatabaseFailure::Unavailable(_))), "{outcome:?}");
    assert_eq!(pool.status().size, 0);
}

#[tokio::test]
async fn losses_of_idle_sessions_are_seen_and_verify_opens_a_new_one() {
    let name = server().database().await;
    let pool = DatabasePool::new(settings(&name));
    pool.verify().await.unwrap();
    let mut losses = pool.losses();
    let kill =
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    fixture_client(&name).await.execute(kill, &[]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), losses.changed()).await.unwrap().unwrap();
    pool.verify().await.unwrap();
    assert_eq!((*pool.losses().borrow(), *pool.successes().borrow(), pool.status().size), (1, 2, 1));
}

#[tokio::test]
async fn a_closed_pool_and_an_unreachable_database_are_unavailable() {
    let pool = pool().await;
    pool.verify().await.unwrap();
    pool.close();
    assert!(matches!(pool.verify().await, Err(DatabaseFailure::Unavailable(_))));
    assert_eq!(*pool.losses().borrow(), 0);
    let unreachable = DatabasePool::new(settings("there_is_no_such_database"));
    assert!(matches!(unreachable.verify().await, Err(DatabaseFailure::Unavailable(text)) if text.contains("3D000")));
}
