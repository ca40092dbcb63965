//! The read and the write check as SQL (database.md 10.3 and 10.4).
//!
//! All statements of a transaction are handed to the connection at once, `rollback` included, so a check costs one round trip
//! and a caller that goes away leaves no transaction behind. When a statement fails, those behind it fail too and say
//! nothing new: the first error counts. Sessions of the pool are read-only outside of `begin read write`, so not even a
//! failed `begin` lets a probe be committed.

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join3, join4, join5};
use time::{OffsetDateTime, PrimitiveDateTime, Time};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use super::super::failure::DatabaseFailure;
use super::super::pool::{Answer, DatabasePool};
use super::{AuthorizationContext, Extensions};

/// The query timeout of the original. Statement timeouts of the server are normally shorter.
const CHECK_DEADLINE: Duration = Duration::from_secs(15);

const BEGIN: &str = "begin read write";
const ROLLBACK: &str = "rollback";

const BROADCAST: &str = "broadcast";
const PRESENCE: &str = "presence";

/// One statement for all probes of a read check. `private`, `event` and `payload` stay at their defaults.
const INSERT_READ_PROBES: &str = "insert into realtime.messages (id, topic, extension, inserted_at, updated_at) \
     select id, $2::text, extension, $4::timestamp, $4::timestamp from unnest($1::uuid[], $3::text[]) as probe (id, extension)";

/// The day is there to look into one partition only, which halves the work of the database. It is the whole day because a
/// trigger of the user may change the time of a row, but cannot move it to another partition.
const SELECT_READ_PROBES: &str =
    "select id from realtime.messages where id = any($1) and inserted_at >= $2 and inserted_at < $2 + interval '1 day'";

/// The id is left to its default, and without `returning` no SELECT policy has a say.
const INSERT_WRITE_PROBE: &str =
    "insert into realtime.messages (topic, extension, inserted_at, updated_at) values ($1, $2, $3, $3)";

/// Everything policies may look at, for the transaction. Behind the role come only settings every role may set.
const APPLY_CONTEXT: &str = "select pg_catalog.set_config('role', $1, true), \
     pg_catalog.set_config('realtime.topic', $2, true), \
     pg_catalog.set_config('request.jwt.claims', $3, true), \
     pg_catalog.set_config('request.jwt.claim.sub', $4, true), \
     pg_catalog.set_config('request.jwt.claim.role', $1, true), \
     pg_catalog.set_config('request.headers', $5, true)";

/// Finds out what the client may receive on a private channel. At most 5 s for a session, 15 s for the check and 2 s for its
/// cancellation.
///
/// # Errors
/// When there is no answer: policies that raise, unknown role, timeout, no partition, no session, no connection.
pub async fn read(
    pool: &DatabasePool,
    context: &AuthorizationContext,
    extensions: Extensions,
) -> Result<Extensions, DatabaseFailure> {
    let probes: Vec<(Uuid, &str)> = requested(extensions).map(|extension| (Uuid::new_v4(), extension)).collect();
    if probes.is_empty() {
        return Ok(Extensions::default());
    }
    let (ids, names): (Vec<Uuid>, Vec<&str>) = probes.iter().copied().unzip();
    let visible = pool.run(CHECK_DEADLINE, async |client: &ClientWrapper| read_on(client, context, &ids, &names).await).await?;
    let granted = |extension| probes.iter().any(|(id, name)| *name == extension && visible.contains(id));
    Ok(Extensions { broadcast: granted(BROADCAST), presence: granted(PRESENCE) })
}

/// Finds out what the client may send on a private channel. Bounds as for [`read`].
///
/// # Errors
/// As for [`read`].
pub async fn write(
    pool: &DatabasePool,
    context: &AuthorizationContext,
    extensions: Extensions,
) -> Result<Extensions, DatabaseFailure> {
    let work = async |client: &ClientWrapper| write_on(client, context, extensions).await;
    if requested(extensions).next().is_none() { Ok(Extensions::default()) } else { pool.run(CHECK_DEADLINE, work).await }
}

fn requested(extensions: Extensions) -> impl Iterator<Item = &'static str> {
    [(extensions.broadcast, BROADCAST), (extensions.presence, PRESENCE)]
        .into_iter()
        .filter_map(|(wanted, name)| wanted.then_some(name))
}

