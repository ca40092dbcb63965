//! A text of type json in the form it has as jsonb: one key once, keys by length and then bytes, one spacing, no exponents.
//!
//! Called for json columns; jsonb columns come in this form. Fails with [`NeedsSql`] for what jsonb cannot hold and for
//! documents nested deeper than the stack of this thread should bear.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{NeedsSql, number};
use crate::protocol::phoenix::json;

/// Deepest nesting read natively: each level is a frame on the stack.
const DEPTH_MAX: usize = 128;

/// Appends the document in its jsonb form.
pub fn write(text: &str, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
    let mut reader = Reader { text, at: 0 };
    let document = reader.value(0)?;
    reader.skip_space();
    if reader.at != text.len() {
        return Err(NeedsSql);
    }
    document.write(out)
}

/// How jsonb orders the keys of an object.
pub fn key_order(left: &str, right: &str) -> Ordering {
    left.len().cmp(&right.len()).then_with(|| left.cmp(right))
}

enum Node<'a> {
    /// `null`, `true` or `false`.
    Word(&'static str),
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl Node<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
        match self {
            Self::Word(word) => out.extend_from_slice(word.as_bytes()),
            Self::Number(text) => number::write(text, out)?,
            Self::Text(text) => json::write_string(out, text),
            Self::List(items) => {
                out.push(b'[');
                for (nth, item) in items.iter().enumerate() {
                    if nth > 0 {
                        out.extend_from_slice(b", ");
                    }
                    item.write(out)?;
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (nth, (key, value)) in members.iter().enumerate() {
                    if nth > 0 {
                        out.extend_from_slice(b", ");
                    }
                    json::write_string(out, key);
                    out.extend_from_slice(b": ");
                    value.write(out)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over `byte` and the space around it, if it comes next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
            self.skip_space();
        }
        found
    }

    fn value(&mut self, depth: usize) -> Result<Node<'a>, NeedsSql> {
        if depth > DEPTH_MAX {
            return Err(NeedsSql);
        }
        self.skip_space();
        match self.peek().ok_or(NeedsSql)? {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => Ok(Node::Text(self.string()?)),
            b'-' | b'0'..=b'9' => {
                let rest = &self.text[self.at..];
                let len = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len());
                self.at += len;
                Ok(Node::Number(&rest[..len]))
            }
            _ => {
                let rest = &self.text[self.at..];
                let word = ["null", "true", "false"].into_iter().find(|word| rest.starts_with(word)).ok_or(NeedsSql)?;
                self.at += word.len();
                Ok(Node::Word(word))
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node<'a>, NeedsSql> {
        let mut items = Vec::new();
        self.take(b'[');
        if self.take(b']') {
            return Ok(Node::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Node::List(items));
            }
            if !self.take(b',') {
                return Err(NeedsSql);
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>, NeedsSql> {
        let mut members = Vec::new();
        self.take(b'{');
        if self.take(b'}') {
            return Ok(Node::Object(members));
        }
        loop {
            if self.peek() != Some(b'"') {
                return Err(NeedsSql);
            }
            let key = self.string()?;
            if !self.take(b':') {
                return Err(NeedsSql);
            }
            members.push((key, self.value(depth + 1)?));
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(NeedsSql);
            }
        }
        // Of equal keys the last one stays: the sort keeps their order, so with it turned round the first one does.
        members.reverse();
        members.sort_by(|(left, _), (right, _)| key_order(left, right));
        members.dedup_by(|(left, _), (right, _)| left == right);
        Ok(Node::Object(members))
    }

    /// The string whose opening quote comes next.
    fn string(&mut self) -> Result<Cow<'a, str>, NeedsSql> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut end = start;
        let mut has_escapes = false;
        loop {
            match bytes.get(end).ok_or(NeedsSql)? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    end += 2;
                }
                0..0x20 => return Err(NeedsSql),
                _ => end += 1,
            }
        }
        self.at = end + 1;
        if !has_escapes {
            return Ok(Cow::Borrowed(&self.text[start..end]));
        }
        // Refuses lone surrogates, which jsonb refuses as well.
        serde_json::from_str(&self.text[start - 1..=end]).map(Cow::Owned).map_err(|_| NeedsSql)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write(text, &mut out).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn documents_get_the_form_of_jsonb() {
        let cases = [
            (" { \"b\" : 1 , \"aa\" : [ ] , \"a\" : { } , \"b\" : [1,2] } ", r#"{"a": {}, "b": [1, 2], "aa": []}"#),
            (r#"{"a":1,"a":2,"a":{"x":null}}"#, r#"{"a": {"x": null}}"#),
            (r#""\u00e9\/\n\ud83d\ude00\u0001""#, "\"é/\\n😀\\u0001\""),
            (r#"{"\u0061":1,"a":2}"#, r#"{"a": 2}"#),
            ("[1e2,-0,1.50,12345678901234567890.5]", "[100, 0, 1.50, 12345678901234567890.5]"),
            ("true", "true"),
        ];
        for (text, expected) in cases {
            assert_eq!(written(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_document_is_refused() {
        let deep = "[".repeat(200_000);
        for text in [
            "",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{1:2}",
            "\"\\ud800\"",
            "\"\u{1}\"",
            "tru",
            "1 2",
            "01",
            "\"\\",
            "\"a",
            &deep,
        ] {
            assert_eq!(written(text), None, "{text}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(written(&nested(DEPTH_MAX)), Some(nested(DEPTH_MAX)));
        assert_eq!(written(&nested(DEPTH_MAX + 2)), None);
    }
}
