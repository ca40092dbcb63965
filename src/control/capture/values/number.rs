//! Numbers as jsonb prints them: every digit of the text, no exponent, no negative zero.
//!
//! Called for number columns, whose text is Postgres' own, and for numbers inside json columns, whose text is any number of
//! the JSON grammar. Fails with [`NeedsSql`] for what is not such a number or would get too long.

use super::NeedsSql;

/// Longest number with an exponent that is written out. Doubles need 342 characters; more is up to Postgres and its limits.
const WRITTEN_OUT_BYTES_MAX: usize = 1_000;

/// Longest number without exponent: far below the digits Postgres' numeric can hold before or after the point.
const DIGITS_BYTES_MAX: usize = 16_000;

/// The values of float and numeric that are no JSON numbers.
pub fn is_special(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// Appends the number.
pub fn write(text: &str, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
    let parts = Parts::of(text).ok_or(NeedsSql)?;
    if text.len() > DIGITS_BYTES_MAX {
        return Err(NeedsSql);
    }
    let is_zero = !parts.whole.bytes().chain(parts.fraction.bytes()).any(|digit| digit != b'0');
    if parts.negative && !is_zero {
        out.push(b'-');
    }
    match parts.exponent {
        None => out.extend_from_slice(text.strip_prefix('-').unwrap_or(text).as_bytes()),
        Some(exponent) => write_out(&parts, exponent, out)?,
    }
    Ok(())
}

fn write_out(parts: &Parts<'_>, exponent: i64, out: &mut Vec<u8>) -> Result<(), NeedsSql> {
    let digits: Vec<u8> = parts.whole.bytes().chain(parts.fraction.bytes()).collect();
    let point = parts.whole.len() as i64 + exponent;
    let scale = (parts.fraction.len() as i64 - exponent).max(0);
    let bytes = digits.len() as u64 + point.unsigned_abs() + scale.unsigned_abs();
    if bytes > WRITTEN_OUT_BYTES_MAX as u64 {
        return Err(NeedsSql);
    }
    let digit = |at: i64| usize::try_from(at).ok().and_then(|at| digits.get(at)).copied().unwrap_or(b'0');
    let first = (0..point).find(|at| digit(*at) != b'0').unwrap_or((point - 1).max(0));
    if point <= 0 {
        out.push(b'0');
    }
    out.extend((first..point).map(digit));
    if scale > 0 {
        out.push(b'.');
        out.extend((point..point + scale).map(digit));
    }
    Ok(())
}

/// A number of the JSON grammar in pieces; as Postgres' outputs conform to it, so do they.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: Option<i64>,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                // More digits than this are beyond every bound.
                if !is_digits(digits) || digits.len() > 9 {
                    return None;
                }
                (mantissa, Some(exponent.parse().ok()?))
            }
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (mantissa, ""),
        };
        let well_formed =
            is_digits(whole) && (whole.len() == 1 || !whole.starts_with('0')) && (fraction.is_empty() || is_digits(fraction));
        well_formed.then_some(Self { negative: text.len() != unsigned.len(), whole, fraction, exponent })
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
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
    fn exponents_are_written_out() {
        let cases = [
            ("0", "0"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("1.50", "1.50"),
            ("1e+20", "100000000000000000000"),
            ("1.5e3", "1500"),
            ("1.50e1", "15.0"),
            ("-1.25e-5", "-0.0000125"),
            ("0.5e1", "5"),
            ("0.05e1", "0.5"),
            ("0e5", "0"),
            ("0e-5", "0.00000"),
            ("12E0", "12"),
        ];
        for (text, expected) in cases {
            assert_eq!(written(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_long_is_refused() {
        for text in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "1 ", "NaN", "0x1", "1e2000", "1e-2000", "1e9999999999"] {
            assert_eq!(written(text), None, "{text}");
        }
    }
}
