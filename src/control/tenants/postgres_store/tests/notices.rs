//! Changes are noticed, whoever makes them, and so is not knowing.

use tokio::time::timeout;

use super::*;

async fn next(changes: &mut Receiver<StoreChange>) -> StoreChange {
    timeout(Duration::from_secs(10), changes.recv()).await.expect("a change in time").expect("a running listener")
}

fn changed(external_id: &str) -> StoreChange {
    StoreChange::Tenant(external_id.to_owned())
}

async fn watched() -> (PostgresStore, Client, Receiver<StoreChange>) {
    let database = server().database().await;
    let store = PostgresStore::open(&settings_of(&database)).await.unwrap();
    let client = other_client(&database).await;
    let mut changes = store.watch();
    assert_eq!(next(&mut changes).await, StoreChange::Unknown);
    (store, client, changes)
}

#[tokio::test]
async fn own_and_foreign_changes_are_told() {
    let (store, client, mut changes) = watched().await;
    store.put(&tenant("t1")).await.unwrap();
    assert_eq!(next(&mut changes).await, changed("t1"));
    for statement in [
        "update tenants set suspend = true",
        "update extensions set settings = settings || '{\"region\": \"x\"}' where type = 'other'",
        "delete from extensions where type = 'other'",
    ] {
        client.batch_execute(statement).await.unwrap();
        assert_eq!(next(&mut changes).await, changed("t1"), "{statement}");
    }
    store.rename("t1", &Tenant { external_id: "t2".to_owned(), ..tenant("t1") }).await.unwrap();
    let mut both = [next(&mut changes).await, next(&mut changes).await];
    both.sort_by_key(|change| format!("{change:?}"));
    assert_eq!(both, [changed("t1"), changed("t2")]);
    client.batch_execute("delete from tenants").await.unwrap();
    assert_eq!(next(&mut changes).await, changed("t2"));
    client.batch_execute("truncate tenants cascade").await.unwrap();
    assert_eq!(next(&mut changes).await, StoreChange::Unknown);
    store.put(&tenant(&"long".repeat(2000))).await.unwrap();
    assert_eq!(next(&mut changes).await, StoreChange::Unknown);
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let (store, client, mut changes) = watched().await;
    for round in ["t1", "t2"] {
        let ended = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
            where datname = current_database() and query like 'listen%'";
        assert_eq!(text_of(&client, ended).await, "1");
        assert_eq!(next(&mut changes).await, StoreChange::Unknown);
        store.put(&tenant(round)).await.unwrap();
        assert_eq!(next(&mut changes).await, changed(round));
    }
}

#[tokio::test]
async fn a_slow_receiver_is_told_that_it_missed_something() {
    let (store, client, mut changes) = watched().await;
    store.put(&tenant("t1")).await.unwrap();
    // One transaction would tell only once.
    let many = "do $$ begin for i in 1..600 loop update tenants set migrations_ran = i; commit; end loop; end $$";
    client.batch_execute(many).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut told = 0;
    while next(&mut changes).await == changed("t1") {
        told += 1;
    }
    assert!((200..600).contains(&told), "{told}");
    client.batch_execute("update tenants set migrations_ran = 0").await.unwrap();
    assert_eq!(next(&mut changes).await, changed("t1"));
}

#[tokio::test]
async fn the_listener_ends_with_its_receiver() {
    let (_store, client, changes) = watched().await;
    drop(changes);
    let listeners = "select count(*) from pg_stat_activity where datname = current_database() and query like 'listen%'";
    timeout(Duration::from_secs(5), async {
        while text_of(&client, listeners).await != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the listener's connection ends");
}
