//! Validating JSON scanner (RFC 8259) that finds spans instead of building values.
//!
//! Owns the grammar check of everything a client sends as JSON and the extraction of raw spans from it: the envelope of a
//! text frame, the keys of a join or presence payload, the elements of a list. Spans are forwarded as they came, so big
//! numbers, key order and white space survive.
//!
//! Invariants: iterative, so nesting depth costs one bit per level and never stack; linear in the input; the input must be
//! valid UTF-8 (callers check once per message, which makes slicing spans as `str` sound).
//! A number outside the range of doubles is an error under [`Numbers::Finite`] (protocol 3.5).

use std::borrow::Cow;

use smallvec::SmallVec;

/// Why a text is not JSON; the position is a byte offset for the log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError {
    /// Byte offset of the first offending byte.
    pub offset: usize,
}

/// What to do with numbers that no double can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// `1e400` is an error, as in the original's text frames.
    Finite,
    /// Any number of the JSON grammar passes, as in the original's binary pushes.
    Any,
}

/// Cursor over a JSON text.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    pos: usize,
    numbers: Numbers,
}

/// A bit per open container: 1 for an object, 0 for an array.
#[derive(Default)]
struct Nesting {
    bits: SmallVec<[u64; 4]>,
    depth: usize,
}

impl Nesting {
    fn push(&mut self, object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        if word == self.bits.len() {
            self.bits.push(0);
        }
        self.bits[word] = (self.bits[word] & !(1 << bit)) | (u64::from(object) << bit);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        let top = self.depth - 1;
        self.bits[top / 64] >> (top % 64) & 1 == 1
    }
}

impl<'a> Scanner<'a> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'a str, numbers: Numbers) -> Self {
        Self { text, pos: 0, numbers }
    }

    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    fn error<T>(&self) -> Result<T, JsonError> {
        Err(JsonError { offset: self.pos })
    }

    /// Skips white space and returns the next byte without consuming it; 0 at the end.
    pub fn peek(&mut self) -> u8 {
        let bytes = self.bytes();
        while let Some(&byte) = bytes.get(self.pos) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return byte;
            }
            self.pos += 1;
        }
        0
    }

    /// Consumes `expected` after white space.
    pub fn expect(&mut self, expected: u8) -> Result<(), JsonError> {
        if self.peek() != expected {
            return self.error();
        }
        self.pos += 1;
        Ok(())
    }

    /// True when only white space is left.
    pub fn at_end(&mut self) -> bool {
        self.peek() == 0 && self.pos >= self.text.len()
    }

    /// Consumes one value of any kind and returns its exact text.
    pub fn value(&mut self) -> Result<&'a str, JsonError> {
        self.peek();
        let start = self.pos;
        self.skip_value()?;
        Ok(&self.text[start..self.pos])
    }

    /// Consumes one string and returns its text with the quotes.
    pub fn string(&mut self) -> Result<&'a str, JsonError> {
        if self.peek() != b'"' {
            return self.error();
        }
        let start = self.pos;
        self.skip_string()?;
        Ok(&self.text[start..self.pos])
    }

    fn skip_value(&mut self) -> Result<(), JsonError> {
        let mut nesting = Nesting::default();
        loop {
            match self.peek() {
                b'{' => {
                    self.pos += 1;
                    if self.peek() == b'}' {
                        self.pos += 1;
                    } else {
                        nesting.push(true);
                        self.skip_key()?;
                        continue;
                    }
                }
                b'[' => {
                    self.pos += 1;
                    if self.peek() == b']' {
                        self.pos += 1;
                    } else {
                        nesting.push(false);
                        continue;
                    }
                }
                b'"' => self.skip_string()?,
                b't' => self.skip_word(b"true")?,
                b'f' => self.skip_word(b"false")?,
                b'n' => self.skip_word(b"null")?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                _ => return self.error(),
            }
            // A value is complete: close what it closes, or go on to the next one.
            loop {
                if nesting.depth == 0 {
                    return Ok(());
                }
                let object = nesting.in_object();
                match (self.peek(), object) {
                    (b',', true) => {
                        self.pos += 1;
                        self.skip_key()?;
                        break;
                    }
                    (b',', false) => {
                        self.pos += 1;
                        break;
                    }
                    (b'}', true) | (b']', false) => {
                        self.pos += 1;
                        nesting.pop();
                    }
                    _ => return self.error(),
                }
            }
        }
    }

    fn skip_key(&mut self) -> Result<(), JsonError> {
        if self.peek() != b'"' {
            return self.error();
        }
        self.skip_string()?;
        self.expect(b':')
    }

    fn skip_word(&mut self, word: &[u8]) -> Result<(), JsonError> {
        if !self.bytes()[self.pos..].starts_with(word) {
            return self.error();
        }
        self.pos += word.len();
        Ok(())
    }

    fn skip_string(&mut self) -> Result<(), JsonError> {
        let bytes = self.bytes();
        self.pos += 1;
        loop {
            // Plain runs eight bytes at a time.
            while let Some(chunk) = bytes.get(self.pos..self.pos + 8) {
                let word = u64::from_le_bytes(chunk.try_into().expect("the slice has eight bytes"));
                if has_special(word) {
                    break;
                }
                self.pos += 8;
            }
            match bytes.get(self.pos) {
                None => return self.error(),
                Some(b'"') => {
                    self.pos += 1;
                    return Ok(());
                }
                Some(b'\\') => self.skip_escape()?,
                Some(0..=0x1f) => return self.error(),
                Some(_) => self.pos += 1,
            }
        }
    }

    fn skip_escape(&mut self) -> Result<(), JsonError> {
        let bytes = self.bytes();
        match bytes.get(self.pos + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.pos += 2;
                Ok(())
            }
            Some(b'u') => {
                let Some(digits) = bytes.get(self.pos + 2..self.pos + 6) else {
                    return self.error();
                };
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return self.error();
                }
                self.pos += 6;
                Ok(())
            }
            _ => self.error(),
        }
    }

    fn digits(&mut self) -> usize {
        let bytes = self.bytes();
        let start = self.pos;
        while bytes.get(self.pos).is_some_and(u8::is_ascii_digit) {
            self.pos += 1;
        }
        self.pos - start
    }

    fn skip_number(&mut self) -> Result<(), JsonError> {
        let bytes = self.bytes();
        let start = self.pos;
        if bytes[self.pos] == b'-' {
            self.pos += 1;
        }
        let leading_zero = bytes.get(self.pos) == Some(&b'0');
        let integer_digits = self.digits();
        if integer_digits == 0 || (leading_zero && integer_digits > 1) {
            return self.error();
        }
        let mut real = false;
        if bytes.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            real = true;
            if self.digits() == 0 {
                return self.error();
            }
        }
        let mut exponent = false;
        if matches!(bytes.get(self.pos), Some(b'e' | b'E')) {
            self.pos += 1;
            exponent = true;
            if matches!(bytes.get(self.pos), Some(b'+' | b'-')) {
                self.pos += 1;
            }
            if self.digits() == 0 {
                return self.error();
            }
        }
        // Integers of any length are kept exactly; only a real can leave the range of doubles.
        let could_overflow = exponent || (real && integer_digits > 300);
        if self.numbers == Numbers::Finite && could_overflow {
            let finite = self.text[start..self.pos].parse::<f64>().is_ok_and(f64::is_finite);
            if !finite {
                return self.error();
            }
        }
        Ok(())
    }
}

