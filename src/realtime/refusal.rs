//! Why a join is refused: one table for reason, log code and what happens to the socket (section 6).

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
    /// The channel needs a database and there is none.
    NoDatabase,
    /// `replay` on a public channel.
    ReplayOnPublic,
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
            Self::NoDatabase => "UnableToConnectToProject: Realtime was unable to connect to the project database",
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
            Self::NoDatabase => Code::UnableToConnectToProject,
            Self::ReplayOnPublic => Code::UnableToReplayMessages,
            Self::Token(error) => token_code(error, Code::UnknownErrorOnChannel),
            Self::Payload(_) => Code::UnknownErrorOnChannel,
        }
    }

    /// Logs the refusal under its code.
    pub fn log(&self, external_id: &str) {
        let (code, reason) = (self.code(), self.reason());
        let text = reason.strip_prefix(code.as_str()).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&reason);
        // The limiter's trigger is critical and logged by the control plane; a refusal is one client's error.
        code.log_at(code.severity().min(Severity::Error), external_id, text);
    }

    /// Whether the socket is closed with 1001 after the reply (15.1).
    pub fn closes_socket(&self) -> bool {
        matches!(self, Self::TenantNotFound | Self::TooManyJoins)
    }

    /// Whether the reply waits for `CHANNEL_ERROR_BACKOFF_MS`.
    pub fn is_delayed(&self) -> bool {
        !matches!(self, Self::HardChannelLimit)
    }
}

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
