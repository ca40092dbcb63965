//! Brings a tenant database to the schema of database.md sections 4 to 6, and tells whether it is there already.
//!
//! One script, in parts of one concept each, converges an empty database and one that another server migrated to any of
//! the 81 known versions. Called by whoever opens a tenant's database, before anything else uses it.
//!
//! Invariants: everything happens in one transaction, so that a database is either as it was or complete with all versions
//! stamped; a database with all versions is only counted, never touched; rows of `realtime.messages` are kept, rows of
//! `realtime.subscription` are ephemeral. Nodes that come together wait for one advisory lock and find the work done.
//! Fails with [`MigrationError`], which names the part; the database is then unchanged.

mod error;
#[cfg(test)]
mod tests;
mod versions;

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::{Client, IsolationLevel, SimpleQueryMessage, Transaction};

pub use error::MigrationError;
pub use versions::VERSIONS;

/// Longest a run may take, waiting for other nodes included (database.md 3.2 step 5).
pub const RUN_MS_MAX: u64 = 50_000;

/// Longest wait for another node's run: what is left of the total is enough to find its work done or to do it.
const NODE_WAIT_MS_MAX: u64 = 40_000;

/// Longest wait for a lock on a table. Whoever waits for one blocks every later user of the table.
const TABLE_WAIT_MS_MAX: u64 = 10_000;

/// Key of the advisory lock a run holds until its transaction ends: "ringmigr" in ASCII. Advisory locks are per database.
const LOCK_KEY: i64 = 0x7269_6e67_6d69_6772;

/// Roles the platform creates; without them grants have nobody to go to.
const ROLES_REQUIRED: [&str; 6] = ["postgres", "anon", "authenticated", "service_role", "dashboard_user", "supabase_admin"];

/// The script. Later parts rely on earlier ones: types before functions, functions before the table whose columns and
/// trigger call them.
const PARTS: [(&str, &str); 10] = [
    ("roles and schema", include_str!("roles.sql")),
    ("bookkeeping", include_str!("bookkeeping.sql")),
    ("types", include_str!("types.sql")),
    ("retired functions", include_str!("retire.sql")),
    ("table messages", include_str!("messages.sql")),
    ("broadcast functions", include_str!("broadcast.sql")),
    ("filter functions", include_str!("filters.sql")),
    ("table subscription", include_str!("subscription.sql")),
    ("change functions", include_str!("changes.sql")),
    ("owners and rights", include_str!("rights.sql")),
];

/// Settings of the transaction. The search path makes Postgres print names with their schema, which the parts compare.
const SETTINGS: &str = "set local search_path = pg_catalog; set local client_min_messages = warning; \
    set local timezone = 'UTC'; set local standard_conforming_strings = on; set local check_function_bodies = on";

/// What a run found and did, in versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Versions stamped before this run.
    pub already: i64,
    /// Versions this run stamped; 0 when there was nothing to do.
    pub added: i64,
}

/// Counts the versions stamped in the database; 0 if it was never migrated.
///
/// # Errors
/// When the connection is lost or the login may not read `realtime.schema_migrations`.
pub async fn applied(client: &Client) -> Result<i64, tokio_postgres::Error> {
    // A scan, because `to_regclass` remembers for the rest of a transaction that there was no such table, also when another
    // node has made it while this one waited for the migration lock.
    let table = "select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where n.nspname = 'realtime' and c.relname = 'schema_migrations'";
    if first_value(&client.simple_query(table).await?).is_none() {
        return Ok(0);
    }
    let counted = client.simple_query("select count(*) from realtime.schema_migrations").await?;
    Ok(number(&counted))
}

/// Migrates the database unless all versions are stamped (database.md 4.2).
///
/// The login must be a superuser. After [`MigrationError::TimedOut`] a statement may still run on the connection for a
/// while: drop the client.
///
/// # Errors
/// See [`MigrationError`]. Nothing is changed then.
pub async fn run(client: &mut Client) -> Result<Applied, MigrationError> {
    let deadline = Instant::now() + Duration::from_millis(RUN_MS_MAX);
    tokio::time::timeout_at(deadline, migrate(client, deadline)).await.unwrap_or(Err(MigrationError::TimedOut))
}

