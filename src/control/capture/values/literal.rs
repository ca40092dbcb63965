//! The text forms of arrays and composites (Postgres manual 8.15.6 and 8.16.6).
//!
//! [`read_array`] and [`read_composite`] read what Postgres printed; [`items`] reads the list of an `in` filter, which a
//! client wrote. Both are stricter than Postgres: what they accept means the same there. Fails with [`NeedsSql`].

use std::borrow::Cow;

use super::NeedsSql;

/// Postgres' `MAXDIM`.
const DIMENSIONS_MAX: usize = 6;

/// What an element or field without quotes cannot hold, next to what ends it.
const ARRAY_FORBIDDEN: [char; 3] = ['"', '\\', '{'];
const COMPOSITE_FORBIDDEN: [char; 3] = ['"', '\\', '('];

/// Appends the JSON of an element.
type WriteElement<'a> = dyn FnMut(&str, &mut Vec<u8>) -> Result<(), NeedsSql> + 'a;

/// Appends a JSON array; each element that is not null goes through `write`.
pub fn read_array(text: &str, delimiter: u8, out: &mut Vec<u8>, write: &mut WriteElement<'_>) -> Result<(), NeedsSql> {
    // Lower bounds other than one, as in `[0:1]={a,b}`, mean nothing in JSON.
    let body = match text.strip_prefix('[') {
        Some(rest) => rest.split_once('=').ok_or(NeedsSql)?.1,
        None => text,
    };
    let mut reader = Reader { text: body, at: 0 };
    let ends = [delimiter, b'}'];
    let mut depth = 0;
    loop {
        // Before a value.
        match reader.next().ok_or(NeedsSql)? {
            b'{' if depth < DIMENSIONS_MAX => {
                depth += 1;
                out.push(b'[');
                if !(reader.peek() == Some(b'}') && depth == 1) {
                    continue;
                }
            }
            _ if depth == 0 => return Err(NeedsSql),
            b'"' => write(&reader.quoted()?, out)?,
            _ => {
                reader.at -= 1;
                match reader.bare(&ends, ARRAY_FORBIDDEN)? {
                    "NULL" => out.extend_from_slice(b"null"),
                    bare => write(bare, out)?,
                }
            }
        }
        // After it.
        while reader.peek() == Some(b'}') {
            reader.at += 1;
            out.push(b']');
            depth -= 1;
            if depth == 0 {
                return if reader.at == body.len() { Ok(()) } else { Err(NeedsSql) };
            }
        }
        if reader.next() != Some(delimiter) {
            return Err(NeedsSql);
        }
        out.extend_from_slice(b", ");
    }
}

/// The fields of a composite; `None` is null.
pub fn read_composite(text: &str) -> Result<Vec<Option<Cow<'_, str>>>, NeedsSql> {
    let mut reader = Reader { text, at: 0 };
    let mut fields = Vec::new();
    if reader.next() != Some(b'(') {
        return Err(NeedsSql);
    }
    loop {
        fields.push(match reader.peek().ok_or(NeedsSql)? {
            b',' | b')' => None,
            b'"' => {
                reader.at += 1;
                Some(reader.doubled()?)
            }
            _ => Some(Cow::Borrowed(reader.bare(b",)", COMPOSITE_FORBIDDEN)?)),
        });
        match reader.next() {
            Some(b',') => {}
            Some(b')') if reader.at == text.len() => return Ok(fields),
            _ => return Err(NeedsSql),
        }
    }
}

