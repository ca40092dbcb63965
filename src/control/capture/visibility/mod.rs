//! Row-level security of captured changes: who may see which of the changed rows now (database.md 8.3 step 4b, 8.4, 15.2).
//!
//! Capture asks once per batch of changes and group of subscribers with equal role and claims, for all keys of the batch: what
//! the original asks once per change and subscriber. A question is one transaction that takes on role and claims, looks the
//! keys up in their tables as an ordinary query of that role would, and is rolled back; the statements are sent at once, so it
//! costs one network round trip once they are prepared. A row that is not there any more is not visible.
//!
//! A policy that raises, a role without USAGE on the schema of a table, or ten seconds without an answer end this question
//! with a [`DatabaseFailure`] and concern no other group.

mod keys;
pub(super) mod pipeline;
mod relation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::join5;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::super::database::failure::DatabaseFailure;
use super::super::database::pool::{Answer, DatabasePool};
use keys::KeyArray;
use pipeline::in_order;
pub use relation::KeyedRelation;

/// Whether all of these transactions are seen by every snapshot from now on. A commit is streamed when it is on disk, which is
/// a moment before others see it, or long before where a standby has to confirm it. Transaction ids are widened to the epoch
/// that is nearest to the present.
const ARE_COMPLETE: &str = "select not exists (select from (select pg_catalog.pg_current_snapshot() as snapshot, \
       pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint as xmax) now, \
     lateral (select xmax - (xmax & 4294967295) + xid as wide from pg_catalog.unnest($1::bigint[]) xid) given, \
     lateral (select case when wide - xmax > 2147483648 then wide - 4294967296 \
       when xmax - wide > 2147483648 then wide + 4294967296 else wide end as full_xid) widened \
     where not pg_catalog.pg_visible_in_snapshot(full_xid::text::xid8, snapshot))";

/// Prepared statements a session keeps, ours and others'. Roles times tables are normally a few dozen; beyond this, statements
/// of tables and roles that are gone would fill the memory of the database.
const STATEMENTS_MAX: usize = 512;

/// Policies may write, for example to a log; as the original, we let them, though it is all rolled back.
const BEGIN: &str = "begin read write";
const ROLLBACK: &str = "rollback";

/// What policies look at. Compiling the plan takes longer than any lookup.
const APPLY_CONTEXT: &str = "select pg_catalog.set_config('role', $1, true), \
     pg_catalog.set_config('request.jwt.claims', $2, true), pg_catalog.set_config('jit', 'off', true)";

/// Rows of one table to look up.
#[derive(Debug, Clone)]
pub struct Probe<'a> {
    /// The table.
    pub relation: &'a KeyedRelation,
    /// Text of the key columns, one key after the other: [`KeyedRelation::key_width`] values each.
    pub keys: Vec<Option<&'a str>>,
}

/// What is visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visible {
    /// For every probe, for every key.
    Known(Vec<Vec<bool>>),
    /// Some of the transactions that wrote the rows are not seen by others yet: ask again in a moment.
    NotYet,
}

/// Answers for every probe which of its keys are of rows that `role`, with the claims `claims_json`, can see now, the
/// transactions `xids` being over. At most 5 s for a session, the deadline for the answer and 2 s for its cancellation.
///
/// # Errors
/// When there is no answer: policies that raise, unknown role, missing rights, timeout, no session, no connection. Also when
/// a table or column is not what the catalog said any more.
pub async fn visible(
    pool: &DatabasePool,
    role: &str,
    claims_json: &str,
    probes: &[Probe<'_>],
    xids: &[i64],
    deadline: Duration,
) -> Result<Visible, DatabaseFailure> {
    if role.contains('\0') {
        return Err(DatabaseFailure::RlsPolicy("a role with this name cannot exist".to_owned()));
    }
    if probes.iter().all(|probe| probe.keys.is_empty()) {
        return Ok(Visible::Known(vec![Vec::new(); probes.len()]));
    }
    let work = async |client: &ClientWrapper| visible_on(client, role, claims_json, probes, xids).await;
    pool.run(deadline, work).await
}

async fn visible_on(
    client: &ClientWrapper,
    role: &str,
    claims_json: &str,
    probes: &[Probe<'_>],
    xids: &[i64],
) -> Answer<Visible> {
    let (complete, apply, lookups) = match prepared(client, role, probes).await {
        Ok(prepared) => prepared,
        Err(error) => return Answer::of(Err(error)),
    };
    let arrays: Vec<Vec<KeyArray>> = probes.iter().map(columns).collect();
    let queries = lookups.iter().zip(&arrays).map(|(lookup, arrays)| async move {
        let parameters: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(|array| array as _).collect();
        client.query(lookup, &parameters).await
    });
    // Polled in this order, so sent in this order.
    let (begun, complete, applied, answers, rolled_back) = join5(
        client.batch_execute(BEGIN),
        client.query_one(&complete, &[&xids]),
        client.execute(&apply, &[&role, &claims_json]),
        in_order(queries),
        client.batch_execute(ROLLBACK),
    )
    .await;
    let outcome = begun.and(complete).and_then(|row| applied.and(row.try_get::<_, bool>(0))).and_then(|is_complete| {
        if !is_complete {
            return Ok(Visible::NotYet);
        }
        let rows: Vec<Vec<Row>> = answers.into_iter().collect::<Result<_, Error>>()?;
        let marked: Result<_, Error> = probes.iter().zip(&rows).map(|(probe, rows)| marked(probe, rows)).collect();
        marked.map(Visible::Known)
    });
    let answer = Answer::of(outcome);
    Answer { clean: answer.clean && rolled_back.is_ok(), ..answer }
}

/// The statements, prepared by the login itself, whom everything is visible to.
async fn prepared(
    client: &ClientWrapper,
    role: &str,
    probes: &[Probe<'_>],
) -> Result<(Statement, Statement, Vec<Statement>), Error> {
    if client.statement_cache.size() >= STATEMENTS_MAX {
        client.statement_cache.clear();
    }
    let complete = client.prepare_cached(ARE_COMPLETE).await?;
    let apply = client.prepare_cached(APPLY_CONTEXT).await?;
    let lookups = in_order(probes.iter().map(|probe| async move {
        client.prepare_typed_cached(&probe.relation.statement(role), &probe.relation.parameters).await
    }));
    Ok((complete, apply, lookups.await.into_iter().collect::<Result<_, Error>>()?))
}

/// One array per column of the keys.
fn columns(probe: &Probe<'_>) -> Vec<KeyArray> {
    let width = probe.relation.key_width();
    debug_assert_eq!(probe.keys.len() % width, 0);
    (0..width).map(|column| KeyArray::of(probe.keys.iter().copied().skip(column).step_by(width))).collect()
}

fn marked(probe: &Probe<'_>, rows: &[Row]) -> Result<Vec<bool>, Error> {
    let mut visible = vec![false; probe.keys.len() / probe.relation.key_width()];
    for row in rows {
        let nth: i64 = row.try_get(0)?;
        let key = usize::try_from(nth - 1).ok().and_then(|index| visible.get_mut(index));
        key.into_iter().for_each(|visible| *visible = true);
    }
    Ok(visible)
}
