//! Looks at a tenant's database before anything durable is opened (database.md 2.4).
//!
//! Run once at every start of a tenant's database side, on a session of its own. It tells whether the server can be reached,
//! has room for our sessions, and how far the schema is migrated; the session is closed before the answer is given.

use std::fmt;
use std::time::Duration;

use tokio_postgres::{Client, Error};

use super::connect::{self, ConnectError};
use super::failure::DatabaseFailure;
use super::settings::DatabaseSettings;

/// Name of the probe's session.
const APPLICATION_NAME: &str = "realtime_connect_probe";

/// The questions after connecting; they read memory and two catalogs.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// Sessions we may need at once besides the two configurable pools, one name per session; migrations need two.
const FIXED_SESSIONS: [&str; 8] = [
    "realtime_subscription_manager",
    "realtime_health_check",
    "realtime_janitor",
    "realtime_migrations",
    "realtime_migrations",
    "realtime_broadcast_changes",
    "realtime_rls",
    "realtime_replication_slot_teardown",
];

/// Background processes of the server have an empty name and count as sessions, as with the reference.
const LOOK: &str = "select pg_catalog.current_setting('max_connections')::bigint \
     - (select count(*) from pg_catalog.pg_stat_activity \
        where application_name not in ('realtime_connect', 'realtime_connect_probe')), \
     pg_catalog.to_regclass('realtime.schema_migrations') is not null";

/// A database that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Free sessions of the server.
    pub available: i64,
    /// Sessions we may need.
    pub required: i64,
    /// Rows of `realtime.schema_migrations`; `None` when there is no such table.
    pub migrations: Option<i64>,
    /// Major version of the server.
    pub version: u32,
    /// The server was reached over IPv4, which is worth the warning `DatabaseIpVersionIsIpv4`.
    pub ipv4: bool,
}

/// Connects, looks, disconnects. Takes at most 25 s, and two round trips after connecting.
///
/// # Errors
/// When the database cannot be used now.
pub async fn probe(settings: &DatabaseSettings) -> Result<Probe, ProbeError> {
    let session = connect::open(settings, APPLICATION_NAME, "", |_| {}).await.map_err(ProbeError::Connect)?;
    let looked = tokio::time::timeout(PROBE_TIMEOUT, look(&session.client)).await;
    drop(session.client);
    let (available, migrations) = match looked {
        Ok(looked) => looked.map_err(|error| ProbeError::Failed(DatabaseFailure::from(&error)))?,
        Err(_) => {
            session.driver.abort();
            return Err(ProbeError::Failed(DatabaseFailure::Unavailable("the database does not answer the probe".to_owned())));
        }
    };
    let required = required_sessions(settings);
    if required >= available {
        return Err(ProbeError::LackOfConnections { available, required });
    }
    Ok(Probe { available, required, migrations, version: session.version, ipv4: session.ipv4 })
}

async fn look(client: &Client) -> Result<(i64, Option<i64>), Error> {
    let row = client.query_one(LOOK, &[]).await?;
    let migrated: bool = row.try_get(1)?;
    let migrations = if migrated {
        Some(client.query_one("select count(*) from realtime.schema_migrations", &[]).await?.try_get(0)?)
    } else {
        None
    };
    Ok((row.try_get(0)?, migrations))
}

/// 95 % of all sessions that may exist at once, rounded up.
fn required_sessions(settings: &DatabaseSettings) -> i64 {
    let sessions = FIXED_SESSIONS.len() + settings.reserved_subscriber_pool_size + settings.pool_size;
    i64::try_from((sessions * 95).div_ceil(100)).unwrap_or(i64::MAX)
}

/// Why the database cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeError {
    /// It cannot be reached.
    Connect(ConnectError),
    /// `tenant_db_too_many_connections`: the server has too little room (`DatabaseLackOfConnections`).
    LackOfConnections {
        /// Free sessions.
        available: i64,
        /// Sessions we may need; more than these must be free.
        required: i64,
    },
    /// It was reached but does not answer.
    Failed(DatabaseFailure),
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::LackOfConnections { available, required } => {
                write!(f, "Only {available} available connections. At least {required} connections are required.")
            }
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for ProbeError {}

#[cfg(test)]
mod tests {
    use super::super::authorization::testing::{fixture_client, settings};
    use super::*;

    fn sized(pool_size: usize, reserved_subscriber_pool_size: usize) -> DatabaseSettings {
        DatabaseSettings { pool_size, reserved_subscriber_pool_size, ..settings("postgres") }
    }

    #[test]
    fn the_requirement_is_the_rounded_up_share_of_all_sessions() {
        assert_eq!(required_sessions(&sized(1, 1)), 10);
        assert_eq!(required_sessions(&sized(10, 2)), 19);
        assert_eq!(required_sessions(&sized(90, 4)), 97);
    }

    #[tokio::test]
    async fn a_fresh_database_has_room_and_no_migrations() {
        let name = crate::local_postgres::testing::server().database().await;
        let found = probe(&settings(&name)).await.unwrap();
        assert!(found.available > found.required && found.version >= 13 && found.ipv4, "{found:?}");
        assert_eq!((found.required, found.migrations), (10, None));

        let client = fixture_client(&name).await;
        client
            .batch_execute(
                "create table realtime.schema_migrations (version bigint primary key, inserted_at timestamp(0));
                 insert into realtime.schema_migrations values (1), (2), (3)",
            )
            .await
            .unwrap();
        assert_eq!(probe(&settings(&name)).await.unwrap().migrations, Some(3));
    }

    #[tokio::test]
    async fn too_little_room_is_refused_with_both_numbers() {
        let error = probe(&sized(1_000, 1)).await.unwrap_err();
        let ProbeError::LackOfConnections { available, required } = error.clone() else { panic!("{error:?}") };
        assert_eq!(required, 959);
        let text = format!("Only {available} available connections. At least 959 connections are required.");
        assert_eq!(error.to_string(), text);
    }

    #[tokio::test]
    async fn an_unreachable_database_is_a_connect_error() {
        let error = probe(&settings("there_is_no_such_database")).await.unwrap_err();
        assert_eq!(error, ProbeError::Connect(ConnectError::DatabaseMissing));
    }
}
