//! Which `x-request-id` a response carries (http-api 1).
//!
//! Called by the connection for every response outside the socket routes. The result is
//! written into a response header, so a candidate from the client counts only if it is
//! printable ASCII of a sane length; otherwise the next source is tried. Randomness is
//! the caller's.

use std::ops::RangeInclusive;

use percent_encoding::percent_decode_str;

use super::head::Head;

/// Bytes of an id from the `baggage` header.
const BAGGAGE_ID_BYTES: RangeInclusive<usize> = 10..=200;

/// Bytes of an id from the `x-request-id` header.
const HEADER_ID_BYTES: RangeInclusive<usize> = 20..=200;

/// The id of this request: its baggage entry named `baggage_key`, else its own
/// `x-request-id`, else whatever `generate` makes (at least 20 characters by the spec).
pub fn select_request_id(head: &Head<'_>, baggage_key: &str, generate: impl FnOnce() -> String) -> String {
    baggage_entry(head, baggage_key)
        .filter(|id| is_usable(id, BAGGAGE_ID_BYTES))
        .or_else(|| head.header_str("x-request-id").filter(|id| is_usable(id, HEADER_ID_BYTES)).map(str::to_owned))
        .unwrap_or_else(generate)
}

fn is_usable(id: &str, length_bytes: RangeInclusive<usize>) -> bool {
    length_bytes.contains(&id.len()) && id.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// The percent-decoded value of the last entry named `key`, without its properties.
fn baggage_entry(head: &Head<'_>, key: &str) -> Option<String> {
    let baggage = head.header_joined("baggage")?;
    let value = baggage
        .split(',')
        .filter_map(|entry| entry.split(';').next()?.split_once('='))
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
        .next_back()?;
    Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::head::HeadLimits;
    use super::super::parse::parse_head;
    use super::*;

    const OWN: &str = "x-request-id: own-0123456789-0123456789\r\n";

    fn selected(lines: &str) -> String {
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\n{lines}\r\n");
        let head = parse_head(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        select_request_id(&head, "request-id", || "generated".to_owned())
    }

    #[test]
    fn sources_in_order() {
        let with_own = |line: &str| format!("{line}\r\n{OWN}");
        let cases = [
            (with_own("baggage: request-id=0123456789"), "0123456789"),
            (with_own("baggage: a=b, request-id = 0123456789 ;p=q,c=d"), "0123456789"),
            (with_own("baggage: a=b\r\nbaggage: request-id=0123456789"), "0123456789"),
            (with_own("baggage: request-id=0123%20456789"), "0123 456789"),
            (with_own("baggage: request-id=012345678"), "own-0123456789-0123456789"),
            (with_own("baggage: request-id=0123456789%0d%0a"), "own-0123456789-0123456789"),
            (with_own("baggage: request-id=0123456789%C3%A9"), "own-0123456789-0123456789"),
            (with_own("baggage: Request-Id=0123456789"), "own-0123456789-0123456789"),
            (with_own("baggage: request-id"), "own-0123456789-0123456789"),
            (OWN.to_owned(), "own-0123456789-0123456789"),
            ("x-request-id: 0123456789012345678\r\n".to_owned(), "generated"),
            ("x-request-id: 01234567890123456789\r\n".to_owned(), "01234567890123456789"),
            ("x-request-id: 0123456789012345678\u{e9}\r\n".to_owned(), "generated"),
            (String::new(), "generated"),
        ];
        for (lines, expected) in cases {
            assert_eq!(selected(&lines), expected, "{lines}");
        }
    }

    #[test]
    fn lengths_have_an_upper_bound() {
        let of_length = |bytes| "r".repeat(bytes);
        assert_eq!(selected(&format!("baggage: request-id={}\r\n", of_length(200))), of_length(200));
        assert_eq!(selected(&format!("baggage: request-id={}\r\n", of_length(201))), "generated");
        assert_eq!(selected(&format!("x-request-id: {}\r\n", of_length(200))), of_length(200));
        assert_eq!(selected(&format!("x-request-id: {}\r\n", of_length(201))), "generated");
    }

    proptest! {
        #[test]
        fn no_header_can_break_the_response(baggage in "(request-id=)?[ -~]{0,60}", own in "[ -~]{0,60}") {
            let id = selected(&format!("baggage: {baggage}\r\nx-request-id: {own}\r\n"));
            prop_assert!(id.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{:?}", id);
        }
    }
}
