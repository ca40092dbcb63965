//! Reading fields of a message in order.
//!
//! Used by the decoders of this folder only. A read either takes all of a field or reports
//! where the field began; numbers are big-endian, strings end in a zero byte.

use super::error::DecodeError;

/// What is left of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    message_bytes: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Cursor { rest: message, message_bytes: message.len() }
    }

    /// The bytes not yet read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// An error at the next byte to be read.
    pub(super) fn error(&self, expected: &'static str) -> DecodeError {
        DecodeError { position: self.message_bytes - self.rest.len(), expected }
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((field, rest)) = self.rest.split_first_chunk::<N>() else { return Err(self.error(expected)) };
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self, expected: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(expected).map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self, expected: &'static str) -> Result<u16, DecodeError> {
        self.array(expected).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, expected: &'static str) -> Result<u32, DecodeError> {
        self.array(expected).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, expected: &'static str) -> Result<i32, DecodeError> {
        self.array(expected).map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, expected: &'static str) -> Result<u64, DecodeError> {
        self.array(expected).map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self, expected: &'static str) -> Result<i64, DecodeError> {
        self.array(expected).map(i64::from_be_bytes)
    }

    /// That many bytes.
    pub(super) fn bytes(&mut self, length: u64, expected: &'static str) -> Result<&'a [u8], DecodeError> {
        let field = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((field, rest)) = field else { return Err(self.error(expected)) };
        self.rest = rest;
        Ok(field)
    }

    /// A length of four bytes, then that many bytes.
    pub(super) fn counted(&mut self, expected: &'static str) -> Result<&'a [u8], DecodeError> {
        let start = *self;
        let length = u64::try_from(self.i32(expected)?).map_err(|_| start.error(expected))?;
        self.bytes(length, expected)
    }

    /// A string without its zero byte.
    pub(super) fn string(&mut self, expected: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some(end) = self.rest.iter().position(|byte| *byte == 0) else { return Err(self.error(expected)) };
        let string = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(string)
    }

    /// Checks that nothing is left.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("the end of the message")) }
    }
}
