//! The wire formats that generator and floor share: WebSocket frames, the upgrade handshake, Phoenix pushes,
//! time stamps and numbers inside payloads, and HS256 tokens.
//!
//! Everything here is a pure function over bytes: no sockets, no clocks. Parsers return typed errors or `None`
//! and never panic on what the network sends.

pub mod frame;
pub mod handshake;
pub mod push;
pub mod row;
pub mod stamp;
pub mod token;
