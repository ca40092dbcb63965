//! Databases of every age and owner, and what the opening makes of them.

use super::super::layout::VERSIONS;
use super::*;

const SHAPE: &str = "select string_agg(format('%s.%s %s %s %s', table_name, column_name, udt_name, is_nullable, column_default), \
    E'\\n' order by table_name, column_name) from information_schema.columns where table_schema = '_realtime'";
const INDEXES: &str = "select string_agg(indexname, ' ' order by indexname) from pg_indexes where schemaname = '_realtime'";
const STAMPS: &str = "select count(*) from schema_migrations";

/// The first tables the reference ever had, more or less.
const OLD_TABLES: &str = "
    create schema _realtime;
    create table _realtime.schema_migrations (version bigint primary key, inserted_at timestamp(0));
    insert into _realtime.schema_migrations values (20210706140551, now()), (20220329161857, now());
    create table _realtime.tenants (id uuid primary key, name varchar(255), external_id varchar(255),
        jwt_secret varchar(500) not null, max_concurrent_users integer not null default 10000,
        inserted_at timestamp(0) not null, updated_at timestamp(0) not null);
    create unique index tenants_external_id_index on _realtime.tenants (external_id);
    create table _realtime.extensions (id uuid primary key, type varchar(255), settings jsonb,
        tenant_external_id varchar(255) references _realtime.tenants (external_id) on delete cascade,
        inserted_at timestamp(0) not null, updated_at timestamp(0) not null);
    insert into _realtime.tenants values (gen_random_uuid(), 'old', 'old', 'x', 17, now(), now());
    insert into _realtime.extensions values (gen_random_uuid(), 'postgres', '{\"region\": \"eu\"}', 'old', now(), now());
";

async fn error_of(settings: &RegistrySettings) -> String {
    PostgresStore::open(settings).await.err().unwrap().to_string()
}

#[tokio::test]
async fn an_empty_database_gets_everything_once() {
    let database = server().database().await;
    let settings = settings_of(&database);
    let (one, two) = tokio::join!(PostgresStore::open(&settings), PostgresStore::open(&settings));
    let (one, _two) = (one.unwrap(), two.unwrap());
    let client = other_client(&database).await;
    assert_eq!(text_of(&client, STAMPS).await, VERSIONS.len().to_string());
    let shape = text_of(&client, SHAPE).await;
    for line in [
        "tenants.broadcast_adapter varchar YES 'gen_rpc'::character varying",
        "tenants.max_joins_per_second int4 NO 500",
        "tenants.feature_flags jsonb NO '{}'::jsonb",
        "tenants.jwt_secret text YES ",
        "feature_flags.name varchar NO ",
        "schema_migrations.version int8 NO ",
    ] {
        assert!(shape.lines().any(|found| found == line), "{line:?} is not in\n{shape}");
    }
    assert_eq!(
        text_of(&client, INDEXES).await,
        "extensions_pkey extensions_tenant_external_id_index extensions_tenant_external_id_type_index feature_flags_name_index \
         feature_flags_pkey schema_migrations_pkey tenants_external_id_index tenants_pkey"
    );
    one.put(&tenant("t1")).await.unwrap();
    // A third opening finds nothing to do: it would not get through this lock.
    client.batch_execute("begin; lock table tenants in access share mode").await.unwrap();
    PostgresStore::open(&settings).await.unwrap();
    client.batch_execute("commit").await.unwrap();
    let keyless = "insert into tenants (id, external_id, inserted_at, updated_at) values (gen_random_uuid(), 'x', now(), now())";
    let refusal = client.batch_execute(keyless).await.unwrap_err();
    assert_eq!(refusal.as_db_error().unwrap().constraint(), Some("jwt_secret_or_jwt_jwks_required"));
}

#[tokio::test]
async fn an_old_database_grows_up() {
    let (new, old) = (server().database().await, server().database().await);
    let client = other_client(&old).await;
    client.batch_execute(OLD_TABLES).await.unwrap();
    let store = PostgresStore::open(&settings_of(&old)).await.unwrap();
    PostgresStore::open(&settings_of(&new)).await.unwrap();
    assert_eq!(text_of(&client, SHAPE).await, text_of(&other_client(&new).await, SHAPE).await);
    assert_eq!(text_of(&client, STAMPS).await, VERSIONS.len().to_string());
    let mut tenant = store.get("old").await.unwrap().unwrap();
    assert_eq!((tenant.max_concurrent_users, tenant.max_joins_per_second), (17, 500));
    assert_eq!(tenant.database().unwrap().settings["region"], "eu");
    tenant.jwt_secret = None;
    tenant.jwt_jwks = Some(json!({"keys": []}));
    store.put(&tenant).await.unwrap();
    assert_same(store.get("old").await.unwrap().unwrap(), tenant);
}

