//! A byte stream to a tenant's Postgres: name resolution, TCP and TLS (database.md 2.1 and 2.2).
//!
//! Used by everything that talks to a tenant database: SQL sessions, cancel requests and the replication client, which put
//! their own protocol on top. IPv6 addresses are tried first, the next address gets its chance when an attempt fails
//! or stays silent, and the whole of it has one deadline. Failures say at which step it ended and hold no secret.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::certificate;
use super::settings::DatabaseSettings;

/// Resolution, connecting and the TLS handshake together; the connect timeout of the original.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// How long an attempt may stay silent before the next address is tried beside it (RFC 8305 recommends this value).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses tried of one name; a name with more is a mistake or an attack, and each costs a socket.
const ADDRESSES_MAX: usize = 8;

/// A dead peer is noticed after about a minute of silence, below the timers of common NAT boxes.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Pause between keepalive probes.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Unanswered probes that end the connection.
const KEEPALIVE_PROBES: u32 = 3;
/// Sent data unacknowledged for this long ends the connection too; the kernel alone would retry for a quarter of an hour.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(60);

/// The message that asks a Postgres server for TLS: its length (8) and the code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// An open connection and how it was reached.
#[derive(Debug)]
pub struct Dialed {
    /// Ready for the first message of the Postgres protocol.
    pub stream: Stream,
    /// The address is an IPv4 one, which the reference warns about (`DatabaseIpVersionIsIpv4`).
    pub ipv4: bool,
}

/// Opens a stream to the database, encrypted if the settings say so. Takes at most 15 s.
///
/// # Errors
/// At the step that failed.
pub async fn dial(settings: &DatabaseSettings) -> Result<Dialed, DialError> {
    tokio::time::timeout(DIAL_TIMEOUT, dial_unbounded(settings)).await.unwrap_or(Err(DialError::Timeout))
}

async fn dial_unbounded(settings: &DatabaseSettings) -> Result<Dialed, DialError> {
    let resolved = tokio::net::lookup_host((settings.host.as_str(), settings.port)).await;
    let mut addresses: Vec<SocketAddr> = resolved.map_err(|error| DialError::Resolve(error.kind()))?.collect();
    // A stable sort: the resolver's order within a family is kept.
    addresses.sort_by_key(SocketAddr::is_ipv4);
    addresses.truncate(ADDRESSES_MAX);
    let (address, tcp) = first_to_connect(&addresses).await?;
    tune(&tcp).map_err(|error| DialError::Connect(error.kind()))?;
    let stream =
        if settings.tls { Stream::Tls(Box::new(encrypt(tcp, &settings.host, address).await?)) } else { Stream::Plain(tcp) };
    Ok(Dialed { stream, ipv4: address.is_ipv4() })
}

fn tune(tcp: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_PROBES);
    let socket = SockRef::from(tcp);
    tcp.set_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))
}

/// Connects to one of the addresses, preferring earlier ones without waiting long for any.
async fn first_to_connect(addresses: &[SocketAddr]) -> Result<(SocketAddr, TcpStream), DialError> {
    let mut waiting = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = DialError::Resolve(io::ErrorKind::NotFound);
    loop {
        let next = waiting.next().copied();
        if let Some(address) = next {
            attempts.push(async move { (address, TcpStream::connect(address).await) });
        }
        let silence = tokio::time::sleep(NEXT_ADDRESS_AFTER);
        tokio::select! {
            attempt = attempts.next() => match attempt {
                Some((address, Ok(tcp))) => return Ok((address, tcp)),
                Some((_, Err(error))) => last_error = DialError::Connect(error.kind()),
                None => return Err(last_error),
            },
            () = silence, if waiting.len() > 0 => {}
        }
    }
}

/// Asks the server for TLS and shakes hands.
async fn encrypt(mut tcp: TcpStream, host: &str, address: SocketAddr) -> Result<TlsStream<TcpStream>, DialError> {
    let failed = |error: io::Error| DialError::Tls(error.to_string());
    tcp.write_all(&SSL_REQUEST).await.map_err(failed)?;
    // Exactly one byte is read in the clear, so nothing injected before the handshake can pass for encrypted data.
    match tcp.read_u8().await.map_err(failed)? {
        b'S' => {}
        b'N' => return Err(DialError::TlsRefused),
        _ => return Err(DialError::Tls("the server does not answer like Postgres".to_owned())),
    }
    // The name only serves SNI. A host that is no DNS name (an address, an odd container name) goes without.
    let name = ServerName::try_from(host.to_owned()).unwrap_or(ServerName::IpAddress(address.ip().into()));
    let config = certificate::any_server().ok_or_else(|| DialError::Tls("no TLS version is usable".to_owned()))?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(failed)
}

/// A connection to a Postgres server, encrypted or not.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(context, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Self::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}

/// Why there is no stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DialError {
    /// The host name has no address (`nxdomain` in the reference).
    Resolve(io::ErrorKind),
    /// No address could be connected to; the kind of the last failure.
    Connect(io::ErrorKind),
    /// TLS is enforced and the server has none.
    TlsRefused,
    /// The TLS handshake failed.
    Tls(String),
    /// Not done within 15 s.
    Timeout,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(kind) => write!(f, "the database host cannot be resolved: {kind}"),
            Self::Connect(kind) => write!(f, "cannot connect to the database host: {kind}"),
            Self::TlsRefused => f.write_str("the database offers no TLS, which ssl_enforced demands"),
            Self::Tls(error) => write!(f, "the TLS handshake with the database failed: {error}"),
            Self::Timeout => write!(f, "the database host did not answer within {} s", DIAL_TIMEOUT.as_secs()),
        }
    }
}

impl std::error::Error for DialError {}

#[cfg(test)]
mod tests;
