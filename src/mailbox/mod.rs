//! Mailboxes: the only way between threads. One lock-free ring per ordered pair of threads, one inbox per receiver.
//!
//! A sender never blocks: what does not fit into the ring goes to a bounded queue of its own and is moved on by
//! [`Sender::flush`]; past that bound a message that may be lost is dropped and counted. The receiver is woken only when
//! its inbox goes from empty to non-empty.
//!
//! Invariants: order per pair is kept; after [`Sender::send`] returned, [`Receiver::is_pending`] is true at the receiver
//! until it drains, so whoever drains before looking at its sockets sees every message that happened before what it reads
//! there. Used by the shards and the control thread alike; works under any executor.

mod messages;
mod permit;

pub use messages::{Handoff, HttpBody, HttpCall, Reply, TenantNews, ToControl, ToShard};
pub use permit::Permit;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;

/// Fan-out messages that may wait behind a full ring. At this depth the receiver is seconds behind, and its clients are
/// better served by dropping than by memory growing.
const SPILL_DROPPABLE_MAX: usize = 16_384;

/// Messages without which state would go wrong (interest, presence, sockets) may wait in far greater number; a receiver
/// this far behind has stopped.
const SPILL_MAX: usize = 1 << 20;

/// A message that knows whether it may be dropped under overload.
pub trait Mail {
    /// True when losing it costs one delivery and nothing else.
    fn is_droppable(&self) -> bool;
}

/// State shared by a receiver and all its senders.
#[derive(Debug, Default)]
struct Inbox {
    pending: AtomicBool,
    waker: AtomicWaker,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// In the ring.
    Delivered,
    /// In the queue behind the full ring.
    Spilled,
    /// Lost; the caller counts it.
    Dropped,
}

/// Sending end of one ordered pair.
#[derive(Debug)]
pub struct Sender<T> {
    ring: rtrb::Producer<T>,
    inbox: Arc<Inbox>,
    spill: VecDeque<T>,
}

impl<T: Mail> Sender<T> {
    /// Hands over a message.
    pub fn send(&mut self, message: T) -> Sent {
        if !self.spill.is_empty() {
            self.flush();
        }
        if self.spill.is_empty() {
            match self.ring.push(message) {
                Ok(()) => {
                    self.notify();
                    return Sent::Delivered;
                }
                Err(rtrb::PushError::Full(message)) => return self.spill(message),
            }
        }
        self.spill(message)
    }

    fn spill(&mut self, message: T) -> Sent {
        let bound = if message.is_droppable() { SPILL_DROPPABLE_MAX } else { SPILL_MAX };
        if self.spill.len() >= bound {
            return Sent::Dropped;
        }
        self.spill.push_back(message);
        Sent::Spilled
    }

    /// Moves spilled messages into the ring as far as it has room; true when none is left.
    pub fn flush(&mut self) -> bool {
        let before = self.spill.len();
        while let Some(message) = self.spill.pop_front() {
            if let Err(rtrb::PushError::Full(message)) = self.ring.push(message) {
                self.spill.push_front(message);
                break;
            }
        }
        if self.spill.len() != before {
            self.notify();
        }
        self.spill.is_empty()
    }

    fn notify(&self) {
        if !self.inbox.pending.swap(true, Ordering::AcqRel) {
            self.inbox.waker.wake();
        }
    }
}

/// Receiving end: the rings of all senders.
#[derive(Debug)]
pub struct Receiver<T> {
    rings: Vec<rtrb::Consumer<T>>,
    inbox: Arc<Inbox>,
}

impl<T> Receiver<T> {
    /// Whether anything arrived since the last drain.
    pub fn is_pending(&self) -> bool {
        self.inbox.pending.load(Ordering::Acquire)
    }