/// The elements of a one-dimensional array literal, as written by hand: space around elements and `NULL` in any letter case.
///
/// # Errors
/// [`NeedsSql`] for other shapes.
pub fn items(literal: &str) -> Result<Vec<Option<Cow<'_, str>>>, NeedsSql> {
    let mut reader = Reader { text: literal, at: 0 };
    let mut items = Vec::new();
    if reader.next() != Some(b'{') {
        return Err(NeedsSql);
    }
    reader.skip_space();
    if reader.peek() == Some(b'}') {
        return if literal.len() == reader.at + 1 { Ok(items) } else { Err(NeedsSql) };
    }
    loop {
        reader.skip_space();
        items.push(match reader.peek().ok_or(NeedsSql)? {
            b'"' => {
                reader.at += 1;
                Some(reader.quoted()?)
            }
            _ => {
                let bare = reader.bare(b",}", ARRAY_FORBIDDEN)?.trim_end_matches(is_space);
                (!bare.eq_ignore_ascii_case("null")).then_some(Cow::Borrowed(bare))
            }
        });
        reader.skip_space();
        match reader.next() {
            Some(b',') => {}
            Some(b'}') if reader.at == literal.len() => return Ok(items),
            _ => return Err(NeedsSql),
        }
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start_matches(is_space).len();
    }

    /// What comes before one of `ends`, which are ASCII; neither empty nor with one of `forbidden`, which need quotes.
    fn bare(&mut self, ends: &[u8], forbidden: [char; 3]) -> Result<&'a str, NeedsSql> {
        let rest = &self.text[self.at..];
        let len = rest.bytes().position(|byte| ends.contains(&byte)).ok_or(NeedsSql)?;
        let bare = &rest[..len];
        if bare.is_empty() || bare.contains(forbidden) {
            return Err(NeedsSql);
        }
        self.at += len;
        Ok(bare)
    }

    /// The rest of a string whose opening quote was read; a backslash protects what follows it.
    fn quoted(&mut self) -> Result<Cow<'a, str>, NeedsSql> {
        let rest = &self.text[self.at..];
        let mut owned = String::new();
        let mut start = 0;
        let mut at = 0;
        loop {
            match rest.as_bytes().get(at).ok_or(NeedsSql)? {
                b'"' => break,
                b'\\' => {
                    owned.push_str(&rest[start..at]);
                    start = at + 1;
                    // The protected character may be of several bytes; none but its first looks like a quote or backslash.
                    at += 2;
                    if start == rest.len() {
                        return Err(NeedsSql);
                    }
                }
                _ => at += 1,
            }
        }
        self.at += at + 1;
        if start == 0 {
            return Ok(Cow::Borrowed(&rest[..at]));
        }
        owned.push_str(&rest[start..at]);
        Ok(Cow::Owned(owned))
    }

    /// The same, where quotes and backslashes are doubled.
    fn doubled(&mut self) -> Result<Cow<'a, str>, NeedsSql> {
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let len = rest.find(['"', '\\']).ok_or(NeedsSql)?;
            text.push_str(&rest[..len]);
            self.at += len + 1;
            let special = rest.as_bytes()[len];
            if self.peek() == Some(special) {
                self.at += 1;
                text.push(char::from(special));
            } else if special == b'"' {
                return Ok(Cow::Owned(text));
            } else {
                return Err(NeedsSql);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(text: &str) -> Option<String> {
        let mut out = Vec::new();
        let mut write = |text: &str, out: &mut Vec<u8>| {
            out.extend_from_slice(format!("<{text}>").as_bytes());
            Ok(())
        };
        read_array(text, b',', &mut out, &mut write).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn arrays_are_read() {
        let cases = [
            ("{}", "[]"),
            ("{a,NULL,null}", "[<a>, null, <null>]"),
            ("{{1,2},{3,4}}", "[[<1>, <2>], [<3>, <4>]]"),
            ("{{{1}},{{2}}}", "[[[<1>]], [[<2>]]]"),
            ("[0:1]={a,b}", "[<a>, <b>]"),
            ("[0:0][2:3]={{a,b}}", "[[<a>, <b>]]"),
            (r#"{"a,b","q\"q","\\","","{}","é\é"}"#, r#"[<a,b>, <q"q>, <\>, <>, <{}>, <éé>]"#),
        ];
        for (text, expected) in cases {
            assert_eq!(array(text).as_deref(), Some(expected), "{text}");
        }
        for text in
            ["", "{", "}", "a", "{a", "{a}b", "{,}", "{a,}", "{\"a}", "{\"a\\", "{\"a\"b}", "{{{{{{{a}}}}}}}", "[0:1]", "{{}}"]
        {
            assert_eq!(array(text), None, "{text}");
        }
    }

    #[test]
    fn composites_are_read() {
        let read =
            |text| read_composite(text).map(|fields| fields.into_iter().map(|f| f.map(Cow::into_owned)).collect::<Vec<_>>());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("(5,five)"), Ok(vec![some("5"), some("five")]));
        assert_eq!(read(r#"(,"","a ""b"" \\ (c)",)"#), Ok(vec![None, some(""), some(r#"a "b" \ (c)"#), None]));
        for text in ["", "(", "(a", "a)", "(a)b", "(\"a)", "(\"a\"b)", "(a\"b\")", "(a\\b)"] {
            assert_eq!(read(text), Err(NeedsSql), "{text}");
        }
    }

    #[test]
    fn lists_of_filters_are_read() {
        let read = |text| items(text).map(|fields| fields.into_iter().map(|f| f.map(Cow::into_owned)).collect::<Vec<_>>());
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read("{}"), Ok(vec![]));
        assert_eq!(read("{ }"), Ok(vec![]));
        assert_eq!(read("{ 1 , null,NuLL , \" 2 \" }"), Ok(vec![some("1"), None, None, some(" 2 ")]));
        assert_eq!(read("{red,\"dark, blue\",(x)}"), Ok(vec![some("red"), some("dark, blue"), some("(x)")]));
        for text in ["{", "{{1}}", "{1,}", "{,1}", "{1}}", "{a\\b}", "{a\"b\"}", "{\"a\" b}", " {1}", "{1} "] {
            assert_eq!(read(text), Err(NeedsSql), "{text}");
        }
    }
}
