//! From bytes to a request head, within limits that already hold while it is partial.
//!
//! `httparse` does the grammar; this file adds what it leaves open: the limits, the
//! parts of the target, and the rules about `host`. The connection calls [`parse_head`]
//! from the start of its buffer whenever bytes have been added.
//!
//! Invariant: if a whole buffer parses, every shorter prefix of its head answers `None`,
//! never an error. A client can therefore make us hold at most
//! [`HeadLimits::head_bytes_max`], and usually much less.

use std::mem::MaybeUninit;

use memchr::memchr;

use super::error::HeadError;
use super::head::{Head, HeadLimits};

/// Header slots on the stack; above any sensible `headers_max`.
const HEADERS_CAPACITY: usize = 128;

/// `" "` twice and `HTTP/1.x`: what a request line has besides method and target.
const REQUEST_LINE_FIXED_BYTES: usize = 10;

/// Parses the head at the start of `buf`; `None` asks for more bytes.
///
/// # Errors
/// See [`HeadError`]; each is final for the connection.
pub fn parse_head<'b>(buf: &'b [u8], limits: &HeadLimits) -> Result<Option<Head<'b>>, HeadError> {
    let mut slots = [const { MaybeUninit::uninit() }; HEADERS_CAPACITY];
    let slots = &mut slots[..limits.headers_max.min(HEADERS_CAPACITY)];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(buf, slots) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return check_partial(buf, limits).map(|()| None),
        Err(error) => return Err(grammar_error(error, buf)),
    };
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version) else {
        return Err(HeadError::BadRequest("incomplete request line"));
    };
    if method.len() + target.len() + REQUEST_LINE_FIXED_BYTES > limits.request_line_bytes_max {
        return Err(HeadError::UriTooLong);
    }
    if len > limits.head_bytes_max {
        return Err(HeadError::HeaderTooLarge);
    }
    let (path, query) = split_target(target)?;
    let head = Head {
        method,
        target,
        path,
        query,
        minor_version,
        headers: request.headers.iter().map(|header| (header.name, header.value.trim_ascii())).collect(),
        len,
    };
    check_headers(&head, limits)?;
    Ok(Some(head))
}

fn check_headers(head: &Head<'_>, limits: &HeadLimits) -> Result<(), HeadError> {
    let mut hosts = 0;
    for (name, value) in head.headers() {
        if value.len() > limits.header_value_bytes_max {
            return Err(HeadError::HeaderTooLarge);
        }
        hosts += usize::from(name.eq_ignore_ascii_case("host"));
    }
    match hosts {
        0 if head.minor_version > 0 => Err(HeadError::BadRequest("no host header")),
        0 | 1 => Ok(()),
        // Two readers could pick different tenants.
        _ => Err(HeadError::BadRequest("more than one host header")),
    }
}

/// Applies the limits to what has arrived of an unfinished head.
fn check_partial(buf: &[u8], limits: &HeadLimits) -> Result<(), HeadError> {
    // Empty lines before a request are allowed and skipped by the grammar.
    let line_ends = buf.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    let mut rest = &buf[line_ends.count()..];
    let request_line_end = memchr(b'\n', rest);
    let request_line = rest[..request_line_end.unwrap_or(rest.len())].trim_ascii_end();
    if request_line.len() > limits.request_line_bytes_max {
        return Err(HeadError::UriTooLong);
    }
    // The head has at least one byte more than this buffer.
    if buf.len() >= limits.head_bytes_max {
        return Err(HeadError::HeaderTooLarge);
    }
    rest = request_line_end.map_or(&[], |end| &rest[end + 1..]);
    while !rest.is_empty() {
        let line_end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = &rest[..line_end];
        let value = memchr(b':', line).map_or(&[][..], |colon| line[colon + 1..].trim_ascii());
        if value.len() > limits.header_value_bytes_max {
            return Err(HeadError::HeaderTooLarge);
        }
        rest = rest.get(line_end + 1..).unwrap_or(&[]);
    }
    Ok(())
}

