//! Where and as whom the generator connects: address, path, Host header, credentials, protocol version.
//!
//! Parsed once from the command line; every connection asks for its upgrade request. Plain `ws://` (and `tcp://`
//! for the bare echo) only: the generator measures gateways, not TLS.

use super::LoadError;
use crate::wire::handshake;
use crate::wire::push::Dialect;
use crate::wire::stamp::Form;
use crate::wire::token::Mint;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};

/// What a connection presents as `apikey`.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// The same token on every connection.
    Token(String),
    /// A token minted per connection.
    Mint(Mint),
}

/// A server to connect to.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Address the sockets connect to.
    pub address: SocketAddr,
    /// Path of the WebSocket, without query.
    pub path: String,
    /// Host header; its first label selects the tenant.
    pub host: String,
    /// Token source.
    pub credentials: Credentials,
    /// Protocol version.
    pub dialect: Dialect,
    /// Whether broadcasts go out as binary kind 3.
    pub binary: bool,
    /// Whether joins repeat the token as `access_token`, as the official client does.
    pub join_token: bool,
    /// Source addresses used in turn; empty lets the kernel choose.
    pub sources: Vec<IpAddr>,
}

impl Endpoint {
    /// Splits `url` (`ws://host:port/path`, or `tcp://host:port`) into address and path.
    ///
    /// # Errors
    /// [`LoadError::Argument`] naming what is wrong with the URL.
    pub fn locate(url: &str) -> Result<(SocketAddr, String), LoadError> {
        let wrong = |why: &str| LoadError::Argument(format!("cannot use URL {url:?}: {why}"));
        let rest = url
            .strip_prefix("ws://")
            .or_else(|| url.strip_prefix("tcp://"))
            .ok_or_else(|| wrong("it must begin with ws:// (TLS is not measured here)"))?;
        let (authority, path) = rest.split_once('/').map_or((rest, String::from("/")), |(a, p)| (a, format!("/{p}")));
        let address = authority
            .to_socket_addrs()
            .map_err(|error| wrong(&format!("host and port {authority:?}: {error}")))?
            .next()
            .ok_or_else(|| wrong("the host has no address"))?;
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Ok((address, path))
    }

    /// The token of connection `seat`.
    pub fn token(&self, seat: usize) -> String {
        match &self.credentials {
            Credentials::Token(token) => token.clone(),
            Credentials::Mint(mint) => mint.token(seat),
        }
    }

    /// The same endpoint with minted tokens for `role`; a token given as it is stays.
    pub fn for_role(mut self, role: &'static str) -> Self {
        if let Credentials::Mint(mint) = self.credentials {
            self.credentials = Credentials::Mint(mint.for_role(role));
        }
        self
    }

    /// The upgrade request that presents `token`.
    pub fn upgrade_request(&self, token: &str) -> Vec<u8> {
        let target = format!("{}?apikey={token}&vsn={}", self.path, self.dialect.vsn());
        handshake::request(&target, &self.host)
    }

    /// The form in which broadcasts are pushed here.
    pub fn form(&self) -> Form {
        if self.binary { Form::Kind3 } else { Form::Text(self.dialect) }
    }

    /// The source address of connection `seat`, if addresses were given.
    pub fn source(&self, seat: usize) -> Option<IpAddr> {
        (!self.sources.is_empty()).then(|| self.sources[seat % self.sources.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_and_bad_ones_explained() {
        let (address, path) = Endpoint::locate("ws://127.0.0.1:4000/socket/websocket?x=1").unwrap();
        assert_eq!(address, "127.0.0.1:4000".parse().unwrap());
        assert_eq!(path, "/socket/websocket");
        assert_eq!(Endpoint::locate("tcp://127.0.0.1:9").unwrap().1, "/");
        let told = Endpoint::locate("wss://127.0.0.1/").unwrap_err().to_string();
        assert!(told.contains("ws://"), "{told}");
        assert!(Endpoint::locate("ws://127.0.0.1").is_err());
    }
}