/// True when any byte of `word` is a quote, a backslash or below 0x20.
fn has_special(word: u64) -> bool {
    const LOW: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let zero_in = |x: u64| x.wrapping_sub(LOW) & !x & HIGH;
    let control = word.wrapping_sub(LOW * 0x20) & !word & HIGH;
    (zero_in(word ^ (LOW * u64::from(b'"'))) | zero_in(word ^ (LOW * u64::from(b'\\'))) | control) != 0
}

/// Checks that `text` is exactly one JSON value.
pub fn validate(text: &str, numbers: Numbers) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(text, numbers);
    scanner.value()?;
    if scanner.at_end() { Ok(()) } else { scanner.error() }
}

/// The text of a JSON string span (with quotes): borrowed when it holds no escape.
/// Lone surrogates become U+FFFD, as no Rust string can hold them.
pub fn unescape(quoted: &str) -> Cow<'_, str> {
    let inner = &quoted[1..quoted.len() - 1];
    if !inner.as_bytes().contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    Cow::Owned(serde_json::from_str::<String>(quoted).unwrap_or_else(|_| unescape_lossy(inner)))
}

fn unescape_lossy(inner: &str) -> String {
    // Only lone surrogates bring us here; replace each such escape and decode the rest.
    let mut cleaned = String::with_capacity(inner.len() + 2);
    cleaned.push('"');
    let mut rest = inner;
    while let Some(at) = rest.find("\\") {
        cleaned.push_str(&rest[..at]);
        let unit = escape_unit(&rest[at..]);
        match unit {
            Some(0xd800..=0xdbff) if matches!(escape_unit(&rest[at + 6..]), Some(0xdc00..=0xdfff)) => {
                cleaned.push_str(&rest[at..at + 12]);
                rest = &rest[at + 12..];
            }
            Some(0xd800..=0xdfff) => {
                cleaned.push('\u{fffd}');
                rest = &rest[at + 6..];
            }
            _ => {
                cleaned.push_str(&rest[at..at + 2]);
                rest = &rest[at + 2..];
            }
        }
    }
    cleaned.push_str(rest);
    cleaned.push('"');
    serde_json::from_str(&cleaned).unwrap_or_default()
}

fn escape_unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

/// Appends `text` as a JSON string with quotes.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string into memory cannot fail");
}

/// Iterates over the members of an object span that [`validate`] accepted: key (unescaped) and value span.
pub fn members(object: &str) -> impl Iterator<Item = (Cow<'_, str>, &str)> {
    let mut scanner = Scanner::new(object, Numbers::Any);
    let mut open = scanner.expect(b'{').is_ok() && scanner.peek() != b'}';
    std::iter::from_fn(move || {
        if !open {
            return None;
        }
        let key = unescape(scanner.string().ok()?);
        scanner.expect(b':').ok()?;
        let value = scanner.value().ok()?;
        open = scanner.expect(b',').is_ok();
        Some((key, value))
    })
}

/// The first member called `name` of an object span; of repeated keys the first one wins (protocol 3.5).
pub fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    members(object).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// Iterates over the element spans of an array span that [`validate`] accepted.
pub fn elements(array: &str) -> impl Iterator<Item = &str> {
    let mut scanner = Scanner::new(array, Numbers::Any);
    let mut open = scanner.expect(b'[').is_ok() && scanner.peek() != b']';
    std::iter::from_fn(move || {
        if !open {
            return None;
        }
        let value = scanner.value().ok()?;
        open = scanner.expect(b',').is_ok();
        Some(value)
    })
}

/// True when the span is an object.
pub fn is_object(span: &str) -> bool {
    span.starts_with('{')
}

/// The unescaped text when the span is a string.
pub fn as_string(span: &str) -> Option<Cow<'_, str>> {
    span.starts_with('"').then(|| unescape(span))
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
