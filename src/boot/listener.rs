//! Listeners: one per shard on the same port, so that the kernel spreads connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, IpVersion};
use crate::shard::DriverKind;

/// Binds the listeners of all shards.
pub fn bind_all(config: &Config, shards: usize, driver: DriverKind) -> Result<Vec<TcpListener>, String> {
    let mut address = choose_address(config);
    let mut listeners = Vec::with_capacity(shards);
    for _ in 0..shards {
        let bound = bind(address, config.backlog, driver);
        let listener = bound.map_err(|error| format!("cannot listen on {address}: {error}"))?;
        // With port 0 the first listener chooses for all.
        address = listener.local_addr().map_err(|error| error.to_string())?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn choose_address(config: &Config) -> SocketAddr {
    let ipv6 = || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let ip: IpAddr = match (config.bind, config.ip_version) {
        (Some(ip), _) => ip,
        (None, IpVersion::V6) => Ipv6Addr::UNSPECIFIED.into(),
        (None, IpVersion::Auto) if ipv6() => Ipv6Addr::UNSPECIFIED.into(),
        (None, IpVersion::Auto | IpVersion::V4) => Ipv4Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, config.port)
}

fn bind(address: SocketAddr, backlog: u32, driver: DriverKind) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    // io_uring waits by itself; epoll wants to be told "not now".
    socket.set_nonblocking(driver == DriverKind::Epoll)?;
    Ok(socket.into())
}