async fn migrate(client: &mut Client, deadline: Instant) -> Result<Applied, MigrationError> {
    let wanted = VERSIONS.len() as i64;
    let already = applied(client).await.map_err(MigrationError::at("version count"))?;
    if already >= wanted {
        return Ok(Applied { already, added: 0 });
    }

    let begin = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).read_only(false);
    let transaction = begin.start().await.map_err(MigrationError::at("start"))?;
    transaction.batch_execute(SETTINGS).await.map_err(MigrationError::at("settings"))?;
    shut_out_other_nodes(&transaction, deadline, NODE_WAIT_MS_MAX).await?;

    // Another node may have done it while this one waited.
    let already = applied(transaction.client()).await.map_err(MigrationError::at("version count"))?;
    if already >= wanted {
        return Ok(Applied { already, added: 0 });
    }
    refuse_missing_roles(&transaction).await?;
    for (part, sql) in PARTS {
        bound(&transaction, deadline, TABLE_WAIT_MS_MAX).await?;
        transaction.batch_execute(sql).await.map_err(MigrationError::at(part))?;
    }
    let stamped = transaction.simple_query(&stamp()).await.map_err(MigrationError::at("version stamps"))?;
    let added = number(&stamped);
    transaction.commit().await.map_err(MigrationError::at("commit"))?;
    Ok(Applied { already, added })
}

/// Takes the migration lock until the transaction ends, waiting for its holder for `wait_ms_max`.
async fn shut_out_other_nodes(transaction: &Transaction<'_>, deadline: Instant, wait_ms_max: u64) -> Result<(), MigrationError> {
    bound(transaction, deadline, wait_ms_max).await?;
    let lock = format!("select pg_advisory_xact_lock({LOCK_KEY})");
    transaction.batch_execute(&lock).await.map_err(MigrationError::while_locking)
}

/// Limits the statements that follow: each may wait for a lock for `lock_ms_max` and run until the deadline.
async fn bound(transaction: &Transaction<'_>, deadline: Instant, lock_ms_max: u64) -> Result<(), MigrationError> {
    // Zero would mean no limit.
    let left = deadline.saturating_duration_since(Instant::now()).as_millis().max(1);
    let sql = format!("set local statement_timeout = {left}; set local lock_timeout = {lock_ms_max}");
    transaction.batch_execute(&sql).await.map_err(MigrationError::at("settings"))
}

async fn refuse_missing_roles(transaction: &Transaction<'_>) -> Result<(), MigrationError> {
    let names = ROLES_REQUIRED.map(|role| format!("('{role}')")).join(", ");
    let sql =
        format!("select w.name from (values {names}) w(name) where not exists (select from pg_roles r where r.rolname = w.name)");
    let answer = transaction.simple_query(&sql).await.map_err(MigrationError::at("roles"))?;
    let missing: Vec<String> = values(&answer).map(str::to_owned).collect();
    if missing.is_empty() { Ok(()) } else { Err(MigrationError::MissingRoles(missing)) }
}

/// The statement that adds the versions that are not there and counts them.
fn stamp() -> String {
    let versions = VERSIONS.map(|version| format!("({version})")).join(", ");
    format!(
        "with stamped as (insert into realtime.schema_migrations (version, inserted_at) \
         select v.version, timezone('utc', now()) from (values {versions}) v(version) \
         on conflict (version) do nothing returning version) select count(*) from stamped"
    )
}

fn values(answer: &[SimpleQueryMessage]) -> impl Iterator<Item = &str> {
    answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    })
}

fn first_value(answer: &[SimpleQueryMessage]) -> Option<&str> {
    values(answer).next()
}

/// The one number of the answer to a `count(*)`.
fn number(answer: &[SimpleQueryMessage]) -> i64 {
    first_value(answer).and_then(|text| text.parse().ok()).unwrap_or(0)
}
