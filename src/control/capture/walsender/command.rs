//! Commands on a replication connection before it streams.
//!
//! A connection made with `replication=database` takes replication commands and plain SQL,
//! both as simple queries. A command that was given up half way (deadline, dropped future)
//! leaves the connection out of step: it refuses all later ones.

use std::time::Duration;

use bytes::Buf;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::error::{ServerError, WalsenderError};
use super::sql;
use super::streaming::Streaming;
use super::wire::Wire;
use crate::protocol::pgoutput::Lsn;

/// How long one setup command may take (spec 11.1). Creating a slot waits for the write
/// transactions that are under way.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(4 * 60);

/// Largest result of a command, in bytes of its rows, and largest message in it. The queries
/// sent here ask for single catalog rows.
const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One row of a result, in text form.
pub type Row = Vec<Option<String>>;

/// A replication connection that takes commands.
pub struct Walsender<S> {
    pub(super) wire: Wire<S>,
    backend_pid: i32,
    parameters: Vec<(String, String)>,
    pub(super) command_deadline: Duration,
    /// A command was sent and its end has not been seen.
    in_command: bool,
}

enum Outcome {
    Rows(Vec<Row>),
    CopyBoth,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Walsender<S> {
    pub(super) fn new(wire: Wire<S>, backend_pid: i32, parameters: Vec<(String, String)>) -> Self {
        Walsender { wire, backend_pid, parameters, command_deadline: COMMAND_DEADLINE, in_command: false }
    }

    /// Process id of the server's end, as in `pg_stat_activity` and `pg_replication_slots`.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// A setting as the server reported it at login, such as `server_version` or `TimeZone`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(reported, _)| reported == name).map(|(_, value)| value.as_str())
    }

    /// Runs replication commands or SQL, within [`COMMAND_DEADLINE`]. Several statements in
    /// one text are one transaction; their rows are concatenated.
    ///
    /// # Errors
    /// After [`WalsenderError::Server`] of severity ERROR the connection remains usable, after
    /// anything else it does not.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<Row>, WalsenderError> {
        match self.run(sql).await? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::CopyBoth => Err(WalsenderError::Protocol("the command started to stream")),
        }
    }

    /// Starts to stream from a slot. Transactions that were committed before `from`, or that
    /// were acknowledged before, are left out; [`Lsn::INVALID`] is where the slot stands.
    /// `options` are those of the output plug-in, for instance `proto_version` and
    /// `publication_names` (see [`publication_names`](super::publication_names)).
    ///
    /// # Errors
    /// [`WalsenderError::Server`] with, among others, 42704 (no such slot), 55006 (in use by
    /// another connection), 55000 (the slot lost its log).
    pub async fn start_logical(
        mut self,
        slot: &str,
        from: Lsn,
        options: &[(&str, &str)],
    ) -> Result<Streaming<S>, WalsenderError> {
        let mut command = format!("START_REPLICATION SLOT {} LOGICAL {from}", sql::identifier(sql::slot_name(slot)?)?);
        for (position, (name, value)) in options.iter().enumerate() {
            command.push_str(if position == 0 { " (" } else { ", " });
            command.push_str(&format!("{} {}", sql::identifier(name)?, sql::option_value(value)));
        }
        if !options.is_empty() {
            command.push(')');
        }
        match self.run(&command).await? {
            Outcome::CopyBoth => Ok(Streaming::new(self.wire, from)),
            Outcome::Rows(_) => Err(WalsenderError::Protocol("the server did not start to stream")),
        }
    }

    /// Ends the session; temporary slots are gone when this returns.
    ///
    /// # Errors
    /// [`WalsenderError::Timeout`] if the server keeps the connection open for 5 s.
    pub async fn close(self) -> Result<(), WalsenderError> {
        self.wire.close().await
    }

    async fn run(&mut self, command: &str) -> Result<Outcome, WalsenderError> {
        if self.in_command {
            return Err(WalsenderError::Protocol("an earlier command was given up half way"));
        }
        self.wire.compose(|output| frontend::query(command, output))?;
        self.in_command = true;
        timeout(self.command_deadline, self.outcome()).await.unwrap_or(Err(WalsenderError::Timeout("a command")))
    }

    async fn outcome(&mut self) -> Result<Outcome, WalsenderError> {
        self.wire.send().await?;
        let mut rows = Vec::new();
        let mut left_bytes = RESULT_BYTES_MAX;
        let mut refusal = None;
        loop {
            let frame = match self.wire.receive(RESULT_BYTES_MAX).await {
                Ok(frame) => frame,
                // After a FATAL error the server just closes.
                Err(error) => return Err(refusal.map_or(error, WalsenderError::Server)),
            };
            match frame.tag {
                b'D' => {
                    left_bytes = left_bytes
                        .checked_sub(frame.body.len())
                        .ok_or(WalsenderError::Protocol("a result larger than any expected here"))?;
                    rows.push(row(&frame.body).ok_or(WalsenderError::Protocol("a malformed row"))?);
                }
                b'E' => refusal = Some(ServerError::parse(&frame.body)),
                b'Z' => {
                    self.in_command = false;
                    return refusal.map_or(Ok(Outcome::Rows(rows)), |refusal| Err(WalsenderError::Server(refusal)));
                }
                b'W' => return Ok(Outcome::CopyBoth),
                // Completion, empty query, row description, notices, settings, notifications.
                b'C' | b'I' | b'T' | b'N' | b'S' | b'A' => {}
                _ => return Err(WalsenderError::Protocol("a message that answers no simple query")),
            }
        }
    }
}

/// A count, then for each column its length (-1 for NULL) and its text.
fn row(mut body: &[u8]) -> Option<Row> {
    let columns = body.try_get_u16().ok()?;
    let mut row = Row::new();
    for _ in 0..columns {
        row.push(match body.try_get_i32().ok()? {
            -1 => None,
            length => {
                let (value, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
                body = rest;
                Some(String::from_utf8_lossy(value).into_owned())
            }
        });
    }
    body.is_empty().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::row;

    #[test]
    fn rows_are_read_exactly() {
        let body = b"\x00\x03\x00\x00\x00\x01a\xff\xff\xff\xff\x00\x00\x00\x00";
        assert_eq!(row(body), Some(vec![Some("a".to_owned()), None, Some(String::new())]));
        for end in 0..body.len() {
            assert_eq!(row(&body[..end]), None);
        }
        assert_eq!(row(b"\x00\x00\x00"), None);
        assert_eq!(row(b"\x00\x01\xff\xff\xff\xfe"), None);
    }
}
