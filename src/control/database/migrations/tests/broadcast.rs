//! Contracts of database.md 6.1 to 6.4.

use super::{Session, migrated};

async fn ready() -> Session {
    let session = migrated().await;
    session.partition_of_today().await;
    session
}

const ROWS: &str = "select topic, extension, payload, event, private, binary_payload from realtime.messages";

#[tokio::test]
async fn topic_reads_the_setting() {
    let session = ready().await;
    assert_eq!(session.value("select realtime.topic()").await, "null");
    session.execute("begin; set local realtime.topic to 'room'").await;
    assert_eq!(session.value("select realtime.topic()").await, "room");
    session.execute("commit").await;
    assert_eq!(session.value("select realtime.topic() is null").await, "t");
}

#[tokio::test]
async fn send_stores_a_row_with_its_id() {
    let mut session = ready().await;
    session.execute("select realtime.send('{\"n\": 1}', 'e', 't')").await;
    let row = "select payload ->> 'id' = id::text, payload - 'id', topic, event, private, extension from realtime.messages";
    assert_eq!(session.lines(row).await, ["t|{\"n\": 1}|t|e|t|broadcast"]);
    session.execute("truncate realtime.messages; select realtime.send(payload => '{\"id\": \"mine\"}', event => 'e', topic => 't', private => false)").await;
    assert_eq!(session.lines(ROWS).await, ["t|broadcast|{\"id\": \"mine\"}|e|f|null"]);
    session.execute("truncate realtime.messages; select realtime.send(null, 'e', 't', false); select realtime.send('{\"id\":1}', null, 't')").await;
    assert_eq!(session.lines(ROWS).await, ["t|broadcast|null|e|f|null", "t|broadcast|{\"id\": 1}|null|t|null"]);
    assert!(session.warnings().is_empty());
    session.execute("begin; select realtime.send('{}', 'e', 'left'' behind')").await;
    assert_eq!(session.value("select realtime.topic()").await, "left' behind");
    session.execute("rollback").await;
}

#[tokio::test]
async fn send_only_warns() {
    let mut session = ready().await;
    for (call, warning) in [
        ("'[1]', 'e', 'x', false", "path element at position 1 is not an integer: \"id\""),
        ("'5', 'e', 'x', false", "cannot set path in scalar"),
        ("'{}', 'e', null, false", "syntax error at or near \"NULL\""),
    ] {
        session.execute(&format!("select realtime.send({call})")).await;
        assert_eq!(session.warnings(), [format!("WARNING: WarnSendingBroadcastMessage: {warning}")]);
    }
    session.execute("begin; set local role authenticated; select realtime.send('{}', 'e', 'nothing', true); rollback").await;
    let denied = "new row violates row-level security policy for table \"messages\"";
    assert_eq!(session.warnings(), [format!("WARNING: WarnSendingBroadcastMessage: {denied}")]);
    session.execute("do $$ declare t regclass; begin for t in select inhrelid::regclass from pg_inherits where inhparent = 'realtime.messages'::regclass loop execute 'drop table ' || t; end loop; end $$").await;
    session.execute("select realtime.send('{}', 'e', 't'); select realtime.send_binary('\\x00', 'e', 't')").await;
    let missing = "WARNING: WarnSendingBroadcastMessage: no partition of relation \"messages\" found for row";
    assert_eq!(session.warnings(), [missing, missing]);
    assert_eq!(session.value("select count(*) from realtime.messages").await, "0");
}

#[tokio::test]
async fn send_binary_keeps_the_bytes() {
    let mut session = ready().await;
    session.execute("select realtime.send_binary('\\x00ff10', 'blob', 'pub', false)").await;
    assert_eq!(session.lines(ROWS).await, ["pub|broadcast|null|blob|f|\\x00ff10"]);
    session.execute("select realtime.send_binary('\\x00', 'e', null)").await;
    assert_eq!(session.warnings(), ["WARNING: WarnSendingBroadcastMessage: syntax error at or near \"NULL\""]);
}

#[tokio::test]
async fn broadcast_changes_from_a_row_trigger() {
    let session = ready().await;
    session
        .execute(
            "create table public.notes (id int, v text);
             create function public.tell() returns trigger language plpgsql as $$ begin
               perform realtime.broadcast_changes('room', tg_op, tg_op, tg_table_name, tg_table_schema, new, old); return null; end $$;
             create trigger tell after insert or update or delete on public.notes for each row execute function public.tell();
             insert into public.notes values (1, 'a'); update public.notes set v = 'b'; delete from public.notes",
        )
        .await;
    let sent = "select event, private, topic, payload -> 'operation', payload -> 'schema', payload -> 'table', payload -> 'record',
        payload -> 'old_record', payload ->> 'id' = id::text from realtime.messages order by array_position(array['INSERT', 'UPDATE', 'DELETE'], event)";
    assert_eq!(
        session.lines(sent).await,
        [
            "INSERT|t|room|\"INSERT\"|\"public\"|\"notes\"|{\"v\": \"a\", \"id\": 1}|null|t",
            "UPDATE|t|room|\"UPDATE\"|\"public\"|\"notes\"|{\"v\": \"b\", \"id\": 1}|{\"v\": \"a\", \"id\": 1}|t",
            "DELETE|t|room|\"DELETE\"|\"public\"|\"notes\"|null|{\"v\": \"b\", \"id\": 1}|t",
        ]
    );
    assert_eq!(
        session.value("select jsonb_typeof(payload -> 'record') from realtime.messages where event = 'DELETE'").await,
        "null"
    );
}

#[tokio::test]
async fn broadcast_changes_refuses() {
    let session = ready().await;
    let call = |operation: &str, level: &str| {
        format!("select realtime.broadcast_changes('t', 'e', {operation}, 'tab', 'public', null::record, null::record{level})")
    };
    let refused = |text: &str| ("P0001".to_owned(), format!("Failed to process the row: {text}"));
    assert_eq!(session.refusal(&call("'TRUNCATE'", "")).await, refused("Unexpected operation type: TRUNCATE"));
    assert_eq!(session.refusal(&call("'insert'", "")).await, refused("Unexpected operation type: insert"));
    assert_eq!(session.refusal(&call("null", "")).await, refused("Unexpected operation type: <NULL>"));
    assert_eq!(
        session.refusal(&call("'INSERT'", ", 'STATEMENT'")).await,
        refused("function can only be triggered for each row, not for each statement")
    );
}
