//! Capture: what is written to a tenant's database, on its way to the shards (section 11).
//!
//! One walsender connection per tenant streams the rows of `realtime.messages` through a permanent slot that only this
//! tenant uses. Being the slot's one active reader is the lease: another node that wants it waits until it is free, and goes
//! on where a crashed one stopped. Positions are acknowledged after their rows were handed to a shard, so a lost connection
//! loses nothing the slot still holds. Whoever stops using the database drops the slot, because an orphaned one would hold
//! back the database's log for good; the journal remembers slots that could not be dropped.
//!
//! | file | concept |
//! |---|---|
//! | `stream` | one connection: events, acknowledgements, watchdog |
//! | `slot`, `journal` | the slot: opened or taken over, looked at, dropped; and where one may be left |
//! | `rows` | from a row of `realtime.messages` to a message |
//! | `changes` | rows of all other tables: who subscribed, matching, visibility, delivery |
//! | `catalog`, `values`, `filters`, `subscribing`, `visibility` | what that needs of the database and its types |
//! | `walsender` | the replication protocol |

mod catalog;
pub mod changes;
mod error;
mod filters;
mod journal;
mod rows;
mod slot;
mod stream;
mod subscribing;
mod values;
mod visibility;
mod walsender;

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::database::backoff::Backoff;
use super::database::settings::DatabaseSettings;
use super::database::{Live, TenantDatabase, random};
use super::plane::Plane;
use crate::telemetry::Code;
use error::StreamError;
pub use journal::SlotJournal;
use stream::Progress;

/// Pauses between attempts to stream (3.4).
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// Pause before the first attempt after a stream that worked: the old session is gone by then.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Pause while another node streams: how long a takeover takes.
const LEASE_PAUSE: Duration = Duration::from_secs(5);

/// Failures in a row after which subscribers of row changes are told: the first is usually over before anybody notices.
const FAILURES_TOLD: u32 = 2;

/// After this long without a stream the whole database has to be started over (3.4).
const RECOVERY_MAX: Duration = Duration::from_secs(2 * 60 * 60);

/// Streams until the database is told to end, then drops the slot. Returns earlier only when streaming failed for two hours.
pub async fn run(plane: &Rc<Plane>, database: &Rc<TenantDatabase>, live: &Rc<Live>) {
    let slot = slot_name(plane, database.external_id(), &live.settings);
    let mut progress = Progress::default();
    let mut backoff = Backoff::new(RETRY_PAUSES.0, RETRY_PAUSES.1);
    let mut down_since = Instant::now();
    let mut other_node_noted = false;
    let mut failures = 0;
    while !database.is_stopped() {
        let outcome = stream::serve(plane, database, live, &slot, &mut progress).await;
        let was_up = database.shared().stream_ready.load(std::sync::atomic::Ordering::Acquire);
        if matches!(outcome, Err(StreamError::Reopen)) {
            // Goes on at once, where it was.
            continue;
        }
        database.set_stream_ready(false);
        let Err(error) = outcome else { break };
        failures = if was_up { 1 } else { failures + 1 };
        if failures == FAILURES_TOLD {
            plane.changes_of(database.external_id()).stream_lost(plane);
        }
        if was_up {
            backoff.reset();
            down_since = Instant::now();
        }
        let pause = match &error {
            StreamError::HeldByOther => {
                if !std::mem::replace(&mut other_node_noted, true) {
                    tracing::info!(external_id = %database.external_id(), "another node streams the tenant's database: waiting for its slot {slot}");
                }
                // The slot is the other node's now, with all that is behind and before us.
                progress = Progress::default();
                plane.slots.strike_off(database.external_id());
                down_since = Instant::now();
                LEASE_PAUSE
            }
            _ => {
                other_node_noted = false;
                error.log(database.external_id(), was_up);
                if was_up { FIRST_RETRY_PAUSE } else { backoff.next(random()) }
            }
        };
        if down_since.elapsed() >= RECOVERY_MAX {
            Code::ReplicationRecoveryWindowExceeded.log(database.external_id(), error);
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = database.stopped() => {}
        }
    }
    if progress.owns_slot && slot::drop(&live.settings, &slot).await {
        plane.slots.strike_off(database.external_id());
    }
}

/// Drops a slot that was left behind by a tenant whose database is not in use.
pub async fn clear_up(plane: &Plane, external_id: &str, settings: &DatabaseSettings) {
    if slot::drop(settings, &slot_name(plane, external_id, settings)).await {
        plane.slots.strike_off(external_id);
    }
}

/// A name that no other tenant, database or deployment has in the same cluster, at most 63 bytes of `[a-z0-9_]`.
fn slot_name(plane: &Plane, external_id: &str, settings: &DatabaseSettings) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(external_id.as_bytes());
    context.update(b"\0");
    context.update(settings.name.as_bytes());
    let digest = context.finish();
    let hash: String = digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    match &plane.config.tenant_database.slot_name_suffix {
        Some(suffix) => format!("ringcast_{hash}_{suffix}"),
        None => format!("ringcast_{hash}"),
    }
}
