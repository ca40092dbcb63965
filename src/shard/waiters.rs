//! Requests to the control thread that wait for their answer, by number.

use std::cell::RefCell;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hashbrown::HashMap;

use crate::mailbox::Reply;

/// The control plane answers within this time or the request fails: its own work is bounded well below.
const REPLY_DEADLINE: Duration = Duration::from_secs(20);

/// Pending requests of a shard.
#[derive(Debug, Default)]
pub struct Waiters {
    inner: RefCell<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    pending: HashMap<u64, (Option<Waker>, Option<Reply>)>,
}

impl Waiters {
    /// Registers a request and returns its number.
    pub fn register(&self) -> u64 {
        let mut inner = self.inner.borrow_mut();
        inner.next += 1;
        let number = inner.next;
        inner.pending.insert(number, (None, None));
        number
    }

    /// An answer arrived; late ones are dropped.
    pub fn resolve(&self, request: u64, reply: Reply) {
        if let Some((waker, slot)) = self.inner.borrow_mut().pending.get_mut(&request) {
            *slot = Some(reply);
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    /// Waits for the answer; `None` at the deadline.
    pub async fn wait(&self, request: u64) -> Option<Reply> {
        let answered = std::future::poll_fn(|context: &mut Context<'_>| {
            let mut inner = self.inner.borrow_mut();
            let Some((waker, slot)) = inner.pending.get_mut(&request) else { return Poll::Ready(None) };
            match slot.take() {
                Some(reply) => Poll::Ready(Some(reply)),
                None => {
                    *waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        let reply = monoio::time::timeout(REPLY_DEADLINE, answered).await.ok().flatten();
        self.inner.borrow_mut().pending.remove(&request);
        reply
    }
}
