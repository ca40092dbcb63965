//! Why a join is refused: one table for reason, log code and what happens to the socket (section 6).

use super::database::DatabaseRefusal;
use crate::protocol::jwt::JwtError;
use crate::telemetry::{Code, Severity};

/// A refused join.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// `realtime:` without a name.
    TopicNameRequired,
    /// The process is shutting down.
    Restarting,
    /// The tenant was deleted.
    TenantNotFound,
    /// The tenant was suspended.
    TenantSuspended,
    /// Public channel of a private-only tenant.
    PrivateOnly,
    /// User limit.
    TooManyUsers,
    /// Join-rate limiter.
    TooManyJoins,
    /// Channel limit of the socket.
    TooManyChannels,
    /// More channels than any socket may have; answered at once.
    HardChannelLimit,
    /// The token is not usable.
    Token(JwtError),
    /// `exp` passes verification but leaves no time.
    TokenExpirationInvalid,
    /// The tenant's database is needed and did not say yes.
    Database(DatabaseRefusal),
    /// The policies do not let this token read the topic.
    Unauthorized(Box<str>),
    /// The policies of the topic raised an error: for the client the same.
    PolicyError(Box<str>, String),
    /// `replay` on a public channel.
    ReplayOnPublic,
    /// Parameters of `replay` that make no sense.
    ReplayInvalid,
    /// The payload cannot be understood at all.
    Payload(&'static str),
}

impl Refusal {
    /// The exact `reason` of the reply.
    pub fn reason(&self) -> String {
        let fixed = match self {
            Self::TopicNameRequired => "TopicNameRequired: You must provide a topic name",
            Self::Restarting => "RealtimeRestarting: Realtime is restarting, please standby",
            Self::TenantNotFound => "TenantNotFound: Tenant with the given ID does not exist",
            Self::TenantSuspended => "RealtimeDisabledForTenant: Realtime disabled for this tenant",
            Self::PrivateOnly => "PrivateOnly: This project only allows private channels",
            Self::TooManyUsers => "ConnectionRateLimitReached: Too many connected users",
            Self::TooManyJoins => "ClientJoinRateLimitReached: Too many joins per second",
            Self::TooManyChannels => "ChannelRateLimitReached: Too many channels",
            Self::HardChannelLimit => "too many channels joined",
            Self::TokenExpirationInvalid => "InvalidJWTToken: Token expiration time is invalid",
            Self::Database(refusal) => return refusal.join_reason(),
            Self::Unauthorized(topic) | Self::PolicyError(topic, _) => {
                return format!("Unauthorized: You do not have permissions to read from this Channel topic: {topic}");
            }
            Self::ReplayInvalid => "UnableToReplayMessages: Replay params are not valid",
            Self::ReplayOnPublic => "UnableToReplayMessages: Replay is not allowed for public channels",
            Self::Token(error) => return error.join_reason(),
            Self::Payload(what) => return format!("UnknownErrorOnChannel: {what}"),
        };
        fixed.to_owned()
    }

    /// Log code of operations 7.1.
    pub fn code(&self) -> Code {
        match self {
            Self::TopicNameRequired => Code::TopicNameRequired,
            Self::Restarting => Code::RealtimeRestarting,
            Self::TenantNotFound => Code::TenantNotFound,
            Self::TenantSuspended => Code::RealtimeDisabledForTenant,
            Self::PrivateOnly => Code::PrivateOnly,
            Self::TooManyUsers => Code::ConnectionRateLimitReached,
            Self::TooManyJoins => Code::ClientJoinRateLimitReached,
            Self::TooManyChannels | Self::HardChannelLimit => Code::ChannelRateLimitReached,
            Self::TokenExpirationInvalid => Code::InvalidJWTToken,
            Self::Database(refusal) => refusal.code(),
            Self::Unauthorized(_) => Code::Unauthorized,
            Self::PolicyError(..) => Code::RlsPolicyError,
            Self::ReplayOnPublic | Self::ReplayInvalid => Code::UnableToReplayMessages,
            Self::Token(error) => token_code(error, Code::UnknownErrorOnChannel),
            Self::Payload(_) => Code::UnknownErrorOnChannel,
        }
    }

    /// Logs the refusal under its code.
    pub fn log(&self, external_id: &str) {
        let (code, reason) = (self.code(), self.reason());
        let reason = match self {
            Self::PolicyError(_, detail) => format!("{reason}: {detail}"),
            Self::Database(refusal) => refusal.log_text(),
            _ => reason,
        };
        let text = without_code(&reason, code);
        // The limiter's trigger is critical and logged by the control plane; a refusal is one client's error.
        code.log_at(code.severity().min(Severity::Error), external_id, text);
    }

