//! Stored broadcasts for a client that joins with `replay` (database.md 12, protocol.md 9).
//!
//! Asked once per such join, on the tenant's pool, as the connection's own role: whether the client may read the topic has
//! been checked before. Payloads are taken as the database's own text, so digits and key order are those of the stored
//! value. Has its own, shorter deadline.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use time::{OffsetDateTime, PrimitiveDateTime};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::failure::DatabaseFailure;
use super::pool::{Answer, DatabasePool};

/// The deadline of the original.
const REPLAY_DEADLINE: Duration = Duration::from_secs(5);

/// Messages of one replay, at most.
const LIMIT_MAX: i64 = 25;

/// How far ahead of our clock a message may be dated; a database's clock may differ.
const FUTURE_MAX: Duration = Duration::from_secs(60);

/// Oldest `since` Postgres can compare with: 4713-01-01 BC, in Unix seconds.
const OLDEST_UNIX_SECS: i64 = -210_835_267_200;

/// `private is true` is what the partial index of the table says.
const SELECT_NEWEST: &str = "select id, event, payload::text, binary_payload, inserted_at from realtime.messages \
     where topic = $1 and private is true and extension = 'broadcast' and inserted_at >= $2 and inserted_at < $3 \
     order by inserted_at desc limit $4";

/// What to replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest<'a> {
    /// Sub-topic, without `realtime:`.
    pub topic: &'a str,
    /// Oldest message wanted, in Unix milliseconds.
    pub since_unix_ms: i64,
    /// Newest messages wanted; taken as the nearest number from 1 to 25. 25 when absent.
    pub limit: Option<i64>,
}

/// A stored broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Id of the row, a UUID.
    pub id: [u8; 16],
    /// User event.
    pub event: String,
    /// Content.
    pub body: Body,
    /// UTC.
    pub inserted_at: PrimitiveDateTime,
}

/// Content of a stored broadcast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// JSON text.
    Json(String),
    /// Bytes; only for clients of version 2.
    Binary(Vec<u8>),
}

/// Reads the newest messages asked for and gives them oldest first. Rows without an event or a content are left out.
///
/// # Errors
/// [`ReplayError::InvalidParameters`] when `since` is no time Postgres knows.
pub async fn replay(pool: &DatabasePool, request: &ReplayRequest<'_>) -> Result<Vec<Replayed>, ReplayError> {
    let since = OffsetDateTime::from_unix_timestamp_nanos(i128::from(request.since_unix_ms) * 1_000_000)
        .ok()
        .filter(|since| since.unix_timestamp() >= OLDEST_UNIX_SECS)
        .ok_or(ReplayError::InvalidParameters)?;
    let until = OffsetDateTime::now_utc() + FUTURE_MAX;
    let [since, until] = [since, until].map(|time| PrimitiveDateTime::new(time.date(), time.time()));
    let limit = request.limit.unwrap_or(LIMIT_MAX).clamp(1, LIMIT_MAX);
    let select = async |client: &ClientWrapper| -> Result<Vec<Replayed>, Error> {
        let statement = client.prepare_cached(SELECT_NEWEST).await?;
        let rows = client.query(&statement, &[&request.topic, &since, &until, &limit]).await?;
        rows.iter().rev().filter_map(|row| replayed(row).transpose()).collect()
    };
    let work = async |client: &ClientWrapper| Answer::of(select(client).await);
    pool.run(REPLAY_DEADLINE, work).await.map_err(ReplayError::Failed)
}

fn replayed(row: &Row) -> Result<Option<Replayed>, Error> {
    let event: Option<String> = row.try_get(1)?;
    let (json, binary): (Option<String>, Option<Vec<u8>>) = (row.try_get(2)?, row.try_get(3)?);
    let body = binary.map(Body::Binary).or(json.map(Body::Json));
    let (Some(event), Some(body)) = (event, body) else { return Ok(None) };
    Ok(Some(Replayed { id: row.try_get::<_, Uuid>(0)?.into_bytes(), event, body, inserted_at: row.try_get(4)? }))
}

