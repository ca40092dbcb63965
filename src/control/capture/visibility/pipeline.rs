//! Statements on their way without waiting for each other.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use futures_util::future::{MaybeDone, join_all, maybe_done};

/// Waits for all futures, polling them in this order at first: a client sends a statement at the first poll, so statements
/// are sent in this order, too. (`join_all` promises no order when there are many.)
pub async fn in_order<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<Pin<Box<MaybeDone<F>>>> = futures.into_iter().map(|future| Box::pin(maybe_done(future))).collect();
    poll_fn(|context| {
        for future in &mut futures {
            let _ = future.as_mut().poll(context);
        }
        Poll::Ready(())
    })
    .await;
    join_all(futures.iter_mut().map(Pin::as_mut)).await;
    futures.iter_mut().filter_map(|future| future.as_mut().take_output()).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn many_begin_in_order_and_answer_in_order() {
        let begun = RefCell::new(Vec::new());
        let answers = in_order((0..100).map(|n| {
            let begun = &begun;
            async move {
                begun.borrow_mut().push(n);
                for _ in 0..(n % 3) {
                    tokio::task::yield_now().await;
                }
                n
            }
        }));
        let numbers: Vec<i32> = (0..100).collect();
        assert_eq!(answers.await, numbers);
        assert_eq!(*begun.borrow(), numbers);
    }
}
