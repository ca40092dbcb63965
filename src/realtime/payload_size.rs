//! The size rule for broadcast and presence payloads (8.5): length in Erlang's external term format.
//!
//! [`exceeds`] answers without a walk for everything clearly below the limit, so only payloads near the limit pay.

use crate::protocol::phoenix::envelope::UserBody;
use crate::protocol::phoenix::json::{elements, members, unescape};

/// No JSON text grows by more than this factor: the worst is `1e1,` (4 bytes) for a 9-byte double.
const GROWTH_MAX: u64 = 3;

/// Nesting up to which the walk looks inside; deeper parts count by their text length. Every level scans its text again, so
/// this bounds the work to a small multiple of the payload's length.
const DEPTH_MAX: u32 = 8;

/// True when the JSON value is larger than `limit_bytes`.
pub fn exceeds(json: &str, limit_bytes: u64) -> bool {
    let text_bytes = json.len() as u64;
    text_bytes * GROWTH_MAX + 1 > limit_bytes && external_size(json) > limit_bytes
}

/// Size of a kind-3 push: the original counts a tuple of encoding, event, bytes and metadata.
pub fn user_push_exceeds(event: &str, metadata: &str, body: UserBody<'_>, limit_bytes: u64) -> bool {
    let (encoding, bytes) = match body {
        UserBody::Json(json) => (6, json.len()),
        UserBody::Binary(data) => (8, data.len()),
    };
    let metadata_size = if metadata.is_empty() { 5 } else { term(metadata, 0) };
    1 + 2 + (5 + event.len() as u64) + encoding + (5 + bytes as u64) + metadata_size > limit_bytes
}

/// Size of a JSON value in external term format.
pub fn external_size(json: &str) -> u64 {
    1 + term(json, 0)
}

fn term(span: &str, depth: u32) -> u64 {
    match span.as_bytes().first() {
        Some(b'"') => 5 + unescape(span).len() as u64,
        Some(b't') => 6,
        Some(b'f') => 7,
        Some(b'n') => 5,
        Some(b'{' | b'[') if depth >= DEPTH_MAX => span.len() as u64,
        Some(b'{') => 5 + members(span).map(|(key, value)| 5 + key.len() as u64 + term(value, depth + 1)).sum::<u64>(),
        Some(b'[') => list(span, depth),
        _ => number(span),
    }
}

fn list(span: &str, depth: u32) -> u64 {
    let (mut count, mut sum, mut bytes_only) = (0u64, 0u64, true);
    for element in elements(span) {
        count += 1;
        bytes_only &= element.parse::<u8>().is_ok();
        sum += term(element, depth + 1);
    }
    match count {
        0 => 1,
        1..=65_535 if bytes_only => 3 + count,
        _ => 6 + sum,
    }
}

fn number(span: &str) -> u64 {
    if span.contains(['.', 'e', 'E']) {
        return 9;
    }
    match span.parse::<i64>() {
        Ok(0..=255) => 2,
        Ok(n) if i32::try_from(n).is_ok() => 5,
        Ok(n) => 3 + u64::from(64 - n.unsigned_abs().leading_zeros()).div_ceil(8),
        // log2(10) / 8 ≈ 0.4153 bytes a digit.
        Err(_) => 3 + (span.trim_start_matches('-').len() as u64 * 4153).div_ceil(10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_specification() {
        assert_eq!(external_size("{}"), 6);
        assert_eq!(external_size(r#"{"a":"b"}"#), 18);
        assert_eq!(external_size(r#"{"A":"b","c":"b"}"#), 30);
        assert_eq!(external_size(r#"{"type":"broadcast","event":"move","payload":{"x":1}}"#), 73);
    }

    #[test]
    fn numbers_and_lists() {
        for (text, size) in [
            ("0", 2),
            ("255", 2),
            ("256", 5),
            ("-1", 5),
            ("2147483648", 7),
            ("1.5", 9),
            ("[]", 1),
            ("[1,2,255]", 6),
            ("[1,256]", 13),
            ("null", 5),
            ("true", 6),
            ("false", 7),
        ] {
            assert_eq!(external_size(text), 1 + size, "{text}");
        }
        assert_eq!(external_size("18446744073709551616"), 1 + 3 + 9);
    }

    #[test]
    fn the_shortcut_never_hides_an_excess() {
        let floats = format!("[{}]", vec!["1e1"; 1000].join(","));
        assert_eq!(exceeds(&floats, 9000), external_size(&floats) > 9000);
        assert!(exceeds(&format!("\"{}\"", "y".repeat(2000)), 1500));
        assert!(!exceeds(&format!("\"{}\"", "y".repeat(1000)), 1500));
    }
}
