//! The statements that read and write tenants (http-api.md 13.1, 13.2).
//!
//! Rows travel as JSON objects in both directions, so that columns are matched by name: what an older or newer reference
//! lacks is skipped or takes its default, what it has in addition is left alone. A record comes out of one statement, and a
//! write is one transaction that first locks the tenant's row, so neither mixes two versions. Errors name columns, never values.

use serde_json::{Map, Value, json};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Transaction};

use super::connection::reason;
use super::{record, schema};
use crate::control::tenants::{StoreError, Tenant};

/// Columns without which nothing works, by table.
const REQUIRED: [(&str, &[&str]); 2] = [
    ("tenants", &["id", "external_id", "jwt_secret", "inserted_at", "updated_at"]),
    ("extensions", &["id", "type", "settings", "tenant_external_id", "inserted_at", "updated_at"]),
];

/// Columns that decide who gets in: a value may not get lost because its column is missing.
const NEVER_DROPPED: [&str; 3] = ["jwt_jwks", "suspend", "private_only"];

/// Each tenant as two JSON values, times in Unix seconds.
const SELECT: &str = "select to_jsonb(t) || jsonb_build_object( \
      'inserted_at', extract(epoch from t.inserted_at)::bigint, 'updated_at', extract(epoch from t.updated_at)::bigint, \
      'gcm_migrated_at', extract(epoch from (to_jsonb(t) ->> 'gcm_migrated_at')::timestamp)::bigint), \
    coalesce((select jsonb_agg(to_jsonb(e) || jsonb_build_object( \
        'inserted_at', extract(epoch from e.inserted_at)::bigint, 'updated_at', extract(epoch from e.updated_at)::bigint) \
        order by e.inserted_at, e.id) filter (where e.type is not null) from extensions e where e.tenant_external_id = t.external_id), '[]') \
    from tenants t";

/// Why a call failed.
pub(super) enum Failure {
    /// The connection or the server.
    Postgres(Error),
    /// What the store's callers shall see.
    Store(StoreError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Postgres(error)
    }
}

impl Failure {
    /// The error of a call.
    pub fn into_store_error(self, action: &'static str) -> StoreError {
        match self {
            Self::Postgres(error) => StoreError::Registry { action, reason: reason(&error) },
            Self::Store(error) => error,
        }
    }
}

fn refused(reason: String) -> Failure {
    Failure::Store(StoreError::Registry { action: "checking its columns", reason })
}

/// The columns that can be written, as pairs of table and column.
async fn columns(transaction: &Transaction<'_>) -> Result<Vec<(String, String)>, Error> {
    let columns = "select t.name, a.attname::text from unnest(array['tenants', 'extensions']) as t (name) \
        join pg_attribute a on a.attrelid = to_regclass(t.name) and attnum > 0 and not attisdropped and attgenerated = ''";
    let rows = transaction.query_typed(columns, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Fails when a required column is missing.
pub(super) async fn check(client: &mut Client) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    let found = columns(&transaction).await?;
    transaction.rollback().await?;
    for (table, required) in REQUIRED {
        if !found.iter().any(|(found, _)| found == table) {
            return Err(refused(format!("there is no table {table}")));
        }
        for column in required {
            if !found.iter().any(|(found_in, found)| found_in == table && found == column) {
                return Err(refused(format!("table {table} lacks column {column}")));
            }
        }
    }
    Ok(())
}

/// One tenant.
pub(super) async fn get(client: &Client, external_id: &str) -> Result<Option<Tenant>, Failure> {
    let select = format!("{SELECT} where t.external_id = $1");
    let row = client.query_typed_opt(&select, &[(&external_id, Type::TEXT)]).await?;
    row.map(|row| record::tenant(row.try_get(0)?, row.try_get(1)?)).transpose()
}

/// All tenants that have an external id.
pub(super) async fn list(client: &Client) -> Result<Vec<Tenant>, Failure> {
    let select = format!("{SELECT} where t.external_id is not null order by t.external_id collate \"C\"");
    let rows = client.query_typed(&select, &[]).await?;
    rows.iter().map(|row| record::tenant(row.try_get(0)?, row.try_get(1)?)).collect()
}

/// Notes how many migrations a tenant's database has, where there is a column for it.
pub(super) async fn set_migrations_ran(client: &mut Client, external_id: &str, migrations_ran: i32) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    let has_column = columns(&transaction).await?.iter().any(|(table, column)| table == "tenants" && column == "migrations_ran");
    if has_column {
        let update = "update tenants set migrations_ran = $2 where external_id = $1";
        transaction.execute_typed(update, &[(&external_id, Type::TEXT), (&migrations_ran, Type::INT4)]).await?;
    }
    Ok(transaction.commit().await?)
}

