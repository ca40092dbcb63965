//! One SQL session in a tenant's database (database.md 2.3).
//!
//! Probe, pool, migrations and maintenance open their sessions here, each under its own `application_name`, which operators
//! look for in `pg_stat_activity`. A session that is handed out is logged in, new enough, and cannot run or idle in a
//! transaction for ever. A task of its own drives it until the client is dropped or the connection ends. Opening takes at
//! most 15 s; failures are sorted by what an operator has to do about them and hold no password.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, NoTls};

use super::dial::{DialError, Dialed, dial};
use super::settings::DatabaseSettings;

/// From name resolution to a usable session; the connect timeout of the original.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Oldest supported major version: `gen_random_uuid()` is built in since 13.
const VERSION_MIN: u32 = 13;

/// Dialling and sending a cancel request. The server acts on it at once or never.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeouts of a session whose operator has set none (0). Ten seconds are less than our own deadline of 15 s, so the server
/// ends a sleeping policy by itself and the session survives.
const SESSION_TIMEOUTS: &str = "select pg_catalog.set_config(name, '10s', false) \
     from pg_catalog.unnest(array['statement_timeout', 'idle_in_transaction_session_timeout']) as name \
     where pg_catalog.current_setting(name) = '0'";

/// Opens a session. Takes at most 15 s.
///
/// # Errors
/// Sorted by cause.
pub async fn connect(settings: &DatabaseSettings, application_name: &'static str) -> Result<Client, ConnectError> {
    open(settings, application_name, "", |_| {}).await.map(|session| session.client)
}

/// A session together with what its opener may want to know.
pub(super) struct Session {
    pub client: Client,
    /// Ends with the connection. Aborting it closes the connection at once.
    pub driver: JoinHandle<()>,
    /// Reached over IPv4.
    pub ipv4: bool,
    /// Major version of the server.
    pub version: u32,
}

/// Opens a session with start-up `options` (`-c name=value`, may be empty). `ended` learns why the connection is over, `None`
/// when that was our own wish; it is not called when the driver is aborted.
pub(super) async fn open(
    settings: &DatabaseSettings,
    application_name: &'static str,
    options: &'static str,
    ended: impl FnOnce(Option<tokio_postgres::Error>) + Send + 'static,
) -> Result<Session, ConnectError> {
    let opening = open_unbounded(settings, application_name, options, ended);
    tokio::time::timeout(CONNECT_TIMEOUT, opening).await.unwrap_or(Err(ConnectError::Timeout))
}

async fn open_unbounded(
    settings: &DatabaseSettings,
    application_name: &'static str,
    options: &'static str,
    ended: impl FnOnce(Option<tokio_postgres::Error>) + Send + 'static,
) -> Result<Session, ConnectError> {
    let Dialed { stream, ipv4 } = dial(settings).await?;
    let mut config = Config::new();
    // The stream is encrypted already where it has to be.
    config.user(&settings.user).password(&settings.password).dbname(&settings.name).ssl_mode(SslMode::Disable);
    config.application_name(application_name);
    if !options.is_empty() {
        config.options(options);
    }
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    let version = major_version(connection.parameter("server_version").unwrap_or_default());
    if version < VERSION_MIN {
        return Err(ConnectError::TooOld { found: version, required: VERSION_MIN });
    }
    let driver = tokio::spawn(async move { ended(connection.await.err()) });
    client.batch_execute(SESSION_TIMEOUTS).await?;
    Ok(Session { client, driver, ipv4, version })
}

/// Asks the server to end what a session is doing. Best effort, at most 5 s.
pub(super) async fn cancel(settings: &DatabaseSettings, token: &CancelToken) {
    let request = async {
        let dialed = dial(settings).await.ok()?;
        token.cancel_query_raw(dialed.stream, NoTls).await.ok()
    };
    if !matches!(tokio::time::timeout(CANCEL_TIMEOUT, request).await, Ok(Some(()))) {
        tracing::debug!("a cancel request did not reach the tenant database");
    }
}

/// `15` of `15.4 (Debian 15.4-1)`, `18` of `18beta1`; 0 when there is no number.
fn major_version(text: &str) -> u32 {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().unwrap_or(0)
}

/// Why a session could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// No stream: unknown host, unreachable, TLS refused or broken.
    Dial(DialError),
    /// Nothing listens at the port.
    Refused,
    /// Not ready within 15 s.
    Timeout,
    /// Wrong user or password, or the server does not let us in from here (class 28).
    Auth {
        /// Five characters.
        sqlstate: String,
    },
    /// There is no such database (3D000).
    DatabaseMissing,
    /// The server has no free session (53300).
    TooManyConnections,
    /// The server is starting up or shutting down (57P03).
    Starting,
    /// Postgres is older than we support.
    TooOld {
        /// Its major version.
        found: u32,
        /// The oldest supported one.
        required: u32,
    },
    /// Anything else.
    Other {
        /// When the server said so.
        sqlstate: Option<String>,
        /// The server's or the client's words.
        message: String,
    },
}

impl From<DialError> for ConnectError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Timeout => Self::Timeout,
            DialError::Connect(io::ErrorKind::ConnectionRefused) => Self::Refused,
            error => Self::Dial(error),
        }
    }
}

impl From<tokio_postgres::Error> for ConnectError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(code) = error.code() else { return Self::Other { sqlstate: None, message: error.to_string() } };
        if code.code().starts_with("28") {
            return Self::Auth { sqlstate: code.code().to_owned() };
        }
        match *code {
            SqlState::INVALID_CATALOG_NAME => Self::DatabaseMissing,
            SqlState::TOO_MANY_CONNECTIONS => Self::TooManyConnections,
            SqlState::CANNOT_CONNECT_NOW => Self::Starting,
            _ => Self::Other {
                sqlstate: Some(code.code().to_owned()),
                message: error.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default(),
            },
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dial(error) => error.fmt(f),
            Self::Refused => f.write_str("the database host refuses connections at the port"),
            Self::Timeout => write!(f, "no database session within {} s", CONNECT_TIMEOUT.as_secs()),
            Self::Auth { sqlstate } => write!(f, "the database refuses the user or the password (SQLSTATE {sqlstate})"),
            Self::DatabaseMissing => f.write_str("the database does not exist (SQLSTATE 3D000)"),
            Self::TooManyConnections => f.write_str("the database has no free session (SQLSTATE 53300)"),
            Self::Starting => f.write_str("the database is starting up or shutting down (SQLSTATE 57P03)"),
            Self::TooOld { found, required } => {
                write!(f, "the database is Postgres {found}, at least Postgres {required} is required")
            }
            Self::Other { sqlstate: Some(sqlstate), message } => write!(f, "{message} (SQLSTATE {sqlstate})"),
            Self::Other { sqlstate: None, message } => f.write_str(message),
        }
    }
}

impl std::error::Error for ConnectError {}

#[cfg(test)]
mod tests;
