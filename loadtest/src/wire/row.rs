//! Rows that reach subscribers through the database: when the row was sent and which number it has.
//!
//! The mark is text of fixed width. In the payload of `realtime.send` it is a string of its own: `jsonb` reorders keys by
//! length and inserts spaces, and an `id` is added (database specification 11.3), so it goes under the longest key and
//! comes last. In a changed row it is a part of a column of text. Either way it has nearly the same distance from the
//! end in every delivery of a run, where [`MarkReader`] finds it without searching. Reading never panics.

use memchr::memmem;

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

/// Where a row carries its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a JSON payload.
    Payload,
    /// In a column of text.
    Note,
}

impl Place {
    fn key(self) -> &'static [u8] {
        match self {
            Self::Payload => br#""mark":"#,
            Self::Note => b"mark=",
        }
    }

    /// What a row with `mark` carries here, padded to `bytes`.
    pub fn text(self, mark: Mark, bytes: usize) -> String {
        let digits = format!("{:016x}{:016x}", mark.stamp_ns, mark.number);
        let padding = |bytes_min: usize| "x".repeat(bytes.saturating_sub(bytes_min));
        match self {
            Self::Payload => format!(r#"{{"pad":"{}","mark":"{digits}"}}"#, padding(PAYLOAD_BYTES_MIN)),
            Self::Note => format!("{}mark={digits}", padding(self.key().len() + MARK_BYTES)),
        }
    }
}

/// Reads marks out of delivered messages.
#[derive(Debug, Clone)]
pub struct MarkReader {
    place: Place,
    from_end: usize,
}

impl MarkReader {
    /// Reads marks of rows that carry them at `place`.
    pub fn of(place: Place) -> Self {
        Self { place, from_end: 0 }
    }

    /// The mark of `message`; `None` if it carries none.
    #[inline]
    pub fn read(&mut self, message: &[u8]) -> Option<Mark> {
        let key = self.place.key();
        let known = message.len().checked_sub(self.from_end).filter(|at| message[*at..].starts_with(key));
        let at = match known {
            Some(at) => at,
            None => {
                let at = memmem::rfind(message, key)?;
                self.from_end = message.len() - at;
                at
            }
        };
        let value = &message[at + key.len()..];
        let value = match self.place {
            Place::Payload => value.trim_ascii_start().strip_prefix(b"\"")?,
            Place::Note => value,
        };
        let digits = std::str::from_utf8(value.get(..MARK_BYTES)?).ok()?;
        let (stamp, number) = digits.split_at_checked(MARK_BYTES / 2)?;
        Some(Mark { stamp_ns: u64::from_str_radix(stamp, 16).ok()?, number: u64::from_str_radix(number, 16).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_the_spaces_of_jsonb() {
        let mut reader = MarkReader::of(Place::Payload);
        for mark in [Mark { stamp_ns: 0, number: u64::MAX }, Mark { stamp_ns: 0x0123_4567_89ab_cdef, number: 7 }] {
            let plain = Place::Payload.text(mark, 64);
            let spaced = plain.replace(':', ": ").replace(',', ", ");
            assert_eq!(reader.read(plain.as_bytes()), Some(mark));
            assert_eq!(reader.read(format!("[null,null,{spaced}]").as_bytes()), Some(mark));
        }
    }

    #[test]
    fn marks_of_notes_are_found_wherever_the_column_comes() {
        let mut reader = MarkReader::of(Place::Note);
        for number in [7, 9_999_999, 3] {
            let mark = Mark { stamp_ns: 5, number };
            let note = Place::Note.text(mark, 64);
            for tail in [format!(r#"","n":{number}}},"errors":null}}}}]"#), "\"}]".to_owned()] {
                let message = format!(r#"[null,null,"t","postgres_changes",{{"record":{{"id":{number},"note":"{note}{tail}"#);
                assert_eq!(reader.read(message.as_bytes()), Some(mark));
            }
        }
    }

    #[test]
    fn the_text_has_the_wanted_size() {
        let mark = Mark { stamp_ns: 1, number: 2 };
        for bytes in [PAYLOAD_BYTES_MIN, 64, 1000] {
            let text = Place::Payload.text(mark, bytes);
            assert_eq!((text.len(), Place::Note.text(mark, bytes).len()), (bytes, bytes));
            assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
        assert_eq!(Place::Payload.text(mark, 0).len(), PAYLOAD_BYTES_MIN);
        assert_eq!(Place::Note.text(mark, 0).len(), 5 + MARK_BYTES);
    }

    #[test]
    fn what_carries_no_mark_has_none() {
        let mut reader = MarkReader::of(Place::Payload);
        for text in ["", "[]", r#"{"mark":"12"}"#, r#"{"mark":7}"#, r#"{"mark":"#] {
            assert_eq!(reader.read(text.as_bytes()), None, "{text}");
        }
        let broken = Place::Payload.text(Mark { stamp_ns: 1, number: 2 }, 64).replace("0002", "00é");
        assert_eq!(reader.read(broken.as_bytes()), None);
        for text in ["", "mark=", "mark=12", "mark=0000000000000001000000000000000z"] {
            assert_eq!(MarkReader::of(Place::Note).read(text.as_bytes()), None, "{text}");
        }
    }
}
