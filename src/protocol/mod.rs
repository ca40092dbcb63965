//! Bytes ⇄ meaning, without I/O or clocks: HTTP heads, WebSocket frames, Phoenix messages, JWTs, `pgoutput`.

pub mod http1;
pub mod jwt;
pub mod pgoutput;
pub mod phoenix;
pub mod websocket;