    /// Whether the socket is closed with 1001 after the reply (15.1).
    pub fn closes_socket(&self) -> bool {
        matches!(self, Self::TenantNotFound | Self::Database(DatabaseRefusal::TenantNotFound) | Self::TooManyJoins)
    }

    /// Whether the reply waits for `CHANNEL_ERROR_BACKOFF_MS`.
    pub fn is_delayed(&self) -> bool {
        !matches!(self, Self::HardChannelLimit)
    }
}

impl DatabaseRefusal {
    /// The `reason` of a refused join.
    pub fn join_reason(&self) -> String {
        let fixed = match self {
            Self::Unavailable => "UnableToConnectToProject: Realtime was unable to connect to the project database",
            Self::Initializing => "InitializingProjectConnection: Realtime is initializing the project connection",
            Self::TooManyConnections => {
                "DatabaseLackOfConnections: Database can't accept more connections, Realtime won't connect"
            }
            Self::ConnectRateLimited => "DatabaseConnectionRateLimitReached: Too many database connections attempts per second",
            Self::Suspended => "RealtimeDisabledForTenant: Realtime disabled for this tenant",
            Self::TenantNotFound => "TenantNotFound: Tenant with the given ID does not exist",
            Self::MissingPartition => "MissingPartition: Realtime was unable to find the expected messages partition",
            Self::PoolExhausted => "IncreaseConnectionPool: Please increase your connection pool size",
            Self::QueryCanceled(text) => return format!("QueryCanceled: {text}"),
            // A policy's own words are for the log.
            Self::RlsPolicy(_) | Self::Other(_) => UNABLE_TO_CONNECT,
            Self::ReplayFailed(_) => "UnableToReplayMessages: Realtime was unable to replay messages",
        };
        fixed.to_owned()
    }

    /// What a live channel is told before it is closed (13.3).
    pub fn close_text(&self) -> &'static str {
        match self {
            Self::QueryCanceled(_) => "Query was cancelled, please try again",
            _ => UNABLE_TO_CONNECT,
        }
    }

    /// Log code of operations 7.1.
    pub fn code(&self) -> Code {
        match self {
            Self::Unavailable => Code::UnableToConnectToProject,
            Self::Initializing => Code::InitializingProjectConnection,
            Self::TooManyConnections => Code::DatabaseLackOfConnections,
            Self::ConnectRateLimited => Code::DatabaseConnectionRateLimitReached,
            Self::Suspended => Code::RealtimeDisabledForTenant,
            Self::TenantNotFound => Code::TenantNotFound,
            Self::RlsPolicy(_) => Code::RlsPolicyError,
            Self::QueryCanceled(_) => Code::QueryCanceled,
            Self::MissingPartition => Code::MissingPartition,
            Self::PoolExhausted => Code::IncreaseConnectionPool,
            Self::Other(_) => Code::UnableToSetPolicies,
            Self::ReplayFailed(_) => Code::UnableToReplayMessages,
        }
    }

    /// Logs it under its code.
    pub fn log(&self, external_id: &str) {
        self.code().log(external_id, without_code(&self.log_text(), self.code()));
    }

    /// What the log is told: the reason, and the database's own words where there are some.
    pub fn log_text(&self) -> String {
        match self {
            Self::RlsPolicy(text) | Self::Other(text) | Self::ReplayFailed(text) => format!("{}: {text}", self.join_reason()),
            _ => self.join_reason(),
        }
    }
}

/// The text behind the code that some reasons begin with, since log lines begin with it anyway.
fn without_code(text: &str, code: Code) -> &str {
    text.strip_prefix(code.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(text)
}

/// Text without a code for evaluations that failed in an unforeseen way.
const UNABLE_TO_CONNECT: &str = "Realtime was unable to connect to the project database";

/// Log code of a refused token; `other` is the code of the kinds without one of their own.
pub fn token_code(error: &JwtError, other: Code) -> Code {
    match error {
        JwtError::Malformed => Code::MalformedJWT,
        JwtError::Signature => Code::JwtSignatureError,
        JwtError::Signer { .. } => Code::JwtSignerError,
        JwtError::Expired { .. } | JwtError::MissingClaims => Code::InvalidJWTToken,
        JwtError::Generic => other,
    }
}
