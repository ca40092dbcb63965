//! The PROXY protocol, versions 1 and 2: a line a load balancer puts before the first
//! request to name the real client.
//!
//! Called by the connection only on listeners configured to expect it, before any HTTP
//! byte is parsed. Both forms are bounded, so a peer that sends none cannot make us wait
//! for more than [`V2_BYTES_MAX`] bytes; usually its first byte already decides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use memchr::memmem;

const V1_PREFIX: &[u8] = b"PROXY ";

/// The longest version 1 line including CR LF, fixed by the protocol.
const V1_BYTES_MAX: usize = 107;

const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, two bytes of length.
const V2_HEADER_BYTES: usize = 16;

/// The part after the version 2 header; known extensions need a few hundred bytes.
const V2_PAYLOAD_BYTES_MAX: usize = 4096;

/// The most that [`parse_proxy`] ever asks for.
const V2_BYTES_MAX: usize = V2_HEADER_BYTES + V2_PAYLOAD_BYTES_MAX;

/// What the load balancer says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyInfo {
    /// The client's address; `None` for the balancer's own checks and for families other
    /// than TCP over IP, where the peer's address stands.
    pub source: Option<SocketAddr>,
}

/// The connection does not start with a valid PROXY header and is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyError {
    /// It starts with something else.
    Absent,
    /// The header is broken; the text names the rule for the log.
    Malformed(&'static str),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Absent => "no PROXY header",
            Self::Malformed(rule) => rule,
        })
    }
}

impl std::error::Error for ProxyError {}

/// Parses the header at the start of `buf` and says how many bytes it takes; `None`
/// asks for more bytes.
///
/// # Errors
/// See [`ProxyError`].
pub fn parse_proxy(buf: &[u8]) -> Result<Option<(ProxyInfo, usize)>, ProxyError> {
    if starts_like(buf, V2_SIGNATURE) {
        let parsed = parse_v2(buf)?;
        debug_assert!(parsed.is_some() || buf.len() < V2_BYTES_MAX);
        Ok(parsed)
    } else if starts_like(buf, V1_PREFIX) {
        parse_v1(buf)
    } else {
        Err(ProxyError::Absent)
    }
}

/// Whether `buf` starts with `expected` as far as both go.
fn starts_like(buf: &[u8], expected: &[u8]) -> bool {
    let common = buf.len().min(expected.len());
    buf[..common] == expected[..common]
}

fn parse_v1(buf: &[u8]) -> Result<Option<(ProxyInfo, usize)>, ProxyError> {
    let bounded = &buf[..buf.len().min(V1_BYTES_MAX)];
    let Some(line_bytes) = memmem::find(bounded, b"\r\n") else {
        if buf.len() >= V1_BYTES_MAX {
            return Err(ProxyError::Malformed("PROXY line is too long"));
        }
        return Ok(None);
    };
    // The line end may come before the prefix is complete.
    let words = bounded[..line_bytes]
        .strip_prefix(V1_PREFIX)
        .and_then(|words| std::str::from_utf8(words).ok())
        .ok_or(ProxyError::Malformed("invalid PROXY line"))?;
    let source = parse_v1_words(words)?;
    Ok(Some((ProxyInfo { source }, line_bytes + 2)))
}

fn parse_v1_words(words: &str) -> Result<Option<SocketAddr>, ProxyError> {
    const INVALID: ProxyError = ProxyError::Malformed("invalid address in PROXY line");
    let mut words = words.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse().map(IpAddr::V4).ok(),
            "TCP6" => word.parse().map(IpAddr::V6).ok(),
            _ => None,
        }
    };
    let source_ip = address().ok_or(INVALID)?;
    address().ok_or(INVALID)?;
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| word.parse().ok())?
    };
    let source_port = port().ok_or(INVALID)?;
    port().ok_or(INVALID)?;
    if words.next().is_some() {
        return Err(INVALID);
    }
    Ok(Some(SocketAddr::new(source_ip, source_port)))
}

fn parse_v2(buf: &[u8]) -> Result<Option<(ProxyInfo, usize)>, ProxyError> {
    let Some(header) = buf.first_chunk::<V2_HEADER_BYTES>() else {
        return Ok(None);
    };
    let [.., command, family, length_high, length_low] = *header;
    let payload_bytes = usize::from(u16::from_be_bytes([length_high, length_low]));
    if payload_bytes > V2_PAYLOAD_BYTES_MAX {
        return Err(ProxyError::Malformed("PROXY header is too long"));
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed("unknown PROXY version or command")),
    };
    let header_bytes = V2_HEADER_BYTES + payload_bytes;
    let Some(payload) = buf.get(V2_HEADER_BYTES..header_bytes) else {
        return Ok(None);
    };
    let source = match family {
        _ if is_local => None,
        0x11 => Some(parse_v2_source::<4, 12>(payload)?),
        0x21 => Some(parse_v2_source::<16, 36>(payload)?),
        _ => None,
    };
    Ok(Some((ProxyInfo { source }, header_bytes)))
}

