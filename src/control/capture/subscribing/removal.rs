//! Rows of channels that are gone (database.md 7.6).

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::join3;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::super::super::database::failure::DatabaseFailure;
use super::super::super::database::pool::{Answer, DatabasePool};
use super::{BEGIN, COMMIT};

/// Longest time for one statement.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(10);

/// Ids of one statement; the batch of the original.
const IDS_MAX: usize = 1_000;

const DELETE_IDS: &str = "delete from realtime.subscription where subscription_id = any($1)";
const DELETE_ALL: &str = "delete from realtime.subscription";

/// Deletes the rows of these subscriptions, and answers how many there were. Up to 1000 ids are one transaction; after a
/// failure those before it are gone.
///
/// # Errors
/// As [`DatabasePool::run`].
pub async fn unsubscribe(pool: &DatabasePool, ids: &[Uuid]) -> Result<u64, DatabaseFailure> {
    let mut rows = 0;
    for ids in ids.chunks(IDS_MAX) {
        rows += delete(pool, DELETE_IDS, &[&ids]).await?;
    }
    Ok(rows)
}

/// Deletes all rows, and answers how many there were. For the start of capture, when nobody is subscribed.
///
/// # Errors
/// As [`DatabasePool::run`].
pub async fn clear(pool: &DatabasePool) -> Result<u64, DatabaseFailure> {
    delete(pool, DELETE_ALL, &[]).await
}

async fn delete(pool: &DatabasePool, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<u64, DatabaseFailure> {
    let work = async |client: &ClientWrapper| {
        let statement = match client.prepare_cached(sql).await {
            Ok(statement) => statement,
            // Without the table there are no rows either.
            Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => return Answer::of(Ok(0)),
            Err(error) => return Answer::of(Err(error)),
        };
        // Polled in this order, so sent in this order. After an error, `commit` rolls back.
        let (begun, deleted, ended) =
            join3(client.batch_execute(BEGIN), client.execute(&statement, parameters), client.batch_execute(COMMIT)).await;
        let deleted = match (begun, deleted) {
            // It was there when the statement was prepared.
            (Ok(()), Err(error)) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(0),
            (begun, deleted) => begun.and(deleted),
        };
        match ended {
            Ok(()) => Answer::of(deleted),
            // The first error says more.
            Err(error) => Answer { outcome: deleted.and(Err(error)), clean: false },
        }
    };
    pool.run(REMOVAL_DEADLINE, work).await
}
