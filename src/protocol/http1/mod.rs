//! HTTP/1.0 and HTTP/1.1 as a server, and what stands around a request: the PROXY
//! line before it, forwarded addresses and request ids in it (spec: http-api 1, 2, 4,
//! 11 and protocol 1.1–1.6).
//!
//! Pure functions from bytes to values and back. The shard's connection owns the
//! buffer and the deadline; it calls [`parse_head`] again whenever more bytes have come.
//!
//! Invariants: no input can panic; every parser that may ask for more bytes has a
//! bound after which it fails instead; a request whose length two readers could
//! understand differently is refused, so nothing can be smuggled past a front proxy.
//!
//! Every failure is a typed error that knows its status code.

mod body;
mod error;
mod forwarded;
mod framing;
mod head;
mod parse;
mod proxy;
mod request_id;
mod response;
mod target;
mod upgrade;

pub use body::{BODY_BYTES_MAX, BodyReader};
pub use error::{BodyError, HeadError};
pub use forwarded::{Cidr, CidrError, client_addr};
pub use framing::BodyKind;
pub use head::{Head, HeadLimits};
pub use parse::parse_head;
pub use proxy::{ProxyError, ProxyInfo, parse_proxy};
pub use request_id::select_request_id;
pub use response::{CONTINUE, Response, reason_phrase, switching_protocols};
pub use target::{path_segments, query_param};
pub use upgrade::websocket_key;
