//! Replication slots: looking one up, making one, dropping one (spec 11.1 and 15.2).

use tokio::io::{AsyncRead, AsyncWrite};

use super::command::Walsender;
use super::error::WalsenderError;
use super::sql;
use crate::protocol::pgoutput::Lsn;

/// A slot as `pg_replication_slots` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    /// Whether a connection streams from it.
    pub active: bool,
    /// Process id of that connection; for a temporary slot, of the session that owns it.
    pub active_pid: Option<i32>,
    /// Whether it goes away with its session.
    pub temporary: bool,
    /// What was acknowledged; a stream resumes from here.
    pub confirmed_flush: Option<Lsn>,
    /// The oldest log the slot keeps the server from removing.
    pub restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// The output plug-in; none for a physical slot.
    pub plugin: Option<String>,
    /// The database it decodes; none for a physical slot.
    pub database: Option<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Walsender<S> {
    /// Looks a slot up by name in the whole cluster. None if there is none.
    ///
    /// # Errors
    /// [`WalsenderError::Name`] for a name no slot can have, else as `simple_query`.
    pub async fn slot_state(&mut self, name: &str) -> Result<Option<SlotState>, WalsenderError> {
        let query = format!(
            "select active, active_pid, temporary, confirmed_flush_lsn, restart_lsn, wal_status, plugin, database \
             from pg_catalog.pg_replication_slots where slot_name = {}",
            sql::literal(sql::slot_name(name)?)
        );
        let Some(row) = self.simple_query(&query).await?.into_iter().next() else { return Ok(None) };
        let Ok([active, active_pid, temporary, confirmed_flush, restart, wal_status, plugin, database]) = <[_; 8]>::try_from(row)
        else {
            return Err(WalsenderError::Protocol("a slot does not have the columns asked for"));
        };
        Ok(Some(SlotState {
            active: active.as_deref() == Some("t"),
            active_pid: active_pid.and_then(|pid| pid.parse().ok()),
            temporary: temporary.as_deref() == Some("t"),
            confirmed_flush: confirmed_flush.and_then(|lsn| lsn.parse().ok()),
            restart: restart.and_then(|lsn| lsn.parse().ok()),
            wal_status,
            plugin,
            database,
        }))
    }

    /// Makes a logical slot for `pgoutput` and returns its consistent point: transactions
    /// that commit behind it will be streamed. A temporary slot belongs to this connection.
    ///
    /// # Errors
    /// [`WalsenderError::Server`] with, among others, 42710 (exists), 53400 (all slots taken),
    /// 55000 (`wal_level` is not `logical`), 42501 (no REPLICATION attribute).
    pub async fn create_slot(&mut self, name: &str, temporary: bool) -> Result<Lsn, WalsenderError> {
        let name = sql::identifier(sql::slot_name(name)?)?;
        let temporary = if temporary { " TEMPORARY" } else { "" };
        // The keyword form of the option is understood by every server that has pgoutput; the
        // newer form in parentheses only from version 15.
        let command = format!("CREATE_REPLICATION_SLOT {name}{temporary} LOGICAL \"pgoutput\" NOEXPORT_SNAPSHOT");
        let rows = self.simple_query(&command).await?;
        let point = rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok());
        point.ok_or(WalsenderError::Protocol("a new slot has no consistent point"))
    }

    /// Drops a slot that no connection uses.
    ///
    /// # Errors
    /// [`WalsenderError::Server`] with, among others, 42704 (no such slot), 55006 (in use).
    pub async fn drop_slot(&mut self, name: &str) -> Result<(), WalsenderError> {
        let name = sql::identifier(sql::slot_name(name)?)?;
        self.simple_query(&format!("DROP_REPLICATION_SLOT {name}")).await.map(|_| ())
    }
}
