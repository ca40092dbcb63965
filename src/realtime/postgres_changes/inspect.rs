//! Elixir syntax for the values that error texts quote (protocol 11.4): strings, lists of strings, and a whole entry.
//!
//! Follows what `inspect` prints, on one line and with its limits ([`ITEMS_MAX`], [`STRING_CHARS_MAX`]), so that a large entry
//! makes no equally large message. Recursion ends at [`DEPTH_MAX`].
//! Called by the texts of a filter, an entry and a subscription. Cannot fail.

use std::borrow::Cow;
use std::fmt::Write;

use crate::protocol::phoenix::json::{Numbers, Scanner, as_string, elements, members};

/// Items printed of a list, map or byte list; the rest is `...`, as `inspect` has it.
pub(super) const ITEMS_MAX: usize = 50;

/// Characters printed of a string; the rest is `...`, as `inspect` has it.
pub(super) const STRING_CHARS_MAX: usize = 4096;

/// Levels of lists and maps that are looked into, since every level is scanned anew; entries have two.
pub(super) const DEPTH_MAX: usize = 16;

/// Appends a string with quotes, or the list of its bytes when it holds characters that do not print.
pub(super) fn string(out: &mut String, text: &str) {
    let shown = text.char_indices().nth(STRING_CHARS_MAX).map_or(text, |(end, _)| &text[..end]);
    if !shown.chars().all(prints) {
        return bytes(out, text.as_bytes());
    }
    out.push('"');
    let mut chars = shown.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '#' if chars.peek() == Some(&'{') => out.push_str("\\#"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\u{1b}' => out.push_str("\\e"),
            '\u{7f}' => out.push_str("\\d"),
            c => out.push(c),
        }
    }
    out.push('"');
    if shown.len() < text.len() {
        out.push_str(" <> ...");
    }
}

