//! Responses and their bytes on the wire (http-api 1 and 4).
//!
//! Routes build a [`Response`]; the connection writes it with what it knows about the
//! request (keep-alive, HEAD). Framing is always by `content-length`. Names are expected
//! in lower case, as the reference sends them. Line breaks inside a value would end the
//! header early, so they are written as spaces; nothing else can go wrong here.

use std::borrow::Cow;

use bytes::Bytes;

/// Sent before reading a body whose client waits for it.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

const JSON: &str = "application/json; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// A complete response, except for the headers of the connection itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 599.
    pub status: u16,
    /// Headers in the order they are written.
    pub headers: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The body; never written for 204 and 304.
    pub body: Bytes,
}

impl Response {
    /// No body and therefore no content type.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    /// A body of already encoded JSON.
    pub fn json(status: u16, body: &str) -> Self {
        Self::with_body(status, JSON, Bytes::copy_from_slice(body.as_bytes()))
    }

    /// A body of plain text.
    pub fn text(status: u16, body: &str) -> Self {
        Self::with_body(status, TEXT, Bytes::copy_from_slice(body.as_bytes()))
    }

    /// A body of HTML, also for the bare reason phrase of an unrouted request.
    pub fn html(status: u16, body: &str) -> Self {
        Self::with_body(status, HTML, Bytes::copy_from_slice(body.as_bytes()))
    }

    /// A body of any type; an empty body gets no content type.
    pub fn with_body(status: u16, content_type: &'static str, body: Bytes) -> Self {
        let response = Self::empty(status);
        if body.is_empty() {
            return response;
        }
        Self { body, ..response }.with_header("content-type", content_type)
    }

    /// The same response with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Appends the response to `out`.
    ///
    /// Without `keep_alive` it announces that the connection closes. With `head_only`
    /// (the answer to HEAD) the body is left out and its length still declared.
    pub fn write_to(&self, out: &mut Vec<u8>, keep_alive: bool, head_only: bool) {
        let may_have_body = self.status != 204 && self.status != 304;
        let body_bytes = self.body.len();
        out.reserve(256 + if head_only { 0 } else { body_bytes });
        write_status_line(out, self.status);
        for (name, value) in &self.headers {
            write_header(out, name, value);
        }
        if may_have_body {
            write_header(out, "content-length", &body_bytes.to_string());
        }
        if !keep_alive {
            write_header(out, "connection", "close");
        }
        out.extend_from_slice(b"\r\n");
        if may_have_body && !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

/// Appends the answer to a successful upgrade; WebSocket frames follow it.
pub fn switching_protocols(accept: &[u8; 28], out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
          sec-websocket-accept: ",
    );
    out.extend_from_slice(accept);
    out.extend_from_slice(b"\r\n\r\n");
}

/// The reason phrase of `status`, which is also the body of some errors (http-api 4);
/// empty for codes this server never sends.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Entity",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

fn write_status_line(out: &mut Vec<u8>, status: u16) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &str) {
    write_field(out, name);
    out.extend_from_slice(b": ");
    write_field(out, value);
    out.extend_from_slice(b"\r\n");
}

fn write_field(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().map(|byte| match byte {
        b'\r' | b'\n' | 0 => b' ',
        byte => byte,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(response: &Response, keep_alive: bool, head_only: bool) -> String {
        let mut out = Vec::new();
        response.write_to(&mut out, keep_alive, head_only);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_with_its_type_and_length() {
        let response = Response::json(404, r#"{"error":"Tenant not found"}"#);
        assert_eq!(
            written(&response, true, false),
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json; charset=utf-8\r\n\
             content-length: 28\r\n\r\n{\"error\":\"Tenant not found\"}"
        );
    }

    #[test]
    fn an_empty_body_has_a_length_and_no_type() {
        let expected = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        assert_eq!(written(&Response::empty(403), false, false), expected);
        assert_eq!(written(&Response::text(403, ""), false, false), expected);
    }

    #[test]
    fn no_content_has_no_length_and_no_body() {
        let mut response = Response::empty(204).with_header("x-a", "b");
        response.body = Bytes::from_static(b"ignored");
        assert_eq!(written(&response, true, false), "HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n");
    }

    #[test]
    fn head_declares_the_length_it_does_not_send() {
        let text = written(&Response::html(404, "Not Found"), true, true);
        assert!(text.ends_with("content-length: 9\r\n\r\n"), "{text}");
        assert!(text.contains("content-type: text/html; charset=utf-8\r\n"));
    }

    #[test]
    fn a_value_cannot_start_a_new_line() {
        let response = Response::empty(200).with_header("x-a", "1\r\nset-cookie: x".to_owned());
        assert!(written(&response, true, false).contains("x-a: 1  set-cookie: x\r\n"));
    }

    #[test]
    fn the_upgrade_answer() {
        let mut out = Vec::new();
        switching_protocols(b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", &mut out);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn an_unknown_status_still_makes_a_valid_line() {
        assert!(written(&Response::empty(299), true, false).starts_with("HTTP/1.1 299 \r\n"));
    }
}
