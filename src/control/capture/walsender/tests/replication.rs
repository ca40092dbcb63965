//! Streaming from a real server, through a table shaped like `realtime.messages`.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::super::*;
use crate::local_postgres::testing::server;
use crate::protocol::pgoutput::{Column, Lsn, Message, Relations};

type Session = Walsender<TcpStream>;
type Stream = Streaming<TcpStream>;

const PATIENCE: Duration = Duration::from_secs(30);

async fn session_with(database: &str, parameters: &[(&str, &str)]) -> Session {
    let socket = TcpStream::connect(("127.0.0.1", server().port())).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let login = Login { user: "postgres", password: "", database, application_name: "walsender_test", parameters };
    Walsender::login(socket, &login).await.unwrap()
}

async fn session(database: &str) -> Session {
    session_with(database, &[]).await
}

/// A database of its own with the table, and a name for a slot that no other test uses.
async fn tenant() -> (String, String, Session) {
    let database = server().database().await;
    let mut sql = session(&database).await;
    let table = "create table realtime.messages (topic text not null, extension text not null, payload jsonb, event text, \
         private boolean default false, inserted_at timestamp not null default now(), id uuid not null default gen_random_uuid(), \
         primary key (id, inserted_at)) partition by range (inserted_at); \
         create table realtime.messages_past partition of realtime.messages for values from (minvalue) to ('2020-01-01'); \
         create table realtime.messages_now partition of realtime.messages for values from ('2020-01-01') to (maxvalue)";
    sql.simple_query(table).await.unwrap();
    sql.ensure_messages_publication().await.unwrap();
    let slot = format!("walsender_{}", database.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    (database, slot, sql)
}

async fn start(session: Session, slot: &str) -> Stream {
    let publications = publication_names(&[MESSAGES_PUBLICATION]).unwrap();
    let options = [("proto_version", "1"), ("publication_names", publications.as_str())];
    session.start_logical(slot, Lsn::INVALID, &options).await.unwrap()
}

async fn insert(sql: &mut Session, topic: &str) {
    sql.simple_query(&format!("insert into realtime.messages (topic, extension) values ('{topic}', 'broadcast')")).await.unwrap();
}

async fn next(stream: &mut Stream) -> Result<Event, WalsenderError> {
    timeout(PATIENCE, stream.next()).await.expect("an event in time")
}

/// Topics and table of the next transaction, and where it ends.
async fn transaction(stream: &mut Stream, relations: &mut Relations) -> (Vec<(String, String)>, Lsn) {
    let mut rows = Vec::new();
    loop {
        let Event::Data { payload, .. } = next(stream).await.unwrap() else { continue };
        match Message::decode(&payload).unwrap() {
            Message::Relation(message) => assert_eq!(relations.describe(&message).namespace, "realtime"),
            Message::Insert { relation, new } => {
                let relation = relations.get(relation).unwrap();
                let topic = relation.column_index("topic").unwrap();
                let Some(Column::Text(topic)) = new.columns().nth(topic) else { panic!("no topic") };
                rows.push((relation.name.clone(), String::from_utf8(topic.to_vec()).unwrap()));
            }
            Message::Commit { end_lsn, .. } => return (rows, end_lsn),
            _ => {}
        }
    }
}

/// The server applies what it is told at its leisure.
async fn wait_for(sql: &mut Session, slot: &str, what: &str, is: impl Fn(&Option<SlotState>) -> bool) -> Option<SlotState> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = sql.slot_state(slot).await.unwrap();
        if is(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "{what}: {state:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn row(table: &str, topic: &str) -> (String, String) {
    (format!("messages_{table}"), topic.to_owned())
}

#[tokio::test]
async fn rows_of_partitions_arrive_by_leaf() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session(&database).await;
    let point = walsender.create_slot(&slot, true).await.unwrap();
    let state = walsender.slot_state(&slot).await.unwrap().unwrap();
    assert_eq!((state.confirmed_flush, state.temporary, state.active_pid), (Some(point), true, Some(walsender.backend_pid())));
    assert_eq!((state.plugin.as_deref(), state.database.as_deref()), (Some("pgoutput"), Some(database.as_str())));
    let mut stream = start(walsender, &slot).await;
    insert(&mut sql, "a").await;
    let both = "insert into realtime.messages (topic, extension, inserted_at) values ('b', 'x', '2019-01-01'), ('ü', 'x', now())";
    sql.simple_query(both).await.unwrap();
    let mut relations = Relations::default();
    let (rows, first_end) = transaction(&mut stream, &mut relations).await;
    assert_eq!(rows, [row("now", "a")]);
    assert!(first_end > point);
    let (rows, _) = transaction(&mut stream, &mut relations).await;
    assert_eq!(rows, [row("past", "b"), row("now", "ü")]);
    stream.finish().await.unwrap();
    assert_eq!(sql.slot_state(&slot).await.unwrap(), None);
}

