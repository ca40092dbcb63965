//! HTTP/1.1 on a shard: reads heads within bounds and a deadline, answers or forwards requests, keeps connections alive,
//! and hands upgrades over.
//!
//! Every wait has a deadline: the head, the body, the write of an answer, and the silence between two requests.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use monoio::net::TcpStream;

use super::connection::{Received, receive};
use super::outbox::send;
use super::{READ_BYTES_MAX, Shard, api, upgrade};
use crate::mailbox::{Handoff, Permit};
use crate::protocol::http1::{
    BODY_BYTES_MAX, BodyError, BodyKind, BodyReader, CONTINUE, Head, HeadError, Response, client_addr, parse_head, parse_proxy,
    path_segments, select_request_id, websocket_key,
};
use crate::protocol::websocket::accept_key;

/// How long an answer to a broken request may take to be read before the connection is torn down.
const LINGER: Duration = Duration::from_secs(1);

/// A connection in its HTTP phase.
pub(super) struct Incoming {
    pub stream: TcpStream,
    pub client: SocketAddr,
    /// Bytes read and not handled yet.
    pub received: Vec<u8>,
    pub permit: Permit,
    /// Came from another shard: it stays here.
    pub placed: bool,
}

/// One parsed request; owns its parts, as they outlive the buffer.
#[derive(Debug)]
pub(super) struct Request {
    pub method: String,
    pub segments: Vec<String>,
    pub query: String,
    pub external_id: Option<String>,
    pub authorization: Vec<String>,
    pub api_key: Option<String>,
    pub x_api_key: Option<String>,
    pub content_type: Option<String>,
    pub accept: Option<String>,
    pub has_origin: bool,
    pub request_id: String,
    pub client: IpAddr,
    /// JSON object text of the headers that policies may see: `x-` headers of an upgrade, all of a broadcast request.
    pub policy_headers: Option<String>,
    /// Accept key of a valid upgrade, or why it is none.
    pub upgrade: Result<[u8; 28], String>,
    body: BodyKind,
    expects_continue: bool,
    keep_alive: bool,
}

/// Starts the task of an accepted connection.
pub(super) fn spawn(shard: &Rc<Shard>, incoming: Incoming) {
    let shard = shard.clone();
    monoio::spawn(async move { serve(shard, incoming).await });
}

/// Takes over a socket that another shard handed off.
pub(super) fn adopt(shard: &Rc<Shard>, handoff: Handoff) {
    let Handoff { socket, received, client, permit } = handoff;
    shard.state.borrow().io.counters.handoffs_in.increment();
    match TcpStream::from_std(std::net::TcpStream::from(socket)) {
        Ok(stream) => spawn(shard, Incoming { stream, client, received, permit, placed: true }),
        Err(error) => tracing::error!("a handed-off socket could not be registered: {error}"),
    }
}

/// Sends the connection to the shard that should own it.
pub(super) fn hand_off(shard: &Shard, incoming: Incoming, head: Vec<u8>, target: u16) {
    let Incoming { stream, client, received, permit, .. } = incoming;
    // A duplicate leaves the driver's own bookkeeping of the original descriptor alone.
    let socket = match std::os::fd::BorrowedFd::try_clone_to_owned(&borrow(&stream)) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!("a socket could not be handed off: {error}"),
    };
    drop(stream);
    let received = [head, received].concat();
    let mut state = shard.state.borrow_mut();
    state.io.counters.handoffs_out.increment();
    state.io.post(target, crate::mailbox::ToShard::Handoff(Box::new(Handoff { socket, received, client, permit })));
}

fn borrow(stream: &TcpStream) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `stream`, whose lifetime the result carries.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(stream.as_raw_fd()) }
}

async fn serve(shard: Rc<Shard>, mut incoming: Incoming) {
    if shard.settings.config.proxy_protocol && !incoming.placed && !read_proxy_header(&shard, &mut incoming).await {
        return;
    }
    let mut first = true;
    loop {
        let (request, head) = match next_request(&shard, &mut incoming, first).await {
            Ok(parsed) => parsed,
            Err(refusal) => {
                if let Some(status) = refusal {
                    answer_and_linger(&shard, &incoming, None, status).await;
                }
                return;
            }
        };
        first = false;
        let started = super::now().mono_ms;
        let (mut keep_alive, head_only) = (request.keep_alive, request.method == "HEAD");
        let outcome = if upgrade::is_socket_path(&request.segments) {
            match upgrade::handle(&shard, request, incoming, head).await {
                upgrade::Handled::Answer(answer) => {
                    let (request, returned, response) = *answer;
                    incoming = returned;
                    // The body of a refused upgrade is not read.
                    keep_alive &= request.body == BodyKind::None;
                    log_request(&shard, &request, &response, started);
                    write_response(&shard, &incoming.stream, response, &request.request_id, keep_alive, head_only).await
                }
                upgrade::Handled::Gone => return,
            }
        } else {
            let body = match read_body(&shard, &mut incoming, &request).await {
                Ok(body) => body,
                Err(Some(status)) => return answer_and_linger(&shard, &incoming, Some(&request), status).await,
                Err(None) => return,
            };
            let response = api::handle(&shard, &request, body).await;
            log_request(&shard, &request, &response, started);
            write_response(&shard, &incoming.stream, response, &request.request_id, keep_alive, head_only).await
        };
        if !outcome || !keep_alive {
            return;
        }
    }
}

