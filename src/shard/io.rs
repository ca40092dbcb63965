//! Sockets of a shard and the effects of the core on them.
//!
//! The slot of a socket is the slot of its connection in the hub. Dropping a socket is always done by its reading task;
//! everybody else shuts the descriptor down, which wakes that task.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use monoio::net::TcpStream;

use super::outbox::{Flushed, Outbox, OutboxState, WriteRoom};
use super::wheel::Wheel;
use crate::mailbox::{Sender, Sent, ToControl, ToShard};
use crate::protocol::websocket::close_frame;
use crate::realtime::database::Question;
use crate::realtime::{ConnId, Effects, Frame, PeerMail, Timer};
use crate::telemetry::ShardCounters;

/// Timers of a shard.
#[derive(Debug, Clone, Copy)]
pub enum ShardTimer {
    /// Asked for by the core.
    Hub(Timer),
    /// A close frame was sent long enough ago.
    Linger(ConnId),
}

/// How long a client may take to answer our close frame.
const LINGER_MS: u64 = 3_000;

/// One open WebSocket.
pub struct Socket {
    stream: Rc<TcpStream>,
    /// Generation of the hub's connection in this slot.
    pub id: ConnId,
    outbox: Outbox,
    /// Last time a byte came from the client, monotonic milliseconds.
    pub heard_ms: u64,
    /// A close frame is queued or sent: nothing more is queued.
    pub closing: bool,
    shut_down: bool,
}

impl Socket {
    fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

/// Sockets, outboxes, timers and mailbox ends.
pub struct Io {
    shard: u16,
    /// By slot; `None` where no socket is open.
    pub sockets: Vec<Option<Socket>>,
    dirty: Vec<u32>,
    room: WriteRoom,
    /// Timers.
    pub wheel: Wheel<ShardTimer>,
    peers: Vec<Option<Sender<ToShard>>>,
    control: Rc<RefCell<Sender<ToControl>>>,
    outbox_bytes_max: usize,
    /// Wakes the flush task.
    flush_waker: Option<Waker>,
    /// Sockets whose kernel buffer is full; the flush task starts a waiting task for each.
    pub newly_blocked: Vec<(ConnId, Rc<TcpStream>)>,
    /// Counters of this shard.
    pub counters: Arc<ShardCounters>,
}

impl Io {
    pub fn new(
        shard: u16,
        peers: Vec<Option<Sender<ToShard>>>,
        control: Rc<RefCell<Sender<ToControl>>>,
        outbox_bytes_max: usize,
        counters: Arc<ShardCounters>,
        now_ms: u64,
    ) -> Self {
        Self {
            shard,
            sockets: Vec::new(),
            dirty: Vec::new(),
            room: WriteRoom::default(),
            wheel: Wheel::new(now_ms),
            peers,
            control,
            outbox_bytes_max,
            flush_waker: None,
            newly_blocked: Vec::new(),
            counters,
        }
    }