#[tokio::test]
async fn acknowledged_is_what_was_said_and_a_new_stream_resumes_there() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session(&database).await;
    let point = walsender.create_slot(&slot, false).await.unwrap();
    let mut stream = start(walsender, &slot).await;
    for topic in ["a", "b", "c"] {
        insert(&mut sql, topic).await;
    }
    let mut relations = Relations::default();
    let mut ends = Vec::new();
    for topic in ["a", "b", "c"] {
        let (rows, end) = transaction(&mut stream, &mut relations).await;
        assert_eq!(rows, [row("now", topic)]);
        ends.push(end);
    }
    // Receiving acknowledges nothing, and neither does a sign of life.
    stream.send_status(Lsn::INVALID, true).await.unwrap();
    while !matches!(next(&mut stream).await.unwrap(), Event::KeepAlive { .. }) {}
    assert_eq!(sql.slot_state(&slot).await.unwrap().unwrap().confirmed_flush, Some(point));

    stream.send_status(ends[1], false).await.unwrap();
    wait_for(&mut sql, &slot, "acknowledged", |state| state.as_ref().unwrap().confirmed_flush == Some(ends[1])).await;
    stream.send_status(ends[0], true).await.unwrap();
    while !matches!(next(&mut stream).await.unwrap(), Event::KeepAlive { .. }) {}
    assert_eq!(sql.slot_state(&slot).await.unwrap().unwrap().confirmed_flush, Some(ends[1]));

    let pid = sql.slot_state(&slot).await.unwrap().unwrap().active_pid.unwrap();
    sql.simple_query(&format!("select pg_terminate_backend({pid})")).await.unwrap();
    let error = loop {
        if let Err(error) = next(&mut stream).await {
            break error;
        }
    };
    assert_eq!(error.sqlstate(), Some(SqlState(*b"57P01")), "{error}");
    wait_for(&mut sql, &slot, "free", |state| !state.as_ref().unwrap().active).await;
    insert(&mut sql, "d").await;

    let mut stream = start(session(&database).await, &slot).await;
    let mut relations = Relations::default();
    for topic in ["c", "d"] {
        assert_eq!(transaction(&mut stream, &mut relations).await.0, [row("now", topic)]);
    }
    stream.finish().await.unwrap();
    sql.drop_slot(&slot).await.unwrap();
}

