//! WebSocket framing, RFC 6455, server side (spec: protocol 1.7 and 15.1).
//!
//! Bytes in, events out, and the reverse; no socket and no clock. The shard's
//! connection calls [`Decoder::feed`] with what it has just read and writes what the
//! encoder functions return. Extensions and sub-protocols are never negotiated, so
//! the three reserved bits must always be zero.
//!
//! Invariants: an idle [`Decoder`] owns no heap memory; a payload that arrived whole
//! is handed out in place, without a copy; no client can make the decoder hold more
//! than one message of [`DecodeLimits::message_bytes_max`] plus one control frame.
//!
//! Every violation is a [`DecodeError`] that names its own close code.

mod decoder;
mod encoder;
mod event;
mod frame;
mod handshake;
mod mask;
#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::{close_frame, close_reply, encode_header, frame_header_len, pong_frame};
pub use event::{DecodeLimits, Event, Flow};
pub use frame::{DecodeError, Opcode};
pub use handshake::accept_key;
