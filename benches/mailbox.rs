//! Mailboxes: handing a message to another thread.
//!
//! No design number is about more than one shard; this guards that P1 to P4 survive a second one. A broadcast to members
//! on another shard must cost its sender no more than a few deliveries (`send_and_drain`), and wake that shard well below
//! the latency of P3 and P4 (`ping_pong`). Messages are broadcasts as the shards exchange them.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use bytes::Bytes;
use core_affinity::CoreId;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use ringcast::mailbox::{Receiver, Sender, Sent, ToShard, mesh};
use ringcast::realtime::{Delivery, PeerMail, RoomId};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages per ring.
const ENTRIES: usize = 1024;

fn main() {
    divan::main();
}

fn broadcast(frame: &Bytes) -> ToShard {
    let mail = PeerMail::FanOut {
        room: RoomId::new(&[7; 32], "t1", false, "realtime:room1"),
        delivery: Delivery::Broadcast,
        v1: None,
        v2: Some(frame.clone()),
    };
    ToShard::Peer { from: 0, mail }
}

/// Sends and takes out in one thread: the cost of the structure without the other core. Items are messages.
#[divan::bench(args = [1, 32, 512])]
fn send_and_drain(bencher: Bencher, messages: usize) {
    let (mut ends, mut inboxes) = mesh::<ToShard>(1, 1, ENTRIES);
    let (sender, receiver) = (&mut ends[0][0], &mut inboxes[0]);
    let frame = Bytes::from(vec![b'x'; 200]);
    let mut round = || {
        for _ in 0..messages {
            assert_eq!(sender.send(broadcast(&frame)), Sent::Delivered);
        }
        let mut received = 0;
        receiver.drain(|mail| {
            black_box(&mail);
            received += 1;
        });
        received
    };
    assert_eq!(round(), messages);
    bencher.counter(ItemsCount::new(messages)).bench_local(round);
}

/// What every read of a socket pays when nothing has arrived.
#[divan::bench]
fn is_pending_when_empty(bencher: Bencher) {
    let (_ends, inboxes) = mesh::<ToShard>(1, 1, ENTRIES);
    bencher.bench_local(|| black_box(&inboxes[0]).is_pending());
}

/// Draining an inbox of 16 senders for the sake of one message.
#[divan::bench]
fn drain_one_of_16_rings(bencher: Bencher) {
    let (mut ends, mut inboxes) = mesh::<ToShard>(16, 1, ENTRIES);
    let frame = Bytes::from(vec![b'x'; 200]);
    bencher.bench_local(|| {
        assert_eq!(ends[7][0].send(broadcast(&frame)), Sent::Delivered);
        inboxes[0].drain(|mail| drop(black_box(mail)));
    });
}

/// How a thread waits for its mail.
type Wait = fn(&Receiver<ToShard>);

/// Polls, as a busy shard does.
fn spin(receiver: &Receiver<ToShard>) {
    let mut polls = 0u32;
    while !receiver.is_pending() {
        polls += 1;
        if polls.is_multiple_of(10_000) {
            // The other thread may need this core.
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Sleeps until woken through the inbox, as an idle shard does (a shard sleeps in its driver, a thread in a futex).
fn park(receiver: &Receiver<ToShard>) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let watch = receiver.watch();
    let mut pending = pin!(watch.pending());
    while pending.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Pending {
        std::thread::park();
    }
}

/// The cores of the process, read before any thread is kept on one of them: threads inherit that.
static CORES: LazyLock<Vec<CoreId>> = LazyLock::new(|| core_affinity::get_core_ids().unwrap_or_default());

/// Sends back what arrives until told to end.
fn echo(mut sender: Sender<ToShard>, mut receiver: Receiver<ToShard>, wait: Wait) {
    let mut ended = false;
    while !ended {
        wait(&receiver);
        receiver.drain(|mail| match mail {
            ToShard::Drain => ended = true,
            other => assert_eq!(sender.send(other), Sent::Delivered),
        });
    }
}

/// One message to another thread and back.
#[divan::bench(args = [("spinning", spin as Wait), ("parked", park as Wait)].map(|(name, wait)| Waiting { name, wait }))]
fn ping_pong(bencher: Bencher, waiting: &Waiting) {
    let wait = waiting.wait;
    let (mut ends, mut inboxes) = mesh::<ToShard>(2, 2, ENTRIES);
    let (to_us, to_them) = (ends[1].remove(0), ends[0].remove(1));
    let (their_inbox, mut inbox) = (inboxes.remove(1), inboxes.remove(0));
    let (mut to_them, frame) = (to_them, Bytes::from(vec![b'x'; 200]));
    // On cores of their own, as shards are: left alone, the scheduler may put both threads on one.
    let &[our_core, their_core, ..] = CORES.as_slice() else { panic!("a ping-pong between threads needs two cores") };
    assert!(core_affinity::set_for_current(our_core));
    let (report, pinned) = std::sync::mpsc::channel();
    let them = std::thread::spawn(move || {
        report.send(core_affinity::set_for_current(their_core)).expect("the other thread listens");
        echo(to_us, their_inbox, wait);
    });
    assert_eq!(pinned.recv(), Ok(true));
    bencher.bench_local(|| {
        assert_eq!(to_them.send(broadcast(&frame)), Sent::Delivered);
        let mut received = 0;
        while received == 0 {
            wait(&inbox);
            inbox.drain(|mail| {
                black_box(&mail);
                received += 1;
            });
        }
    });
    assert_eq!(to_them.send(ToShard::Drain), Sent::Delivered);
    them.join().expect("the other thread ends in order");
}

/// A way of waiting with its name.
struct Waiting {
    name: &'static str,
    wait: Wait,
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