#[tokio::test]
async fn a_write_to_an_ended_session_reports_why_it_ended() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session(&database).await;
    let pid = walsender.backend_pid();
    walsender.create_slot(&slot, true).await.unwrap();
    let mut stream = start(walsender, &slot).await;
    sql.simple_query(&format!("select pg_terminate_backend({pid})")).await.unwrap();
    wait_for(&mut sql, &slot, "gone", Option::is_none).await;
    let error = loop {
        if let Err(error) = stream.send_status(Lsn(1), false).await {
            break error;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(error.sqlstate(), Some(SqlState(*b"57P01")), "{error}");
}

#[tokio::test]
async fn slots_that_cannot_be_had() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session(&database).await;
    walsender.create_slot(&slot, false).await.unwrap();
    let exists = walsender.create_slot(&slot, false).await.unwrap_err();
    assert_eq!(exists.sqlstate(), Some(SqlState::DUPLICATE_OBJECT));
    // A refused command leaves the connection usable.
    let stream = start(walsender, &slot).await;
    assert_eq!(sql.drop_slot(&slot).await.unwrap_err().sqlstate(), Some(SqlState::OBJECT_IN_USE));
    let options = [("proto_version", "1"), ("publication_names", "\"p\"")];
    let taken = session(&database).await.start_logical(&slot, Lsn::INVALID, &options).await.err().unwrap();
    assert_eq!(taken.sqlstate(), Some(SqlState::OBJECT_IN_USE));
    stream.finish().await.unwrap();
    sql.drop_slot(&slot).await.unwrap();
    assert_eq!(sql.drop_slot(&slot).await.unwrap_err().sqlstate(), Some(SqlState::UNDEFINED_OBJECT));
    let missing = session(&database).await.start_logical(&slot, Lsn::INVALID, &options).await.err().unwrap();
    assert_eq!(missing.sqlstate(), Some(SqlState::UNDEFINED_OBJECT));
    assert!(matches!(sql.slot_state("a'b").await, Err(WalsenderError::Name(_))));
}

#[tokio::test]
async fn finishing_in_the_middle_of_a_large_transaction_frees_the_slot() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session(&database).await;
    walsender.create_slot(&slot, false).await.unwrap();
    let mut stream = start(walsender, &slot).await;
    many(&mut sql).await;
    while !matches!(next(&mut stream).await.unwrap(), Event::Data { .. }) {}
    stream.finish().await.unwrap();
    sql.drop_slot(&slot).await.unwrap();
}

const MANY: usize = 50_000;

async fn many(sql: &mut Session) {
    let rows = format!(
        "insert into realtime.messages (topic, extension, payload) \
         select 'topic', 'broadcast', jsonb_build_object('n', n) from generate_series(1, {MANY}) n"
    );
    sql.simple_query(&rows).await.unwrap();
}

#[tokio::test]
async fn a_large_transaction_takes_constant_memory() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session(&database).await;
    walsender.create_slot(&slot, true).await.unwrap();
    let mut stream = start(walsender, &slot).await;
    many(&mut sql).await;
    let (mut rows, mut buffer_bytes_max) = (0, 0);
    loop {
        let event = next(&mut stream).await.unwrap();
        buffer_bytes_max = buffer_bytes_max.max(stream.buffer_bytes());
        let Event::Data { payload, .. } = event else { continue };
        match Message::decode(&payload).unwrap() {
            Message::Insert { new, .. } => rows += usize::from(new.len() == 7),
            Message::Commit { .. } => break,
            _ => {}
        }
    }
    assert_eq!(rows, MANY);
    assert!(buffer_bytes_max <= 256 * 1024, "{buffer_bytes_max}");
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn a_row_of_five_megabytes() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session(&database).await;
    walsender.create_slot(&slot, true).await.unwrap();
    let mut stream = start(walsender, &slot).await;
    let large = "insert into realtime.messages (topic, extension) values (repeat('x', 5000000), 'broadcast')";
    sql.simple_query(large).await.unwrap();
    insert(&mut sql, "after").await;
    let mut relations = Relations::default();
    let (rows, _) = transaction(&mut stream, &mut relations).await;
    assert_eq!(rows, [row("now", &"x".repeat(5_000_000))]);
    assert_eq!(transaction(&mut stream, &mut relations).await.0, [row("now", "after")]);

    stream.payload_bytes_max = 1_000_000;
    sql.simple_query(large).await.unwrap();
    insert(&mut sql, "after").await;
    let (payload_bytes, head) = loop {
        if let Event::Oversized { payload_bytes, head, .. } = next(&mut stream).await.unwrap() {
            break (payload_bytes, head);
        }
    };
    assert!((5_000_000..5_000_500).contains(&payload_bytes));
    let change = crate::protocol::pgoutput::ChangeHead::peek(&head).unwrap();
    assert_eq!(relations.get(change.relation).unwrap().name, "messages_now");
    assert_eq!(transaction(&mut stream, &mut relations).await.0, []);
    assert_eq!(transaction(&mut stream, &mut relations).await.0, [row("now", "after")]);
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn keep_alives_are_to_be_answered() {
    let (database, slot, mut sql) = tenant().await;
    let mut walsender = session_with(&database, &[("wal_sender_timeout", "1s")]).await;
    walsender.create_slot(&slot, true).await.unwrap();
    let mut stream = start(walsender, &slot).await;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(2200) {
        if let Event::KeepAlive { reply_requested: true, end, .. } = next(&mut stream).await.unwrap() {
            stream.send_status(end, false).await.unwrap();
            wait_for(&mut sql, &slot, "acknowledged", |state| state.as_ref().unwrap().confirmed_flush == Some(end)).await;
        }
    }
    let ended = async { while next(&mut stream).await.is_ok() {} };
    timeout(Duration::from_secs(10), ended).await.expect("the server gives up");
}

