//! The incremental decoder of client frames, on the hot path of every socket.
//!
//! The connection feeds each read and gets whole messages through a sink. A frame
//! that lies whole in the input is unmasked where it is and handed out as a slice of
//! the input: no copy, no allocation. Only what a read leaves unfinished (part of a
//! header, of a payload, of a fragmented message) goes into one boxed [`Pending`],
//! which is dropped when the stream is back at a message boundary.
//!
//! Memory grows with the bytes received, never with the length a header declares.
//! After an error, a close frame or [`Flow::Stop`] the decoder is finished and swallows
//! all further input. Text is not checked for UTF-8 (spec 1.7).

use super::event::{DecodeLimits, Event, Flow, deliver_control};
use super::frame::{DecodeError, Expectation, FrameHeader, HEADER_BYTES_MAX, Opcode, parse};
use super::mask::unmask;

/// The decoding state of one socket: 16 bytes, without heap memory between messages.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Pending(Box<Pending>),
    Finished,
}

/// What earlier reads left unfinished.
#[derive(Debug, Default)]
struct Pending {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    frame: Option<PartialFrame>,
    message: Option<PartialMessage>,
    control: Vec<u8>,
}

/// A frame whose header is complete and whose payload is not.
#[derive(Debug)]
struct PartialFrame {
    header: FrameHeader,
    received_bytes: usize,
}

/// The unmasked start of a data message.
#[derive(Debug)]
struct PartialMessage {
    is_text: bool,
    bytes: Vec<u8>,
}

/// Bytes used up by one step, and whether to take another.
type Step = Result<(usize, Flow), DecodeError>;

impl Decoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes `input`, the next bytes of the stream, and passes each message to `sink`.
    ///
    /// `input` is overwritten. Messages before a violation are still delivered.
    ///
    /// # Errors
    /// The first broken rule; the socket is to be closed with its code.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        limits: &DecodeLimits,
        mut sink: impl FnMut(Event<'_>) -> Flow,
    ) -> Result<(), DecodeError> {
        let mut pending = match std::mem::take(&mut self.state) {
            State::Idle => None,
            State::Pending(pending) => Some(pending),
            State::Finished => {
                self.state = State::Finished;
                return Ok(());
            }
        };
        let outcome = decode(&mut pending, input, limits, &mut sink);
        self.state = match (&outcome, pending) {
            (Ok(Flow::Stop) | Err(_), _) => State::Finished,
            (Ok(Flow::Continue), Some(pending)) if !pending.is_blank() => State::Pending(pending),
            (Ok(Flow::Continue), _) => State::Idle,
        };
        outcome.map(|_| ())
    }

    /// Whether the stream is at a message boundary and still open.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Heap memory held for unfinished input, in bytes.
    pub fn buffered_bytes(&self) -> usize {
        match &self.state {
            State::Idle | State::Finished => 0,
            State::Pending(pending) => {
                let message_bytes = pending.message.as_ref().map_or(0, |m| m.bytes.capacity());
                size_of::<Pending>() + pending.control.capacity() + message_bytes
            }
        }
    }
}

