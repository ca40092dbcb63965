//! Reads a request body as it arrives, by length or in chunks (RFC 9112 section 7).
//!
//! The connection creates one [`BodyReader`] per request with the framing of the head
//! and feeds it until it is done; bytes after the body stay with the connection. Memory
//! grows with the bytes received and ends at the limit given. Chunk extensions and
//! trailers are skipped, but only up to [`OVERHEAD_BYTES_MAX`] in all, so that a body
//! of tiny chunks cannot hide endless traffic. Line ends must be CR LF.

use bytes::Bytes;

use super::error::BodyError;
use super::framing::BodyKind;

/// The largest body of any route (http-api 1); more is 413.
pub const BODY_BYTES_MAX: usize = 8_000_000;

/// Extensions and trailers of one body together; real ones are absent or tiny.
const OVERHEAD_BYTES_MAX: usize = 16 * 1024;

/// Leading zeros included; 16 digits is every size that fits 64 bits.
const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

/// The state of one body.
#[derive(Debug)]
pub struct BodyReader {
    stage: Stage,
    body: Vec<u8>,
    body_bytes_max: usize,
    overhead_bytes: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sized { left: usize },
    ChunkSize { digits: u8, size: u64 },
    ChunkExtension { size: u64 },
    ChunkSizeLf { size: u64 },
    ChunkData { left: usize },
    ChunkDataCr,
    ChunkDataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

impl BodyReader {
    /// A reader for a body framed as `kind`.
    ///
    /// # Errors
    /// `TooLarge` if the declared length is over `body_bytes_max`.
    pub fn new(kind: BodyKind, body_bytes_max: usize) -> Result<Self, BodyError> {
        let stage = match kind {
            BodyKind::None | BodyKind::Length(0) => Stage::Done,
            BodyKind::Length(declared) => match usize::try_from(declared) {
                Ok(left) if left <= body_bytes_max => Stage::Sized { left },
                _ => return Err(BodyError::TooLarge),
            },
            BodyKind::Chunked => Stage::ChunkSize { digits: 0, size: 0 },
        };
        Ok(Self { stage, body: Vec::new(), body_bytes_max, overhead_bytes: 0 })
    }

    /// Takes the next bytes of the stream; returns how many belonged to this body and
    /// whether it is now complete.
    ///
    /// # Errors
    /// See [`BodyError`]; the reader must not be used afterwards.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, bool), BodyError> {
        let mut used_bytes = 0;
        while used_bytes < input.len() && self.stage != Stage::Done {
            let rest = &input[used_bytes..];
            used_bytes += match self.stage {
                Stage::Sized { left } => {
                    let (taken, left) = self.take_data(rest, left);
                    self.stage = match left {
                        0 => Stage::Done,
                        left => Stage::Sized { left },
                    };
                    taken
                }
                Stage::ChunkData { left } => {
                    let (taken, left) = self.take_data(rest, left);
                    self.stage = match left {
                        0 => Stage::ChunkDataCr,
                        left => Stage::ChunkData { left },
                    };
                    taken
                }
                stage => {
                    self.stage = self.after_byte(stage, rest[0])?;
                    1
                }
            };
        }
        Ok((used_bytes, self.stage == Stage::Done))
    }

    /// The body read so far; complete once `feed` has said so.
    pub fn into_body(self) -> Bytes {
        Bytes::from(self.body)
    }

    fn take_data(&mut self, rest: &[u8], left: usize) -> (usize, usize) {
        let taken = rest.len().min(left);
        self.body.extend_from_slice(&rest[..taken]);
        debug_assert!(self.body.len() <= self.body_bytes_max);
        (taken, left - taken)
    }

