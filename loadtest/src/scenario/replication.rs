//! Waiting until the server streams rows from the tenant's database.
//!
//! Asked for by a channel with `replication_ready` (protocol 7.4), which the server answers with a `system` message. The
//! same join wakes the tenant's database connection, so what follows measures a server that is awake.

use super::Context;
use crate::client::{Fleet, Listener, LoadError, Seat};
use crate::database::TOPIC_PREFIX;
use crate::machine::monotonic_ns;
use crate::wire::push::{Channel, Kind};
use memchr::memmem;

/// The server itself gives up after 60 s.
const READY_WAIT_NS_MAX: u64 = 65_000_000_000;
/// Message of the `system` event.
const READY: &[u8] = b"Replication connection established";

#[derive(Debug, Default)]
struct Readiness {
    told: bool,
}

impl Listener for Readiness {
    /// V1 has nothing that tells a direct push from a fan-out message.
    fn on_delivery(&mut self, _seat: usize, message: &[u8], _answer: &mut Vec<u8>) {
        self.told |= memmem::find(message, READY).is_some();
    }

    fn on_control(&mut self, _seat: usize, kind: Kind, message: &[u8], _answer: &mut Vec<u8>) -> bool {
        let ready = kind == Kind::Other && memmem::find(message, READY).is_some();
        self.told |= ready;
        ready
    }
}

/// Joins a private channel and waits for the message.
///
/// # Errors
/// When the join is refused, the server says that there is no stream, or nothing comes for 65 s.
pub(super) fn await_replication(context: &Context) -> Result<(), LoadError> {
    let channel = Channel::named(format_args!("{TOPIC_PREFIX}ready"));
    let channel = Channel { private: true, replication_ready: true, ..channel };
    let mut readiness = Readiness::default();
    let seats = [Seat { channels: vec![channel], ..Seat::default() }];
    let mut fleet: Fleet = context.open(&seats, &mut readiness)?;
    let end = monotonic_ns() + READY_WAIT_NS_MAX;
    while !readiness.told {
        context.progress.tell(|| "waiting for the replication stream".to_owned());
        if monotonic_ns() > end {
            return Err(LoadError::Stalled("no replication stream for 65 s (replication_ready)".to_owned()));
        }
        fleet.poll(context.wait_ns(u64::MAX), &mut readiness)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::push::Dialect;

    #[test]
    fn only_the_message_itself_means_ready() {
        let mut readiness = Readiness::default();
        let mut hears = |kind, text: &str| readiness.on_control(0, kind, text.as_bytes(), &mut Vec::new());
        assert!(!hears(Kind::Other, r#"["1",null,"realtime:load:ready","presence_state",{}]"#));
        assert!(!hears(Kind::Ended, r#"["1",null,"t","system",{"status":"error","message":"Replication connection was not"}]"#));
        assert!(hears(Kind::Other, r#"["1",null,"t","system",{"status":"ok","message":"Replication connection established"}]"#));
        assert!(readiness.told);
    }

    #[test]
    fn the_message_is_understood_in_both_dialects() {
        let payload =
            r#"{"extension":"system","status":"ok","message":"Replication connection established","channel":"load:ready"}"#;
        for dialect in [Dialect::V1, Dialect::V2] {
            let text = dialect.message(Some("1"), "1", "realtime:load:ready", "system", payload);
            let mut readiness = Readiness::default();
            match dialect.classify(text.as_bytes()) {
                Kind::Delivery => readiness.on_delivery(0, text.as_bytes(), &mut Vec::new()),
                kind => assert!(readiness.on_control(0, kind, text.as_bytes(), &mut Vec::new())),
            }
            assert!(readiness.told, "{dialect:?}");
        }
    }
}
