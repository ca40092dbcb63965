//! Messages of the Postgres protocol on a byte stream: a tag, a length, a body.
//!
//! Login, commands and streaming all read and write here. Input is read into one buffer from
//! which bodies are split off without copying; when all of them are dropped the buffer is
//! used again, else a new one is taken. Reading and writing are cancel-safe: what has been
//! read stays in `input`, what has not been written stays in `output`.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::error::{ServerError, WalsenderError};

/// Bytes before a body: tag and length.
pub(super) const HEAD_BYTES: usize = 5;

/// What one read asks for on an idle connection, in bytes. There is one connection for every
/// active tenant and most of them are idle, so this is what the buffers of a node cost.
const READ_BYTES_MIN: usize = 4 * 1024;

/// What one read asks for while there is a backlog, in bytes. The server is the slower side:
/// read at once, a backlog comes in pieces of 1-2 KiB, and after a pause of 0.5 ms there were
/// 36 KiB, so larger reads would seldom be filled.
const READ_BYTES_MAX: usize = 64 * 1024;

/// How long to look for the server's own words after a write has failed. They are in the
/// receive buffer already, if at all.
const LAST_WORDS_DEADLINE: Duration = Duration::from_secs(1);

/// Largest error message then looked at, in bytes.
const LAST_WORDS_BYTES_MAX: usize = 64 * 1024;

/// How long to wait for the server to close the connection after it was asked to. It may be
/// in the middle of decoding, where it looks at its input between two changes only.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// One message.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// Both directions of a connection.
pub(super) struct Wire<S> {
    stream: S,
    pub(super) input: BytesMut,
    /// Bytes still to come of a message that is not wanted.
    skip_bytes: usize,
    read_bytes: usize,
    pub(super) output: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        let (input, output) = (BytesMut::with_capacity(READ_BYTES_MIN), BytesMut::new());
        Wire { stream, input, skip_bytes: 0, read_bytes: READ_BYTES_MIN, output }
    }

    /// Tag and body size of the message that `input` starts with; None while they are not
    /// there yet.
    #[inline]
    pub(super) fn head(&mut self) -> Result<Option<(u8, usize)>, WalsenderError> {
        if self.skip_bytes > 0 {
            let skipped = self.skip_bytes.min(self.input.len());
            self.input.advance(skipped);
            self.skip_bytes -= skipped;
        }
        let Some([tag, length @ ..]) = self.input.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        match u32::from_be_bytes(*length).checked_sub(4) {
            Some(body_bytes) => Ok(Some((*tag, body_bytes as usize))),
            None => Err(WalsenderError::Protocol("a message shorter than its own length")),
        }
    }

    /// Discards the first `bytes` bytes of the input, whether or not they have arrived.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.skip_bytes += bytes;
    }

    /// The next whole message, if it has been read already.
    pub(super) fn buffered(&mut self, body_bytes_max: usize) -> Result<Option<Frame>, WalsenderError> {
        let Some((tag, body_bytes)) = self.head()? else { return Ok(None) };
        if body_bytes > body_bytes_max {
            return Err(WalsenderError::Protocol("a message larger than any expected here"));
        }
        if self.input.len() < HEAD_BYTES + body_bytes {
            return Ok(None);
        }
        self.input.advance(HEAD_BYTES);
        Ok(Some(Frame { tag, body: self.input.split_to(body_bytes).freeze() }))
    }

    /// The next whole message.
    pub(super) async fn receive(&mut self, body_bytes_max: usize) -> Result<Frame, WalsenderError> {
        loop {
            if let Some(frame) = self.buffered(body_bytes_max)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Waits for input and appends one read of it.
    pub(super) async fn fill(&mut self) -> Result<(), WalsenderError> {
        self.make_room()?;
        let room_bytes = self.input.capacity() - self.input.len();
        match self.stream.read_buf(&mut self.input).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            read if read == room_bytes => self.read_bytes = READ_BYTES_MAX.min(self.read_bytes * 2),
            read if read < self.read_bytes / 4 => self.read_bytes = READ_BYTES_MIN.max(self.read_bytes / 2),
            _ => {}
        }
        Ok(())
    }

    /// A large message at most doubles the buffer with each step, so that a length alone
    /// allocates nothing; once it is gone, so is the large buffer.
    fn make_room(&mut self) -> Result<(), WalsenderError> {
        let missing_bytes = self.head()?.map_or(0, |(_, body_bytes)| (HEAD_BYTES + body_bytes).saturating_sub(self.input.len()));
        let want_bytes = self.read_bytes.max(missing_bytes.min(self.input.len()));
        let room_bytes = self.input.capacity() - self.input.len();
        if self.input.len() <= self.read_bytes && self.input.capacity() > 4 * self.read_bytes {
            let mut smaller = BytesMut::with_capacity(self.input.len() + want_bytes);
            smaller.extend_from_slice(&self.input);
            self.input = smaller;
        } else if room_bytes < want_bytes / 2 {
            self.input.reserve(want_bytes);
        }
        Ok(())
    }

    /// Appends a message to the output. `write` fails only for strings with a zero byte.
    pub(super) fn compose(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), WalsenderError> {
        let before = self.output.len();
        write(&mut self.output).map_err(|_| {
            self.output.truncate(before);
            WalsenderError::Name("text: it contains a zero byte")
        })
    }

    /// Writes the output. When that fails, input is read to its end for what the server may
    /// have said before it closed; messages in between are lost, as is the connection.
    pub(super) async fn send(&mut self) -> Result<(), WalsenderError> {
        match self.write_output().await {
            Ok(()) => Ok(()),
            Err(error) => match timeout(LAST_WORDS_DEADLINE, self.last_words()).await {
                Ok(Ok(words)) => Err(WalsenderError::Server(words)),
                _ => Err(error.into()),
            },
        }
    }

    async fn write_output(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            if self.stream.write_buf(&mut self.output).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.stream.flush().await
    }

    async fn last_words(&mut self) -> Result<ServerError, WalsenderError> {
        loop {
            match self.head()? {
                Some((b'E', body_bytes)) if body_bytes > LAST_WORDS_BYTES_MAX => {
                    return Err(WalsenderError::Protocol("an error text larger than any expected"));
                }
                Some((b'E', body_bytes)) if self.input.len() >= HEAD_BYTES + body_bytes => {
                    return Ok(ServerError::parse(&self.input[HEAD_BYTES..HEAD_BYTES + body_bytes]));
                }
                Some((tag, body_bytes)) if tag != b'E' => self.skip(HEAD_BYTES + body_bytes),
                _ => self.fill().await?,
            }
        }
    }

    /// Ends the session and waits until the server has closed its side, by when it has let go
    /// of the slot.
    pub(super) async fn close(mut self) -> Result<(), WalsenderError> {
        postgres_protocol::message::frontend::terminate(&mut self.output);
        let goodbye = async {
            if self.write_output().await.is_ok() {
                while self.stream.read_buf(&mut self.input).await.is_ok_and(|read| read > 0) {
                    self.input.clear();
                }
            }
        };
        timeout(CLOSE_DEADLINE, goodbye).await.map_err(|_| WalsenderError::Timeout("closing"))
    }
}
