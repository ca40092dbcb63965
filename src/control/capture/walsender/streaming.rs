//! A replication connection that streams.
//!
//! The server sends changes and keep-alives; the client acknowledges. Nothing is acknowledged
//! here unless the caller says so. The caller answers every keep-alive that asks for it, else
//! the server closes the connection after its `wal_sender_timeout`; and it acknowledges the
//! end of each keep-alive once everything before it is dispatched, else an orderly shutdown
//! of the server waits for it.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::error::{ServerError, WalsenderError};
use super::wire::{HEAD_BYTES, Wire};
use crate::base::clock;
use crate::protocol::pgoutput::{Lsn, POSTGRES_EPOCH_UNIX_SECS};

/// Largest change that is delivered whole, in bytes. A change may have two images of a row,
/// and a single value may have 1 GiB; but no tenant may have one node buffer that much, and
/// a row of this size is far beyond what is ever sent to a client.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How much of a larger change is delivered, in bytes: kind and table, and the columns in
/// front of the large one.
const OVERSIZED_HEAD_BYTES: usize = 1024;

/// How long an acknowledgement may take to be written. The server reads its input even while
/// its output is blocked, so only a dead one takes longer; 60 s is its own idea of that
/// (`wal_sender_timeout`).
const STATUS_DEADLINE: Duration = Duration::from_secs(60);

/// Kind, start, end and time in front of a payload.
const DATA_HEAD_BYTES: usize = 25;
/// Kind, end, time and flag.
const KEEP_ALIVE_BYTES: usize = 18;
/// Kind, three positions, time and flag.
const STATUS_BYTES: usize = 34;

/// What the server sent. Times are microseconds since 2000-01-01 UTC by the server's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// One message of the output plug-in.
    Data {
        /// Position of the change.
        start: Lsn,
        /// The server gives the same position again for logical replication. Not to be
        /// acknowledged: that is `end_lsn` of the transaction's Commit.
        end: Lsn,
        /// When it was sent.
        server_time_us: i64,
        /// The message. It shares its memory with up to 64 KiB of neighbours: copy what is to
        /// be kept for long.
        payload: Bytes,
    },
    /// One message of the output plug-in that is larger than is kept; it is lost.
    Oversized {
        /// Position of the change.
        start: Lsn,
        /// Size of the message.
        payload_bytes: usize,
        /// Its first bytes; see `pgoutput::ChangeHead`.
        head: Bytes,
    },
    /// The server is alive.
    KeepAlive {
        /// Everything committed before this position has been sent. May be acknowledged once
        /// all events before this one are dispatched.
        end: Lsn,
        /// When it was sent.
        server_time_us: i64,
        /// The server wants a status now.
        reply_requested: bool,
    },
    /// The server ended the stream in good order; there will be no more events.
    Ended,
}

