//! Decimal numbers of any length, compared exactly: Postgres' numeric.

use std::cmp::Ordering;

/// Longest literal read natively, and its largest exponent: far within what Postgres' numeric holds.
const LITERAL_BYTES_MAX: usize = 1_000;
const EXPONENT_MAX: u32 = 1_000;

/// A numeric value. In order, as Postgres sorts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decimal {
    NegativeInfinity,
    Finite {
        negative: bool,
        /// Without zeros at either end; empty for zero.
        digits: Box<[u8]>,
        /// The value is 0.`digits` times ten to this power; 0 for zero.
        point: i32,
    },
    Infinity,
    NaN,
}

impl Decimal {
    /// Reads a literal or the output of a column. `None` for what Postgres may read otherwise or not at all.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "NaN" => return Some(Self::NaN),
            "Infinity" => return Some(Self::Infinity),
            "-Infinity" => return Some(Self::NegativeInfinity),
            _ => {}
        }
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => {
                let exponent: i32 = exponent.parse().ok()?;
                if exponent.unsigned_abs() > EXPONENT_MAX || text.len() > LITERAL_BYTES_MAX {
                    return None;
                }
                (mantissa, exponent)
            }
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || mantissa.ends_with('.') || !mantissa.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        if fraction.contains('.') {
            return None;
        }
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let Some(first) = all.iter().position(|digit| *digit != b'0') else {
            return Some(Self::Finite { negative: false, digits: Box::default(), point: 0 });
        };
        let last = all.iter().rposition(|digit| *digit != b'0').unwrap_or(first);
        let point = i32::try_from(whole.len()).ok()? - i32::try_from(first).ok()? + exponent;
        Some(Self::Finite { negative, digits: all[first..=last].into(), point })
    }

    /// Whether a literal is short enough to be within Postgres' limits.
    pub fn is_short(text: &str) -> bool {
        text.len() <= LITERAL_BYTES_MAX
    }

    fn rank(&self) -> u8 {
        match self {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        }
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let (
            Self::Finite { negative, digits, point },
            Self::Finite { negative: other_negative, digits: other_digits, point: other_point },
        ) = (self, other)
        else {
            return self.rank().cmp(&other.rank());
        };
        let sign = |negative: bool, digits: &[u8]| if digits.is_empty() { 0 } else { 1 - 2 * i8::from(negative) };
        let (left, right) = (sign(*negative, digits), sign(*other_negative, other_digits));
        let magnitudes = || point.cmp(other_point).then_with(|| digits.cmp(other_digits));
        left.cmp(&right).then_with(|| if left < 0 { magnitudes().reverse() } else { magnitudes() })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_in_order() {
        let ascending = [
            "-Infinity",
            "-1e3",
            "-999.5",
            "-2",
            "-1.1",
            "-1.01",
            "-1",
            "-0.1",
            "-0.01",
            "0",
            "0.001",
            "0.01",
            "0.1",
            "0.12",
            "1",
            "1.01",
            "9",
            "10",
            "99.999",
            "100",
            "1e3",
            "12345678901234567890123456789.000000001",
            "Infinity",
            "NaN",
        ];
        for (at, left) in ascending.iter().enumerate() {
            for (other, right) in ascending.iter().enumerate() {
                let (left, right) = (Decimal::parse(left).unwrap(), Decimal::parse(right).unwrap());
                assert_eq!(left.cmp(&right), at.cmp(&other), "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn spelling_does_not_matter() {
        for (left, right) in
            [("1.50", "+01.5"), ("0", "-0.00"), ("1e2", "100.0"), ("12e-1", "1.2"), ("0e5", "0"), ("0.05e1", "0.5")]
        {
            assert_eq!(Decimal::parse(left), Decimal::parse(right), "{left} {right}");
        }
        for text in ["", "-", "1.", ".5", "1.2.3", "1e", "1e2000", "1e-2147483648", "nan", " 1", "1_0", "0x10", "--1", "e5"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }
}