#[tokio::test]
async fn a_newer_database_is_left_as_it_is() {
    let database = server().database().await;
    PostgresStore::open(&settings_of(&database)).await.unwrap();
    let client = other_client(&database).await;
    client
        .batch_execute(
            "insert into schema_migrations values (20990101000000, now()); delete from schema_migrations where \
             version = 20260805000000; alter table tenants drop column presence_enabled, drop column suspend, \
             add column more integer not null default 1",
        )
        .await
        .unwrap();
    let shape = text_of(&client, SHAPE).await;
    let store = PostgresStore::open(&settings_of(&database)).await.unwrap();
    assert_eq!(text_of(&client, SHAPE).await, shape);
    let wanted = Tenant { presence_enabled: true, ..tenant("t1") };
    store.put(&wanted).await.unwrap();
    assert_same(store.get("t1").await.unwrap().unwrap(), Tenant { presence_enabled: false, ..wanted.clone() });
    // Losing this one would let people in.
    let error = store.put(&Tenant { suspend: true, ..wanted }).await.unwrap_err().to_string();
    assert!(error.contains("suspend"), "{error}");
    client.batch_execute("alter table extensions drop column settings").await.unwrap();
    assert!(error_of(&settings_of(&database)).await.contains("table extensions lacks column settings"));
}

#[tokio::test]
async fn a_login_without_rights_works_with_what_is_there() {
    let database = server().database().await;
    let owner = PostgresStore::open(&settings_of(&database)).await.unwrap();
    let client = other_client(&database).await;
    let login = format!("guest_of_{database}");
    client
        .batch_execute(&format!(
            "create role {login} login password 'hunter2'; grant usage on schema _realtime to {login}; \
             grant select, insert, update, delete on _realtime.tenants, _realtime.extensions to {login}; \
             drop trigger ringcast_notify_tenant on tenants; delete from schema_migrations where version = 20260805000000"
        ))
        .await
        .unwrap();
    let settings = RegistrySettings { user: login.clone(), ..settings_of(&database) };
    let store = PostgresStore::open(&settings).await.unwrap();
    store.put(&tenant("t1")).await.unwrap();
    assert_same(owner.get("t1").await.unwrap().unwrap(), store.get("t1").await.unwrap().unwrap());
    let none = server().database().await;
    let error = error_of(&RegistrySettings { name: none, ..settings }).await;
    assert!(error.contains("there is no table tenants"), "{error}");
    client.batch_execute(&format!("drop owned by {login}; drop role {login}")).await.unwrap();
}

#[tokio::test]
async fn the_after_connect_query_chooses_the_schema() {
    let database = server().database().await;
    let client = other_client(&database).await;
    let with = |query: &str| RegistrySettings { after_connect_query: Some(query.to_owned()), ..settings_of(&database) };
    let error = error_of(&with("set search_path to nowhere")).await;
    assert!(error.contains("DB_AFTER_CONNECT_QUERY"), "{error}");
    assert_eq!(text_of(&client, "select to_regnamespace('_realtime') is null").await, "true");
    client.batch_execute("create schema mine").await.unwrap();
    let mine = PostgresStore::open(&with("set search_path to mine")).await.unwrap();
    mine.put(&tenant("t1")).await.unwrap();
    assert_eq!(text_of(&client, "select count(*) from mine.tenants").await, "1");
    let usual = PostgresStore::open(&with("SET search_path TO _realtime")).await.unwrap();
    assert!(usual.list().await.unwrap().is_empty());
    usual.put(&tenant("t2")).await.unwrap();
    let without = PostgresStore::open(&settings_of(&database)).await.unwrap();
    assert!(without.get("t2").await.unwrap().is_some());
}

#[tokio::test]
async fn tables_the_reference_left_in_public_are_found() {
    let database = server().database().await;
    let client = other_client(&database).await;
    client.batch_execute(&OLD_TABLES.replace("create schema _realtime;", "").replace("_realtime.", "public.")).await.unwrap();
    let store = PostgresStore::open(&settings_of(&database)).await.unwrap();
    assert!(store.get("old").await.unwrap().is_some());
    store.put(&tenant("t1")).await.unwrap();
    assert_eq!(text_of(&client, "select count(*) from public.tenants").await, "2");
    assert_eq!(text_of(&client, "select to_regclass('_realtime.tenants') is null").await, "true");
}