/// A stream of changes.
pub struct Streaming<S> {
    wire: Wire<S>,
    acknowledged: Lsn,
    pub(super) payload_bytes_max: usize,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Streaming<S> {
    pub(super) fn new(wire: Wire<S>, from: Lsn) -> Self {
        Streaming { wire, acknowledged: from, payload_bytes_max: PAYLOAD_BYTES_MAX, ended: false }
    }

    /// Waits for the next event. May be dropped at any time without losing one.
    ///
    /// # Errors
    /// As [`WalsenderError`]; the stream is of no more use.
    pub async fn next(&mut self) -> Result<Event, WalsenderError> {
        loop {
            if let Some(event) = self.next_buffered()? {
                return Ok(event);
            }
            self.wire.fill().await?;
        }
    }

    /// The next event if it has been read already: what came along with the one before.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    #[inline]
    pub fn next_buffered(&mut self) -> Result<Option<Event>, WalsenderError> {
        loop {
            if self.ended {
                return Ok(Some(Event::Ended));
            }
            let Some((tag, body_bytes)) = self.wire.head()? else { return Ok(None) };
            if body_bytes > self.payload_bytes_max + DATA_HEAD_BYTES {
                return self.oversized(tag, body_bytes);
            }
            if self.wire.input.len() < HEAD_BYTES + body_bytes {
                return Ok(None);
            }
            self.wire.input.advance(HEAD_BYTES);
            if tag == b'd' {
                return self.copy_data(body_bytes).map(Some);
            }
            let body = self.wire.input.split_to(body_bytes);
            match tag {
                b'E' => return Err(WalsenderError::Server(ServerError::parse(&body))),
                // The stream ends with either: the former when asked to, the latter when the
                // server shuts down.
                b'c' | b'C' => self.ended = true,
                // Notices, changed settings, notifications.
                b'N' | b'S' | b'A' => {}
                _ => return Err(WalsenderError::Protocol("a message that belongs to no stream")),
            }
        }
    }

    #[inline]
    fn copy_data(&mut self, body_bytes: usize) -> Result<Event, WalsenderError> {
        let input = &mut self.wire.input;
        match input.first() {
            Some(b'w') if body_bytes >= DATA_HEAD_BYTES => {
                input.advance(1);
                let (start, end, server_time_us) = (Lsn(input.get_u64()), Lsn(input.get_u64()), input.get_i64());
                let payload = input.split_to(body_bytes - DATA_HEAD_BYTES).freeze();
                Ok(Event::Data { start, end, server_time_us, payload })
            }
            Some(b'k') if body_bytes == KEEP_ALIVE_BYTES => {
                input.advance(1);
                let (end, server_time_us) = (Lsn(input.get_u64()), input.get_i64());
                Ok(Event::KeepAlive { end, server_time_us, reply_requested: input.get_u8() != 0 })
            }
            _ => Err(WalsenderError::Protocol("neither a change nor a keep-alive")),
        }
    }

    fn oversized(&mut self, tag: u8, body_bytes: usize) -> Result<Option<Event>, WalsenderError> {
        let start_bytes = HEAD_BYTES + DATA_HEAD_BYTES;
        let payload_bytes = body_bytes - DATA_HEAD_BYTES;
        let head_bytes = payload_bytes.min(OVERSIZED_HEAD_BYTES);
        if tag != b'd' {
            return Err(WalsenderError::Protocol("a message larger than any expected in a stream"));
        }
        let Some(message) = self.wire.input.get(..start_bytes + head_bytes) else { return Ok(None) };
        let mut fields = &message[HEAD_BYTES..];
        if fields.get_u8() != b'w' {
            return Err(WalsenderError::Protocol("neither a change nor a keep-alive"));
        }
        let start = Lsn(fields.get_u64());
        let head = Bytes::copy_from_slice(&message[start_bytes..]);
        self.wire.skip(HEAD_BYTES + body_bytes);
        Ok(Some(Event::Oversized { start, payload_bytes, head }))
    }

    /// Acknowledges everything before `flushed`: the server will not send it again, and may
    /// remove its log. A position lower than one acknowledged before counts as that one. With
    /// `reply` the server answers by a keep-alive, which is a sign of life (spec 11.4).
    ///
    /// May be dropped; what is left of the message goes out with the next one.
    ///
    /// # Errors
    /// As [`WalsenderError`]; [`WalsenderError::Timeout`] if it cannot be written for 60 s.
    pub async fn send_status(&mut self, flushed: Lsn, reply: bool) -> Result<(), WalsenderError> {
        self.acknowledged = self.acknowledged.max(flushed);
        // Shown as `reply_time` in `pg_stat_replication`, no more.
        let sent_ms = i64::try_from(clock::unix_millis()).unwrap_or(0) - POSTGRES_EPOCH_UNIX_SECS * 1000;
        let output = &mut self.wire.output;
        output.put_u8(b'd');
        output.put_u32(4 + STATUS_BYTES as u32);
        output.put_u8(b'r');
        for _written_flushed_applied in 0..3 {
            output.put_u64(self.acknowledged.0);
        }
        output.put_i64(sent_ms.saturating_mul(1000));
        output.put_u8(u8::from(reply));
        timeout(STATUS_DEADLINE, self.wire.send()).await.unwrap_or(Err(WalsenderError::Timeout("an acknowledgement")))
    }

    #[cfg(test)]
    pub(super) fn buffer_bytes(&self) -> usize {
        self.wire.input.capacity()
    }

    /// The highest position acknowledged so far.
    pub fn acknowledged(&self) -> Lsn {
        self.acknowledged
    }

    /// Ends the session. When this returns the server has let go of the slot: a temporary one
    /// is gone, a permanent one free. Terminates at once instead of ending the copy first,
    /// because the server would finish the transaction it is sending before it answers that.
    ///
    /// # Errors
    /// [`WalsenderError::Timeout`] if the server keeps the connection open for 5 s.
    pub async fn finish(self) -> Result<(), WalsenderError> {
        self.wire.close().await
    }
}
