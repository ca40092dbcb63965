//! The publication of `realtime.messages` (spec 11.1 step 2).

use tokio::io::{AsyncRead, AsyncWrite};

use super::command::Walsender;
use super::error::{SqlState, WalsenderError};
use super::sql;

/// Its name; part of the contract with existing databases (spec 5.5).
pub const MESSAGES_PUBLICATION: &str = "supabase_realtime_messages_publication";

/// What was found, and done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublicationState {
    /// It was there and as it should be.
    Valid,
    /// It was missing and has been made.
    Created,
    /// It published nothing, or other tables, and has been made anew.
    Recreated,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Walsender<S> {
    /// Sees to it that [`MESSAGES_PUBLICATION`] publishes `realtime.messages`. It is valid if
    /// it publishes at least one table and nothing but `realtime.messages` and its partitions,
    /// `realtime.messages_…`; a table without partitions therefore counts as nothing.
    ///
    /// # Errors
    /// [`WalsenderError::Server`] with, among others, 42P01 (no such table), 42501 (not the
    /// owner of table or publication).
    pub async fn ensure_messages_publication(&mut self) -> Result<PublicationState, WalsenderError> {
        let state = self.messages_publication_state().await?;
        if state == PublicationState::Valid {
            return Ok(state);
        }
        let name = sql::identifier(MESSAGES_PUBLICATION)?;
        // One text, so one transaction: no other session sees the time in between.
        let remake = format!("drop publication if exists {name}; create publication {name} for table realtime.messages");
        match self.simple_query(&remake).await {
            Ok(_) => Ok(state),
            // Another node was faster. It did the same.
            Err(error) if error.sqlstate() == Some(SqlState::DUPLICATE_OBJECT) => Ok(PublicationState::Valid),
            Err(error) => Err(error),
        }
    }

    /// Whether there is a publication of this name.
    ///
    /// # Errors
    /// As [`WalsenderError`].
    pub async fn publication_exists(&mut self, name: &str) -> Result<bool, WalsenderError> {
        let sql = format!("select 1 from pg_catalog.pg_publication where pubname = {}", sql::literal(name));
        Ok(!self.simple_query(&sql).await?.is_empty())
    }

    async fn messages_publication_state(&mut self) -> Result<PublicationState, WalsenderError> {
        let name = sql::literal(MESSAGES_PUBLICATION);
        let query = format!(
            "select (select bool_and(schemaname = 'realtime' and (tablename = 'messages' or starts_with(tablename, 'messages_'))) \
             from pg_catalog.pg_publication_tables where pubname = {name}) \
             from pg_catalog.pg_publication where pubname = {name}"
        );
        let rows = self.simple_query(&query).await?;
        Ok(match rows.first().map(|row| row.first().and_then(Option::as_deref)) {
            None => PublicationState::Created,
            Some(Some("t")) => PublicationState::Valid,
            Some(_) => PublicationState::Recreated,
        })
    }
}
