//! The generator's side of many connections: one thread, one epoll, one read buffer.
//!
//! [`Fleet`] owns the sockets and runs connect, upgrade, join and reading; a scenario implements [`Listener`] and
//! decides what to send. Errors a scenario cannot go on after are [`LoadError`]s.

mod endpoint;
mod error;
mod fleet;
mod poller;
mod seat;

pub use endpoint::{Credentials, Endpoint};
pub use error::LoadError;
pub use fleet::{Fleet, Listener};
pub use poller::{Interest, Poller};
pub use seat::{Reading, Seat};
