//! Broadcasts that carry the time they were sent (or were due), and the way to read it back.
//!
//! A [`Template`] is a whole client frame built once per channel; staging a message copies it and writes sixteen
//! hexadecimal digits of `CLOCK_MONOTONIC` nanoseconds into it. The stamp sits at the end of the user payload, so
//! its distance from the end of a delivered frame is the same for all frames of a scenario: [`Reader`] learns it
//! once and afterwards checks one marker instead of searching.

use super::frame::{OPCODE_BINARY, OPCODE_TEXT, put_client_frame};
use super::push::Dialect;
use memchr::memmem;

const MARKER: &[u8] = br#""at":""#;
const DIGITS: usize = 16;
/// What the user payload weighs without padding: `{"pad":"","at":"0123456789abcdef"}`.
const PAYLOAD_BYTES_MIN: usize = 34;

/// A ready broadcast frame with a place for the stamp.
#[derive(Debug, Clone)]
pub struct Template {
    frame: Vec<u8>,
    stamp_at: usize,
}

/// Form in which broadcasts are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Text in the dialect of the connection.
    Text(Dialect),
    /// Binary kind 3 with JSON encoding (protocol 3.4), V2 only.
    Kind3,
}

impl Template {
    /// A broadcast on `topic` by the channel joined under `join_ref`, its user payload padded to `payload_bytes`.
    pub fn new(form: Form, join_ref: &str, topic: &str, payload_bytes: usize) -> Self {
        let padding = "x".repeat(payload_bytes.saturating_sub(PAYLOAD_BYTES_MIN));
        let user = format!(r#"{{"pad":"{padding}","at":"{}"}}"#, "0".repeat(DIGITS));
        let mut frame = Vec::new();
        match form {
            Form::Text(dialect) => {
                let payload = format!(r#"{{"type":"broadcast","event":"m","payload":{user}}}"#);
                let text = dialect.message(Some(join_ref), "9", topic, "broadcast", &payload);
                put_client_frame(OPCODE_TEXT, text.as_bytes(), &mut frame);
            }
            Form::Kind3 => {
                let mut message = vec![3, join_ref.len() as u8, 1, topic.len() as u8, 1, 0, 1];
                message.extend_from_slice(join_ref.as_bytes());
                message.push(b'9');
                message.extend_from_slice(topic.as_bytes());
                message.push(b'm');
                message.extend_from_slice(user.as_bytes());
                put_client_frame(OPCODE_BINARY, &message, &mut frame);
            }
        }
        let stamp_at = memmem::rfind(&frame, MARKER).expect("every template contains the marker") + MARKER.len();
        Self { frame, stamp_at }
    }

    /// Appends the frame stamped with `at_ns` to `out`.
    #[inline]
    pub fn stage(&self, at_ns: u64, out: &mut Vec<u8>) {
        let base = out.len();
        out.extend_from_slice(&self.frame);
        let digits = &mut out[base + self.stamp_at..][..DIGITS];
        for (index, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(at_ns >> (60 - 4 * index) & 0xf) as usize];
        }
    }
}

/// Reads stamps out of delivered messages.
#[derive(Debug, Clone, Default)]
pub struct Reader {
    from_end: usize,
}

impl Reader {
    /// The stamp of `message` in nanoseconds; `None` if it carries none.
    #[inline]
    pub fn read(&mut self, message: &[u8]) -> Option<u64> {
        let known = message.len().checked_sub(self.from_end).filter(|at| message[*at..].starts_with(MARKER));
        let at = match known {
            Some(at) => at,
            None => {
                let at = memmem::rfind(message, MARKER)?;
                self.from_end = message.len() - at;
                at
            }
        };
        let digits = message.get(at + MARKER.len()..at + MARKER.len() + DIGITS)?;
        digits.iter().try_fold(0u64, |value, digit| {
            let nibble = char::from(*digit).to_digit(16)?;
            Some(value << 4 | u64::from(nibble))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::parse_header;
    use super::*;

    fn staged(form: Form, bytes: usize, at: u64) -> Vec<u8> {
        let mut out = Vec::new();
        Template::new(form, "1", "realtime:a", bytes).stage(at, &mut out);
        let header = parse_header(&out).unwrap().unwrap();
        assert_eq!(header.head_bytes + header.payload_bytes, out.len());
        out.split_off(header.head_bytes)
    }

    #[test]
    fn stamps_survive_every_form() {
        let mut reader = Reader::default();
        for form in [Form::Text(Dialect::V2), Form::Text(Dialect::V1), Form::Kind3] {
            for at in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
                assert_eq!(reader.read(&staged(form, 64, at)), Some(at));
            }
        }
    }

    #[test]
    fn the_user_payload_has_the_wanted_size_and_is_json() {
        let text = staged(Form::Text(Dialect::V2), 100, 5);
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value[4]["payload"].to_string().len(), 100);
        assert_eq!(staged(Form::Kind3, 0, 5)[..7], [3, 1, 1, 10, 1, 0, 1]);
    }

    #[test]
    fn a_message_without_stamp_has_none() {
        let mut reader = Reader::default();
        assert_eq!(reader.read(b"[]"), None);
        assert_eq!(reader.read(br#"{"at":"zz"}"#), None);
        assert_eq!(reader.read(br#"{"at":"00000000000000zz"}"#), None);
    }
}
