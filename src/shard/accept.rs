//! The listener of a shard: accepts, within the process-wide connection limit, and starts an HTTP task per connection.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use monoio::net::{TcpListener, TcpStream};

use super::{Shard, http};
use crate::mailbox::Permit;

/// How often a listener at the connection limit, or without descriptors, looks again.
const RETRY: Duration = Duration::from_millis(20);

/// Accepts until the shard drains. Further connections wait in the kernel's queue while the limit is reached.
pub(super) async fn accept_loop(shard: Rc<Shard>, listener: TcpListener, open: Arc<AtomicU64>) {
    let connections_max = shard.settings.config.max_connections;
    loop {
        // Only a shard that has somebody to accept takes a place.
        if let Err(error) = listener.readable(false).await {
            tracing::error!("waiting for connections failed: {error}");
            monoio::time::sleep(RETRY).await;
            continue;
        }
        let permit = loop {
            match Permit::take(&open, connections_max) {
                Some(permit) => break permit,
                None => monoio::time::sleep(RETRY).await,
            }
        };
        match listener.accept().await {
            Ok((stream, client)) => {
                prepare(&stream);
                shard.state.borrow().io.counters.connections_accepted.increment();
                http::spawn(&shard, http::Incoming { stream, client, received: Vec::new(), permit, placed: false });
            }
            Err(error) => {
                tracing::error!("accepting a connection failed: {error}");
                monoio::time::sleep(RETRY).await;
            }
        }
    }
}

fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("TCP_NODELAY could not be set: {error}");
    }
}
