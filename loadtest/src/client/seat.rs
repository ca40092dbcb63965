//! One connection: its plan ([`Seat`]) and its progress from connect to joined.
//!
//! Owned by the fleet. Output goes straight to the socket and is kept in `unsent` only when the socket is full;
//! `tail` holds the beginning of a frame whose rest has not arrived. Both are empty nearly always, so a
//! connection weighs a few hundred bytes.

use super::{Endpoint, LoadError};
use crate::wire::push::Channel;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How a connection reads once the fleet is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reading {
    /// As fast as data comes.
    #[default]
    Eager,
    /// At most this many bytes per second.
    Slow(usize),
    /// Not at all.
    Stopped,
}

/// The plan of one connection.
#[derive(Debug, Clone, Default)]
pub struct Seat {
    /// Channels joined in this order, under join refs "1", "2", …
    pub channels: Vec<Channel>,
    /// How it reads. Anything but eager also shrinks the receive buffer and tolerates being closed.
    pub reading: Reading,
}

/// Receive buffer of readers that are not eager, in bytes: small, so that little hides on the reading side.
const SLOW_RECEIVE_BUFFER_BYTES: usize = 4096;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Upgrading,
    Joining { missing: usize },
    Joined,
    Closed,
}

/// A socket with its state.
pub(super) struct Connection {
    pub socket: TcpStream,
    pub phase: Phase,
    pub reading: Reading,
    pub tail: Vec<u8>,
    pub unsent: Vec<u8>,
}

impl Connection {
    /// Starts connecting to `endpoint` as connection `index`.
    pub fn open(endpoint: &Endpoint, index: usize, reading: Reading) -> Result<Self, LoadError> {
        let address = endpoint.address;
        let failed = |what: &str| LoadError::io(format!("{what} (connection {index} to {address})"));
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
            .map_err(failed("cannot open a socket"))?;
        socket.set_nonblocking(true).map_err(failed("cannot make the socket non-blocking"))?;
        socket.set_tcp_nodelay(true).map_err(failed("cannot set TCP_NODELAY"))?;
        // Closing resets, so thousands of runs do not fill the port range with TIME_WAIT.
        socket.set_linger(Some(Duration::ZERO)).map_err(failed("cannot set SO_LINGER"))?;
        if reading != Reading::Eager {
            socket.set_recv_buffer_size(SLOW_RECEIVE_BUFFER_BYTES).map_err(failed("cannot set SO_RCVBUF"))?;
        }
        if let Some(source) = endpoint.source(index) {
            let local = SocketAddr::new(source, 0).into();
            socket.bind(&local).map_err(failed("cannot bind the source address"))?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            other => other.map_err(failed("cannot connect"))?,
        }
        Ok(Self { socket: socket.into(), phase: Phase::Connecting, reading, tail: Vec::new(), unsent: Vec::new() })
    }

    /// Writes `bytes` after whatever is still unsent; `Ok(false)` when some had to be kept for later.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return self.write_unsent();
        }
        let written = write_some(&mut self.socket, bytes)?;
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(self.unsent.is_empty())
    }

    /// Writes what is unsent; `Ok(true)` when nothing is left.
    pub fn write_unsent(&mut self) -> io::Result<bool> {
        let written = write_some(&mut self.socket, &self.unsent)?;
        self.unsent.drain(..written);
        Ok(self.unsent.is_empty())
    }
}

fn write_some(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return Ok(0);
    }
    match socket.write(bytes) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}
