//! Types whose comparison is known here, with the rules of their Postgres operators.

use std::cmp::Ordering;

use super::super::values::{TypeInfo, TypeKind, oid};
use super::decimal::Decimal;
use super::moment::{Moment, Offset};
use super::pattern::Pattern;

/// Longest `name` plus one: longer literals are cut by Postgres.
const NAME_BYTES: usize = 64;

/// The form of uuids that Postgres prints; it reads others as well.
const UUID_BYTES: usize = 36;

/// Types that compare alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Integers with their range.
    Integer(i64, i64),
    Boolean,
    Numeric,
    Float4,
    Float8,
    Uuid,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    /// text and varchar: equality is that of the bytes, the order is up to the collation.
    Text,
    /// char(n): the same, but for spaces at the end.
    Padded,
    /// name: always in the order of the bytes.
    Name,
    /// Labels of an enum: equality only.
    Label,
    /// bit and varbit.
    Bits,
    Bytea,
}

/// The value of a filter, ready for comparison.
#[derive(Debug, Clone)]
pub enum Operand {
    Integer(i64),
    Float(f64),
    Decimal(Decimal),
    Moment(Moment),
    Uuid(u128),
    Bytes(Box<[u8]>),
    /// The digits of bytes, in lower case.
    Digits(Box<str>),
}

impl Family {
    /// `None` for types that only the database can compare.
    pub fn of(type_info: &TypeInfo, deterministic: bool) -> Option<Self> {
        let family = match (&type_info.kind, type_info.oid) {
            (TypeKind::Enum, _) => Self::Label,
            // A domain may have a length or precision, which changes literals of these types, or a collation of its own.
            (TypeKind::Domain { base }, _) => match Self::of(base, deterministic)? {
                Self::Numeric | Self::Time | Self::Timestamp | Self::Timestamptz | Self::Padded | Self::Bits => return None,
                Self::Bytea | Self::Name => return None,
                Self::Text if base.oid != oid::TEXT => return None,
                family => family,
            },
            (TypeKind::Base, oid::BOOL) => Self::Boolean,
            (TypeKind::Base, oid::INT2) => Self::Integer(i16::MIN.into(), i16::MAX.into()),
            (TypeKind::Base, oid::INT4) => Self::Integer(i32::MIN.into(), i32::MAX.into()),
            (TypeKind::Base, oid::INT8) => Self::Integer(i64::MIN, i64::MAX),
            (TypeKind::Base, oid::OID) => Self::Integer(0, u32::MAX.into()),
            (TypeKind::Base, oid::NUMERIC) => Self::Numeric,
            (TypeKind::Base, oid::FLOAT4) => Self::Float4,
            (TypeKind::Base, oid::FLOAT8) => Self::Float8,
            (TypeKind::Base, oid::UUID) => Self::Uuid,
            (TypeKind::Base, oid::DATE) => Self::Date,
            (TypeKind::Base, oid::TIME) => Self::Time,
            (TypeKind::Base, oid::TIMESTAMP) => Self::Timestamp,
            (TypeKind::Base, oid::TIMESTAMPTZ) => Self::Timestamptz,
            (TypeKind::Base, oid::TEXT | oid::VARCHAR) => Self::Text,
            (TypeKind::Base, oid::BPCHAR) => Self::Padded,
            (TypeKind::Base, oid::NAME) => Self::Name,
            (TypeKind::Base, oid::BIT | oid::VARBIT) => Self::Bits,
            (TypeKind::Base, oid::BYTEA) => Self::Bytea,
            _ => return None,
        };
        let is_collated = matches!(family, Self::Text | Self::Padded);
        (deterministic || !is_collated).then_some(family)
    }

    /// Whether [`Family::compare`] tells less from greater.
    pub fn is_ordered(self) -> bool {
        !matches!(self, Self::Text | Self::Padded | Self::Label)
    }

    /// Reads the value of a filter. `None` if Postgres may read it otherwise, or refuse it.
    pub fn literal(self, text: &str) -> Option<Operand> {
        match self {
            Self::Boolean => match text {
                "t" | "true" | "y" | "yes" | "on" | "1" => Some(Operand::Integer(1)),
                "f" | "false" | "n" | "no" | "off" | "0" => Some(Operand::Integer(0)),
                _ => None,
            },
            Self::Numeric if !Decimal::is_short(text) => None,
            Self::Date | Self::Timestamp | Self::Timestamptz if !Moment::is_plain(text) => None,
            Self::Name if text.len() >= NAME_BYTES => None,
            Self::Bytea => match text.strip_prefix("\\x") {
                Some(digits) => {
                    let is_hex = digits.len() % 2 == 0 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                    is_hex.then(|| Operand::Digits(digits.to_ascii_lowercase().into()))
                }
                // The original's clients write digits without a prefix; a backslash would start an escape.
                None => (!text.contains('\\')).then(|| Operand::Bytes(text.as_bytes().into())),
            },
            _ => self.read(text),
        }
    }

