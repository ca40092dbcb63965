//! Brings the registry's schema to the reference's latest shape and stamps its migrations (http-api.md 13).
//!
//! Used once per process, by the opening. The schema is the one `DB_AFTER_CONNECT_QUERY` selects; without that variable it is
//! `_realtime`, unless the reference has been here without it and left its tables in `public`. A database of any older level
//! gets what is missing and all version rows, so that the reference finds nothing left to do; one of a newer level is left as
//! it is. One transaction under an advisory lock and the lock the reference's migrations take, so several nodes, and the
//! reference, may start at once. A login that may not change the schema works with what is there.

use std::collections::HashSet;
use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, Transaction};

use super::layout::{Column, SCHEMA_MIGRATIONS, TABLES, Table, VERSIONS};
use super::rows::Failure;
use crate::control::tenants::StoreError;

/// The conventional schema of the registry.
pub(super) const SCHEMA: &str = "_realtime";

/// Longest preparation, the wait for another node's included.
pub(super) const PREPARE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest wait for a table lock: a running reference must not queue behind ours for longer.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Key of the advisory lock, "ringcast" in ASCII: unlikely to be anybody else's.
const ADVISORY_KEY: i64 = 0x7269_6e67_6361_7374;

/// The schema the registry is or will be in. `None` when the session's own search path leads nowhere.
pub(super) async fn home(client: &Client, has_own_path: bool) -> Result<Option<String>, Error> {
    if has_own_path {
        return client.query_typed_one("select current_schema()::text", &[]).await?.try_get(0);
    }
    let elsewhere = "select to_regclass('_realtime.tenants') is null and to_regclass('public.tenants') is not null and exists \
        (select from pg_attribute where attrelid = to_regclass('public.extensions') and attname = 'tenant_external_id')";
    let is_public: bool = client.query_typed_one(elsewhere, &[]).await?.try_get(0)?;
    Ok(Some(if is_public { "public" } else { SCHEMA }.to_owned()))
}

/// A name as SQL wants it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Makes or completes the schema the session's search path leads to.
///
/// # Errors
/// Of the connection and the server, except that a refusal for want of privileges is logged and no error; and when the
/// search path leads nowhere even so.
pub(super) async fn prepare(client: &mut Client, schema: &str) -> Result<(), Failure> {
    let transaction = exclusive(client).await?;
    match complete(&transaction, schema).await {
        Ok(()) => Ok(transaction.commit().await?),
        Err(Failure::Postgres(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            tracing::warn!("this login may not complete the schema {schema} of the tenant database; using it as it is");
            Ok(transaction.rollback().await?)
        }
        Err(failure) => Err(failure),
    }
}

/// A transaction that no other node's preparation overlaps.
pub(super) async fn exclusive(client: &mut Client) -> Result<Transaction<'_>, Error> {
    let transaction = client.transaction().await?;
    let (wait_ms, lock_ms) = (PREPARE_TIMEOUT.as_millis(), LOCK_TIMEOUT.as_millis());
    transaction.batch_execute(&format!("set local statement_timeout = {wait_ms}")).await?;
    transaction.query_typed("select pg_advisory_xact_lock($1)", &[(&ADVISORY_KEY, Type::INT8)]).await?;
    transaction.batch_execute(&format!("set local lock_timeout = {lock_ms}")).await?;
    Ok(transaction)
}

async fn complete(transaction: &Transaction<'_>, schema: &str) -> Result<(), Failure> {
    let there = "select exists (select from pg_namespace where nspname = $1)";
    let is_there: bool = transaction.query_typed_one(there, &[(&schema, Type::TEXT)]).await?.try_get(0)?;
    if !is_there {
        transaction.batch_execute(&format!("create schema {}", quoted(schema))).await?;
    }
    let current: Option<String> = transaction.query_typed_one("select current_schema()::text", &[]).await?.try_get(0)?;
    if current.is_none() {
        let reason = "DB_AFTER_CONNECT_QUERY selects a schema that does not exist".to_owned();
        return Err(Failure::Store(StoreError::Registry { action: "preparing its schema", reason }));
    }
    if present(transaction, SCHEMA_MIGRATIONS.name).await?.is_empty() {
        transaction.batch_execute(&SCHEMA_MIGRATIONS.create_sql()).await?;
    } else if !is_behind(transaction).await? {
        return Ok(());
    }
    transaction.batch_execute("lock table schema_migrations in share update exclusive mode").await?;
    if !is_behind(transaction).await? {
        return Ok(());
    }
    for table in &TABLES {
        complete_table(transaction, table).await?;
    }
    // The API's alias of the type is not a type of its own.
    transaction
        .batch_execute(
            "update extensions e set type = 'postgres_cdc_rls' where type = 'postgres' and not exists \
             (select from extensions o where o.tenant_external_id = e.tenant_external_id and o.type = 'postgres_cdc_rls')",
        )
        .await?;
    let stamp = "insert into schema_migrations (version, inserted_at) \
        select version, now() at time zone 'utc' from unnest($1::bigint[]) as version on conflict do nothing";
    transaction.execute_typed(stamp, &[(&VERSIONS.as_slice(), Type::INT8_ARRAY)]).await?;
    Ok(())
}