/// Reads the PROXY protocol header; false when the connection must be dropped.
async fn read_proxy_header(shard: &Rc<Shard>, incoming: &mut Incoming) -> bool {
    let deadline = Duration::from_millis(shard.settings.config.head_timeout_ms);
    let read = async {
        loop {
            match parse_proxy(&incoming.received) {
                Ok(Some((info, len))) => {
                    incoming.received.drain(..len);
                    if let Some(source) = info.source {
                        incoming.client = source;
                    }
                    return true;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!("connection without a valid PROXY protocol header: {error:?}");
                    return false;
                }
            }
            if read_more(shard, &incoming.stream, &mut incoming.received).await == 0 {
                return false;
            }
        }
    };
    monoio::time::timeout(deadline, read).await.unwrap_or(false)
}

/// The next request of the connection and its head's bytes. `Err(None)`: the peer went away or stayed silent.
async fn next_request(shard: &Rc<Shard>, incoming: &mut Incoming, first: bool) -> Result<(Request, Vec<u8>), Option<u16>> {
    let config = &shard.settings.config;
    if incoming.received.is_empty() {
        // Before the first byte of a request there is nothing to answer.
        let silence = Duration::from_millis(if first { config.head_timeout_ms } else { config.idle_timeout_ms });
        let more = read_more(shard, &incoming.stream, &mut incoming.received);
        if monoio::time::timeout(silence, more).await.unwrap_or(0) == 0 {
            return Err(None);
        }
    }
    let deadline = Duration::from_millis(config.head_timeout_ms);
    let read = async {
        loop {
            let parsed = match parse_head(&incoming.received, &shard.settings.head_limits) {
                Ok(Some(head)) => Request::from_head(shard, &head, incoming.client).map(|request| Some((request, head.len))),
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            if let Some((request, len)) = parsed.map_err(|error| Some(error.status()))? {
                let rest = incoming.received.split_off(len);
                return Ok((request, std::mem::replace(&mut incoming.received, rest)));
            }
            if read_more(shard, &incoming.stream, &mut incoming.received).await == 0 {
                return Err(None);
            }
        }
    };
    monoio::time::timeout(deadline, read).await.unwrap_or(Err(Some(408)))
}

fn generate_request_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Lower-case names to values, the last of a repeated header winning; `None` when there are none (database 10.2).
fn policy_headers(head: &Head<'_>, custom_only: bool) -> Option<String> {
    let visible = |name: &str| !custom_only || name.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("x-"));
    let headers: serde_json::Map<String, serde_json::Value> = head
        .headers()
        .filter(|(name, _)| visible(name))
        .map(|(name, value)| (name.to_ascii_lowercase(), String::from_utf8_lossy(value).into_owned().into()))
        .collect();
    (!headers.is_empty()).then(|| serde_json::Value::Object(headers).to_string())
}

impl Request {
    fn from_head(shard: &Shard, head: &Head<'_>, client: SocketAddr) -> Result<Self, HeadError> {
        let owned = |name: &str| head.header_str(name).map(str::to_owned);
        let all = |name: &str| {
            let values = head.headers().filter(|(header, _)| header.eq_ignore_ascii_case(name));
            values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
        };
        let forwarded = head.header_joined("x-forwarded-for");
        let segments = path_segments(head.path);
        let is_socket = upgrade::is_socket_path(&segments);
        let has_policies = is_socket || segments.iter().any(|segment| segment == "broadcast");
        Ok(Self {
            method: head.method.to_owned(),
            segments,
            policy_headers: has_policies.then(|| policy_headers(head, is_socket)).flatten(),
            query: head.query.to_owned(),
            external_id: match &shard.settings.config.loopback_tenant {
                Some(tenant) if head.host().is_some_and(is_loopback) => Some(tenant.clone()),
                _ => head.external_id(),
            },
            authorization: all("authorization"),
            api_key: owned("apikey"),
            x_api_key: head.header("x-api-key").map(|value| String::from_utf8_lossy(value).into_owned()),
            content_type: owned("content-type"),
            accept: owned("accept"),
            has_origin: head.header("origin").is_some(),
            request_id: select_request_id(head, &shard.settings.config.request_id_baggage_key, generate_request_id),
            client: client_addr(client.ip(), forwarded.as_deref(), &shard.settings.trusted_proxies),
            upgrade: websocket_key(head).map(accept_key),
            body: head.body()?,
            expects_continue: head.expects_continue(),
            keep_alive: head.keep_alive(),
        })
    }
}