    /// The stage that follows `byte`, for all stages that go byte by byte.
    fn after_byte(&mut self, stage: Stage, byte: u8) -> Result<Stage, BodyError> {
        match (stage, byte) {
            (Stage::ChunkSize { digits, size }, _) => after_size_byte(digits, size, byte),
            (Stage::ChunkExtension { size }, b'\r') => Ok(Stage::ChunkSizeLf { size }),
            (Stage::ChunkExtension { .. } | Stage::Trailer, b'\n' | 0) => {
                Err(BodyError::Malformed("control byte in chunk extension or trailer"))
            }
            (Stage::ChunkExtension { .. }, _) => self.count_overhead(stage),
            (Stage::ChunkSizeLf { size: 0 }, b'\n') => Ok(Stage::TrailerStart),
            (Stage::ChunkSizeLf { size }, b'\n') => self.start_chunk(size),
            (Stage::ChunkDataCr, b'\r') => Ok(Stage::ChunkDataLf),
            (Stage::ChunkDataLf, b'\n') => Ok(Stage::ChunkSize { digits: 0, size: 0 }),
            (Stage::TrailerStart, b'\r') => Ok(Stage::LastLf),
            (Stage::TrailerStart, b'\n') => Err(BodyError::Malformed("invalid trailer")),
            (Stage::Trailer, b'\r') => Ok(Stage::TrailerLf),
            (Stage::TrailerStart | Stage::Trailer, _) => self.count_overhead(Stage::Trailer),
            (Stage::TrailerLf, b'\n') => Ok(Stage::TrailerStart),
            (Stage::LastLf, b'\n') => Ok(Stage::Done),
            _ => Err(BodyError::Malformed("invalid line end in chunked body")),
        }
    }

    fn start_chunk(&self, size: u64) -> Result<Stage, BodyError> {
        let left = usize::try_from(size).map_err(|_| BodyError::TooLarge)?;
        if left > self.body_bytes_max - self.body.len() {
            return Err(BodyError::TooLarge);
        }
        Ok(Stage::ChunkData { left })
    }

    fn count_overhead(&mut self, next: Stage) -> Result<Stage, BodyError> {
        self.overhead_bytes += 1;
        if self.overhead_bytes > OVERHEAD_BYTES_MAX {
            return Err(BodyError::Malformed("too many chunk extensions or trailers"));
        }
        Ok(next)
    }
}

