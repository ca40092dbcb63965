//! A blocking HTTP/1.1 client, just enough to call this server's own management API.
//!
//! One request per connection, plain HTTP, bounded answer, a deadline on every step. A server behind
//! TLS is reached through its own port on the host, not through the proxy. Errors are sentences that
//! name the address, because the usual cause is a server that is not running.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Silence allowed while waiting; creating a tenant runs its migrations for up to 50 s.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer accepted: some ten thousand tenants.
const ANSWER_BYTES_MAX: u64 = 32 << 20;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Where requests go, from a URL such as `http://127.0.0.1:4000`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Host name or address, IPv6 without brackets.
    host: String,
    port: u16,
    /// As written, for the `Host` header and messages.
    authority: String,
}

impl Server {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let refuse = || format!("`{url}` is not a URL like http://127.0.0.1:4000");
        if url.starts_with("https://") {
            return Err("https is not supported; use the server's own http port".to_owned());
        }
        let rest = url.strip_prefix("http://").ok_or_else(refuse)?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let unfit = |byte: u8| !byte.is_ascii_graphic() || b"/?#@".contains(&byte);
        if authority.bytes().any(unfit) {
            return Err(refuse());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| refuse())?),
            _ => (authority, 80),
        };
        let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = inner.unwrap_or(host);
        if host.is_empty() {
            return Err(refuse());
        }
        Ok(Self { host: host.to_owned(), port, authority: authority.to_owned() })
    }

    /// Sends one request and reads the whole answer. `body` is JSON text or empty.
    pub(super) fn call(&self, method: &str, path: &str, token: &str, body: &str) -> Result<Answer, String> {
        let mut stream = self.connect()?;
        let failed = |error: io::Error| format!("{}: {error}", self.authority);
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             accept: application/json\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}",
            self.authority
        );
        stream.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        let limited = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer);
        limited.map_err(failed)?;
        parse_answer(&answer).ok_or_else(|| format!("{} did not answer in HTTP; is it ringcast?", self.authority))
    }

    fn connect(&self) -> Result<TcpStream, String> {
        let not_reached = |error: io::Error| {
            format!("no server at {} ({error}); is `ringcast serve` running, or is --url needed?", self.authority)
        };
        let addresses = (self.host.as_str(), self.port).to_socket_addrs();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses.map_err(not_reached)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    let timeouts =
                        stream.set_read_timeout(Some(READ_TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(READ_TIMEOUT)));
                    return timeouts.map(|()| stream).map_err(not_reached);
                }
                Err(error) => last = error,
            }
        }
        Err(not_reached(last))
    }
}

/// Splits a complete answer; `None` if it is cut off or not HTTP.
fn parse_answer(answer: &[u8]) -> Option<Answer> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let rest = &answer[head_end + 4..];
    let mut lines = head.split("\r\n");
    let status_line = lines.next()?.strip_prefix("HTTP/1.")?;
    let status = status_line.split(' ').nth(1)?.parse().ok()?;
    let header = |wanted: &str| {
        let mut fields = lines.clone().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim())
    };
    let body = if header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        unchunk(rest)?
    } else {
        match header("content-length") {
            Some(length) => rest.get(..length.parse().ok()?)?.to_vec(),
            None => rest.to_vec(),
        }
    };
    Some(Answer { status, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = line.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let chunk_start = line_end + 2;
        let chunk_end = chunk_start.checked_add(size)?;
        body.extend_from_slice(rest.get(chunk_start..chunk_end)?);
        rest = rest.get(chunk_end..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn urls_are_host_and_port() {
        let parsed = |url| Server::parse(url).map(|s| (s.host, s.port));
        assert_eq!(parsed("http://127.0.0.1:4000"), Ok(("127.0.0.1".to_owned(), 4000)));
        assert_eq!(parsed("http://host/"), Ok(("host".to_owned(), 80)));
        assert_eq!(parsed("http://[::1]:4000/"), Ok(("::1".to_owned(), 4000)));
        assert_eq!(parsed("http://[::1]"), Ok(("::1".to_owned(), 80)));
        for bad in ["127.0.0.1:4000", "http://", "http://a:b", "http://a/x", "http://a\r\nb", "https://a"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers_end_by_length_chunks_or_close() {
        let body = |text: &str| parse_answer(text.as_bytes()).map(|a| (a.status, a.body));
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more";
        assert_eq!(body(length), Some((200, b"hi".to_vec())));
        let chunks = "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n";
        assert_eq!(body(chunks), Some((201, b"abcd".to_vec())));
        assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n"), Some((204, Vec::new())));
        let cut_off = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhi";
        assert_eq!(body(cut_off), None);
        assert_eq!(body("SSH-2.0-x\r\n\r\n"), None);
        let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx";
        assert_eq!(body(endless), None);
    }

    #[test]
    fn a_request_is_well_formed_and_its_answer_returned() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"{\"a\":1}") {
                stream.read_exact(&mut byte).expect("more of the request");
                request.push(byte[0]);
            }
            let answer = b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 2\r\n\r\n{}";
            stream.write_all(answer).expect("the client reads");
            String::from_utf8(request).expect("text")
        });
        let client = Server::parse(&format!("http://127.0.0.1:{port}")).expect("a URL");
        let answer = client.call("PUT", "/api/tenants/x", "t", "{\"a\":1}");
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, &answer.body[..]), (422, &b"{}"[..]));
        let request = server.join().expect("the server finished");
        assert!(request.starts_with("PUT /api/tenants/x HTTP/1.1\r\n"));
        assert!(request.contains("\r\nauthorization: Bearer t\r\n"));
        assert!(request.contains("\r\ncontent-length: 7\r\n"));
    }

    #[test]
    fn a_missing_server_is_explained() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let client = Server::parse(&format!("http://127.0.0.1:{port}")).expect("a URL");
        let message = client.call("GET", "/", "t", "").expect_err("nobody listens");
        assert!(message.contains("ringcast serve"), "{message}");
    }
}