/// `localhost` or a loopback address, without port.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Reads the whole body. `Err(None)`: the peer went away.
async fn read_body(shard: &Rc<Shard>, incoming: &mut Incoming, request: &Request) -> Result<Bytes, Option<u16>> {
    let mut reader = BodyReader::new(request.body, BODY_BYTES_MAX).map_err(|error: BodyError| Some(error.status()))?;
    if request.expects_continue && incoming.received.is_empty() {
        write_all(shard, &incoming.stream, CONTINUE).await;
    }
    let deadline = Duration::from_millis(shard.settings.config.body_timeout_ms);
    let read = async {
        loop {
            let (consumed, done) = reader.feed(&incoming.received).map_err(|error| Some(error.status()))?;
            incoming.received.drain(..consumed);
            if done {
                return Ok(());
            }
            if read_more(shard, &incoming.stream, &mut incoming.received).await == 0 {
                return Err(None);
            }
        }
    };
    monoio::time::timeout(deadline, read).await.unwrap_or(Err(Some(408)))?;
    Ok(reader.into_body())
}

/// Waits for bytes and appends them; 0 when the peer is gone.
async fn read_more(shard: &Rc<Shard>, stream: &TcpStream, into: &mut Vec<u8>) -> usize {
    loop {
        if stream.readable(false).await.is_err() {
            return 0;
        }
        shard.drain_mail();
        let mut buffer = std::mem::take(&mut shard.state.borrow_mut().read_buffer);
        buffer.resize(READ_BYTES_MAX, 0);
        let received = receive(stream, &mut buffer);
        if let Received::Bytes(n) = received {
            into.extend_from_slice(&buffer[..n]);
        }
        shard.state.borrow_mut().read_buffer = buffer;
        match received {
            Received::Bytes(n) => return n,
            Received::Broken => return 0,
            Received::Nothing => {}
        }
    }
}

async fn write_response(
    shard: &Shard,
    stream: &TcpStream,
    response: Response,
    request_id: &str,
    keep_alive: bool,
    head_only: bool,
) -> bool {
    let mut out = Vec::with_capacity(512 + response.body.len());
    response.with_header("x-request-id", request_id.to_owned()).write_to(&mut out, keep_alive, head_only);
    write_all(shard, stream, &out).await
}

/// Sends everything within the body deadline; false when the connection broke.
async fn write_all(shard: &Shard, stream: &TcpStream, mut bytes: &[u8]) -> bool {
    let write = async {
        while !bytes.is_empty() {
            match send(stream.as_raw_fd(), bytes) {
                Ok(0) => {
                    if stream.writable(false).await.is_err() {
                        return false;
                    }
                }
                Ok(sent) => bytes = &bytes[sent..],
                Err(()) => return false,
            }
        }
        true
    };
    let deadline = Duration::from_millis(shard.settings.config.body_timeout_ms);
    monoio::time::timeout(deadline, write).await.unwrap_or(false)
}

/// Answers a request that cannot be read to its end, and gives the client a moment to take the answer.
async fn answer_and_linger(shard: &Rc<Shard>, incoming: &Incoming, request: Option<&Request>, status: u16) {
    let stream = &incoming.stream;
    let request_id = request.map_or_else(generate_request_id, |request| request.request_id.clone());
    let response = Response::empty(status).with_header("x-request-id", request_id.clone());
    match request {
        Some(request) => log_request(shard, request, &response, super::now().mono_ms),
        None => tracing::warn!(request_id, "unreadable request {status} from {}", incoming.client.ip()),
    }
    let mut out = Vec::new();
    response.write_to(&mut out, false, false);
    if !write_all(shard, stream, &out).await {
        return;
    }
    // SAFETY: a plain system call on a descriptor that `stream` keeps open.
    unsafe { libc::shutdown(stream.as_raw_fd(), libc::SHUT_WR) };
    let discard = async {
        let mut sink = Vec::new();
        while read_more(shard, stream, &mut sink).await > 0 {
            sink.clear();
        }
    };
    // The time is all that matters; what was read meanwhile is thrown away.
    let _ = monoio::time::timeout(LINGER, discard).await;
}

fn log_request(shard: &Shard, request: &Request, response: &Response, started_ms: u64) {
    let path = request.segments.join("/");
    let quiet = path == "healthcheck" || (path.starts_with("api/tenants/") && path.ends_with("/health"));
    if quiet && shard.settings.config.disable_healthcheck_logging {
        return;
    }
    let took_ms = super::now().mono_ms.saturating_sub(started_ms);
    let project = request.external_id.as_deref().unwrap_or("");
    let (status, method, client, request_id) = (response.status, &request.method, request.client, &request.request_id);
    match status {
        500.. => tracing::error!(request_id, project, "{method} /{path} {status} from {client} in {took_ms} ms"),
        400.. => tracing::warn!(request_id, project, "{method} /{path} {status} from {client} in {took_ms} ms"),
        _ => tracing::info!(request_id, project, "{method} /{path} {status} from {client} in {took_ms} ms"),
    }
}
