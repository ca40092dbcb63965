use super::super::authorization::testing::{fixture_client, settings};
use super::*;
use crate::local_postgres::testing::server;

async fn setting(client: &Client, name: &str) -> String {
    client.query_one("select current_setting($1)", &[&name]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_session_has_its_name_and_timeouts_unless_the_operator_chose_others() {
    let name = server().database().await;
    let client = connect(&settings(&name), "realtime_janitor").await.unwrap();
    assert_eq!(setting(&client, "application_name").await, "realtime_janitor");
    assert_eq!(setting(&client, "statement_timeout").await, "10s");
    assert_eq!(setting(&client, "idle_in_transaction_session_timeout").await, "10s");
    assert_eq!(setting(&client, "default_transaction_read_only").await, "off");

    let operator = fixture_client(&name).await;
    operator
        .batch_execute(&format!(
            "alter database {name} set statement_timeout = '3min';
             alter database {name} set idle_in_transaction_session_timeout = '7s';
             alter database {name} set timezone = 'Asia/Tokyo'"
        ))
        .await
        .unwrap();
    let client = connect(&settings(&name), "realtime_janitor").await.unwrap();
    assert_eq!(setting(&client, "statement_timeout").await, "3min");
    assert_eq!(setting(&client, "idle_in_transaction_session_timeout").await, "7s");
    assert_eq!(setting(&client, "timezone").await, "Asia/Tokyo");
}

#[tokio::test]
async fn failures_are_sorted_by_cause() {
    let good = settings("postgres");
    let failed = async |settings: &DatabaseSettings| connect(settings, "realtime_connect").await.err();
    let missing = DatabaseSettings { name: "there_is_no_such_database".to_owned(), ..good.clone() };
    assert_eq!(failed(&missing).await, Some(ConnectError::DatabaseMissing));
    let stranger = DatabaseSettings { user: "there_is_no_such_role".to_owned(), ..good.clone() };
    assert_eq!(failed(&stranger).await, Some(ConnectError::Auth { sqlstate: "28000".to_owned() }));
    let encrypted = DatabaseSettings { tls: true, ..good.clone() };
    assert_eq!(failed(&encrypted).await, Some(ConnectError::Dial(DialError::TlsRefused)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = DatabaseSettings { port: listener.local_addr().unwrap().port(), ..good };
    drop(listener);
    assert_eq!(failed(&closed).await, Some(ConnectError::Refused));
}

#[tokio::test]
async fn a_full_database_is_told_apart() {
    let name = server().database().await;
    let operator = fixture_client(&name).await;
    // Superusers are exempt from the limit, so the session is opened as another role.
    operator.batch_execute(&format!("alter database {name} connection limit 0")).await.unwrap();
    let settings = DatabaseSettings { user: "authenticator".to_owned(), ..settings(&name) };
    assert_eq!(connect(&settings, "realtime_connect").await.err(), Some(ConnectError::TooManyConnections));
}

#[tokio::test]
async fn a_statement_can_be_cancelled() {
    let settings = settings("postgres");
    let client = connect(&settings, "realtime_connect").await.unwrap();
    let token = client.cancel_token();
    let cancelling = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel(&settings, &token).await;
    };
    let (slept, ()) = tokio::join!(client.batch_execute("select pg_sleep(60)"), cancelling);
    assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
}

#[test]
fn versions_are_read_and_shown() {
    for (text, version) in [("15.4 (Debian 15.4-1)", 15), ("18beta1", 18), ("9.6.24", 9), ("", 0), ("x", 0), ("99999999999", 0)] {
        assert_eq!(major_version(text), version, "{text}");
    }
    let old = ConnectError::TooOld { found: 12, required: VERSION_MIN }.to_string();
    assert_eq!(old, "the database is Postgres 12, at least Postgres 13 is required");
}
