//! The client's address behind trusted proxies.
//!
//! Called once per connection or request with the peer's address (or the one of the
//! PROXY header) and `Head::header_joined("x-forwarded-for")`; the result goes to logs
//! and per-address limits. Only proxies in the operator's list are believed: each hop
//! appends the address it saw, so the list is read from the right and the first address
//! that is not a trusted proxy is the client. Anything further left is the client's own
//! claim. Addresses are compared in canonical form, so that `::ffff:10.0.0.1` from a
//! dual-stack listener is `10.0.0.1`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A range of addresses, written `10.0.0.0/8`; a bare address means that address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix_bits: u8,
}

/// The text is not an address range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CidrError {
    text: String,
}

impl fmt::Display for CidrError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} is not an address range like 10.0.0.0/8", self.text)
    }
}

impl std::error::Error for CidrError {}

impl FromStr for Cidr {
    type Err = CidrError;

    /// Bits of the address beyond the prefix are ignored.
    fn from_str(text: &str) -> Result<Self, CidrError> {
        parse_cidr(text).ok_or_else(|| CidrError { text: text.to_owned() })
    }
}

fn parse_cidr(text: &str) -> Option<Cidr> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let written: IpAddr = address.parse().ok()?;
    let written_bits = address_bits(written);
    let prefix_bits = match prefix {
        None => written_bits,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
        Some(_) => return None,
    };
    if prefix_bits > written_bits {
        return None;
    }
    let network = written.to_canonical();
    // A range of mapped addresses is the IPv4 range in its last 32 bits.
    let dropped_bits = written_bits - address_bits(network);
    let prefix_bits = prefix_bits.checked_sub(dropped_bits)?;
    Some(Cidr { network, prefix_bits })
}

fn address_bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl Cidr {
    /// Whether `address` lies in this range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let prefix_bits = u32::from(self.prefix_bits);
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let difference = network.to_bits() ^ address.to_bits();
                difference.leading_zeros() >= prefix_bits
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let difference = network.to_bits() ^ address.to_bits();
                difference.leading_zeros() >= prefix_bits
            }
            _ => false,
        }
    }
}

/// The address of the client behind `peer`, in canonical form.
///
/// `xff` is the joined `x-forwarded-for`. An entry that is no address ends the search at
/// the proxy that reported it. If every entry is trusted, the left-most is the client.
pub fn client_addr(peer: IpAddr, xff: Option<&str>, trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |address| trusted.iter().any(|range| range.contains(address));
    let mut client = peer.to_canonical();
    let mut hops = xff.unwrap_or_default().rsplit(',');
    while is_trusted(client) {
        match hops.next().and_then(parse_hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An entry of `x-forwarded-for`; some proxies add the port, and then brackets to IPv6.
fn parse_hop(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(entry);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => entry.parse::<SocketAddr>().ok()?.ip(),
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_and_their_members() {
        let cases = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.9.9.9/8", "10.0.0.1", true),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("0.0.0.0/0", "203.0.113.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.1", false),
            ("::1", "::1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ];
        for (text, address, expected) in cases {
            assert_eq!(range(text).contains(ip(address)), expected, "{text} {address}");
        }
    }

    #[test]
    fn texts_that_are_no_range() {
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::1/129",
            "host/8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "::ffff:10.0.0.0/90",
            "10.0.0.0/256",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_right_most_untrusted_address_is_the_client() {
        let trusted = [range("10.0.0.0/8"), range("::1")];
        let cases = [
            ("203.0.113.9", Some("1.1.1.1"), "203.0.113.9"),
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", Some(""), "10.0.0.1"),
            ("10.0.0.1", Some("198.51.100.2"), "198.51.100.2"),
            ("10.0.0.1", Some("6.6.6.6, 198.51.100.2"), "198.51.100.2"),
            ("10.0.0.1", Some("6.6.6.6,198.51.100.2 , 10.0.0.2"), "198.51.100.2"),
            ("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), "10.0.0.3"),
            ("10.0.0.1", Some("6.6.6.6, unknown, 10.0.0.2"), "10.0.0.2"),
            ("10.0.0.1", Some("198.51.100.2:443"), "198.51.100.2"),
            ("10.0.0.1", Some("[2001:db8::1]:443"), "2001:db8::1"),
            ("10.0.0.1", Some("[2001:db8::1]"), "2001:db8::1"),
            ("::1", Some("2001:db8::1"), "2001:db8::1"),
            ("::ffff:10.0.0.1", Some("::ffff:198.51.100.2"), "198.51.100.2"),
        ];
        for (peer, xff, expected) in cases {
            assert_eq!(client_addr(ip(peer), xff, &trusted), ip(expected), "{peer} {xff:?}");
        }
        assert_eq!(client_addr(ip("10.0.0.1"), Some("6.6.6.6"), &[]), ip("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn a_client_cannot_choose_its_address(claim in "[ -~]{0,60}", seen in any::<u32>()) {
            let seen = IpAddr::V4(seen.into());
            let trusted = [range("10.0.0.0/8")];
            prop_assume!(!trusted[0].contains(seen));
            let xff = format!("{claim}, {seen}");
            prop_assert_eq!(client_addr(ip("10.0.0.1"), Some(&xff), &trusted), seen);
        }

        #[test]
        fn any_text_parses_or_is_refused(text in any::<String>(), bits in any::<u128>(), prefix in 0..=128_u8) {
            let _ = text.parse::<Cidr>();
            let address = IpAddr::V6(bits.into());
            prop_assume!(address.to_canonical() == address);
            let contained = range(&format!("{address}/{prefix}")).contains(address);
            prop_assert!(contained);
        }
    }
}
