//! What happens before a tenant's database is used: a look at it, its migrations, its partitions (3.2, 4.2, 13).

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use time::OffsetDateTime;

use super::connect::{ConnectError, connect};
use super::failure::DatabaseFailure;
use super::migrations::{self, MigrationError};
use super::partitions;
use super::probe::{ProbeError, probe};
use super::settings::DatabaseSettings;
use crate::control::plane::Plane;
use crate::realtime::database::DatabaseRefusal;
use crate::telemetry::Code;

const MIGRATIONS_SESSION: &str = "realtime_migrations";
const PARTITIONS_SESSION: &str = "realtime_janitor";

/// Housekeeping of partitions gets this long: each is a short transaction, and locks of others are waited for.
const PARTITIONS_MAX: Duration = Duration::from_secs(60);

/// Why a database cannot be used.
#[derive(Debug)]
pub enum PreparationError {
    /// It cannot be reached, or does not answer.
    Unreachable(String),
    /// It has too few free connections.
    LackOfConnections(String),
    /// Its schema cannot be brought up to date.
    Migrations(MigrationError),
}

impl PreparationError {
    /// Logs it under its code.
    pub fn log(&self, external_id: &str) {
        let code = match self {
            Self::Unreachable(_) => Code::UnableToConnectToTenantDatabase,
            Self::LackOfConnections(_) => Code::DatabaseLackOfConnections,
            Self::Migrations(_) => Code::MigrationsFailedToRun,
        };
        code.log(external_id, self);
    }

    /// What whoever waits is told.
    pub fn refusal(&self) -> DatabaseRefusal {
        match self {
            Self::Unreachable(_) | Self::Migrations(_) => DatabaseRefusal::Unavailable,
            Self::LackOfConnections(_) => DatabaseRefusal::TooManyConnections,
        }
    }
}

impl fmt::Display for PreparationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(text) | Self::LackOfConnections(text) => f.write_str(text),
            Self::Migrations(error) => error.fmt(f),
        }
    }
}

impl From<ProbeError> for PreparationError {
    fn from(error: ProbeError) -> Self {
        let text = error.to_string();
        match error {
            ProbeError::LackOfConnections { .. } => Self::LackOfConnections(text),
            ProbeError::Connect(_) | ProbeError::Failed(_) => Self::Unreachable(text),
        }
    }
}

impl From<ConnectError> for PreparationError {
    fn from(error: ConnectError) -> Self {
        Self::Unreachable(error.to_string())
    }
}

/// Looks at the database and brings it up to date. Several nodes may do so at once.
///
/// # Errors
/// When it cannot be used.
pub async fn prepare(plane: &Rc<Plane>, external_id: &str, settings: &DatabaseSettings) -> Result<(), PreparationError> {
    let probe = probe(settings).await?;
    if probe.ipv4 {
        let text = format!("Tenant database host {} resolved to an IPv4 address", settings.host);
        Code::DatabaseIpVersionIsIpv4.log(external_id, text);
    }
    let wanted = migrations::VERSIONS.len() as i64;
    let mut applied = probe.migrations.unwrap_or(0);
    if applied < wanted {
        let mut session = connect(settings, MIGRATIONS_SESSION).await?;
        let done = migrations::run(&mut session).await.map_err(PreparationError::Migrations)?;
        applied = done.already + done.added;
        tracing::info!(external_id, "the tenant's database was migrated: {} of {applied} steps were missing", done.added);
    }
    note_applied(plane, external_id, applied).await;
    keep_partitions(external_id, settings, false).await;
    Ok(())
}

/// Makes the partitions of the days to come and, if wanted, drops those that are too old. Failures are logged: messages of
/// other days go on.
pub async fn keep_partitions(external_id: &str, settings: &DatabaseSettings, drop_old: bool) {
    let work = async {
        let session = match connect(settings, PARTITIONS_SESSION).await {
            Ok(session) => session,
            Err(error) => return Code::PartitionCreationFailed.log(external_id, error),
        };
        let today = OffsetDateTime::now_utc().date();
        for failure in partitions::create(&session, today).await.err().unwrap_or_default() {
            Code::PartitionCreationFailed.log(external_id, format_args!("{}: {}", failure.partition, failure.failure));
        }
        if drop_old {
            let dropped = partitions::drop_old(&session, today).await;
            for failure in dropped.failures {
                let text = format!("{}: {}", failure.partition, failure.failure);
                Code::JanitorFailedToDeleteOldMessages.log(external_id, text);
            }
        }
    };
    if tokio::time::timeout(PARTITIONS_MAX, work).await.is_err() {
        let failure = DatabaseFailure::Unavailable("the database took too long".to_owned());
        Code::PartitionCreationFailed.log(external_id, failure);
    }
}

/// Keeps the tenant's record of applied migrations equal to what its database says (operations 5.2).
async fn note_applied(plane: &Rc<Plane>, external_id: &str, applied: i64) {
    let applied = i32::try_from(applied).unwrap_or(i32::MAX);
    let _turn = plane.writing.lock().await;
    let noted = async {
        let Some(tenant) = plane.store.get(external_id).await? else { return Ok(()) };
        if tenant.migrations_ran != applied {
            if tenant.migrations_ran != 0 {
                let text = format!("stored {}, found {applied}", tenant.migrations_ran);
                Code::MigrationCountMismatch.log(external_id, text);
            }
            plane.store.set_migrations_ran(external_id, applied).await?;
        }
        Ok::<_, crate::control::tenants::StoreError>(())
    };
    if let Err(error) = noted.await {
        Code::MigrationCountMismatchReconcileFailed.log(external_id, error);
    }
}
