//! Dates and times in ISO form that can be compared: the output of Postgres and the literals that mean the same in every
//! session.

/// A point of a time line. The order of the variants is the order of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    NegativeInfinity,
    /// Seconds, then microseconds. What they count from depends on the type.
    At(i64, u32),
    Infinity,
}

/// What has to follow the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    Forbidden,
    Required,
}

const DAY_SECONDS: i64 = 86_400;

impl Moment {
    /// A `date`.
    pub fn date(text: &str) -> Option<Self> {
        if let Some(infinite) = Self::infinite(text) {
            return Some(infinite);
        }
        let (date, before_christ) = era(text);
        Some(Self::At(days(date, before_christ)?, 0))
    }

    /// A `time`.
    pub fn time(text: &str) -> Option<Self> {
        let (seconds, micros) = time_of_day(text)?;
        Some(Self::At(seconds, micros))
    }

    /// A `timestamp` (offset forbidden; a date alone means midnight) or `timestamptz` (offset required).
    pub fn timestamp(text: &str, offset: Offset) -> Option<Self> {
        if let Some(infinite) = Self::infinite(text) {
            return Some(infinite);
        }
        let (text, before_christ) = era(text);
        let Some((date, rest)) = text.split_once([' ', 'T']) else {
            let is_midnight = offset == Offset::Forbidden && !before_christ;
            return is_midnight.then(|| days(text, false)).flatten().map(|days| Self::At(days * DAY_SECONDS, 0));
        };
        let (time, offset_seconds) = match offset {
            Offset::Forbidden => (rest, 0),
            Offset::Required => split_offset(rest)?,
        };
        let (seconds, micros) = time_of_day(time)?;
        // The end of a day belongs to the next one, which is for Postgres to say.
        if seconds >= DAY_SECONDS {
            return None;
        }
        Some(Self::At(days(date, before_christ)? * DAY_SECONDS + seconds - offset_seconds, micros))
    }

    /// Whether a literal has a year of four digits in our era, which no session reads otherwise and all types can hold.
    pub fn is_plain(text: &str) -> bool {
        text.ends_with("infinity") || (text.as_bytes().get(4) == Some(&b'-') && !text.ends_with("BC"))
    }

    fn infinite(text: &str) -> Option<Self> {
        match text {
            "infinity" => Some(Self::Infinity),
            "-infinity" => Some(Self::NegativeInfinity),
            _ => None,
        }
    }
}

fn era(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC").map_or((text, false), |text| (text, true))
}

/// A number of exactly `len` digits, or at least four for years.
fn number(text: &str, len: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let is_number = len.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Days since some day, of a date that exists.
fn days(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.split('-');
    let year = number(parts.next()?, 4..=7)?;
    let month = number(parts.next()?, 2..=2)?;
    let day = number(parts.next()?, 2..=2)?;
    if parts.next().is_some() || year == 0 || !(1..=12).contains(&month) {
        return None;
    }
    // There is no year zero.
    let year = if before_christ { 1 - year } else { year };
    let is_leap = year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0);
    let month_days = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1..=month_days).contains(&day) {
        return None;
    }
    // Years that begin in March have their leap day last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (month * 153 + 2) / 5 + day)
}

/// Seconds and microseconds of `HH:MM[:SS[.ffffff]]`.
fn time_of_day(text: &str) -> Option<(i64, u32)> {
    let mut parts = text.splitn(3, ':');
    let hours = number(parts.next()?, 2..=2)?;
    let minutes = number(parts.next()?, 2..=2)?;
    let (seconds, micros) = match parts.next() {
        None => (0, 0),
        Some(rest) => {
            let (seconds, fraction) = rest.split_once('.').map_or((rest, None), |(seconds, fraction)| (seconds, Some(fraction)));
            let micros = match fraction {
                Some(fraction) => {
                    let missing = 6_u32.checked_sub(u32::try_from(fraction.len()).ok()?)?;
                    number(fraction, 1..=6)? * 10_i64.pow(missing)
                }
                None => 0,
            };
            (number(seconds, 2..=2)?, u32::try_from(micros).ok()?)
        }
    };
    let is_end_of_day = (hours, minutes, seconds, micros) == (24, 0, 0, 0);
    let exists = hours < 24 && minutes < 60 && seconds < 60;
    (exists || is_end_of_day).then_some((hours * 3_600 + minutes * 60 + seconds, micros))
}

/// The time of day and how many seconds it is ahead of UTC.
fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some((time, 0));
    }
    let at = text.find(['+', '-'])?;
    let mut parts = text[at + 1..].split(':');
    let hours = number(parts.next()?, 2..=2)?;
    let minutes = parts.next().map_or(Some(0), |part| number(part, 2..=2))?;
    let seconds = parts.next().map_or(Some(0), |part| number(part, 2..=2))?;
    // Postgres' own limits.
    if parts.next().is_some() || hours > 15 || minutes > 59 || seconds > 59 {
        return None;
    }
    let ahead = hours * 3_600 + minutes * 60 + seconds;
    Some((&text[..at], if text.as_bytes()[at] == b'-' { -ahead } else { ahead }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_in_order() {
        let ascending = [
            "-infinity",
            "4713-01-01 00:00:00+00 BC",
            "0001-12-31 23:59:59.999999+00 BC",
            "0001-01-01 00:00:00+00",
            "2024-02-29 23:59:59-00:30",
            "2024-03-01 00:30:00+00",
            "2024-03-01T00:30:00.5Z",
            "2024-03-01 02:30:00.6+02:00",
            "12024-01-01 00:00:00+00",
            "infinity",
        ];
        let moments = ascending.map(|text| Moment::timestamp(text, Offset::Required).unwrap_or_else(|| panic!("{text}")));
        assert!(moments.is_sorted() && moments[3] != moments[4], "{moments:?}");
        let noon = |text| Moment::timestamp(text, Offset::Required).unwrap();
        assert_eq!(noon("2024-06-01 12:00:00+00"), noon("2024-06-01T14:30+02:30"));
        assert_eq!(noon("1883-11-18 12:00:00+00:19:32"), noon("1883-11-18 11:40:28Z"));
        assert_eq!(Moment::timestamp("2024-06-01", Offset::Forbidden), Moment::timestamp("2024-06-01 00:00", Offset::Forbidden));
    }

    #[test]
    fn what_may_mean_something_else_is_refused() {
        for text in [
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "0000-01-01",
            "24-01-01",
            "2024-1-1",
            "today",
            "2024-01-01x",
        ] {
            assert_eq!(Moment::date(text), None, "{text}");
        }
        for text in [
            "2024-01-01 00:00:00",
            "2024-01-01",
            "2024-01-01 00:00:00 +00",
            "2024-01-01 00:00:00+0000",
            "2024-01-01 00:00:00+16",
            "2024-01-01 24:00:00Z",
            "2024-01-01 00:00:60Z",
            "2024-01-01 00:00:00.Z",
            "2024-01-01 00:00:00.1234567Z",
        ] {
            assert_eq!(Moment::timestamp(text, Offset::Required), None, "{text}");
        }
        for text in ["24:00:01", "12", "1:00", "12:60", "12:00:00.", "12:00:00+00"] {
            assert_eq!(Moment::time(text), None, "{text}");
        }
        assert!(Moment::time("24:00:00") > Moment::time("23:59:59.999999"));
    }
}
