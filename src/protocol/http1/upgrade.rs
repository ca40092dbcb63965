//! Whether a request is a valid WebSocket upgrade (RFC 6455 section 4.2.1).
//!
//! The last check of a connection attempt, after tenant and token (protocol 1.6, row
//! 15). The connection passes the key on to `websocket::accept_key`, or answers 400 with
//! the error text as a plain body. The texts are part of the wire behaviour.

use std::fmt::Write;

use super::head::Head;

/// The client's key, if `head` is a valid upgrade request.
///
/// # Errors
/// The text of the 400 answer; it names the first condition that is not met.
pub fn websocket_key<'b>(head: &Head<'b>) -> Result<&'b [u8], String> {
    if head.minor_version != 1 {
        return Err(format!("HTTP version HTTP/1.{} unsupported", head.minor_version));
    }
    if head.method != "GET" {
        return Err(format!("HTTP method {} unsupported", head.method));
    }
    must_contain(head, "connection", "upgrade")?;
    must_contain(head, "upgrade", "websocket")?;
    let key = head.header("sec-websocket-key").filter(|key| !key.is_empty()).ok_or("'sec-websocket-key' header is absent")?;
    if !head.header_values("sec-websocket-version").eq([b"13"]) {
        let sent = list_values(head, "sec-websocket-version");
        return Err(format!("'sec-websocket-version' header must equal '13', got {sent}"));
    }
    Ok(key)
}

fn must_contain(head: &Head<'_>, name: &str, token: &str) -> Result<(), String> {
    if head.has_token(name, token) {
        return Ok(());
    }
    let sent = list_values(head, name);
    Err(format!("'{name}' header must contain '{token}', got {sent}"))
}

/// The values of a header as a bracketed list of quoted strings.
fn list_values(head: &Head<'_>, name: &str) -> String {
    let mut list = String::from("[");
    for (index, value) in head.header_values(name).enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        let text = String::from_utf8_lossy(value);
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        write!(list, "{separator}\"{escaped}\"").expect("a string takes any text");
    }
    list.push(']');
    list
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadLimits;
    use super::super::parse::parse_head;
    use super::*;

    const GOOD: &str = "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";

    fn key_of(request_line: &str, lines: &str) -> Result<String, String> {
        let text = format!("{request_line}\r\nhost: a\r\n{lines}\r\n");
        let head = parse_head(text.as_bytes(), &HeadLimits::default()).unwrap().unwrap();
        websocket_key(&head).map(|key| String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn a_valid_upgrade_yields_its_key() {
        let key = key_of("GET /socket/websocket HTTP/1.1", GOOD);
        assert_eq!(key.as_deref(), Ok("x3JJHMbDL1EzLkh9GBhXDw=="));
    }

    #[test]
    fn the_text_names_the_first_missing_condition() {
        let without = |name: &str| -> String { GOOD.split_inclusive('\n').filter(|line| !line.starts_with(name)).collect() };
        let cases = [
            (without("Connection"), "'connection' header must contain 'upgrade', got []"),
            (without("Connection") + "connection: close\r\n", "'connection' header must contain 'upgrade', got [\"close\"]"),
            (
                without("Connection") + "connection: a, b\r\nconnection: \"c\r\n",
                "'connection' header must contain 'upgrade', got [\"a, b\", \"\\\"c\"]",
            ),
            (without("Upgrade") + "upgrade: h2c\r\n", "'upgrade' header must contain 'websocket', got [\"h2c\"]"),
            (without("Sec-WebSocket-Key"), "'sec-websocket-key' header is absent"),
            (without("Sec-WebSocket-Key") + "sec-websocket-key:\r\n", "'sec-websocket-key' header is absent"),
            (
                without("Sec-WebSocket-Version") + "sec-websocket-version: 8\r\n",
                "'sec-websocket-version' header must equal '13', got [\"8\"]",
            ),
            (
                GOOD.to_owned() + "sec-websocket-version: 13\r\n",
                "'sec-websocket-version' header must equal '13', got [\"13\", \"13\"]",
            ),
        ];
        for (lines, expected) in cases {
            assert_eq!(key_of("GET / HTTP/1.1", &lines), Err(expected.into()), "{lines}");
        }
    }

    #[test]
    fn method_and_version() {
        let posted = key_of("POST / HTTP/1.1", GOOD);
        assert_eq!(posted, Err("HTTP method POST unsupported".into()));
        let old = key_of("GET / HTTP/1.0", GOOD);
        assert_eq!(old, Err("HTTP version HTTP/1.0 unsupported".into()));
    }
}