/// Why nothing is replayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayError {
    /// `Replay params are not valid`.
    InvalidParameters,
    /// `Realtime was unable to replay messages`.
    Failed(DatabaseFailure),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidParameters => f.write_str("the time to replay from is out of range"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for ReplayError {}

#[cfg(test)]
mod tests {
    use super::super::authorization::testing::{TABLE, fixture, fixture_client, settings};
    use super::*;

    fn json(event: &str, text: &str) -> (String, Body) {
        (event.to_owned(), Body::Json(text.to_owned()))
    }

    async fn replayed(pool: &DatabasePool, since_unix_ms: i64, limit: Option<i64>) -> Vec<(String, Body)> {
        let request = ReplayRequest { topic: "room", since_unix_ms, limit };
        replay(pool, &request).await.unwrap().into_iter().map(|message| (message.event, message.body)).collect()
    }

    #[tokio::test]
    async fn newest_private_broadcasts_come_oldest_first_with_their_digits() {
        let name = fixture().await;
        let client = fixture_client(&name).await;
        client
            .batch_execute(
                r#"insert into realtime.messages (topic, extension, payload, binary_payload, event, private, inserted_at)
                   select topic, extension, payload::jsonb, bytes::bytea, event, private, (now() at time zone 'utc') + age
                   from (values
                     ('room',  'broadcast', '{"n": 12345678901234567890.10}', null, 'one', true, interval '-40 s'),
                     ('room',  'broadcast', null, '\x0001ff', 'two', true, '-30 s'),
                     ('room',  'broadcast', '{"n": 3}', null, 'three', true, '-20 s'),
                     ('room',  'broadcast', '{"n": 4}', null, null, true, '-19 s'),
                     ('room',  'broadcast', null, null, 'empty', true, '-18 s'),
                     ('room',  'broadcast', '{}', null, 'public', false, '-17 s'),
                     ('room',  'presence',  '{}', null, 'presence', true, '-16 s'),
                     ('other', 'broadcast', '{}', null, 'other', true, '-15 s'),
                     ('room',  'broadcast', '{}', null, 'old', true, '-10 min'),
                     ('room',  'broadcast', '{}', null, 'ahead', true, '30 s'),
                     ('room',  'broadcast', '{}', null, 'far', true, '10 min'))
                   as stored (topic, extension, payload, bytes, event, private, age)"#,
            )
            .await
            .unwrap();
        let pool = DatabasePool::new(settings(&name));
        let now_ms = i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap();
        let all = [
            json("one", r#"{"n": 12345678901234567890.10}"#),
            ("two".to_owned(), Body::Binary(vec![0, 1, 255])),
            json("three", r#"{"n": 3}"#),
            json("ahead", "{}"),
        ];
        assert_eq!(replayed(&pool, now_ms - 60_000, None).await, all);
        assert_eq!(replayed(&pool, now_ms - 60_000, Some(i64::MAX)).await, all);
        assert_eq!(replayed(&pool, now_ms - 60_000, Some(-5)).await, all[3..], "at least one");
        assert_eq!(replayed(&pool, now_ms - 25_000, Some(25)).await, all[2..]);
        assert_eq!(replayed(&pool, now_ms + 3_600_000, None).await, []);
        assert_eq!(replayed(&pool, 0, None).await.len(), 5, "with the old one");
    }

    #[tokio::test]
    async fn impossible_times_are_invalid_and_a_missing_table_is_a_failure() {
        let name = crate::local_postgres::testing::server().database().await;
        let pool = DatabasePool::new(settings(&name));
        for since_unix_ms in [i64::MIN, i64::MAX, OLDEST_UNIX_SECS * 1_000 - 1] {
            let request = ReplayRequest { topic: "room", since_unix_ms, limit: None };
            assert_eq!(replay(&pool, &request).await, Err(ReplayError::InvalidParameters));
        }
        let oldest = ReplayRequest { topic: "room", since_unix_ms: OLDEST_UNIX_SECS * 1_000, limit: None };
        assert!(matches!(replay(&pool, &oldest).await, Err(ReplayError::Failed(DatabaseFailure::RlsPolicy(_)))));
        fixture_client(&name).await.batch_execute(TABLE).await.unwrap();
        assert_eq!(replay(&pool, &oldest).await, Ok(Vec::new()), "and the oldest possible time is accepted");
    }
}
