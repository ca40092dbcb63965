//! State of one accepted socket: what it has sent so far, what waits to be sent, which rooms it is in.
//!
//! At most one send is in flight; everything queued meanwhile leaves together with the next one. An idle
//! connection owns no buffers: they come from and return to a pool.

use std::mem;

/// Buffers kept for reuse; a fan-out wants one per subscriber.
const POOL_BUFFERS_MAX: usize = 4096;
/// Buffers that have grown beyond this are freed rather than kept, in bytes.
const POOLED_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Free send buffers.
#[derive(Default)]
pub struct BufferPool {
    free: Vec<Vec<u8>>,
}

impl BufferPool {
    fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    fn put(&mut self, mut buffer: Vec<u8>) {
        if self.free.len() < POOL_BUFFERS_MAX && buffer.capacity() <= POOLED_BUFFER_BYTES_MAX {
            buffer.clear();
            self.free.push(buffer);
        }
    }
}

/// Output side of a connection.
#[derive(Default)]
pub struct Outgoing {
    pending: Vec<u8>,
    flying: Vec<u8>,
    sent: usize,
    /// Whether the connection is already listed for the flush at the end of the batch.
    pub listed: bool,
}

impl Outgoing {
    /// Queues `bytes`; true if the connection must be listed for the next flush.
    #[inline]
    pub fn queue(&mut self, bytes: &[u8], pool: &mut BufferPool) -> bool {
        if self.pending.capacity() == 0 {
            self.pending = pool.take();
        }
        self.pending.extend_from_slice(bytes);
        !mem::replace(&mut self.listed, true)
    }

    /// Whether a send is in flight.
    pub fn is_flying(&self) -> bool {
        !self.flying.is_empty()
    }

    /// The bytes to hand to the kernel next; empty if a send is in flight or nothing waits. They stay where they
    /// are until [`Outgoing::landed`].
    pub fn take_off(&mut self) -> &[u8] {
        if self.is_flying() || self.pending.is_empty() {
            return &[];
        }
        self.flying = mem::take(&mut self.pending);
        self.sent = 0;
        &self.flying
    }

    /// `count` bytes have left; returns the rest of the same buffer that must be sent again, usually none.
    pub fn landed(&mut self, count: usize, pool: &mut BufferPool) -> &[u8] {
        self.sent += count;
        if self.sent < self.flying.len() {
            return &self.flying[self.sent..];
        }
        pool.put(mem::take(&mut self.flying));
        &[]
    }

    /// Drops all output; only when the kernel has no send in flight.
    pub fn clear(&mut self, pool: &mut BufferPool) {
        pool.put(mem::take(&mut self.pending));
        pool.put(mem::take(&mut self.flying));
    }
}

/// One accepted socket.
#[derive(Default)]
pub struct Connection {
    /// Bytes of an incomplete request head or frame.
    pub partial: Vec<u8>,
    /// Output.
    pub outgoing: Outgoing,
    /// Rooms joined.
    pub rooms: Vec<u32>,
    /// Whether the upgrade is done (always true in TCP echo mode).
    pub upgraded: bool,
    /// Whether the peer is gone and only an outstanding send delays the close.
    pub closing: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_during_a_send_leaves_with_the_next() {
        let mut pool = BufferPool::default();
        let mut outgoing = Outgoing::default();
        assert!(outgoing.queue(b"ab", &mut pool));
        assert!(!outgoing.queue(b"c", &mut pool));
        outgoing.listed = false;
        assert_eq!(outgoing.take_off(), b"abc");
        assert!(outgoing.queue(b"d", &mut pool));
        assert_eq!(outgoing.take_off(), b"", "one send at a time");
        assert_eq!(outgoing.landed(1, &mut pool), b"bc");
        assert_eq!(outgoing.landed(2, &mut pool), b"");
        assert!(!outgoing.is_flying());
        assert_eq!(outgoing.take_off(), b"d");
    }

    #[test]
    fn buffers_return_to_the_pool() {
        let mut pool = BufferPool::default();
        let mut outgoing = Outgoing::default();
        outgoing.queue(b"ab", &mut pool);
        outgoing.take_off();
        outgoing.landed(2, &mut pool);
        assert_eq!(pool.free.len(), 1);
        pool.put(Vec::with_capacity(POOLED_BUFFER_BYTES_MAX + 1));
        assert_eq!(pool.free.len(), 1, "grown buffers are not kept");
    }
}