#[tokio::test]
async fn settings_reach_the_text_of_values() {
    let database = server().database().await;
    let mut sql = session_with(&database, &[("DateStyle", "German"), ("TimeZone", "Asia/Tokyo")]).await;
    assert_eq!(sql.parameter("TimeZone"), Some("Asia/Tokyo"));
    assert!(sql.parameter("server_version").is_some());
    let rows = sql.simple_query("select '2024-02-03 00:00+00'::timestamptz, null; select 'x'").await.unwrap();
    assert_eq!(rows, [vec![Some("03.02.2024 09:00:00 JST".to_owned()), None], vec![Some("x".to_owned())]]);
    let error = sql.simple_query("select * from missing").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some(SqlState(*b"42P01")));
    assert!(error.to_string().starts_with("ERROR 42P01: "), "{error}");
    assert_eq!(sql.simple_query("").await.unwrap(), Vec::<Vec<Option<String>>>::new());
    let identity = sql.simple_query("IDENTIFY_SYSTEM").await.unwrap();
    assert_eq!(identity[0][3].as_deref(), Some(database.as_str()));
    sql.close().await.unwrap();
}

#[tokio::test]
async fn the_publication_is_made_kept_or_made_anew() {
    let database = server().database().await;
    let mut sql = session(&database).await;
    let missing = sql.ensure_messages_publication().await.unwrap_err();
    assert_eq!(missing.sqlstate(), Some(SqlState(*b"42P01")));
    let (_, _, mut sql) = tenant().await;
    assert_eq!(sql.ensure_messages_publication().await.unwrap(), PublicationState::Valid);
    for spoil in [
        format!("create table other (id int); alter publication {MESSAGES_PUBLICATION} add table other"),
        format!(
            "create table realtime.messagesx (id int); alter publication {MESSAGES_PUBLICATION} add table realtime.messagesx"
        ),
        format!("alter publication {MESSAGES_PUBLICATION} drop table realtime.messages"),
        format!("create table public.messages (id int); alter publication {MESSAGES_PUBLICATION} set table public.messages"),
    ] {
        sql.simple_query(&spoil).await.unwrap();
        assert_eq!(sql.ensure_messages_publication().await.unwrap(), PublicationState::Recreated, "{spoil}");
        assert_eq!(sql.ensure_messages_publication().await.unwrap(), PublicationState::Valid, "{spoil}");
    }
    sql.simple_query(&format!("drop publication {MESSAGES_PUBLICATION}")).await.unwrap();
    assert_eq!(sql.ensure_messages_publication().await.unwrap(), PublicationState::Created);
}
