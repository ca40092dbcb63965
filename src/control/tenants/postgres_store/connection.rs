//! Makes connections to the registry: resolves the host, speaks TLS, runs the set-up statements of each session.
//!
//! Used by the pool, by the opening and by the listener for notices. The host is resolved anew for every connection, so a
//! moved database is found; while the resolver fails, the addresses it gave last are used. Error texts carry the server's
//! code and message, never its detail line, which can quote rows.

use std::error::Error as _;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::{IpVersion, RegistrySettings};
use super::tls;
use crate::control::tenants::StoreError;

/// Longest run of one statement on the server; the tables are small and every statement uses an index or reads them once.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest attempt to reach one address, so that a silent one leaves time for the next.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// Silence after which the system probes a peer, the distance of the probes and how many may fail: a vanished server is noticed
/// in about a minute, also by the listener, which never sends.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Name under which the reference's connections are known too (http-api.md 13).
const APPLICATION_NAME: &str = "supabase_mt_realtime";

/// An open connection that somebody has to drive.
pub(super) type RawConnection = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Everything needed for a connection.
pub(super) struct Dialer {
    config: Config,
    host: String,
    port: u16,
    ip_version: Option<IpVersion>,
    tls: MakeRustlsConnect,
    /// Statements run on each new connection.
    setup: Vec<String>,
    /// What the resolver said last.
    addresses: Mutex<Vec<IpAddr>>,
}

impl Dialer {
    /// Resolves the host once, so that a wrong name is told at boot. Connects nothing.
    pub async fn new(settings: &RegistrySettings) -> Result<Self, StoreError> {
        let ca_file = settings.ca_file.as_deref().filter(|_| settings.tls);
        let tls = tls::connector(ca_file).map_err(|reason| StoreError::Registry { action: "preparing TLS", reason })?;
        let mut config = Config::new();
        config
            .user(&settings.user)
            .password(&settings.password)
            .dbname(&settings.name)
            .port(settings.port)
            .application_name(APPLICATION_NAME)
            .ssl_mode(if settings.tls { SslMode::Require } else { SslMode::Disable })
            .connect_timeout(ADDRESS_TIMEOUT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_PROBES);
        let mut setup = vec![format!("set statement_timeout = {}", STATEMENT_TIMEOUT.as_millis())];
        setup.extend(settings.after_connect_query.clone());
        let dialer = Self {
            config,
            host: settings.host.clone(),
            port: settings.port,
            ip_version: settings.ip_version,
            tls,
            setup,
            addresses: Mutex::default(),
        };
        let found = tokio::time::timeout(STATEMENT_TIMEOUT, dialer.resolve()).await;
        if !dialer.is_local() && found.unwrap_or_default().is_empty() {
            let reason = format!("no usable address of {}", dialer.host);
            return Err(StoreError::Registry { action: "resolving DB_HOST", reason });
        }
        Ok(dialer)
    }

    /// Adds a statement to the set-up of every further connection.
    pub fn add_setup(&mut self, statement: String) {
        self.setup.push(statement);
    }

    /// The statements a raw connection still needs.
    pub fn setup(&self) -> &[String] {
        &self.setup
    }

    /// A connection that is driven in the background and set up.
    pub async fn dial(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, connection) = self.dial_raw().await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection of the tenant database ended: {}", reason(&error));
            }
        });
        for statement in &self.setup {
            client.batch_execute(statement).await?;
        }
        Ok((client, driver))
    }

    /// A connection the caller drives and sets up.
    pub async fn dial_raw(&self) -> Result<(Client, RawConnection), Error> {
        let mut config = self.config.clone();
        if self.is_local() {
            config.host(&self.host);
        } else {
            for address in self.resolve().await {
                config.host(&self.host).hostaddr(address);
            }
        }
        config.connect(self.tls.clone()).await
    }

    fn is_local(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Addresses of the wanted family, IPv6 first.
    async fn resolve(&self) -> Vec<IpAddr> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let mut found: Vec<IpAddr> = found.map_or_else(|_| Vec::new(), |found| found.map(|address| address.ip()).collect());
        found.retain(|address| self.ip_version.is_none_or(|version| address.is_ipv6() == (version == IpVersion::Ipv6)));
        found.sort_by_key(IpAddr::is_ipv4);
        found.dedup();
        let mut last = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if !found.is_empty() {
            last.clone_from(&found);
        }
        last.clone()
    }
}

/// The pool's way to the dialer.
pub(super) struct PoolDialer(pub Arc<Dialer>);

impl Connect for PoolDialer {
    fn connect(&self, _config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        self.0.dial().boxed()
    }
}

/// What an error says, fit for a log.
pub(super) fn reason(error: &Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(refusal), _) => format!("{} ({})", refusal.message(), refusal.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}
