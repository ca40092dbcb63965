//! The life of one WebSocket after its upgrade: wait, read, handle, until either side ends it.

use std::os::fd::AsRawFd;
use std::rc::Rc;

use bytes::Bytes;
use monoio::net::TcpStream;

use super::http::Incoming;
use super::{READ_BYTES_MAX, Shard, State, now};
use crate::mailbox::Permit;
use crate::protocol::websocket::{DecodeError, Decoder, Event, Flow, close_frame, close_reply, pong_frame};
use crate::realtime::{ConnId, OpenSocket};

/// Reads of one socket before others get their turn.
const READS_PER_WAKE_MAX: usize = 4;

/// What a read came to.
enum Read {
    /// More may come.
    Open,
    /// The peer is gone, or the connection broke.
    Gone,
}

/// Registers the connection, answers the upgrade and handles what the client sent right behind it.
pub(super) fn open(shard: &Rc<Shard>, incoming: Incoming, answer: Vec<u8>, socket: OpenSocket) {
    let Incoming { stream, mut received, permit, .. } = incoming;
    let stream = Rc::new(stream);
    let id = {
        let mut state = shard.state.borrow_mut();
        let State { hub, io, .. } = &mut *state;
        let id = hub.open(socket);
        io.insert(id, stream.clone(), now().mono_ms);
        io.send_raw(id.slot, Bytes::from(answer));
        io.counters.connections_open.increment();
        id
    };
    let mut decoder = Decoder::new();
    let alive = received.is_empty() || shard.handle_bytes(id, &mut decoder, &mut received);
    let shard = shard.clone();
    monoio::spawn(async move { live(shard, stream, id, decoder, alive, permit).await });
}

async fn live(shard: Rc<Shard>, stream: Rc<TcpStream>, id: ConnId, mut decoder: Decoder, mut alive: bool, permit: Permit) {
    while stream.readable(false).await.is_ok() {
        shard.drain_mail();
        match shard.read_socket(&stream, id, &mut decoder, &mut alive) {
            Read::Open => {}
            Read::Gone => break,
        }
    }
    shard.end_socket(id);
    drop(permit);
}

impl Shard {
    /// Reads what is there and handles it; `alive` is false once the socket only waits for the peer to go.
    fn read_socket(&self, stream: &TcpStream, id: ConnId, decoder: &mut Decoder, alive: &mut bool) -> Read {
        let mut buffer = std::mem::take(&mut self.state.borrow_mut().read_buffer);
        buffer.resize(READ_BYTES_MAX, 0);
        let mut outcome = Read::Open;
        for _ in 0..READS_PER_WAKE_MAX {
            match receive(stream, &mut buffer) {
                Received::Bytes(0) | Received::Broken => {
                    outcome = Read::Gone;
                    break;
                }
                Received::Nothing => break,
                Received::Bytes(n) => {
                    if *alive {
                        *alive = self.handle_bytes(id, decoder, &mut buffer[..n]);
                    }
                    if n < buffer.len() {
                        break;
                    }
                }
            }
        }
        self.state.borrow_mut().read_buffer = buffer;
        outcome
    }

    /// Decodes and handles; false when the socket handles nothing any more.
    fn handle_bytes(&self, id: ConnId, decoder: &mut Decoder, bytes: &mut [u8]) -> bool {
        let mut state = self.state.borrow_mut();
        let State { hub, io, .. } = &mut *state;
        let now = now();
        let Some(socket) = io.socket(id) else { return false };
        socket.heard_ms = now.mono_ms;
        io.counters.bytes_in.add(bytes.len() as u64);
        let mut frames = 0;
        let result = decoder.feed(bytes, &self.settings.decode_limits, |event| {
            frames += 1;
            match event {
                Event::Text(data) => hub.message(id.slot, false, data, now, io),
                Event::Binary(data) => hub.message(id.slot, true, data, now, io),
                Event::Ping(data) => io.send_raw(id.slot, Bytes::from(pong_frame(data))),
                Event::Pong(_) => {}
                Event::Close { code, .. } => {
                    io.send_close(id.slot, &close_reply(code), now.mono_ms);
                    hub.detach(id.slot, now, io);
                    return Flow::Stop;
                }
            }
            if io.socket(id).is_some_and(|socket| !socket.closing) { Flow::Continue } else { Flow::Stop }
        });
        io.counters.frames_in.add(frames);
        if let Err(error) = result {
            if matches!(error, DecodeError::Protocol(_)) {
                io.counters.malformed_frames.increment();
            }
            io.send_close(id.slot, &close_frame(Some(error.close_code())), now.mono_ms);
            hub.detach(id.slot, now, io);
        }
        io.socket(id).is_some_and(|socket| !socket.closing)
    }

    /// The reading task ends: the hub forgets the connection, the descriptor closes.
    fn end_socket(&self, id: ConnId) {
        let mut state = self.state.borrow_mut();
        let State { hub, io, .. } = &mut *state;
        hub.close(id.slot, now(), io);
        io.remove(id.slot);
        io.counters.connections_open.subtract(1);
    }
}

/// Result of one non-blocking read.
pub(super) enum Received {
    Bytes(usize),
    Nothing,
    Broken,
}

/// One non-blocking `recv` into the shard's buffer.
pub(super) fn receive(stream: &TcpStream, buffer: &mut [u8]) -> Received {
    loop {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into a live, exclusively borrowed slice; the descriptor is
        // kept open by `stream`.
        let n = unsafe { libc::recv(stream.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        if let Ok(n) = usize::try_from(n) {
            return Received::Bytes(n);
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) => return Received::Nothing,
            _ => return Received::Broken,
        }
    }
}
