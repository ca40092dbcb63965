//! The event loop of the floor: multishot accept and receive, direct descriptors, one send per socket and batch.
//!
//! All completions of a batch are handled before anything is sent, so frames for one socket coalesce. Sockets live
//! in the ring's own descriptor table; a connection's number is its index there. A slot is closed only when its
//! receive has ended and no send is in flight, so no completion can refer to a later connection of the same number.
//! Fails only on system calls of the ring itself.

use super::Mode;
use super::buffers::{GROUP, ReceiveBuffers};
use super::sessions::Sessions;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

/// Submission queue entries; a longer flush submits in several calls.
const SUBMISSIONS: u32 = 1024;
/// Completion queue entries: one send and one receive for each of many sockets.
const COMPLETIONS: u32 = 32 * 1024;
/// Connections at once; below the file limit of 20,000 of the reference machine.
const CONNECTIONS_MAX: u32 = 19_000;

const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;
const CLOSE: u64 = 4 << 32;
const SHUTDOWN: u64 = 5 << 32;

/// The floor server.
pub struct Server {
    // The ring comes first: it must be closed before the memory it uses is freed.
    ring: IoUring,
    buffers: ReceiveBuffers,
    listener: TcpListener,
    sessions: Sessions,
    accept_paused: bool,
}

impl Server {
    /// A server on `listener`, ready to [`run`](Self::run).
    ///
    /// # Errors
    /// When the kernel lacks a feature (6.0 or newer is needed) or a limit is too low.
    pub fn new(listener: TcpListener, mode: Mode) -> io::Result<Self> {
        // Accepted sockets inherit it.
        socket2::SockRef::from(&listener).set_tcp_nodelay(true)?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)?;
        ring.submitter().register_files_sparse(CONNECTIONS_MAX)?;
        let buffers = ReceiveBuffers::register(&ring.submitter())?;
        Ok(Self { ring, buffers, listener, sessions: Sessions::new(mode), accept_paused: false })
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When the ring fails.
    pub fn run(mut self) -> io::Result<()> {
        self.accept()?;
        let mut batch: Vec<(u64, i32, u32)> = Vec::with_capacity(COMPLETIONS as usize);
        loop {
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => {
                    other?;
                }
            }
            batch.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
            for (data, result, flags) in batch.drain(..) {
                self.complete(data, result, flags)?;
            }
            self.flush()?;
        }
    }

    fn submit(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: every entry points at memory that outlives it: receive buffers are registered for the life of
            // the ring, and a flying send buffer stays untouched in its connection until its completion.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit()?;
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let accept = opcode::AcceptMulti::new(types::Fd(self.listener.as_raw_fd())).allocate_file_index(true);
        self.submit(&accept.build().user_data(ACCEPT))
    }

    fn receive(&mut self, number: u32) -> io::Result<()> {
        let receive = opcode::RecvMulti::new(types::Fixed(number), GROUP);
        self.submit(&receive.build().user_data(RECEIVE | u64::from(number)))
    }

    fn complete(&mut self, data: u64, result: i32, flags: u32) -> io::Result<()> {
        let number = data as u32;
        match data & !u64::from(u32::MAX) {
            ACCEPT => self.accepted(result, flags),
            RECEIVE => self.received(number, result, flags),
            SEND => self.sent(number, result),
            CLOSE if self.accept_paused => {
                self.accept_paused = false;
                self.accept()
            }
            _ => Ok(()),
        }
    }

    fn accepted(&mut self, result: i32, flags: u32) -> io::Result<()> {
        if let Ok(number) = u32::try_from(result) {
            self.sessions.open(number);
            self.receive(number)?;
        }
        if cqueue::more(flags) {
            return Ok(());
        }
        if result < 0 {
            // No descriptor is free; the next close resumes.
            self.accept_paused = true;
            return Ok(());
        }
        self.accept()
    }

    fn received(&mut self, number: u32, result: i32, flags: u32) -> io::Result<()> {
        if let Some(id) = cqueue::buffer_select(flags) {
            let length = usize::try_from(result).unwrap_or(0);
            self.sessions.take_bytes(number, self.buffers.filled(id, length));
            self.buffers.give_back(id);
        }
        if cqueue::more(flags) {
            return Ok(());
        }
        if result > 0 || result == -libc::ENOBUFS {
            return self.receive(number);
        }
        if self.sessions.depart(number) {
            // Makes the send in flight fail instead of waiting for a reader that is gone.
            let shutdown = opcode::Shutdown::new(types::Fixed(number), libc::SHUT_RDWR);
            return self.submit(&shutdown.build().user_data(SHUTDOWN | u64::from(number)));
        }
        self.close(number)
    }

    fn close(&mut self, number: u32) -> io::Result<()> {
        let (connection, pool) = self.sessions.connection(number);
        connection.outgoing.clear(pool);
        self.submit(&opcode::Close::new(types::Fixed(number)).build().user_data(CLOSE | u64::from(number)))
    }

    fn sent(&mut self, number: u32, result: i32) -> io::Result<()> {
        let (connection, pool) = self.sessions.connection(number);
        let closing = connection.closing;
        let Ok(count) = usize::try_from(result) else {
            // The peer is gone; its receive ends too and closes the slot, unless it has ended already.
            connection.outgoing.clear(pool);
            return if closing { self.close(number) } else { Ok(()) };
        };
        let rest = connection.outgoing.landed(count, pool);
        if !rest.is_empty() {
            let entry = send_entry(number, rest);
            return self.submit(&entry);
        }
        if closing {
            return self.close(number);
        }
        self.launch(number)
    }

    /// Submits what is queued on connection `number`, unless a send is in flight.
    fn launch(&mut self, number: u32) -> io::Result<()> {
        let (connection, _) = self.sessions.connection(number);
        let bytes = connection.outgoing.take_off();
        if bytes.is_empty() {
            return Ok(());
        }
        let entry = send_entry(number, bytes);
        self.submit(&entry)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.sessions.dirty);
        for number in dirty.drain(..) {
            let (connection, _) = self.sessions.connection(number);
            connection.outgoing.listed = false;
            if !connection.closing {
                self.launch(number)?;
            }
        }
        self.sessions.dirty = dirty;
        Ok(())
    }
}

/// A send of all `bytes` to connection `number`.
fn send_entry(number: u32, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(types::Fixed(number), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .user_data(SEND | u64::from(number))
}
