//! DATA PLANE: one shard per core, the only user of monoio.
//!
//! A [`Shard`] owns its sockets, its hub (the product rules), its timers and its ends of the mailboxes. Everything runs on
//! one thread; the state is borrowed only between awaits. Reading: a task per socket waits for readability, drains the
//! mailbox, reads into the shard's one buffer and handles every message in it. Writing: effects only queue; at the end of
//! the loop turn the flush task sends every dirty outbox in one write each.
//!
//! | file | concept |
//! |---|---|
//! | `run` | the thread: driver, tasks, ticks, drain |
//! | `io` | sockets, outboxes and the effects of the core |
//! | `accept`, `http`, `upgrade`, `api` | from the listener to an owned WebSocket or an answered request |
//! | `connection` | the life of one WebSocket |
//! | `outbox`, `wheel`, `placement`, `waiters` | the structures they use |

mod accept;
mod api;
mod connection;
mod http;
mod io;
pub mod outbox;
pub mod placement;
mod run;
mod upgrade;
mod waiters;
pub mod wheel;

pub use run::{DriverKind, ShardPlan, run, uring_refusal};

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::clock;
use crate::config::Config;
use crate::mailbox::{Receiver, Sender, ToControl, ToShard};
use crate::protocol::http1::{Cidr, HeadLimits};
use crate::protocol::websocket::DecodeLimits;
use crate::realtime::{Hub, Now};
use io::Io;
use waiters::Waiters;

/// Largest frame and largest re-assembled message (protocol 1.7).
pub const MESSAGE_BYTES_MAX: usize = 5_000_000;

/// Bytes read from a socket at once; one buffer per shard, since a read is handled before the next one starts.
const READ_BYTES_MAX: usize = 128 * 1024;

/// Settings of a shard that do not change while it runs.
pub struct Settings {
    /// Number of this shard.
    pub shard: u16,
    /// Number of shards.
    pub shards: u16,
    /// The whole configuration.
    pub config: Arc<Config>,
    head_limits: HeadLimits,
    decode_limits: DecodeLimits,
    trusted_proxies: Vec<Cidr>,
}

/// Everything that is borrowed together.
struct State {
    hub: Hub,
    io: Io,
    inbox: Receiver<ToShard>,
    read_buffer: Vec<u8>,
}

/// One shard.
pub struct Shard {
    settings: Settings,
    state: RefCell<State>,
    control: Rc<RefCell<Sender<ToControl>>>,
    waiters: Waiters,
    /// Set once draining.
    drain: RefCell<Option<run::Drain>>,
}

/// The time as the core wants it.
fn now() -> Now {
    Now { mono_ms: clock::now().0, unix_ms: clock::unix_millis() }
}

impl Shard {
    /// Takes everything out of the mailbox. Called before reading a socket, so that what happened before is known.
    fn drain_mail(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        if !state.inbox.is_pending() {
            return;
        }
        let State { hub, io, inbox, .. } = &mut *state;
        let now = now();
        let mut handoffs = Vec::new();
        let mut drain = false;
        inbox.drain(|mail| match mail {
            ToShard::Peer { from, mail } => hub.peer(from, mail, now, io),
            ToShard::Handoff(handoff) => handoffs.push(handoff),
            ToShard::Answer(answer) => hub.answered(answer, now, io),
            ToShard::Notice { channel, serial, status, message } => hub.notice(channel, serial, status, &message, io),
            ToShard::Changes { changes, frames, in_flight } => {
                changes.iter().for_each(|change| hub.deliver_change(change, io));
                in_flight.fetch_sub(frames, Ordering::AcqRel);
            }
            ToShard::Stored { shared, messages } => {
                for message in &messages {
                    hub.publish_stored(&shared, message, now, io);
                }
                shared.stored_in_flight.fetch_sub(1, Ordering::AcqRel);
            }
            ToShard::Tenant(news) => {
                match &news.config {
                    Some(config) => {
                        hub.set_tenant(config.clone(), news.shared.clone());
                    }
                    None => hub.remove_tenant(&news.external_id),
                }
                if news.disconnect {
                    hub.disconnect_tenant(&news.external_id, now, io);
                }
            }
            ToShard::Reply { request, reply } => self.waiters.resolve(request, reply),
            ToShard::Drain => drain = true,
        });
        drop(state);
        for handoff in handoffs {
            http::adopt(self, *handoff);
        }
        if drain {
            run::start_draining(self);
        }
    }
}