/// Removes a tenant; its extensions go with it.
pub(super) async fn delete(client: &Client, external_id: &str) -> Result<bool, Failure> {
    Ok(client.execute_typed("delete from tenants where external_id = $1", &[(&external_id, Type::TEXT)]).await? > 0)
}

/// Writes a tenant, renaming the row of `replaces` first when given.
pub(super) async fn write(client: &mut Client, replaces: Option<&str>, tenant: &Tenant) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    if let Some(old) = replaces {
        rename(&transaction, old, &tenant.external_id).await?;
    }
    let columns = columns(&transaction).await?;
    let writable = |table: &str, row: &Map<String, Value>| -> Vec<String> {
        let of_table = columns.iter().filter(|(found, _)| found == table).map(|(_, column)| column);
        of_table.filter(|column| row.contains_key(*column)).cloned().collect()
    };

    let row = record::tenant_row(tenant)?;
    let names = writable("tenants", &row);
    for column in NEVER_DROPPED {
        let is_set = row.get(column).is_some_and(|value| !value.is_null() && *value != json!(false));
        if is_set && !names.iter().any(|name| name == column) {
            return Err(refused(format!("table tenants lacks column {column}, whose value would be lost")));
        }
    }
    let sql = upsert("tenants", &names, "external_id", &[]);
    transaction.execute_typed(&sql, &[(&json!([row]), Type::JSONB)]).await?;

    let kinds: Vec<&str> = tenant.extensions.iter().map(|extension| extension.kind.as_str()).collect();
    let surplus = "delete from extensions where tenant_external_id = $1 and (type is null or type <> all ($2))";
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&tenant.external_id, Type::TEXT), (&kinds, Type::TEXT_ARRAY)];
    transaction.execute_typed(surplus, &parameters).await?;
    let rows: Vec<Map<String, Value>> =
        tenant.extensions.iter().map(|extension| record::extension_row(extension, &tenant.external_id)).collect();
    if let Some(first) = rows.first() {
        // The key of a row that is there stays.
        let sql = upsert("extensions", &writable("extensions", first), "tenant_external_id, type", &["id"]);
        transaction.execute_typed(&sql, &[(&json!(rows), Type::JSONB)]).await?;
    }
    Ok(transaction.commit().await?)
}

/// Inserts the elements of a JSON array, or updates the rows that have the same `unique` columns, apart from `kept` ones.
fn upsert(table: &str, names: &[String], unique: &str, kept: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| schema::quoted(name)).collect();
    let changes: Vec<String> = names
        .iter()
        .filter(|name| !kept.contains(&name.as_str()))
        .map(|name| schema::quoted(name))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let (quoted, changes) = (quoted.join(", "), changes.join(", "));
    format!(
        "insert into {table} ({quoted}) select {quoted} from jsonb_populate_recordset(null::{table}, $1) \
         on conflict ({unique}) do update set {changes}"
    )
}

/// Both tables in one statement, since the reference between them is checked at its end.
async fn rename(transaction: &Transaction<'_>, old: &str, new: &str) -> Result<(), Failure> {
    let sql = "with moved as (update extensions set tenant_external_id = $2 where tenant_external_id = $1) \
        update tenants set external_id = $2 where external_id = $1";
    match transaction.execute_typed(sql, &[(&old, Type::TEXT), (&new, Type::TEXT)]).await {
        Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(Failure::Store(StoreError::Taken { external_id: new.to_owned() }))
        }
        outcome => outcome.map(|_| ()).map_err(Failure::Postgres),
    }
}