fn grammar_error(error: httparse::Error, buf: &[u8]) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::HeaderTooLarge,
        httparse::Error::Version if names_other_version(buf) => HeadError::VersionNotSupported,
        httparse::Error::Version => HeadError::BadRequest("invalid HTTP version"),
        httparse::Error::HeaderName => HeadError::BadRequest("invalid header name"),
        httparse::Error::HeaderValue => HeadError::BadRequest("invalid header value"),
        httparse::Error::NewLine => HeadError::BadRequest("invalid line end"),
        httparse::Error::Token => HeadError::BadRequest("invalid request line"),
        httparse::Error::Status => HeadError::BadRequest("not a request"),
    }
}

/// Whether the request line ends in `HTTP/` and a digit, so that only the number is wrong.
fn names_other_version(buf: &[u8]) -> bool {
    let text = buf.trim_ascii_start();
    let line = &text[..memchr(b'\n', text).unwrap_or(text.len())];
    let mut words = line.split(|byte| *byte == b' ');
    words.nth(2).is_some_and(|version| {
        let number = version.strip_prefix(b"HTTP/");
        number.is_some_and(|number| number.first().is_some_and(u8::is_ascii_digit))
    })
}

/// Path and query of a target in origin, absolute or asterisk form.
fn split_target(target: &str) -> Result<(&str, &str), HeadError> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(HeadError::BadRequest("target is not visible ASCII"));
    }
    let local = match target.find("://") {
        Some(scheme_end) if is_web_scheme(&target[..scheme_end]) => {
            let after_scheme = &target[scheme_end + 3..];
            let authority_end = after_scheme.find(['/', '?', '#']);
            &after_scheme[authority_end.unwrap_or(after_scheme.len())..]
        }
        _ if target.starts_with('/') || target == "*" => target,
        _ => return Err(HeadError::BadRequest("target is neither a path nor a URL")),
    };
    let local = local.split('#').next().unwrap_or_default();
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Ok((if path.is_empty() { "/" } else { path }, query))
}

