//! Subscriptions in the database: checked against the catalog by its own trigger, and stored (database.md 5.4, 6.11, 7.4, 7.6).
//!
//! A channel with changes asks once when it has joined and after every new token. All of its entries are one transaction, all
//! or none; the words of a refusal are the database's. Rows are the channels' shadows: capture does not read them, dashboards
//! and `realtime.list_changes` do. Removing tolerates that the table is not there.
//!
//! | file | concept |
//! |---|---|
//! | `failure` | why entries are not subscribed |
//! | `removal` | rows of channels that are gone |

mod failure;
mod removal;
#[cfg(test)]
mod tests;

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::join3;
use tokio_postgres::types::{Oid, ToSql};
use tokio_postgres::{Error, Statement};
use uuid::Uuid;

use super::super::database::pool::{Answer, DatabasePool};
use super::visibility::pipeline::in_order;
pub use failure::SubscribeFailure;
pub use removal::{clear, unsubscribe};

/// The deadline of the original.
const SUBSCRIBE_DEADLINE: Duration = Duration::from_secs(10);

const BEGIN: &str = "begin read write";
const COMMIT: &str = "commit";
const ROLLBACK: &str = "rollback";

/// One row per table of the publication (`$1`) whose schema and name are like `$2` and `$3`. No character of the patterns
/// escapes another, and clients may use `%` and `_` as they did with the original.
const INSERT_ENTRY: &str = "
    insert into realtime.subscription as stored
      (subscription_id, entity, filters, claims, action_filter, selected_columns)
    select $4, g.relid::regclass, array(
        select row(f.column_name, f.op::realtime.equality_op, f.value, f.negate)::realtime.user_defined_filter
        from rows from (pg_catalog.unnest($5::text[]), pg_catalog.unnest($6::text[]), pg_catalog.unnest($7::text[]),
          pg_catalog.unnest($8::bool[])) with ordinality f (column_name, op, value, negate, nth)
        order by f.nth),
      $9::text::jsonb, $10, $11
    from pg_catalog.pg_publication p, lateral pg_catalog.pg_get_publication_tables(p.pubname) g
      join pg_catalog.pg_class c on c.oid = g.relid
      join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where p.pubname = $1 and n.nspname like $2 escape '' and c.relname like $3 escape ''
    on conflict (subscription_id, entity, filters, action_filter, coalesce(selected_columns, '{}'))
      do update set claims = excluded.claims, created_at = pg_catalog.timezone('utc', pg_catalog.now())
    returning stored.entity::oid";

/// One entry of a channel's subscription, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Chosen by the caller; the same again when the entry is subscribed again with other claims.
    pub subscription_id: Uuid,
    /// `*`, `INSERT`, `UPDATE` or `DELETE`.
    pub event: &'a str,
    /// Name or `*`.
    pub schema: &'a str,
    /// Name or `*`.
    pub table: &'a str,
    /// All of them must hold.
    pub filters: Vec<Filter<'a>>,
    /// Columns wanted; all when absent.
    pub select: Option<Vec<&'a str>>,
}

/// A condition on a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Column.
    pub column: &'a str,
    /// Operator, one of `realtime.equality_op`.
    pub op: &'a str,
    /// Right operand; for `in` the text of an array.
    pub value: &'a str,
    /// `not.` was before the operator.
    pub negate: bool,
}

/// Checks all entries, and with `store_rows` stores them; answers for every entry which tables it means, in no order. At most
/// 5 s for a session, 10 s for the database and 2 s for its cancellation.
///
/// The tables are all of the publication, also those of the schema `realtime`, which are never captured.
///
/// # Errors
/// Of several bad entries the last is reported. Nothing is stored then.
pub async fn subscribe(
    pool: &DatabasePool,
    publication: &str,
    entries: &[Entry<'_>],
    claims_json: &str,
    store_rows: bool,
) -> Result<Vec<Vec<Oid>>, SubscribeFailure> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let work = async |client: &ClientWrapper| subscribe_on(client, publication, entries, claims_json, store_rows).await;
    pool.run(SUBSCRIBE_DEADLINE, work).await?
}

/// Tables per entry, or what is wrong with one of them.
type Found = Result<Vec<Vec<Oid>>, SubscribeFailure>;

async fn subscribe_on(
    client: &ClientWrapper,
    publication: &str,
    entries: &[Entry<'_>],
    claims_json: &str,
    store_rows: bool,
) -> Answer<Found> {
    let statement = match client.prepare_cached(INSERT_ENTRY).await {
        Ok(statement) => statement,
        Err(error) => return Answer::of(Err(error)),
    };
    let statement = &statement;
    // From the last to the first, as the original does; it decides which of several errors is reported.
    let inserts = entries.iter().rev().map(|entry| insert(client, statement, publication, entry, claims_json));
    let end_check = async { if store_rows { Ok(()) } else { client.batch_execute(ROLLBACK).await } };
    // Polled in this order, so sent in this order.
    let (begun, inserted, checked) = join3(client.batch_execute(BEGIN), in_order(inserts), end_check).await;
    if let Err(error) = begun {
        return Answer::of(Err(error));
    }
    let (found, clean) = found(inserted);
    let ended = if store_rows { client.batch_execute(if found.is_ok() { COMMIT } else { ROLLBACK }).await } else { checked };
    match ended {
        Ok(()) => Answer { outcome: Ok(found), clean },
        Err(error) => Answer { outcome: Err(error), clean: false },
    }
}

async fn insert(
    client: &ClientWrapper,
    statement: &Statement,
    publication: &str,
    entry: &Entry<'_>,
    claims_json: &str,
) -> Result<Vec<Oid>, Error> {
    let pattern = |name| if name == "*" { "%" } else { name };
    let (schema, table) = (pattern(entry.schema), pattern(entry.table));
    let columns: Vec<&str> = entry.filters.iter().map(|filter| filter.column).collect();
    let ops: Vec<&str> = entry.filters.iter().map(|filter| filter.op).collect();
    let values: Vec<&str> = entry.filters.iter().map(|filter| filter.value).collect();
    let negations: Vec<bool> = entry.filters.iter().map(|filter| filter.negate).collect();
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &publication,
        &schema,
        &table,
        &entry.subscription_id,
        &columns,
        &ops,
        &values,
        &negations,
        &claims_json,
        &entry.event,
        &entry.select,
    ];
    client.query(statement, &parameters).await?.iter().map(|row| row.try_get(0)).collect()
}

/// Sorts the answers, which are in the reverse order of the entries, and tells whether the session is good for others. What
/// comes behind the first error is only its consequence.
fn found(inserted: Vec<Result<Vec<Oid>, Error>>) -> (Found, bool) {
    let last = inserted.len().saturating_sub(1);
    let mut found = Vec::with_capacity(inserted.len());
    for (nth, tables) in inserted.into_iter().enumerate() {
        let entry = last - nth;
        match tables {
            Ok(tables) if tables.is_empty() => return (Err(SubscribeFailure::NothingPublished { entry }), true),
            Ok(tables) => found.push(tables),
            Err(error) => {
                let failure = SubscribeFailure::of_entry(entry, &error);
                return (Err(failure), Answer::<()>::of(Err(error)).clean);
            }
        }
    }
    found.reverse();
    (Ok(found), true)
}
