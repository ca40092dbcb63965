//! Outbox of a socket: what is queued for it, and writing all of it at once.
//!
//! Frames are shared by reference; a flush copies small ones together so that everything queued leaves in one write.
//! Bounded by a byte budget: a socket over it is a slow consumer and is dropped (protocol 1.8).
//!
//! Invariants: at most one writer per socket (`Blocked` means a task waits for it to become writable); `bytes` is the sum
//! over `queue` minus what was sent of its first frame.

use std::os::fd::RawFd;

use crate::realtime::Frame;

/// Bookkeeping bytes that every queued frame is charged with, so that floods of tiny frames are bounded as well.
const FRAME_OVERHEAD_BYTES: usize = 32;

/// Frames up to this size are copied together; larger ones are handed to the kernel where they are.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// Bytes gathered into one write: large enough to amortise the call, small enough to stay in cache.
const GATHER_BYTES_MAX: usize = 64 * 1024;

/// Where a socket's outbox stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboxState {
    /// Nothing queued.
    Idle,
    /// Queued, on the list for the end of the turn.
    Dirty,
    /// The kernel took only part; a task waits for the socket to become writable.
    Blocked,
}

/// Result of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Everything is with the kernel.
    All,
    /// The socket is full.
    Blocked,
    /// The connection is broken.
    Broken,
}

/// Queued frames of one socket.
#[derive(Debug)]
pub struct Outbox {
    queue: Vec<Frame>,
    bytes: usize,
    sent_of_first: usize,
    /// See [`OutboxState`].
    pub state: OutboxState,
}

/// Counters of writes.
#[derive(Debug, Default, Clone, Copy)]
pub struct WriteStats {
    /// `send` calls that took something.
    pub writes: u64,
    /// Frames completely sent.
    pub frames: u64,
    /// Bytes sent.
    pub bytes: u64,
}

/// What all outboxes of a shard share: the gather buffer and spare queues.
#[derive(Debug)]
pub struct WriteRoom {
    gather: Vec<u8>,
    spare: Vec<Vec<Frame>>,
    /// Counters.
    pub stats: WriteStats,
}

/// Spare queues kept for reuse: as many as a busy turn needs.
const SPARE_QUEUES_MAX: usize = 4096;

/// Queues that grew beyond this are given back to the allocator.
const SPARE_QUEUE_FRAMES_MAX: usize = 256;

impl Default for WriteRoom {
    fn default() -> Self {
        Self { gather: Vec::with_capacity(GATHER_BYTES_MAX), spare: Vec::new(), stats: WriteStats::default() }
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self { queue: Vec::new(), bytes: 0, sent_of_first: 0, state: OutboxState::Idle }
    }
}

impl Outbox {
    /// Bytes queued, overhead included.
    pub fn queued_bytes(&self) -> usize {
        self.bytes + self.queue.len() * FRAME_OVERHEAD_BYTES
    }

    /// Queues a frame.
    pub fn push(&mut self, frame: &Frame, room: &mut WriteRoom) {
        if self.queue.capacity() == 0
            && let Some(spare) = room.spare.pop()
        {
            self.queue = spare;
        }
        self.bytes += frame.len();
        self.queue.push(frame.clone());
    }

    /// Forgets everything queued.
    pub fn clear(&mut self) {
        self.queue = Vec::new();
        self.bytes = 0;
        self.sent_of_first = 0;
    }

    /// Writes until everything is with the kernel or the socket is full.
    pub fn flush(&mut self, fd: RawFd, room: &mut WriteRoom) -> Flushed {
        let mut done = 0;
        let outcome = loop {
            if done == self.queue.len() {
                break Flushed::All;
            }
            match self.write_some(fd, done, room) {
                Ok(0) => break Flushed::Blocked,
                Ok(sent) => {
                    room.stats.writes += 1;
                    room.stats.bytes += sent as u64;
                    self.bytes -= sent;
                    done += self.advance(done, sent);
                }
                Err(()) => break Flushed::Broken,
            }
        };
        room.stats.frames += done as u64;
        if done == self.queue.len() {
            self.queue.clear();
            let queue = std::mem::take(&mut self.queue);
            if queue.capacity() <= SPARE_QUEUE_FRAMES_MAX && room.spare.len() < SPARE_QUEUES_MAX {
                room.spare.push(queue);
            }
        } else {
            self.queue.drain(..done);
        }
        outcome
    }

    /// How many frames, from `first` on, `sent` bytes completed.
    fn advance(&mut self, first: usize, sent: usize) -> usize {
        let mut left = sent + self.sent_of_first;
        let mut completed = 0;
        for frame in &self.queue[first..] {
            if left < frame.len() {
                break;
            }
            left -= frame.len();
            completed += 1;
        }
        self.sent_of_first = left;
        completed
    }

    fn write_some(&self, fd: RawFd, first: usize, room: &mut WriteRoom) -> Result<usize, ()> {
        let frames = &self.queue[first..];
        let head = &frames[0][self.sent_of_first..];
        if frames.len() == 1 || head.len() > COPY_BYTES_MAX {
            return send(fd, head);
        }
        room.gather.clear();
        room.gather.extend_from_slice(head);
        for frame in &frames[1..] {
            if frame.len() > COPY_BYTES_MAX || room.gather.len() + frame.len() > GATHER_BYTES_MAX {
                break;
            }
            room.gather.extend_from_slice(frame);
        }
        send(fd, &room.gather)
    }
}

/// One non-blocking `send`: 0 when the socket is full.
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> Result<usize, ()> {
    loop {
        // SAFETY: `bytes` is a live slice for the duration of the call and the kernel only reads it; `fd` is the open
        // descriptor of a socket that the caller's table owns.
        let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN) => return Ok(0),
            _ => return Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use bytes::Bytes;

    use super::*;

    fn frame(byte: u8, len: usize) -> Frame {
        Rc::new(Bytes::from(vec![byte; len]))
    }

    #[test]
    fn everything_arrives_in_order_through_a_full_socket() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut room = WriteRoom::default();
        let mut outbox = Outbox::default();
        let mut expected = Vec::new();
        for n in 0..2_000u32 {
            let frame = frame(n as u8, [10, 100, 5_000, 20_000][n as usize % 4]);
            expected.extend_from_slice(&frame);
            outbox.push(&frame, &mut room);
        }
        let mut received = Vec::new();
        let mut buffer = vec![0; 100_000];
        loop {
            let outcome = outbox.flush(ours.as_raw_fd(), &mut room);
            assert_ne!(outcome, Flushed::Broken);
            if received.len() == expected.len() {
                assert_eq!(outcome, Flushed::All);
                break;
            }
            let n = theirs.read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(received, expected);
        assert_eq!((outbox.queued_bytes(), room.stats.frames), (0, 2_000));
    }

    #[test]
    fn small_frames_leave_in_one_write() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut room = WriteRoom::default();
        let mut outbox = Outbox::default();
        let shared = frame(1, 100);
        (0..32).for_each(|_| outbox.push(&shared, &mut room));
        assert_eq!(outbox.flush(ours.as_raw_fd(), &mut room), Flushed::All);
        assert_eq!((room.stats.writes, room.stats.frames), (1, 32));
    }

    #[test]
    fn a_broken_connection_is_reported() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut room = WriteRoom::default();
        let mut outbox = Outbox::default();
        outbox.push(&frame(1, 10), &mut room);
        assert_eq!(outbox.flush(ours.as_raw_fd(), &mut room), Flushed::Broken);
    }
}