/// Inserts probes as ourselves and answers which of them the client can see.
async fn read_on(client: &ClientWrapper, context: &AuthorizationContext, ids: &[Uuid], extensions: &[&str]) -> Answer<Vec<Uuid>> {
    let prepared = join3(
        client.prepare_cached(INSERT_READ_PROBES),
        client.prepare_cached(APPLY_CONTEXT),
        client.prepare_cached(SELECT_READ_PROBES),
    );
    let (insert, apply, select) = match prepared.await {
        (Ok(insert), Ok(apply), Ok(select)) => (insert, apply, select),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return Answer::of(Err(error)),
    };
    let AuthorizationContext { topic, role, sub, claims_json, headers_json } = context;
    let now = utc_now();
    let today = now.replace_time(Time::MIDNIGHT);
    // Polled in this order, so sent in this order.
    let (begun, inserted, applied, selected, rolled_back) = join5(
        client.batch_execute(BEGIN),
        client.execute(&insert, &[&ids, topic, &extensions, &now]),
        client.execute(&apply, &[role, topic, claims_json, sub, headers_json]),
        client.query(&select, &[&ids, &today]),
        client.batch_execute(ROLLBACK),
    )
    .await;
    let visible = begun.and(inserted).and(applied).and(selected);
    let outcome = visible.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
    ended(outcome, &rolled_back)
}

/// Tries to insert as the client.
async fn write_on(client: &ClientWrapper, context: &AuthorizationContext, extensions: Extensions) -> Answer<Extensions> {
    let (apply, insert) = match join(client.prepare_cached(APPLY_CONTEXT), client.prepare_cached(INSERT_WRITE_PROBE)).await {
        (Ok(apply), Ok(insert)) => (apply, insert),
        (Err(error), _) | (_, Err(error)) => return Answer::of(Err(error)),
    };
    let AuthorizationContext { topic, role, sub, claims_json, headers_json } = context;
    let now = utc_now();
    let context_parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] = [role, topic, claims_json, sub, headers_json];
    let start = join(client.batch_execute(BEGIN), client.execute(&apply, &context_parameters));
    if extensions.broadcast && extensions.presence {
        // Undone before the second try, whether it worked or not. The second needs no savepoint; the transaction ends.
        let ((begun, applied), (marked, broadcast, restored), presence, rolled_back) = join4(
            start,
            join3(
                client.batch_execute("savepoint probe"),
                client.execute(&insert, &[topic, &BROADCAST, &now]),
                client.batch_execute("rollback to savepoint probe"),
            ),
            client.execute(&insert, &[topic, &PRESENCE, &now]),
            client.batch_execute(ROLLBACK),
        )
        .await;
        let granted = begun.and(applied).and(marked).and_then(|()| {
            let broadcast = permitted(broadcast)?;
            restored?;
            Ok(Extensions { broadcast, presence: permitted(presence)? })
        });
        return ended(granted, &rolled_back);
    }
    let extension = if extensions.broadcast { BROADCAST } else { PRESENCE };
    let ((begun, applied), inserted, rolled_back) =
        join3(start, client.execute(&insert, &[topic, &extension, &now]), client.batch_execute(ROLLBACK)).await;
    let granted = begun.and(applied).and_then(|_| {
        let granted = permitted(inserted)?;
        Ok(Extensions { broadcast: granted && extensions.broadcast, presence: granted && extensions.presence })
    });
    ended(granted, &rolled_back)
}

/// 42501 covers policies that say no as well as missing grants.
fn permitted(inserted: Result<u64, Error>) -> Result<bool, Error> {
    match inserted {
        Ok(_) => Ok(true),
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The session is good for others only if it left the transaction.
fn ended<T>(outcome: Result<T, Error>, rolled_back: &Result<(), Error>) -> Answer<T> {
    let answer = Answer::of(outcome);
    Answer { clean: answer.clean && rolled_back.is_ok(), ..answer }
}

/// Partitions are days in UTC, and the columns have no zone.
fn utc_now() -> PrimitiveDateTime {
    let now = OffsetDateTime::now_utc();
    PrimitiveDateTime::new(now.date(), now.time())
}
