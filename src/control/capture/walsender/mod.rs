//! A replication connection to one tenant database (spec: database 11.1, 11.2 and 3.4).
//!
//! `capture` dials, does TLS, and hands the byte stream to [`Walsender::login`]. On the
//! [`Walsender`] it prepares publication and slot, then [`Walsender::start_logical`] turns
//! the connection into a [`Streaming`] of events until either side ends it. What the events
//! contain is decoded by `protocol::pgoutput`.
//!
//! Invariants: a payload is a slice of the buffer it was read into, never a copy; no message
//! makes the buffer grow faster than its bytes arrive, nor beyond a bound; a position once
//! acknowledged is never taken back. Setup commands and writes have deadlines of their own.
//! Waiting for events has none, because an idle database is silent: [`Streaming::next`] can
//! be dropped at any time, so the caller sets the bound.
//!
//! Failures are [`WalsenderError`]. What the server itself said, at whatever moment, comes
//! out as [`WalsenderError::Server`] with its SQLSTATE, even if the connection broke first.

mod command;
mod error;
mod login;
mod publication;
mod slot;
mod sql;
mod streaming;
#[cfg(test)]
mod tests;
mod wire;

pub use command::Walsender;
pub use error::{SqlState, WalsenderError};
pub use login::Login;
pub use publication::{MESSAGES_PUBLICATION, PublicationState};
pub use slot::SlotState;
pub use sql::publication_names;
pub use streaming::{Event, Streaming};
