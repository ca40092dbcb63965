//! What the decoder tells its caller, and what the caller answers.
//!
//! The connection matches on [`Event`] inside the sink it passes to `Decoder::feed`.
//! The payload of a control frame is interpreted here, once it is complete; that is also
//! where the rules about close frames live. Data messages need no interpretation.

use super::frame::{CONTROL_PAYLOAD_BYTES_MAX, DecodeError, Opcode};

/// Bounds on what a client may send (spec 1.7).
#[derive(Debug, Clone, Copy)]
pub struct DecodeLimits {
    /// The payload of one frame, and of one re-assembled message, in bytes.
    pub message_bytes_max: usize,
}

/// One decoded message or control frame. The slices live until the sink returns.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message, not checked for UTF-8; mutable for in-place parsers.
    Text(&'a mut [u8]),
    /// A whole binary message.
    Binary(&'a mut [u8]),
    /// To be answered with `pong_frame` of the same data.
    Ping(&'a [u8]),
    /// No action needed beyond counting as activity.
    Pong(&'a [u8]),
    /// The client closes; to be answered with `close_reply`. Always the last event.
    Close {
        /// The client's code, already checked to be one that may be sent.
        code: Option<u16>,
        /// The client's reason, not checked for UTF-8.
        reason: &'a [u8],
    },
}

/// What the sink wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the rest of the input.
    Continue,
    /// The socket is being closed: drop the rest and all later input.
    Stop,
}

/// Checks and reports a complete control frame; a close frame ends the stream.
pub(super) fn deliver_control(
    opcode: Opcode,
    payload: &[u8],
    sink: &mut impl FnMut(Event<'_>) -> Flow,
) -> Result<Flow, DecodeError> {
    debug_assert!(payload.len() <= CONTROL_PAYLOAD_BYTES_MAX);
    match opcode {
        Opcode::Ping => Ok(sink(Event::Ping(payload))),
        Opcode::Pong => Ok(sink(Event::Pong(payload))),
        _ => {
            let (code, reason) = match payload {
                [] => (None, payload),
                [_] => return Err(DecodeError::Protocol("close payload of one byte")),
                [high, low, reason @ ..] => (Some(u16::from_be_bytes([*high, *low])), reason),
            };
            if code.is_some_and(|code| !is_close_code_valid(code)) {
                return Err(DecodeError::Protocol("close code may not be sent"));
            }
            sink(Event::Close { code, reason });
            Ok(Flow::Stop)
        }
    }
}

/// Whether a client may send `code` in a close frame (RFC 6455 section 7.4).
fn is_close_code_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