    /// Compares a column's value with that of a filter. `None` if the value does not look like its type's output.
    pub fn compare(self, text: &str, operand: &Operand) -> Option<Ordering> {
        Some(match (self, operand) {
            (Self::Text | Self::Name | Self::Label, Operand::Bytes(bytes)) => text.as_bytes().cmp(bytes),
            (Self::Padded, Operand::Bytes(bytes)) => text.trim_end_matches(' ').as_bytes().cmp(bytes),
            (Self::Bytea, Operand::Digits(digits)) => text.strip_prefix("\\x")?.cmp(digits),
            (Self::Bytea, Operand::Bytes(bytes)) => text.strip_prefix("\\x")?.as_bytes().cmp(bytes),
            _ => return self.read(text)?.order(operand),
        })
    }

    /// Whether a column's value equals one of the operands, reading it once.
    pub fn is_any(self, text: &str, operands: &[Operand]) -> Option<bool> {
        match self {
            Self::Text | Self::Name | Self::Label | Self::Padded | Self::Bytea => {
                let mut orders = operands.iter().map(|operand| self.compare(text, operand));
                orders.try_fold(false, |found, order| Some(found || order?.is_eq()))
            }
            _ => {
                let value = self.read(text)?;
                Some(operands.iter().any(|operand| value.order(operand) == Some(Ordering::Equal)))
            }
        }
    }

    /// Reads the pattern of LIKE. `None` for types without LIKE, and for escapes.
    pub fn pattern(self, text: &str) -> Option<Pattern> {
        match self {
            Self::Text => Pattern::parse(text),
            Self::Padded => Pattern::parse(text.trim_end_matches(' ')),
            Self::Name if text.len() < NAME_BYTES => Pattern::parse(text),
            // Byte by byte, which is character by character among digits.
            Self::Bytea if text.is_ascii() => Pattern::parse(text),
            _ => None,
        }
    }

    /// Whether a column's value is LIKE the pattern.
    pub fn like(self, text: &str, pattern: &Pattern) -> Option<bool> {
        match self {
            Self::Bytea => pattern.matches(text.strip_prefix("\\x")?),
            _ => pattern.matches(text),
        }
    }

    /// Reads what Postgres prints, which it reads the same way.
    fn read(self, text: &str) -> Option<Operand> {
        match self {
            Self::Integer(min, max) => {
                let number: i64 = text.parse().ok()?;
                (min..=max).contains(&number).then_some(Operand::Integer(number))
            }
            Self::Boolean => match text {
                "t" => Some(Operand::Integer(1)),
                "f" => Some(Operand::Integer(0)),
                _ => None,
            },
            Self::Numeric => Decimal::parse(text).map(Operand::Decimal),
            Self::Float4 => float(text, |text| text.parse::<f32>().ok().map(f64::from)),
            Self::Float8 => float(text, |text| text.parse().ok()),
            Self::Uuid if text.len() == UUID_BYTES => uuid::Uuid::try_parse(text).ok().map(|uuid| Operand::Uuid(uuid.as_u128())),
            Self::Uuid => None,
            Self::Date => Moment::date(text).map(Operand::Moment),
            Self::Time => Moment::time(text).map(Operand::Moment),
            Self::Timestamp => Moment::timestamp(text, Offset::Forbidden).map(Operand::Moment),
            Self::Timestamptz => Moment::timestamp(text, Offset::Required).map(Operand::Moment),
            Self::Text | Self::Name | Self::Label => Some(Operand::Bytes(text.as_bytes().into())),
            Self::Padded => Some(Operand::Bytes(text.trim_end_matches(' ').as_bytes().into())),
            // Bit by bit, the shorter one first, is the order of their characters.
            Self::Bits => {
                let is_bits = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0' | b'1'));
                is_bits.then(|| Operand::Bytes(text.as_bytes().into()))
            }
            Self::Bytea => None,
        }
    }
}

impl Operand {
    /// `None` for values of different kinds, which are never compared.
    fn order(&self, other: &Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Integer(left), Self::Integer(right)) => left.cmp(right),
            (Self::Float(left), Self::Float(right)) => float_order(*left, *right),
            (Self::Decimal(left), Self::Decimal(right)) => left.cmp(right),
            (Self::Moment(left), Self::Moment(right)) => left.cmp(right),
            (Self::Uuid(left), Self::Uuid(right)) => left.cmp(right),
            (Self::Bytes(left), Self::Bytes(right)) => left.cmp(right),
            _ => return None,
        })
    }
}

/// A float in decimal notation, or one of the three special values.
fn float(text: &str, parse: impl Fn(&str) -> Option<f64>) -> Option<Operand> {
    match text {
        "NaN" => return Some(Operand::Float(f64::NAN)),
        "Infinity" => return Some(Operand::Float(f64::INFINITY)),
        "-Infinity" => return Some(Operand::Float(f64::NEG_INFINITY)),
        _ => {}
    }
    let mantissa = text.split(['e', 'E']).next()?;
    let is_decimal = mantissa.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'));
    let number = parse(text).filter(|_| is_decimal)?;
    // Out of range, which Postgres refuses.
    let is_zero = !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    (number.is_finite() && (number != 0.0 || is_zero)).then_some(Operand::Float(number))
}

/// NaN equals itself and is greater than everything else.
fn float_order(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}
