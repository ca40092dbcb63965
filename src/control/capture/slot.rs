//! The slot of a tenant: opened or taken over, looked at, and dropped (sections 5.5, 11.1, 11.4).

use std::time::Duration;

use super::error::StreamError;
use super::stream::Progress;
use super::walsender::{
    Login, MESSAGES_PUBLICATION, PublicationState, SlotState, SqlState, Streaming, Walsender, publication_names,
};
use crate::control::database::Live;
use crate::control::database::connect::connect;
use crate::control::database::dial::{Stream, dial};
use crate::control::database::pool::Answer;
use crate::control::database::settings::DatabaseSettings;
use crate::protocol::pgoutput::Lsn;

/// Name of the streaming session; operators look for it.
const STREAM_SESSION: &str = "realtime_replication_connection";
const TEARDOWN_SESSION: &str = "realtime_replication_slot_teardown";

/// Text forms that the rows depend on.
const SESSION_PARAMETERS: &[(&str, &str)] = &[("DateStyle", "ISO"), ("bytea_output", "hex"), ("extra_float_digits", "3")];

/// A look at the slot answers from memory.
const HEALTH_MAX: Duration = Duration::from_secs(10);

/// Dropping a slot takes milliseconds, but a shutdown waits for it.
const DROP_MAX: Duration = Duration::from_secs(3);

/// Active, bytes held back and bytes not acknowledged, and what the server lets a slot hold back, in megabytes.
const HEALTH: &str = "select active, coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn), 0)::bigint, \
     coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), confirmed_flush_lsn), 0)::bigint, \
     (select setting::bigint from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size') \
     from pg_catalog.pg_replication_slots where slot_name = $1";

const DROP: &str = "select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots \
     where slot_name = $1 and not active";

/// Starts streaming through the slot, which is made if it is not there or of no more use. With changes, the tenant's publication
/// is streamed too, if there is one; the second value says so.
///
/// # Errors
/// [`StreamError::HeldByOther`] while another session reads the slot; else why there is no stream.
pub async fn open(
    settings: &DatabaseSettings,
    slot: &str,
    with_changes: bool,
    progress: &mut Progress,
) -> Result<(Streaming<Stream>, bool), StreamError> {
    let dialed = dial(settings).await.map_err(StreamError::Dial)?;
    let login = Login {
        user: &settings.user,
        password: &settings.password,
        database: &settings.name,
        application_name: STREAM_SESSION,
        parameters: SESSION_PARAMETERS,
    };
    let mut walsender = Walsender::login(dialed.stream, &login).await?;
    let version = walsender.parameter("server_version").unwrap_or("of unknown version");
    tracing::debug!("replication session {} of server {version}", walsender.backend_pid());
    let publication = walsender.ensure_messages_publication().await?;
    let mut found = walsender.slot_state(slot).await?;
    if found.as_ref().is_some_and(|state| state.active) {
        let _ = walsender.close().await;
        return Err(StreamError::HeldByOther);
    }
    // A publication that did not exist yet at the slot's position cannot be read from there.
    let is_unusable = |state: &SlotState| {
        progress.renew_slot
            || publication != PublicationState::Valid
            || state.wal_status.as_deref() == Some("lost")
            || state.plugin.as_deref() != Some("pgoutput")
            || state.database.as_deref() != Some(&settings.name)
    };
    if found.as_ref().is_some_and(is_unusable) {
        walsender.drop_slot(slot).await?;
        found = None;
    }
    let from = match found {
        Some(_) => progress.handed_over,
        None => {
            // Before, since nobody may be there to see its end.
            *progress = Progress::of_new_slot();
            match walsender.create_slot(slot, false).await {
                Ok(_) => {}
                // Another node was faster.
                Err(error) if error.sqlstate() == Some(SqlState::DUPLICATE_OBJECT) => return Err(StreamError::HeldByOther),
                Err(error) => return Err(error.into()),
            }
            Lsn::INVALID
        }
    };
    let carries_changes = with_changes && walsender.publication_exists(&settings.publication).await?;
    let publications = match carries_changes {
        true => publication_names(&[MESSAGES_PUBLICATION, &settings.publication])?,
        false => publication_names(&[MESSAGES_PUBLICATION])?,
    };
    let options = [("proto_version", "1"), ("publication_names", publications.as_str())];
    Ok((walsender.start_logical(slot, from, &options).await?, carries_changes))
}

/// What the watchdog sees.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    /// The slot exists and somebody reads it.
    pub is_active: bool,
    /// Bytes of log it holds back; a long transaction of anybody does that too.
    pub held_bytes: i64,
    /// Bytes of log that were not handed over yet.
    pub lag_bytes: i64,
    /// What the server lets it hold back; `None` without a limit.
    pub keep_bytes_max: Option<i64>,
}

/// Looks at the slot from the outside; `None` when that was not possible.
pub async fn health(live: &Live, slot: &str) -> Option<Health> {
    let looked = live.pool.run(HEALTH_MAX, async |client| Answer::of(client.query_opt(HEALTH, &[&slot]).await)).await;
    let Some(row) = looked.ok()? else {
        return Some(Health { is_active: false, held_bytes: 0, lag_bytes: 0, keep_bytes_max: None });
    };
    let megabytes: Option<i64> = row.try_get(3).ok()?;
    Some(Health {
        is_active: row.try_get(0).ok()?,
        held_bytes: row.try_get(1).ok()?,
        lag_bytes: row.try_get(2).ok()?,
        keep_bytes_max: megabytes.filter(|megabytes| *megabytes >= 0).map(|megabytes| megabytes.saturating_mul(1024 * 1024)),
    })
}

/// Drops the slot unless somebody reads it; false when that is not known to be done.
pub async fn drop(settings: &DatabaseSettings, slot: &str) -> bool {
    let dropping = async {
        let session = connect(settings, TEARDOWN_SESSION).await.map_err(|error| error.to_string())?;
        session.execute(DROP, &[&slot]).await.map_err(|error| error.to_string())
    };
    match tokio::time::timeout(DROP_MAX, dropping).await {
        Ok(Ok(_)) => return true,
        Ok(Err(error)) => tracing::warn!("replication slot {slot} could not be dropped and holds back log: {error}"),
        Err(_) => tracing::warn!("replication slot {slot} could not be dropped in time and holds back log"),
    }
    false
}
