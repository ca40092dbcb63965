//! How to reach the registry: the `DB_*` variables of operations.md 2.2.

use std::fmt;
use std::path::PathBuf;

/// Address family of `DB_IP_VERSION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// Only IPv4 addresses of the host.
    Ipv4,
    /// Only IPv6 addresses of the host.
    Ipv6,
}

/// Where the registry is and how its connections are set up. Its `Debug` shows neither the password nor the query, which may
/// contain one.
#[derive(Clone)]
pub struct RegistrySettings {
    /// `DB_HOST`: a name, an address, or a folder with a Unix socket.
    pub host: String,
    /// `DB_PORT`.
    pub port: u16,
    /// `DB_USER`.
    pub user: String,
    /// `DB_PASSWORD`.
    pub password: String,
    /// `DB_NAME`.
    pub name: String,
    /// `DB_POOL_SIZE`, connections; at least one is kept.
    pub pool_size: usize,
    /// `DB_QUEUE_TARGET`: longest wait for a free connection, making a new one included.
    pub queue_target_ms: u64,
    /// `DB_AFTER_CONNECT_QUERY`: run on each new connection; decides about the schema when set.
    pub after_connect_query: Option<String>,
    /// `DB_IP_VERSION`; without it IPv6 addresses are tried first.
    pub ip_version: Option<IpVersion>,
    /// `DB_SSL`: TLS or nothing.
    pub tls: bool,
    /// `DB_SSL_CA_CERT`: PEM file the server's certificate must descend from; without it the certificate is not verified.
    pub ca_file: Option<PathBuf>,
    /// `DB_REPLICA_HOST`: accepted, not used. Every read goes to the primary.
    pub replica_host: Option<String>,
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("name", &self.name)
            .field("pool_size", &self.pool_size)
            .field("queue_target_ms", &self.queue_target_ms)
            .field("ip_version", &self.ip_version)
            .field("tls", &self.tls)
            .field("ca_file", &self.ca_file)
            .field("replica_host", &self.replica_host)
            .finish_non_exhaustive()
    }
}