/// Whether version rows are missing and none is newer than those known here.
async fn is_behind(transaction: &Transaction<'_>) -> Result<bool, Error> {
    let rows = transaction.query_typed("select version::bigint from schema_migrations", &[]).await?;
    let stamped = rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<i64>, _>>()?;
    let newest = VERSIONS[VERSIONS.len() - 1];
    Ok(VERSIONS.iter().any(|version| !stamped.contains(version)) && stamped.iter().all(|version| *version <= newest))
}

/// A column that exists.
struct Present {
    name: String,
    sql_type: String,
    not_null: bool,
}

/// The columns of a table of the current schema; none when there is no such table.
async fn present(transaction: &Transaction<'_>, table: &str) -> Result<Vec<Present>, Error> {
    let columns = "select attname::text, format_type(atttypid, atttypmod), attnotnull from pg_attribute \
        where attrelid = to_regclass(format('%I.%I', current_schema(), $1)) and attnum > 0 and not attisdropped";
    let rows = transaction.query_typed(columns, &[(&table, Type::TEXT)]).await?;
    let column = |row: &Row| Ok(Present { name: row.try_get(0)?, sql_type: row.try_get(1)?, not_null: row.try_get(2)? });
    rows.iter().map(column).collect()
}

async fn complete_table(transaction: &Transaction<'_>, table: &Table) -> Result<(), Error> {
    let present = present(transaction, table.name).await?;
    if present.is_empty() {
        transaction.batch_execute(&table.create_sql()).await?;
    }
    for (place, column) in table.columns.iter().enumerate().filter(|_| !present.is_empty()) {
        match present.iter().find(|present| present.name == column.name) {
            None => {
                let definition = column.definition(place == 0);
                transaction.batch_execute(&format!("alter table {} add column {definition}", table.name)).await?;
            }
            Some(_) if place == 0 => {}
            Some(present) => adapt_column(transaction, table.name, column, present).await?,
        }
    }
    for index in table.indexes {
        transaction.batch_execute(index).await?;
    }
    if let Some((name, expression)) = table.check {
        let there = "select exists (select from pg_constraint where conname = $1 and conrelid = to_regclass($2))";
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&name, Type::TEXT), (&table.name, Type::TEXT)];
        let is_there: bool = transaction.query_typed_one(there, &parameters).await?.try_get(0)?;
        if !is_there {
            let check = format!("alter table {} add constraint {name} check ({expression})", table.name);
            transaction.batch_execute(&check).await?;
        }
    }
    Ok(())
}

/// Earlier levels had narrower text, other defaults and stricter or laxer null rules.
async fn adapt_column(transaction: &Transaction<'_>, table: &str, wanted: &Column, found: &Present) -> Result<(), Error> {
    let alter = format!("alter table {table} alter column \"{}\"", wanted.name);
    let mut statements = Vec::new();
    if wanted.sql_type == "text" && found.sql_type.starts_with("character varying") {
        statements.push(format!("{alter} type text"));
    }
    match wanted.default {
        Some(default) => statements.push(format!("{alter} set default {default}")),
        None => statements.push(format!("{alter} drop default")),
    }
    match (wanted.nullable, found.not_null, wanted.default) {
        (true, true, _) => statements.push(format!("{alter} drop not null")),
        (false, false, Some(default)) => {
            let name = wanted.name;
            statements.push(format!("update {table} set \"{name}\" = {default} where \"{name}\" is null"));
            statements.push(format!("{alter} set not null"));
        }
        _ => {}
    }
    transaction.batch_execute(&statements.join("; ")).await
}
