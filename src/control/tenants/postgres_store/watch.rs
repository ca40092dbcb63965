//! Listens for changes of tenants, its own and others', and hands them to one receiver.
//!
//! Started by [`PostgresStore::watch`](super::PostgresStore::watch); runs until the receiver is dropped. Losing the connection is
//! normal: it is made again with growing pauses, and every new one begins with [`StoreChange::Unknown`], because what
//! happened meanwhile cannot be known. So does a receiver that is too slow. Nothing is ever lost silently but what the triggers
//! cannot see, which the cache time covers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_postgres::{AsyncMessage, Client, Error};

use super::connection::{Dialer, RawConnection, STATEMENT_TIMEOUT, reason};
use super::notices::CHANNEL;

/// Changes that may wait for the receiver. A burst of the management API fits; more collapse into one
/// [`StoreChange::Unknown`], which is also cheaper to act upon.
const CHANGES_MAX: usize = 256;

/// Pause before the first new attempt, and the longest one.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Longest time from dialling to listening: two addresses, set-up, one statement.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(STATEMENT_TIMEOUT.as_secs() * 2);

/// What has changed in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreChange {
    /// The tenant with this external id was made, changed or deleted, perhaps by this process.
    Tenant(String),
    /// Anything: everything cached may be stale.
    Unknown,
}

/// Starts a listener.
pub(super) fn start(dialer: Arc<Dialer>) -> Receiver<StoreChange> {
    let (sender, receiver) = mpsc::channel(CHANGES_MAX);
    tokio::spawn(async move {
        tokio::select! {
            () = sender.closed() => {}
            () = listen_on(&dialer, &sender) => {}
        }
    });
    receiver
}

/// Listens over one connection after the other; never returns.
async fn listen_on(dialer: &Dialer, sender: &Sender<StoreChange>) {
    let mut pause = PAUSE_MIN;
    let mut is_told = false;
    loop {
        let lost = match tokio::time::timeout(LISTEN_TIMEOUT, connect(dialer)).await {
            Ok(Ok((client, messages))) => {
                if is_told {
                    tracing::info!("changes of tenants are noticed at once again");
                }
                (pause, is_told) = (PAUSE_MIN, false);
                let lost = forward(messages, sender).await;
                drop(client);
                lost
            }
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if !is_told {
            let reason = lost.as_ref().map_or_else(|| "no answer".to_owned(), reason);
            tracing::warn!("changes of tenants are noticed late until the tenant database is back: {reason}");
            is_told = true;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// What a connection without a driver says.
type Messages = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<AsyncMessage, Error>> + Send>>;

/// A connection that listens. The client must be kept: the connection ends with it.
async fn connect(dialer: &Dialer) -> Result<(Client, Messages), Error> {
    let (client, mut connection): (Client, RawConnection) = dialer.dial_raw().await?;
    let mut messages: Messages = Box::pin(poll_fn(move |context| connection.poll_message(context)));
    let mut listen = Box::pin(async {
        for statement in dialer.setup() {
            client.batch_execute(statement).await?;
        }
        client.batch_execute(&format!("listen {CHANNEL}")).await
    });
    loop {
        tokio::select! {
            outcome = &mut listen => {
                outcome?;
                break;
            }
            // Notices during set-up are for nobody; a closed connection fails the statement.
            Some(message) = messages.next() => { message?; }
        }
    }
    drop(listen);
    Ok((client, messages))
}

/// Forwards notices until the connection ends and gives its error, if it had one.
async fn forward(mut messages: Messages, sender: &Sender<StoreChange>) -> Option<Error> {
    let mut is_unknown_due = true;
    loop {
        let message = tokio::select! {
            permit = sender.reserve(), if is_unknown_due => {
                // An error means that nobody listens any more; the caller's select notices.
                permit.ok()?.send(StoreChange::Unknown);
                is_unknown_due = false;
                continue;
            }
            message = messages.next() => message,
        };
        let notice = match message {
            Some(Ok(AsyncMessage::Notification(notice))) => notice,
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Some(error),
            None => return None,
        };
        // What is yet to be announced as unknown includes this one.
        if notice.payload().is_empty() {
            is_unknown_due = true;
        } else if !is_unknown_due {
            let sent = sender.try_send(StoreChange::Tenant(notice.payload().to_owned()));
            is_unknown_due = matches!(sent, Err(TrySendError::Full(_)));
        }
    }
}
