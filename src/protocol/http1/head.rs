//! A parsed request head, borrowed from the connection's buffer, and what its headers
//! say about the connection and the tenant.
//!
//! Built only by `parse_head`, which guarantees: the request line and every value are
//! within [`HeadLimits`], the target is visible ASCII, `path` starts with `/` (or is
//! `*`), and there is at most one `host` header. Nothing here fails; what is absent or
//! unreadable is `None`.

use std::borrow::Cow;

use smallvec::SmallVec;

/// Headers kept without a heap allocation; browsers send 12 to 16 with an upgrade.
const HEADERS_INLINE: usize = 16;

/// Bounds on one request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// The whole head in bytes, including the empty line; more is 431.
    pub head_bytes_max: usize,
    /// One header value in bytes (`MAX_HEADER_LENGTH`); more is 431.
    pub header_value_bytes_max: usize,
    /// The request line in bytes, without its line end; more is 414.
    pub request_line_bytes_max: usize,
    /// Number of headers; more is 431. At most 128 are ever accepted.
    pub headers_max: usize,
}

impl Default for HeadLimits {
    /// The limits of http-api section 1; 100 headers is what the reference's server takes.
    fn default() -> Self {
        Self { head_bytes_max: 64 * 1024, header_value_bytes_max: 4096, request_line_bytes_max: 8000, headers_max: 100 }
    }
}

/// One request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'b> {
    /// The method as sent; methods are case-sensitive.
    pub method: &'b str,
    /// The request target as sent.
    pub target: &'b str,
    /// The still encoded path, before any `?`; an absolute target's authority is stripped.
    pub path: &'b str,
    /// The still encoded query, without its `?`; empty if there is none.
    pub query: &'b str,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    pub(super) headers: SmallVec<[(&'b str, &'b [u8]); HEADERS_INLINE]>,
    /// Size of the head in the buffer, in bytes; the body or the next request follows.
    pub len: usize,
}

impl<'b> Head<'b> {
    /// The first value of header `name`, compared without case.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.header_values(name).next()
    }

    /// The first value of header `name` if it is UTF-8.
    pub fn header_str(&self, name: &str) -> Option<&'b str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// All values of header `name` joined by `, `, which for list headers means the same.
    ///
    /// To be used instead of the first value where proxies may add a line of their own
    /// (`x-forwarded-for`), because the first one then is the client's. Values that are
    /// not UTF-8 are left out.
    pub fn header_joined(&self, name: &str) -> Option<Cow<'b, str>> {
        let mut values = self.header_values(name).filter_map(|value| std::str::from_utf8(value).ok());
        let first = values.next()?;
        Some(values.fold(Cow::Borrowed(first), |joined, value| Cow::Owned(format!("{joined}, {value}"))))
    }

    /// All headers in the order sent, names as sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> {
        self.headers.iter().copied()
    }

    /// All values of header `name` in the order sent.
    pub(super) fn header_values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.headers.iter().filter(move |(sent, _)| sent.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Whether the comma-separated header `name` contains `token`, without case.
    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.header_values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|sent| sent.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether the connection stays open after the response.
    pub fn keep_alive(&self) -> bool {
        if self.has_token("connection", "close") {
            return false;
        }
        self.minor_version > 0 || self.has_token("connection", "keep-alive")
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.minor_version > 0 && self.has_token("expect", "100-continue")
    }

    /// The host without its port, in the case sent; an IPv6 literal keeps its brackets.
    pub fn host(&self) -> Option<&'b str> {
        let sent = self.header_str("host")?;
        let host = match sent.find(']') {
            Some(end) if sent.starts_with('[') => &sent[..=end],
            _ => sent.split(':').next()?,
        };
        (!host.is_empty()).then_some(host)
    }

    /// The tenant's public name: the host's first label in lower case (spec 1.4).
    pub fn external_id(&self) -> Option<String> {
        let label = self.host()?.split('.').next()?;
        (!label.is_empty()).then(|| label.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse_head;
    use super::*;

    fn with_head(lines: &str, check: impl FnOnce(Head<'_>)) {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        check(parse_head(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap());
    }

    #[test]
    fn tenants_by_host() {
        let cases = [
            ("abcd1234.supabase.co", "abcd1234.supabase.co", "abcd1234"),
            ("realtime-dev.localhost:4000", "realtime-dev.localhost", "realtime-dev"),
            ("localhost:4000", "localhost", "localhost"),
            ("127.0.0.1:4000", "127.0.0.1", "127"),
            ("ABC.Example", "ABC.Example", "abc"),
            ("[::1]:4000", "[::1]", "[::1]"),
            ("[::1]", "[::1]", "[::1]"),
        ];
        for (sent, host, external_id) in cases {
            with_head(&format!("Host: {sent}\r\n"), |head| {
                assert_eq!(head.host(), Some(host));
                assert_eq!(head.external_id().as_deref(), Some(external_id));
            });
        }
        for nameless in ["", ":4000", ".example"] {
            with_head(&format!("Host: {nameless}\r\n"), |head| {
                assert_eq!(head.external_id(), None, "{nameless:?}");
            });
        }
    }

    #[test]
    fn the_first_value_wins_without_case() {
        with_head("host: a\r\nX-Api-Key: one\r\nx-api-key: two\r\nx-bin: \u{e9}\r\n", |head| {
            assert_eq!(head.header("X-API-KEY"), Some(&b"one"[..]));
            assert_eq!(head.header_str("x-bin"), Some("é"));
            assert_eq!(head.header("absent"), None);
            assert_eq!(head.headers().count(), 4);
        });
    }

    #[test]
    fn repeated_list_headers_are_joined() {
        with_head("host: a\r\nx-forwarded-for: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\n", |head| {
            assert_eq!(head.header_joined("x-forwarded-for").as_deref(), Some("6.6.6.6, 7.7.7.7"));
            assert_eq!(head.header_joined("host").as_deref(), Some("a"));
            assert_eq!(head.header_joined("absent"), None);
        });
    }

    #[test]
    fn keep_alive_by_version_and_token() {
        let cases = [
            ("1.1", "", true),
            ("1.1", "Connection: foo, Close\r\n", false),
            ("1.1", "Connection: upgrade\r\n", true),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ];
        for (version, lines, expected) in cases {
            let text = format!("GET / HTTP/{version}\r\nhost: a\r\n{lines}\r\n");
            let head = parse_head(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
            assert_eq!(head.keep_alive(), expected, "{version} {lines:?}");
        }
    }

    #[test]
    fn continue_is_for_1_1_only() {
        with_head("host: a\r\nExpect: 100-Continue\r\n", |head| assert!(head.expects_continue()));
        with_head("host: a\r\n", |head| assert!(!head.expects_continue()));
        let old = b"POST / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n";
        let head = parse_head(old, &HeadLimits::default()).unwrap().unwrap();
        assert!(!head.expects_continue());
    }
}
