//! Receive buffers lent to the kernel as a provided-buffer ring.
//!
//! The kernel picks a buffer per received chunk, the server handles the bytes and gives the buffer back at once.
//! The memory is touched at start, so that measuring memory per connection does not count it.

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Size of one buffer; a longer chunk takes several completions.
pub const BUFFER_BYTES: usize = 8 * 1024;
/// Number of buffers, a power of two: enough for the chunks of one completion batch.
const BUFFERS: u16 = 256;
/// The one buffer group of this program.
pub const GROUP: u16 = 0;
/// The kernel wants the ring on a page of its own.
const RING_ALIGN: usize = 4096;

/// A registered ring of receive buffers.
pub struct ReceiveBuffers {
    ring: NonNull<BufRingEntry>,
    memory: Vec<u8>,
    tail: u16,
}

impl ReceiveBuffers {
    /// Allocates the buffers and registers them with the ring behind `submitter`.
    ///
    /// # Errors
    /// When the kernel refuses the registration (before Linux 5.19).
    pub fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        let layout = Self::layout();
        // SAFETY: the layout has a non-zero size.
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(ring) = NonNull::new(raw.cast::<BufRingEntry>()) else {
            handle_alloc_error(layout);
        };
        let mut buffers = Self { ring, memory: vec![1; BUFFER_BYTES * usize::from(BUFFERS)], tail: 0 };
        // SAFETY: the ring memory is page-aligned, holds BUFFERS entries and lives until `Drop`, which the server
        // delays until its io_uring is closed (field order).
        unsafe { submitter.register_buf_ring_with_flags(ring.as_ptr() as u64, BUFFERS, GROUP, 0)? };
        for id in 0..BUFFERS {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    fn layout() -> Layout {
        Layout::from_size_align(usize::from(BUFFERS) * size_of::<BufRingEntry>(), RING_ALIGN)
            .expect("the constant ring layout is valid")
    }

    /// The first `length` bytes of buffer `id`, which the kernel has just filled.
    pub fn filled(&mut self, id: u16, length: usize) -> &mut [u8] {
        let start = usize::from(id) * BUFFER_BYTES;
        &mut self.memory[start..start + length.min(BUFFER_BYTES)]
    }

    /// Lends buffer `id` to the kernel again.
    pub fn give_back(&mut self, id: u16) {
        let address = self.memory[usize::from(id) * BUFFER_BYTES..].as_ptr() as u64;
        let slot = usize::from(self.tail & (BUFFERS - 1));
        // SAFETY: `slot` is below BUFFERS, so the entry lies in the ring memory we own; the kernel reads entries only
        // up to the published tail, which does not include this one yet.
        let entry = unsafe { &mut *self.ring.as_ptr().add(slot) };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a u16 inside the first entry of our ring memory, shared with the kernel, hence atomic.
        let tail = unsafe { &*BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `register` with this very layout; the io_uring that used it is closed by now.
        unsafe { dealloc(self.ring.as_ptr().cast::<u8>(), Self::layout()) };
    }
}