fn decode(
    pending: &mut Option<Box<Pending>>,
    mut input: &mut [u8],
    limits: &DecodeLimits,
    sink: &mut impl FnMut(Event<'_>) -> Flow,
) -> Result<Flow, DecodeError> {
    while !input.is_empty() {
        let (used_bytes, flow) = match pending {
            Some(unfinished) if unfinished.frame.is_some() => unfinished.continue_frame(input, limits, sink)?,
            Some(unfinished) if unfinished.header_bytes > 0 => unfinished.continue_header(input, limits, sink)?,
            _ => start_frame(pending, input, limits, sink)?,
        };
        if flow == Flow::Stop {
            return Ok(Flow::Stop);
        }
        input = &mut input[used_bytes..];
    }
    Ok(Flow::Continue)
}

/// Takes the frame at the start of `input`, at once if it is there as a whole.
fn start_frame(
    pending: &mut Option<Box<Pending>>,
    input: &mut [u8],
    limits: &DecodeLimits,
    sink: &mut impl FnMut(Event<'_>) -> Flow,
) -> Step {
    let expected = match pending {
        Some(unfinished) => unfinished.expectation(limits),
        None => Expectation { in_message: false, payload_bytes_max: limits.message_bytes_max },
    };
    let Some(header) = parse(input, &expected)? else {
        pending.get_or_insert_default().keep_header(input);
        return Ok((input.len(), Flow::Continue));
    };
    let frame_bytes = header.header_bytes + header.payload_bytes;
    let Some(payload) = input.get_mut(header.header_bytes..frame_bytes) else {
        pending.get_or_insert_default().frame = Some(PartialFrame { header, received_bytes: 0 });
        return Ok((header.header_bytes, Flow::Continue));
    };
    unmask(payload, header.key, 0);
    let flow = match header.opcode {
        opcode if opcode.is_control() => deliver_control(opcode, payload, sink)?,
        Opcode::Text if header.fin => sink(Event::Text(payload)),
        Opcode::Binary if header.fin => sink(Event::Binary(payload)),
        _ => {
            let unfinished = pending.get_or_insert_default();
            unfinished.append(&header, payload, 0, limits);
            unfinished.finish_data(header.fin, sink)
        }
    };
    Ok((frame_bytes, flow))
}

impl Pending {
    fn is_blank(&self) -> bool {
        self.header_bytes == 0 && self.frame.is_none() && self.message.is_none()
    }

    fn expectation(&self, limits: &DecodeLimits) -> Expectation {
        let message_bytes = self.message.as_ref().map_or(0, |m| m.bytes.len());
        Expectation {
            in_message: self.message.is_some(),
            payload_bytes_max: limits.message_bytes_max.saturating_sub(message_bytes),
        }
    }

    /// Keeps the start of a header; `bytes` is shorter than any complete one.
    fn keep_header(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() < HEADER_BYTES_MAX);
        self.header[..bytes.len()].copy_from_slice(bytes);
        self.header_bytes = bytes.len();
    }

    fn continue_header(&mut self, input: &mut [u8], limits: &DecodeLimits, sink: &mut impl FnMut(Event<'_>) -> Flow) -> Step {
        let kept_bytes = self.header_bytes;
        let taken_bytes = input.len().min(HEADER_BYTES_MAX - kept_bytes);
        let filled_bytes = kept_bytes + taken_bytes;
        self.header[kept_bytes..filled_bytes].copy_from_slice(&input[..taken_bytes]);
        let expected = self.expectation(limits);
        let Some(header) = parse(&self.header[..filled_bytes], &expected)? else {
            self.header_bytes = filled_bytes;
            return Ok((taken_bytes, Flow::Continue));
        };
        self.header_bytes = 0;
        self.frame = Some(PartialFrame { header, received_bytes: 0 });
        let used_bytes = header.header_bytes - kept_bytes;
        // An empty payload is complete now; there may be no further input to say so.
        let (payload_bytes, flow) = self.continue_frame(&mut input[used_bytes..], limits, sink)?;
        Ok((used_bytes + payload_bytes, flow))
    }

    fn continue_frame(&mut self, input: &mut [u8], limits: &DecodeLimits, sink: &mut impl FnMut(Event<'_>) -> Flow) -> Step {
        let Some(mut frame) = self.frame.take() else {
            return Ok((0, Flow::Continue));
        };
        let header = frame.header;
        let taken_bytes = input.len().min(header.payload_bytes - frame.received_bytes);
        let payload = &mut input[..taken_bytes];
        unmask(payload, header.key, frame.received_bytes);
        frame.received_bytes += taken_bytes;
        let missing_bytes = header.payload_bytes - frame.received_bytes;
        if header.opcode.is_control() {
            self.control.extend_from_slice(payload);
        } else {
            self.append(&header, payload, missing_bytes, limits);
        }
        if missing_bytes > 0 {
            self.frame = Some(frame);
            return Ok((taken_bytes, Flow::Continue));
        }
        let flow = if header.opcode.is_control() {
            let payload = std::mem::take(&mut self.control);
            deliver_control(header.opcode, &payload, sink)?
        } else {
            self.finish_data(header.fin, sink)
        };
        Ok((taken_bytes, flow))
    }

    /// Adds unmasked payload to the message in progress, or starts it.
    ///
    /// Capacity doubles, but never past what the message can still become: the end of
    /// its last frame once that is known, the limit before.
    fn append(&mut self, header: &FrameHeader, payload: &[u8], missing_bytes: usize, limits: &DecodeLimits) {
        let message =
            self.message.get_or_insert_with(|| PartialMessage { is_text: header.opcode == Opcode::Text, bytes: Vec::new() });
        let bytes = &mut message.bytes;
        let needed_bytes = bytes.len() + payload.len();
        debug_assert!(needed_bytes + missing_bytes <= limits.message_bytes_max);
        if needed_bytes > bytes.capacity() {
            let useful_bytes = if header.fin { needed_bytes + missing_bytes } else { limits.message_bytes_max };
            let capacity = (bytes.capacity() * 2).min(useful_bytes).max(needed_bytes);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(payload);
    }

    /// Delivers the message in progress if the frame just ended was its last.
    fn finish_data(&mut self, fin: bool, sink: &mut impl FnMut(Event<'_>) -> Flow) -> Flow {
        if !fin {
            return Flow::Continue;
        }
        match self.message.take() {
            None => Flow::Continue,
            Some(mut message) if message.is_text => sink(Event::Text(&mut message.bytes)),
            Some(mut message) => sink(Event::Binary(&mut message.bytes)),
        }
    }
}

const _: () = assert!(size_of::<Decoder>() <= 24, "every idle socket pays for this");
