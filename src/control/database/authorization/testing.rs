//! A tenant database as small as the tests of this folder's parent allow: the messages table, its role and `realtime.topic()`.

use serde_json::json;
use time::OffsetDateTime;
use tokio_postgres::{Client, NoTls};

use super::super::partitions;
use super::super::settings::DatabaseSettings;
use crate::local_postgres::testing::server;

/// Everything but partitions (database.md 5.3 and 6.1).
pub(crate) const TABLE: &str = "
    grant usage on schema realtime to anon, authenticated, service_role;
    create table realtime.messages (
        topic text not null, extension text not null, payload jsonb, event text, private boolean default false,
        updated_at timestamp not null default now(), inserted_at timestamp not null default now(),
        id uuid not null default gen_random_uuid(), binary_payload bytea, primary key (id, inserted_at)
    ) partition by range (inserted_at);
    create index messages_inserted_at_topic_index on realtime.messages (inserted_at desc, topic)
        where extension = 'broadcast' and private is true;
    alter table realtime.messages owner to supabase_realtime_admin;
    alter table realtime.messages enable row level security;
    grant select, insert, update on realtime.messages to anon, authenticated, service_role;
    create function realtime.topic() returns text language sql stable as
        $$ select nullif(current_setting('realtime.topic', true), '')::text $$;";

/// Settings of a database on the test server, as its superuser.
pub(crate) fn settings(name: &str) -> DatabaseSettings {
    let settings = json!({"db_host": "127.0.0.1", "db_port": server().port().to_string(), "db_name": name,
                          "db_user": "postgres", "db_password": "postgres", "ssl_enforced": false, "region": "local",
                          "db_queue_target": 1_000});
    DatabaseSettings::from_plain(settings.as_object().unwrap()).unwrap()
}

/// A plain session that may write.
pub(crate) async fn fixture_client(name: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&format!("{}/{name}", server().url()), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// A database with an empty `realtime.messages`; its name.
pub(crate) async fn table_without_partitions() -> String {
    let name = server().database().await;
    fixture_client(&name).await.batch_execute(TABLE).await.unwrap();
    name
}

/// The same with partitions around today.
pub(crate) async fn fixture() -> String {
    let name = table_without_partitions().await;
    let client = fixture_client(&name).await;
    partitions::create(&client, OffsetDateTime::now_utc().date()).await.unwrap();
    name
}