    /// Takes everything that is there now, ring by ring.
    pub fn drain(&mut self, mut handle: impl FnMut(T)) {
        // Reading what the last sender wrote makes its push visible here.
        self.inbox.pending.swap(false, Ordering::AcqRel);
        for ring in &mut self.rings {
            // What arrives meanwhile sets the flag again; taking a bounded number keeps rings fair.
            for _ in 0..ring.slots() {
                match ring.pop() {
                    Ok(message) => handle(message),
                    Err(rtrb::PopError::Empty) => break,
                }
            }
        }
    }

    /// A handle that resolves when something is pending.
    pub fn watch(&self) -> Watch {
        Watch { inbox: self.inbox.clone() }
    }
}

/// Waits for an inbox without borrowing it.
#[derive(Debug, Clone)]
pub struct Watch {
    inbox: Arc<Inbox>,
}

impl Watch {
    /// Whether something is pending now.
    pub fn is_pending(&self) -> bool {
        self.inbox.pending.load(Ordering::Acquire)
    }

    /// Resolves once the inbox is pending.
    pub async fn pending(&self) {
        std::future::poll_fn(|context: &mut Context<'_>| {
            if self.inbox.pending.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            self.inbox.waker.register(context.waker());
            if self.inbox.pending.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Builds the inboxes of `receivers` threads and, for each of `senders` threads, its sending ends in receiver order.
/// Every ring holds `entries` messages.
pub fn mesh<T>(senders: usize, receivers: usize, entries: usize) -> (Vec<Vec<Sender<T>>>, Vec<Receiver<T>>) {
    let mut ends: Vec<Vec<Sender<T>>> = (0..senders).map(|_| Vec::with_capacity(receivers)).collect();
    let inboxes = (0..receivers)
        .map(|_| {
            let inbox = Arc::new(Inbox::default());
            let rings = ends
                .iter_mut()
                .map(|row| {
                    let (producer, consumer) = rtrb::RingBuffer::new(entries);
                    row.push(Sender { ring: producer, inbox: inbox.clone(), spill: VecDeque::new() });
                    consumer
                })
                .collect();
            Receiver { rings, inbox }
        })
        .collect();
    (ends, inboxes)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Mail for u64 {
        fn is_droppable(&self) -> bool {
            true
        }
    }

    /// Wakes a parked thread, as an executor's waker does.
    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn block_on(future: impl Future<Output = ()>) {
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut future = std::pin::pin!(future);
        while future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            std::thread::park();
        }
    }

    #[test]
    fn order_survives_a_full_ring_and_excess_is_dropped() {
        let (mut ends, mut inboxes) = mesh::<u64>(1, 1, 4);
        let sender = &mut ends[0][0];
        let outcomes: Vec<Sent> = (0..(4 + SPILL_DROPPABLE_MAX as u64 + 1)).map(|n| sender.send(n)).collect();
        assert_eq!((outcomes[3], outcomes[4]), (Sent::Delivered, Sent::Spilled));
        assert_eq!(outcomes.last(), Some(&Sent::Dropped));
        let mut seen = Vec::new();
        while inboxes[0].is_pending() {
            inboxes[0].drain(|n| seen.push(n));
            sender.flush();
        }
        assert_eq!(seen, (0..4 + SPILL_DROPPABLE_MAX as u64).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        const COUNT: u64 = 200_000;
        let (ends, mut inboxes) = mesh::<u64>(2, 1, 64);
        let mut receiver = inboxes.remove(0);
        let producers: Vec<_> = ends
            .into_iter()
            .map(|mut row| {
                std::thread::spawn(move || {
                    for n in 0..COUNT {
                        while row[0].spill.len() > 1000 && !row[0].flush() {
                            std::thread::yield_now();
                        }
                        assert_ne!(row[0].send(n), Sent::Dropped);
                    }
                    while !row[0].flush() {
                        std::thread::yield_now();
                    }
                })
            })
            .collect();
        let mut sum = 0u64;
        block_on(async {
            let watch = receiver.watch();
            let mut received = 0;
            while received < 2 * COUNT {
                watch.pending().await;
                receiver.drain(|n| {
                    received += 1;
                    sum += n;
                });
            }
        });
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        assert_eq!(sum, COUNT * (COUNT - 1));
    }
}
