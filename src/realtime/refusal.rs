//! Why a join is refused: one table for reason, log code and what happens to the socket (section 6).

use crate::protocol::jwt::JwtError;

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
    pub fn code(&self) -> &'static str {
        match self {
            Self::TopicNameRequired => "TopicNameRequired",
            Self::Restarting => "RealtimeRestarting",
            Self::TenantNotFound => "TenantNotFound",
            Self::TenantSuspended => "RealtimeDisabledForTenant",
            Self::PrivateOnly => "PrivateOnly",
            Self::TooManyUsers => "ConnectionRateLimitReached",
            Self::TooManyJoins => "ClientJoinRateLimitReached",
            Self::TooManyChannels | Self::HardChannelLimit => "ChannelRateLimitReached",
            Self::TokenExpirationInvalid => "InvalidJWTToken",
            Self::NoDatabase => "UnableToConnectToProject",
            Self::ReplayOnPublic => "UnableToReplayMessages",
            Self::Token(error) => error.code(),
            Self::Payload(_) => "UnknownErrorOnChannel",
        }
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
