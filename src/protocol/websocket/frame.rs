//! One client frame header: its parts and every rule that the header alone decides.
//!
//! Called by the decoder with however many header bytes have arrived. A rule is
//! applied as soon as the byte it looks at is there, and rules are applied in byte
//! order, so that the verdict never depends on how the stream was cut into reads.
//! In particular a length over the limit fails before any payload is taken in.

use std::fmt;

/// Two fixed bytes, up to eight of extended length, four of masking key.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// RFC 6455 section 5.5.
pub(super) const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// The frame types of RFC 6455; the value is the opcode on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message in progress.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The start or the answer of the closing handshake.
    Close = 0x8,
    /// To be answered with a pong.
    Ping = 0x9,
    /// The answer to a ping, or unsolicited.
    Pong = 0xa,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xa => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong: short, never fragmented, allowed between fragments.
    pub fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

/// Why a client's byte stream cannot be continued. The socket is closed with
/// [`DecodeError::close_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A framing rule was broken; the text names it for the log.
    Protocol(&'static str),
    /// A frame or a re-assembled message is larger than the limit.
    TooBig,
}

impl DecodeError {
    /// The close code of spec section 15.1: 1002 or 1009.
    pub fn close_code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::TooBig => 1009,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(rule) => write!(formatter, "websocket protocol error: {rule}"),
            Self::TooBig => formatter.write_str("websocket message too big"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// What the stream so far allows the next frame to be.
pub(super) struct Expectation {
    /// A fragmented message is open: only its continuation or a control frame may come.
    pub in_message: bool,
    /// Payload bytes the next data frame may still have before the message is too big.
    pub payload_bytes_max: usize,
}

/// A complete, valid header.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrameHeader {
    pub opcode: Opcode,
    pub fin: bool,
    pub key: [u8; 4],
    pub payload_bytes: usize,
    /// The size of this header itself.
    pub header_bytes: usize,
}

/// Reads the header at the start of `bytes`; `None` asks for more bytes.
pub(super) fn parse(bytes: &[u8], expected: &Expectation) -> Result<Option<FrameHeader>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let (opcode, fin) = check_first_byte(first, expected.in_message)?;
    let Some(&second) = bytes.get(1) else {
        return Ok(None);
    };
    if second & 0x80 == 0 {
        return Err(DecodeError::Protocol("client frame is not masked"));
    }
    let short_length = second & 0x7f;
    if opcode.is_control() && usize::from(short_length) > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(DecodeError::Protocol("control frame is too long"));
    }
    // A length in a longer form than needed is tolerated, as by the reference.
    let (declared_bytes, key_at) = match short_length {
        126 => match bytes.get(2..4) {
            Some(length) => (u64::from(u16::from_be_bytes([length[0], length[1]])), 4),
            None => return Ok(None),
        },
        127 => match bytes.get(2..).and_then(<[u8]>::first_chunk::<8>) {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        short => (u64::from(short), 2),
    };
    if declared_bytes >> 63 != 0 {
        return Err(DecodeError::Protocol("top bit of a 64-bit length is set"));
    }
    let payload_bytes = usize::try_from(declared_bytes).map_err(|_| DecodeError::TooBig)?;
    if !opcode.is_control() && payload_bytes > expected.payload_bytes_max {
        return Err(DecodeError::TooBig);
    }
    let Some(key) = bytes.get(key_at..).and_then(<[u8]>::first_chunk::<4>) else {
        return Ok(None);
    };
    Ok(Some(FrameHeader { opcode, fin, key: *key, payload_bytes, header_bytes: key_at + 4 }))
}

fn check_first_byte(first: u8, in_message: bool) -> Result<(Opcode, bool), DecodeError> {
    let fin = first & 0x80 != 0;
    if first & 0x70 != 0 {
        return Err(DecodeError::Protocol("reserved bit is set"));
    }
    let Some(opcode) = Opcode::from_bits(first & 0x0f) else {
        return Err(DecodeError::Protocol("unknown opcode"));
    };
    if opcode.is_control() {
        if !fin {
            return Err(DecodeError::Protocol("control frame is fragmented"));
        }
    } else if (opcode == Opcode::Continuation) != in_message {
        return Err(DecodeError::Protocol(if in_message {
            "new message inside a fragmented message"
        } else {
            "continuation without a message"
        }));
    }
    Ok((opcode, fin))
}