fn after_size_byte(digits: u8, size: u64, byte: u8) -> Result<Stage, BodyError> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if digits > 0 => return Ok(Stage::ChunkSizeLf { size }),
        b';' | b' ' | b'\t' if digits > 0 => return Ok(Stage::ChunkExtension { size }),
        _ => return Err(BodyError::Malformed("invalid chunk size")),
    };
    if digits == CHUNK_SIZE_DIGITS_MAX {
        return Err(BodyError::Malformed("chunk size has too many digits"));
    }
    Ok(Stage::ChunkSize { digits: digits + 1, size: size << 4 | u64::from(digit) })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The body and the bytes left over, reading `piece_bytes` at a time.
    fn read(kind: BodyKind, stream: &[u8], piece_bytes: usize) -> Result<(Option<Bytes>, usize), BodyError> {
        let mut reader = BodyReader::new(kind, 1000)?;
        let mut used_bytes = 0;
        let mut done = matches!(kind, BodyKind::None);
        for piece in stream.chunks(piece_bytes) {
            let (used, now_done) = reader.feed(piece)?;
            used_bytes += used;
            done = now_done;
            if done {
                break;
            }
        }
        Ok((done.then(|| reader.into_body()), stream.len() - used_bytes))
    }

    #[test]
    fn bodies_and_what_follows_them() {
        let cases: [(BodyKind, &str, Option<&str>, usize); 9] = [
            (BodyKind::None, "GET", Some(""), 3),
            (BodyKind::Length(0), "GET", Some(""), 3),
            (BodyKind::Length(5), "helloGET", Some("hello"), 3),
            (BodyKind::Length(5), "hell", None, 0),
            (BodyKind::Chunked, "5\r\nhello\r\n0\r\n\r\nGET", Some("hello"), 3),
            (BodyKind::Chunked, "2\r\nab\r\n00A\r\n0123456789\r\n0\r\n\r\n", Some("ab0123456789"), 0),
            (BodyKind::Chunked, "1;a=\"b\"\r\nx\r\n0 ;c\r\nt: u\r\nv: w\r\n\r\n", Some("x"), 0),
            (BodyKind::Chunked, "0\r\n\r\n", Some(""), 0),
            (BodyKind::Chunked, "5\r\nhello\r\n0\r\n", None, 0),
        ];
        for (kind, stream, body, left) in cases {
            for piece_bytes in [1, 4, 1000] {
                let (read_body, read_left) = read(kind, stream.as_bytes(), piece_bytes).unwrap();
                assert_eq!(read_body.as_deref(), body.map(str::as_bytes), "{stream:?}");
                assert_eq!(read_left, left, "{stream:?}");
            }
        }
    }

    #[test]
    fn malformed_chunks() {
        let cases = [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            ";a\r\n",
            "1\nx",
            "1\r\rx",
            "1\r\nxy",
            "1\r\nx\n",
            "1\r\nx\rz",
            "0\r\n\n",
            "0\r\n\rx",
            "0\r\na: b\n",
            "1;a\nb\r\n",
            "00000000000000001\r\n",
            "1;a\0\r\n",
        ];
        for stream in cases {
            let refused = read(BodyKind::Chunked, stream.as_bytes(), 1000).unwrap_err();
            assert!(matches!(refused, BodyError::Malformed(_)), "{stream:?}");
            assert_eq!(refused.status(), 400);
        }
    }

    #[test]
    fn the_limit_is_exact_and_known_early() {
        assert!(BodyReader::new(BodyKind::Length(1000), 1000).is_ok());
        let declared = BodyReader::new(BodyKind::Length(1001), 1000).unwrap_err();
        assert_eq!((declared, declared.status()), (BodyError::TooLarge, 413));
        assert!(BodyReader::new(BodyKind::Length(u64::MAX), 1000).is_err());

        let chunks = |last: &str| format!("3e7\r\n{}\r\n{last}\r\n", "x".repeat(999));
        let (body, _) = read(BodyKind::Chunked, (chunks("1") + "y\r\n0\r\n\r\n").as_bytes(), 64).unwrap();
        assert_eq!(body.unwrap().len(), 1000);
        for larger in ["2", "ffffffffffffffff"] {
            let refused = read(BodyKind::Chunked, chunks(larger).as_bytes(), 64);
            assert_eq!(refused, Err(BodyError::TooLarge));
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = format!("1;{}\r\nx\r\n", "e".repeat(OVERHEAD_BYTES_MAX + 1));
        let trailer = format!("0\r\nt: {}\r\n\r\n", "e".repeat(OVERHEAD_BYTES_MAX));
        let scattered = "1;0123456789\r\nx\r\n".repeat(999 * 2);
        for stream in [extension, trailer, scattered] {
            assert!(read(BodyKind::Chunked, stream.as_bytes(), 512).is_err());
        }
    }

    proptest! {
        #[test]
        fn chunked_bodies_survive_any_cut(
            chunks in vec(vec(any::<u8>(), 1..50), 0..10),
            after in vec(any::<u8>(), 0..5),
            piece_bytes in 1_usize..40,
        ) {
            let mut stream = Vec::new();
            for chunk in &chunks {
                stream.extend(format!("{:X}\r\n", chunk.len()).bytes());
                stream.extend(chunk);
                stream.extend(b"\r\n");
            }
            stream.extend(b"0\r\n\r\n");
            let stream_bytes = stream.len();
            let mut reader = BodyReader::new(BodyKind::Chunked, 1000).unwrap();
            for piece in stream[..stream_bytes - 1].chunks(piece_bytes) {
                prop_assert_eq!(reader.feed(piece), Ok((piece.len(), false)));
            }
            let last = [b"\n", &after[..]].concat();
            prop_assert_eq!(reader.feed(&last), Ok((1, true)));
            prop_assert_eq!(reader.feed(&after), Ok((0, true)));
            prop_assert_eq!(reader.into_body(), chunks.concat());
        }

        #[test]
        fn random_bytes_never_panic_and_cuts_do_not_matter(
            stream in prop_oneof![
                vec(any::<u8>(), 0..100),
                "([0-9a-f]{1,2}(;x)?\r\n[a-z]{0,9}\r\n){0,4}".prop_map(String::into_bytes),
            ],
        ) {
            prop_assert_eq!(
                read(BodyKind::Chunked, &stream, 1),
                read(BodyKind::Chunked, &stream, 1000)
            );
        }
    }
}
