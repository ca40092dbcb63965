//! Payloads of rows that reach subscribers through the database: when the row was sent and which number it has.
//!
//! `jsonb` reorders keys by length and inserts spaces, and `realtime.send` adds an `id` (database specification 11.3).
//! The mark therefore is one string of fixed width under the longest key: it comes last, at the same distance from the
//! end of every delivery of a run, where [`MarkReader`] finds it without searching. Reading never panics.

use memchr::memmem;

const KEY: &[u8] = br#""mark":"#;
/// Sixteen hexadecimal digits of the stamp and as many of the number.
const MARK_BYTES: usize = 32;
/// What the payload weighs without padding: `{"pad":"","mark":"…"}`.
const PAYLOAD_BYTES_MIN: usize = 20 + MARK_BYTES;

/// What a row says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Monotonic nanoseconds of the instant before the statement was sent.
    pub stamp_ns: u64,
    /// Running number of the row, from 0.
    pub number: u64,
}

/// The JSON payload of a row with `mark`, padded to `payload_bytes`.
pub fn payload(mark: Mark, payload_bytes: usize) -> String {
    let padding = "x".repeat(payload_bytes.saturating_sub(PAYLOAD_BYTES_MIN));
    format!(r#"{{"pad":"{padding}","mark":"{:016x}{:016x}"}}"#, mark.stamp_ns, mark.number)
}

/// Reads marks out of delivered messages.
#[derive(Debug, Clone, Default)]
pub struct MarkReader {
    from_end: usize,
}

impl MarkReader {
    /// The mark of `message`; `None` if it carries none.
    #[inline]
    pub fn read(&mut self, message: &[u8]) -> Option<Mark> {
        let known = message.len().checked_sub(self.from_end).filter(|at| message[*at..].starts_with(KEY));
        let at = match known {
            Some(at) => at,
            None => {
                let at = memmem::rfind(message, KEY)?;
                self.from_end = message.len() - at;
                at
            }
        };
        let value = message[at + KEY.len()..].trim_ascii_start();
        let digits = std::str::from_utf8(value.strip_prefix(b"\"")?.get(..MARK_BYTES)?).ok()?;
        let (stamp, number) = digits.split_at_checked(MARK_BYTES / 2)?;
        Some(Mark { stamp_ns: u64::from_str_radix(stamp, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_the_spaces_of_jsonb() {
        let mut reader = MarkReader::default();
        for mark in [Mark { stamp_ns: 0, number: u64::MAX }, Mark { stamp_ns: 0x0123_4567_89ab_cdef, number: 7 }] {
            let plain = payload(mark, 64);
            let spaced = plain.replace(':', ": ").replace(',', ", ");
            assert_eq!(reader.read(plain.as_bytes()), Some(mark));
            assert_eq!(reader.read(format!("[null,null,{spaced}]").as_bytes()), Some(mark));
        }
    }

    #[test]
    fn the_payload_has_the_wanted_size_and_is_json() {
        let mark = Mark { stamp_ns: 1, number: 2 };
        for bytes in [PAYLOAD_BYTES_MIN, 64, 1000] {
            let text = payload(mark, bytes);
            assert_eq!(text.len(), bytes);
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
        assert_eq!(payload(mark, 0).len(), PAYLOAD_BYTES_MIN);
    }

    #[test]
    fn what_carries_no_mark_has_none() {
        let mut reader = MarkReader::default();
        for text in ["", "[]", r#"{"mark":"12"}"#, r#"{"mark":7}"#, r#"{"mark":"#] {
            assert_eq!(reader.read(text.as_bytes()), None, "{text}");
        }
        let broken = payload(Mark { stamp_ns: 1, number: 2 }, 64).replace("0002", "00é");
        assert_eq!(reader.read(broken.as_bytes()), None);
    }
}