/// Reads source address, destination address, source port, destination port, where one
/// address has `ADDRESS` bytes and the whole block `BLOCK`; extensions after it are skipped.
fn parse_v2_source<const ADDRESS: usize, const BLOCK: usize>(payload: &[u8]) -> Result<SocketAddr, ProxyError> {
    const SHORT: ProxyError = ProxyError::Malformed("PROXY addresses are cut short");
    let block = payload.first_chunk::<BLOCK>().ok_or(SHORT)?;
    let ip = match (block.first_chunk::<4>(), block.first_chunk::<16>()) {
        (Some(v4), _) if ADDRESS == 4 => IpAddr::V4(Ipv4Addr::from(*v4)),
        (_, Some(v6)) => IpAddr::V6(Ipv6Addr::from(*v6)),
        _ => return Err(SHORT),
    };
    let port = u16::from_be_bytes([block[2 * ADDRESS], block[2 * ADDRESS + 1]]);
    Ok(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u16).to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, payload].concat()
    }

    fn v2_tcp4(extensions: &[u8]) -> Vec<u8> {
        let addresses = [192, 0, 2, 1, 10, 0, 0, 9, 0x1f, 0x90, 0x01, 0xbb];
        v2(0x21, 0x11, &[&addresses, extensions].concat())
    }

    fn v2_tcp6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let ports = [0x1f, 0x90, 0x01, 0xbb];
        v2(0x21, 0x21, &[&source.octets()[..], &[0; 16], &ports].concat())
    }

    #[test]
    fn headers_and_their_sources() {
        let cases: Vec<(Vec<u8>, Option<&str>)> = vec![
            (b"PROXY TCP4 192.0.2.1 10.0.0.9 8080 443\r\n".into(), Some("192.0.2.1:8080")),
            (b"PROXY TCP6 2001:db8::1 ::1 8080 443\r\n".into(), Some("[2001:db8::1]:8080")),
            (b"PROXY UNKNOWN\r\n".into(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".into(), None),
            (v2_tcp4(b""), Some("192.0.2.1:8080")),
            (v2_tcp4(&[4, 0, 1, 0]), Some("192.0.2.1:8080")),
            (v2_tcp4(&[0; V2_PAYLOAD_BYTES_MAX - 12]), Some("192.0.2.1:8080")),
            (v2_tcp6(), Some("[2001:db8::1]:8080")),
            (v2(0x20, 0x00, b""), None),
            (v2(0x20, 0x11, &[1; 12]), None),
            (v2(0x21, 0x00, b""), None),
            (v2(0x21, 0x31, &[1; 216]), None),
        ];
        for (header, source) in cases {
            let source = source.map(|source| source.parse().unwrap());
            let mut stream = header.clone();
            stream.extend_from_slice(b"GET / HTTP/1.1\r\n");
            assert_eq!(parse_proxy(&stream), Ok(Some((ProxyInfo { source }, header.len()))));
            for end in 0..header.len() {
                assert_eq!(parse_proxy(&header[..end]), Ok(None), "{end} of {header:?}");
            }
        }
    }

    #[test]
    fn absent_headers_are_known_from_the_first_difference() {
        for start in ["G", "GET / HTTP/1.1\r\n", "PROXX", "\r\n\r\n\r"] {
            assert_eq!(parse_proxy(start.as_bytes()), Err(ProxyError::Absent), "{start:?}");
        }
    }

    #[test]
    fn malformed_headers() {
        let long_line = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 93]].concat();
        let cases: Vec<Vec<u8>> = vec![
            b"PROXY \r\n".into(),
            b"PROXY TCP4\r\n".into(),
            b"PROXY TCP4 192.0.2.1 10.0.0.9 8080\r\n".into(),
            b"PROXY TCP4 192.0.2.1 10.0.0.9 8080 443 1\r\n".into(),
            b"PROXY TCP4 192.0.2.1  10.0.0.9 8080 443\r\n".into(),
            b"PROXY TCP4 192.0.2.1 10.0.0.9 80800 443\r\n".into(),
            b"PROXY TCP4 192.0.2.1 10.0.0.9 +80 443\r\n".into(),
            b"PROXY TCP4 192.0.2.1 10.0.0.9  443\r\n".into(),
            b"PROXY TCP4 ::1 ::1 8080 443\r\n".into(),
            b"PROXY TCP6 192.0.2.1 10.0.0.9 8080 443\r\n".into(),
            b"PROXY UDP4 192.0.2.1 10.0.0.9 8080 443\r\n".into(),
            b"PROXY TCP4 \xff 10.0.0.9 8080 443\r\n".into(),
            long_line,
            v2(0x22, 0x11, &[0; 12]),
            v2(0x11, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x11, &[0; V2_PAYLOAD_BYTES_MAX + 1])[..16].to_vec(),
        ];
        for header in cases {
            let refused = parse_proxy(&header);
            assert!(matches!(refused, Err(ProxyError::Malformed(_))), "{header:?}: {refused:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_and_the_wait_is_bounded(
            start in prop_oneof![
                Just(&b"PROXY TCP4 1.2.3.4 "[..]), Just(&V2_SIGNATURE[..]),
                Just(&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..]), Just(&b""[..]),
            ],
            rest in vec(any::<u8>(), 0..200),
        ) {
            let stream = [start, &rest].concat();
            if let Ok(Some((_, header_bytes))) = parse_proxy(&stream) {
                prop_assert!(header_bytes <= stream.len());
            }
            let full = [&stream[..], &[b'1'; V2_BYTES_MAX]].concat();
            prop_assert_ne!(parse_proxy(&full), Ok(None));
        }
    }
}