fn is_web_scheme(scheme: &str) -> bool {
    ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Option<Head<'_>>, HeadError> {
        parse_head(text.as_bytes(), &HeadLimits::default())
    }

    fn status(text: &str) -> u16 {
        parse(text).unwrap_err().status()
    }

    #[test]
    fn a_whole_head() {
        let text = "GET /socket/websocket?vsn=2.0.0&apikey=x HTTP/1.1\r\nHost: a.b\r\nX-Y:  z \r\n\r\nbody";
        let head = parse(text).unwrap().unwrap();
        assert_eq!(head.method, "GET");
        assert_eq!(head.target, "/socket/websocket?vsn=2.0.0&apikey=x");
        assert_eq!(head.path, "/socket/websocket");
        assert_eq!(head.query, "vsn=2.0.0&apikey=x");
        assert_eq!(head.minor_version, 1);
        assert_eq!(head.len, text.len() - "body".len());
        assert_eq!(head.header("x-y"), Some(&b"z"[..]));
    }

    #[test]
    fn forms_of_the_target() {
        let cases = [
            ("/a?b?c", "/a", "b?c"),
            ("/a#f?x", "/a", ""),
            ("*", "*", ""),
            ("http://h.example:80/a/b?c=d", "/a/b", "c=d"),
            ("HTTPS://h", "/", ""),
            ("ws://h?x=1", "/", "x=1"),
            ("/r?to=http://h/x", "/r", "to=http://h/x"),
            ("//h/x", "//h/x", ""),
        ];
        for (target, path, query) in cases {
            let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            let head = parse(&text).unwrap().unwrap();
            assert_eq!((head.path, head.query), (path, query), "{target}");
        }
    }

    #[test]
    fn refused_heads() {
        let cases = [
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT h:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET ftp://h/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\n folded: b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", 400),
            ("GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("GET / FTP/1.0\r\nHost: a\r\n\r\n", 400),
            ("\x16\x03\x01\x02\0\x01\0\x01", 400),
        ];
        for (text, expected) in cases {
            assert_eq!(status(text), expected, "{text:?}");
        }
    }

    #[test]
    fn http_1_0_needs_no_host() {
        assert!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
    }

    #[test]
    fn limits_of_a_whole_head() {
        let with_value = |bytes| format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "v".repeat(bytes));
        assert!(parse(&with_value(4096)).unwrap().is_some());
        assert_eq!(status(&with_value(4097)), 431);

        let with_line = |bytes: usize| format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "p".repeat(bytes - 14));
        assert!(parse(&with_line(8000)).unwrap().is_some());
        assert_eq!(status(&with_line(8001)), 414);

        let with_headers = |count: usize| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(count - 1));
        assert!(parse(&with_headers(100)).unwrap().is_some());
        assert_eq!(status(&with_headers(101)), 431);

        let line = format!("x: {}\r\n", "v".repeat(4000));
        let with_lines = |count| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", line.repeat(count));
        assert!(parse(&with_lines(16)).unwrap().is_some());
        assert_eq!(status(&with_lines(17)), 431);
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        assert_eq!(parse(&"G".repeat(8000)), Ok(None));
        assert_eq!(status(&"G".repeat(8001)), 414);
        assert_eq!(status(&format!("GET /{}", "p".repeat(9000))), 414);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nx: {}", "v".repeat(4097))), 431);
        assert_eq!(parse(&format!("GET / HTTP/1.1\r\nx: {}", "v".repeat(4096))), Ok(None));
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}", "n".repeat(65_536))), 431);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}", "x: y\r\n".repeat(101))), 431);
        assert_eq!(status(&"\r\n".repeat(32 * 1024)), 431);
    }

    fn head_text() -> impl Strategy<Value = String> {
        let header = ("[a-zA-Z-]{1,12}", "[ -~]{0,40}").prop_map(|(n, v)| format!("X{n}: {v}\r\n"));
        let target = "/[a-z0-9/%._?&=+-]{0,60}";
        ("(\r\n)?", "[A-Z]{1,7}", target, 0..=1_u8, vec(header, 0..8)).prop_map(|(empty, method, target, minor, headers)| {
            let headers = headers.concat();
            format!("{empty}{method} {target} HTTP/1.{minor}\r\nHost: a\r\n{headers}\r\n")
        })
    }

    proptest! {
        #[test]
        fn prefixes_ask_for_more_and_the_rest_is_left_alone(text in head_text(), body in vec(any::<u8>(), 0..9)) {
            let tight = HeadLimits {
                head_bytes_max: text.len(),
                header_value_bytes_max: 40,
                request_line_bytes_max: 80,
                headers_max: 9,
            };
            for end in 0..text.len() {
                prop_assert_eq!(parse_head(&text.as_bytes()[..end], &tight), Ok(None));
            }
            let longer = [text.as_bytes(), &body].concat();
            let head = parse_head(text.as_bytes(), &tight).unwrap().unwrap();
            prop_assert_eq!(head.len, text.len());
            prop_assert_eq!(parse_head(&longer, &tight).unwrap().unwrap(), head);
        }

        #[test]
        fn random_bytes_never_panic(
            bytes in prop_oneof![
                vec(any::<u8>(), 0..300),
                "GET [ -~]{0,20} HTTP/1.1\r\n[ -~\r\n:]{0,200}".prop_map(String::into_bytes),
            ],
        ) {
            if let Ok(Some(head)) = parse_head(&bytes, &HeadLimits::default()) {
                prop_assert!(head.len <= bytes.len());
                let _ = (head.body(), head.keep_alive(), head.host(), head.external_id());
            }
        }
    }
}