    /// Registers the socket of a connection the hub has just opened.
    pub fn insert(&mut self, id: ConnId, stream: Rc<TcpStream>, now_ms: u64) {
        let slot = id.slot as usize;
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, || None);
        }
        self.sockets[slot] =
            Some(Socket { stream, id, outbox: Outbox::default(), heard_ms: now_ms, closing: false, shut_down: false });
    }

    /// The socket with this identity, if it is still open.
    pub fn socket(&mut self, id: ConnId) -> Option<&mut Socket> {
        self.sockets.get_mut(id.slot as usize)?.as_mut().filter(|socket| socket.id == id)
    }

    /// Slots of sockets from which nothing came since `since_ms`.
    pub fn silent_since(&self, since_ms: u64) -> Vec<u32> {
        let open = self.sockets.iter().flatten();
        open.filter(|socket| socket.heard_ms <= since_ms && !socket.closing).map(|socket| socket.id.slot).collect()
    }

    /// Forgets a socket; its descriptor closes when the last task lets go of it.
    pub fn remove(&mut self, slot: u32) {
        self.sockets[slot as usize] = None;
    }

    /// Queues bytes of a control frame.
    pub fn send_raw(&mut self, slot: u32, bytes: Bytes) {
        self.send(slot, &Rc::new(bytes));
    }

    /// Queues a close frame behind everything else, or the given echo of one.
    pub fn send_close(&mut self, slot: u32, frame: &[u8], now_ms: u64) {
        self.send_raw(slot, Bytes::copy_from_slice(frame));
        if let Some(Some(socket)) = self.sockets.get_mut(slot as usize) {
            socket.closing = true;
            let id = socket.id;
            self.wheel.add(now_ms + LINGER_MS, ShardTimer::Linger(id));
        }
    }

    /// Ends the connection without ceremony; the reading task wakes up and cleans up.
    pub fn shut_down(&mut self, slot: u32) {
        if let Some(Some(socket)) = self.sockets.get_mut(slot as usize) {
            socket.closing = true;
            socket.outbox.clear();
            shutdown(socket.fd(), libc::SHUT_RDWR);
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        self.dirty.push(slot);
        if let Some(waker) = self.flush_waker.take() {
            waker.wake();
        }
    }

    /// Sends every dirty outbox. With nothing to do the waker is kept for the next dirty one.
    pub fn flush_dirty(&mut self, waker: &Waker) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for &slot in &dirty {
            self.flush(slot);
        }
        dirty.clear();
        self.dirty = dirty;
        self.flush_waker = Some(waker.clone());
    }

    /// Sends what one socket has queued; true when the socket is still full.
    pub fn flush(&mut self, slot: u32) -> bool {
        let Some(Some(socket)) = self.sockets.get_mut(slot as usize) else { return false };
        let was_blocked = socket.outbox.state == OutboxState::Blocked;
        let fd = socket.fd();
        match socket.outbox.flush(fd, &mut self.room) {
            Flushed::All => {
                socket.outbox.state = OutboxState::Idle;
                if socket.closing && !socket.shut_down {
                    socket.shut_down = true;
                    shutdown(fd, libc::SHUT_WR);
                }
            }
            Flushed::Blocked => {
                socket.outbox.state = OutboxState::Blocked;
                if !was_blocked {
                    self.newly_blocked.push((socket.id, socket.stream.clone()));
                }
                return true;
            }
            Flushed::Broken => {
                socket.outbox.state = OutboxState::Idle;
                self.shut_down(slot);
            }
        }
        false
    }

    /// Moves spilled mail on and publishes the write counters.
    pub fn tick(&mut self) -> bool {
        let stats = std::mem::take(&mut self.room.stats);
        self.counters.writes.add(stats.writes);
        self.counters.frames_out.add(stats.frames);
        self.counters.bytes_out.add(stats.bytes);
        self.peers.iter_mut().flatten().fold(true, |empty, peer| peer.flush() & empty)
    }

    /// Hands a message to another shard.
    pub fn post(&mut self, shard: u16, mail: ToShard) {
        let Some(Some(peer)) = self.peers.get_mut(usize::from(shard)) else { return };
        match peer.send(mail) {
            Sent::Delivered => self.counters.mailbox_sent.increment(),
            Sent::Spilled => self.counters.mailbox_spilled.increment(),
            Sent::Dropped => self.counters.mailbox_dropped.increment(),
        }
    }

    #[cold]
    fn drop_slow_consumer(&mut self, slot: u32) {
        self.counters.slow_consumers.increment();
        tracing::warn!(error_code = "SlowConsumer", "SlowConsumer: a client does not read; its connection is dropped");
        self.shut_down(slot);
    }
}

impl Effects for Io {
    fn send(&mut self, conn: u32, frame: &Frame) {
        let Some(Some(socket)) = self.sockets.get_mut(conn as usize) else { return };
        if socket.closing {
            return;
        }
        socket.outbox.push(frame, &mut self.room);
        let over = socket.outbox.queued_bytes() > self.outbox_bytes_max;
        if socket.outbox.state == OutboxState::Idle {
            socket.outbox.state = OutboxState::Dirty;
            self.mark_dirty(conn);
        } else if over && socket.outbox.state == OutboxState::Blocked {
            self.drop_slow_consumer(conn);
        } else if over {
            // The budget is spent within one turn: ask the kernel before judging the client.
            self.flush(conn);
        }
    }

    fn close(&mut self, conn: u32, code: u16) {
        let now_ms = super::now().mono_ms;
        self.send_close(conn, &close_frame(Some(code)), now_ms);
    }

    fn timer(&mut self, due_ms: u64, timer: Timer) {
        self.wheel.add(due_ms, ShardTimer::Hub(timer));
    }

    fn peer(&mut self, shard: u16, mail: PeerMail) {
        let from = self.shard;
        self.post(shard, ToShard::Peer { from, mail });
    }

    fn ask(&mut self, question: Question) {
        // A question that does not fit any more is answered by its timer.
        self.control.borrow_mut().send(ToControl::Ask { shard: self.shard, question });
    }

    fn random(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel's random source works");
        bytes
    }
}

fn shutdown(fd: RawFd, how: libc::c_int) {
    // SAFETY: a plain system call on a descriptor that the socket table keeps open; failure means it is already down.
    unsafe { libc::shutdown(fd, how) };
}
