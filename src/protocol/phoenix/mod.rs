//! Phoenix channel messages: bytes of one WebSocket message ⇄ meaning (protocol section 3).
//!
//! `json` scans spans, `envelope` reads the two text serializers, `binary` the kinds of version 2, `encode` writes whole
//! WebSocket frames. Pure: no I/O, no clock. Malformed input is a typed error that callers log and drop; it never closes
//! the connection (3.5).

pub mod binary;
pub mod encode;
pub mod envelope;
pub mod json;

pub use binary::decode_binary;
pub use envelope::{Malformed, Payload, Push, decode_text};

/// Serializer of a socket, fixed by the `vsn` of its upgrade (1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vsn {
    /// `1.0.x`: JSON objects.
    V1,
    /// `2.0.x`: JSON arrays and binary frames.
    V2,
}

impl Vsn {
    /// Reads the `vsn` query parameter; absent means 1.0.0. `None` for everything that is not served.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        let version = semver::Version::parse(text.unwrap_or("1.0.0")).ok()?;
        // A pre-release of the first patch sorts below it and does not match.
        if version.patch == 0 && !version.pre.is_empty() {
            return None;
        }
        match (version.major, version.minor) {
            (1, 0) => Some(Self::V1),
            (2, 0) => Some(Self::V2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_lines_are_served() {
        for good in ["1.0.0", "1.0.7"] {
            assert_eq!(Vsn::parse(Some(good)), Some(Vsn::V1));
        }
        for good in ["2.0.0", "2.0.3", "2.0.1-rc.1"] {
            assert_eq!(Vsn::parse(Some(good)), Some(Vsn::V2));
        }
        assert_eq!(Vsn::parse(None), Some(Vsn::V1));
        for bad in ["1.1.0", "2.1.0", "3.0.0", "2", "abc", "", "2.0.0-rc.1"] {
            assert_eq!(Vsn::parse(Some(bad)), None, "{bad}");
        }
    }
}