/// What counts as printable in Elixir.
fn prints(c: char) -> bool {
    matches!(c, '\u{7}'..='\r' | '\u{1b}' | ' '..='\u{7f}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

fn bytes(out: &mut String, bytes: &[u8]) {
    listed(out, "<<", ">>", bytes, |out, byte| write!(out, "{byte}").expect("memory can be written to"));
}

/// Appends the items with commas between the brackets, as many as are shown.
pub(super) fn listed<T>(
    out: &mut String,
    open: &str,
    close: &str,
    items: impl IntoIterator<Item = T>,
    mut item: impl FnMut(&mut String, T),
) {
    out.push_str(open);
    for (position, each) in items.into_iter().enumerate() {
        if position > 0 {
            out.push_str(", ");
        }
        if position == ITEMS_MAX {
            out.push_str("...");
            break;
        }
        item(out, each);
    }
    out.push_str(close);
}

/// Appends `["a", "b"]`.
pub(super) fn strings(out: &mut String, items: &[String]) {
    listed(out, "[", "]", items, |out, item| string(out, item));
}

/// Appends a JSON text as the Elixir value it decodes to; a text that is not JSON prints as the empty map.
pub(super) fn json(out: &mut String, text: &str) {
    value(out, Scanner::new(text, Numbers::Any).value().unwrap_or("{}"), DEPTH_MAX);
}

/// Appends a span that the scanner accepted.
fn value(out: &mut String, span: &str, depth_left: usize) {
    match span.as_bytes().first() {
        Some(b'{' | b'[') if depth_left == 0 => out.push_str("..."),
        Some(b'{') => listed(out, "%{", "}", sorted_members(span), |out, (key, span)| {
            string(out, &key);
            out.push_str(" => ");
            value(out, span, depth_left - 1);
        }),
        Some(b'[') => listed(out, "[", "]", elements(span), |out, span| value(out, span, depth_left - 1)),
        Some(b'"') => string(out, &as_string(span).unwrap_or_default()),
        Some(b'n') => out.push_str("nil"),
        Some(b't' | b'f') => out.push_str(span),
        _ => number(out, span),
    }
}

/// The members of an object by ascending key; of repeated keys the first (protocol 3.5).
pub(super) fn sorted_members(object: &str) -> Vec<(Cow<'_, str>, &str)> {
    let mut sorted: Vec<_> = members(object).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted.dedup_by(|later, first| later.0 == first.0);
    sorted
}

/// The double a JSON number stands for; `None` for integers, which are exact, and for what no double can hold.
pub(super) fn double(span: &str) -> Option<f64> {
    let real = span.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    span.parse().ok().filter(|value: &f64| real && value.is_finite())
}

fn number(out: &mut String, span: &str) {
    let Some(value) = double(span) else { return out.push_str(if span == "-0" { "0" } else { span }) };
    let text = format!("{value:?}");
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => {
            write!(out, "{mantissa}.0e{exponent}").expect("memory can be written to");
        }
        _ => out.push_str(&text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(text: &str) -> String {
        let mut out = String::new();
        string(&mut out, text);
        out
    }

    fn entry(text: &str) -> String {
        let mut out = String::new();
        json(&mut out, text);
        out
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(inspected(""), r#""""#);
        assert_eq!(inspected(r#"a"b\c"#), r#""a\"b\\c""#);
        assert_eq!(inspected("#{x} # {"), r##""\#{x} # {""##);
        assert_eq!(inspected("\u{7}\u{8}\t\n\u{b}\u{c}\r\u{1b}\u{7f}"), r#""\a\b\t\n\v\f\r\e\d""#);
        assert_eq!(inspected("ü☃\u{1f980}\u{fffd}"), "\"ü☃\u{1f980}\u{fffd}\"");
    }

    #[test]
    fn strings_that_do_not_print_are_bytes() {
        assert_eq!(inspected("a\0b"), "<<97, 0, 98>>");
        assert_eq!(inspected("\u{80}"), "<<194, 128>>");
        assert_eq!(inspected("\u{fffe}"), "<<239, 191, 190>>");
        let zeros = inspected(&"\0".repeat(51));
        assert!(zeros.ends_with("0, 0, ...>>") && zeros.matches('0').count() == 50, "{zeros}");
        assert_eq!(inspected(&"\0".repeat(50)).matches("...").count(), 0);
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(inspected(&"é".repeat(4096)), format!("\"{}\"", "é".repeat(4096)));
        assert_eq!(inspected(&"é".repeat(4097)), format!("\"{}\" <> ...", "é".repeat(4096)));
        let list = entry(&format!("[{}1]", "1,".repeat(50)));
        assert_eq!(list, format!("[{}...]", "1, ".repeat(50)));
        let deep = entry(&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
        assert_eq!(deep, format!("{}...{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX)));
    }

    #[test]
    fn entries_print_as_maps_by_key() {
        for (text, expected) in [
            ("{}", "%{}"),
            (" { } ", "%{}"),
            (r#"{"event":"INSERT"}"#, r#"%{"event" => "INSERT"}"#),
            (r#"{"schema":"public","filter":"id=eq.1"}"#, r#"%{"filter" => "id=eq.1", "schema" => "public"}"#),
            (
                r#"{"b":{"z":[1, -2.50,1e3 ,null]},"a":true,"B":false,"\u00e9":[]}"#,
                r#"%{"B" => false, "a" => true, "b" => %{"z" => [1, -2.5, 1000.0, nil]}, "é" => []}"#,
            ),
            (r#"{"a":1,"a":2}"#, r#"%{"a" => 1}"#),
            (r#"{"n":123456789012345678901234567890}"#, r#"%{"n" => 123456789012345678901234567890}"#),
            ("[-0,-0.0,1e22,1.5E-7,1e999]", "[0, -0.0, 1.0e22, 1.5e-7, 1e999]"),
            ("\"", "%{}"),
            ("{", "%{}"),
            ("", "%{}"),
        ] {
            assert_eq!(entry(text), expected, "{text}");
        }
    }
}
