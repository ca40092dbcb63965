//! The floor: what io_uring, WebSocket framing and topic fan-out cost on this machine with nothing else.
//!
//! One thread, one ring. It speaks just enough of the Phoenix arrays that the generator can run the same scenarios
//! against it as against a gateway: join, broadcast, heartbeat. No authentication, no validation, no limits, no
//! clean errors; a yardstick, not a server.

mod buffers;
mod connection;
mod rooms;
mod server;
mod sessions;

pub use server::Server;

/// What the server does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// WebSocket with topics.
    WebSocket,
    /// Sends back what it gets.
    TcpEcho,
}
