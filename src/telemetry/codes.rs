//! The error and log codes an operator searches for (operations 7.1 to 7.5).
//!
//! A code is the same in a log line (`CODE: text`, and the field `error_code`), in the metric label
//! `code`, and, for some, in the reply a client gets. The table gives the level it is logged at.
//! Code that logs one calls `Code::log`, so message, field and level cannot disagree.

use std::fmt;

/// Level of a logged code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The client did something that needs no action.
    Warning,
    /// A request or a connection failed.
    Error,
    /// A limit was hit; logged once per time it triggers.
    Critical,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $code:ident: $severity:ident;)+) => {
        /// A log code; `as_str` is its exact spelling.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])+ $code),+ }

        impl Code {
            /// Every code, in the order of the specification.
            pub const ALL: &[Self] = &[$(Self::$code),+];

            /// The spelling used in logs, metrics and replies.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$code => stringify!($code)),+ }
            }

            /// The level it is usually logged at.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$code => Severity::$severity),+ }
            }
        }
    };
}

codes! {
    // 7.1 Connecting and joining
    /// Upgrade without a key.
    MissingAPIKey: Error;
    /// Unknown tenant.
    TenantNotFound: Error;
    /// Suspended tenant.
    RealtimeDisabledForTenant: Error;
    /// Expired token, missing claims, unusable `exp`.
    InvalidJWTToken: Warning;
    /// Not a JWT.
    MalformedJWT: Error;
    /// Bad signature at join.
    JwtSignatureError: Error;
    /// No usable key.
    JwtSignerError: Error;
    /// Any other failure of an upgrade.
    ErrorConnectingToWebsocket: Error;
    /// Limit of connected users.
    ConnectionRateLimitReached: Error;
    /// Join limiter, at the upgrade.
    JoinsRateLimitReached: Error;
    /// Join limiter, at a join; once per trigger.
    ClientJoinRateLimitReached: Critical;
    /// Last channel slot of a socket taken.
    ChannelRateLimitReached: Error;
    /// Empty sub-topic.
    TopicNameRequired: Error;
    /// Join payload with invalid fields.
    InvalidJoinPayload: Error;
    /// Public join of a private-only tenant.
    PrivateOnly: Error;
    /// No read permission.
    Unauthorized: Error;
    /// Join during shutdown.
    RealtimeRestarting: Error;
    /// Policies could not be evaluated.
    UnableToSetPolicies: Error;
    /// Policies raised an error.
    RlsPolicyError: Error;
    /// Statement cancelled.
    QueryCanceled: Error;
    /// No partition for today.
    MissingPartition: Error;
    /// Authorization limiter; its trigger is logged as critical.
    IncreaseConnectionPool: Error;
    /// Too few free connections.
    DatabaseLackOfConnections: Error;
    /// Connect limiter; its trigger is logged as critical.
    DatabaseConnectionRateLimitReached: Error;
    /// Tenant database unavailable.
    UnableToConnectToProject: Error;
    /// Tenant database still connecting.
    InitializingProjectConnection: Error;
    /// Another node did not answer.
    TimeoutOnRpcCall: Error;
    /// Another node answered with an error.
    ErrorOnRpcCall: Error;
    /// Another node could not be called.
    RpcError: Error;
    /// Replay refused or failed.
    UnableToReplayMessages: Error;
    /// Membership service failed.
    MusterJoinError: Error;
    /// Anything else in a join.
    UnknownErrorOnChannel: Error;
    /// Rate counter unreadable.
    UnknownErrorOnCounter: Error;
    /// A channel was stopped with an explanation.
    ChannelShutdown: Warning;

    // 7.2 Messages
    /// Undecodable frame dropped.
    MalformedWebSocketMessage: Error;
    /// Other failure on a frame.
    UnknownErrorOnWebSocketMessage: Error;
    /// Event limiters.
    MessagePerSecondRateLimitReached: Error;
    /// Private broadcast without a database.
    UnableToHandleBroadcast: Error;
    /// Presence push failed.
    UnableToHandlePresence: Error;
    /// Presence event that is neither track nor untrack.
    UnknownPresenceEvent: Error;
    /// Track payload that is no object.
    InvalidPresencePayload: Error;
    /// Tracker refused.
    UnableToTrackPresence: Error;
    /// Presence limiter of the tenant.
    PresenceRateLimitReached: Error;
    /// Presence window of a channel.
    ClientPresenceRateLimitReached: Error;
    /// Value that cannot be encoded.
    UnableToEncodeJson: Error;

    // 7.3 Postgres changes
    /// A subscription was refused.
    RealtimeDisabledForConfiguration: Warning;
    /// Subscribing failed; tried again.
    UnableToSubscribeToPostgres: Error;
    /// Publication, tables or privileges could not be read.
    CheckOidsError: Error;
    /// Rows of ended subscriptions could not be deleted.
    SubscriptionDeletionFailed: Error;

    // 7.4 Tenant database
    /// A question to a tenant's database failed.
    ErrorExecutingTransaction: Error;
    /// Connection failed.
    UnableToConnectToTenantDatabase: Error;
    /// The pool lost a connection: recovery window opened.
    DatabaseConnectionDown: Warning;
    /// The recovery window is over.
    DatabaseConnectionRecoveryWindowExceeded: Warning;
    /// The host resolved to IPv4 only.
    DatabaseIpVersionIsIpv4: Warning;
    /// Migrations failed.
    MigrationsFailedToRun: Error;
    /// The stored number of migrations was not the database's.
    MigrationCountMismatch: Warning;
    /// That number could not be stored.
    MigrationCountMismatchReconcileFailed: Error;
    /// A partition could not be created.
    PartitionCreationFailed: Error;
    /// Old partitions could not be dropped.
    JanitorFailedToDeleteOldMessages: Error;
    /// The replication stream did not start.
    StartReplicationFailed: Error;
    /// The replication stream did not start in time.
    ReplicationConnectionTimeout: Error;
    /// No walsender or slot is free.
    ReplicationMaxWalSendersReached: Error;
    /// The stream ended.
    ReplicationConnectionDown: Warning;
    /// The stream could not be started for two hours.
    ReplicationRecoveryWindowExceeded: Warning;
    /// No sign of life from the stream.
    ReplicationConnectionWatchdogTimeout: Error;
    /// The slot is gone or inactive.
    ReplicationSlotNotAlive: Error;
    /// The slot holds back too much WAL.
    ReplicationSlotLagTooHigh: Error;
    /// The slot could not be looked at.
    ReplicationSlotCheckSkipped: Warning;
    /// A row was not broadcast: a column is missing, it is too large, or the limiter is triggered.
    UnableToBroadcastChanges: Error;

    // 7.5 HTTP, metrics, dashboard, cluster
    /// A 422 answer.
    UnprocessableEntity: Error;
    /// A 422 answer for an unknown reason.
    UnknownErrorOnController: Error;
    /// A tenant could not be deleted.
    UnableToDeleteTenant: Error;
    /// A failure answered with 5xx.
    HttpServerError: Error;
    /// A failure answered with 4xx.
    HttpClientError: Warning;
    /// Metrics push took over a minute.
    MetricsPusherTimeout: Error;
    /// Metrics push ended early.
    MetricsPusherTaskExited: Error;
    /// Metrics push was refused.
    MetricsPusherFailed: Error;
    /// Metrics push failed otherwise.
    MetricsPusherException: Error;
    /// Another node was lost.
    RealtimeNodeDisconnected: Error;
    /// Anything else.
    UnknownError: Error;
    /// Operator page: version of a tenant database unreadable.
    TenantInfoPgVersionFailed: Error;
    /// Operator page: no connection for migrations.
    TenantMigrationsConnectFailed: Error;
    /// Operator page: number of migrations unreadable.
    TenantMigrationsRanCheckFailed: Error;
    /// Operator page: list of migrations unreadable.
    TenantMigrationsSchemaMigrationsQueryFailed: Error;
    /// Operator page: a migration failed.
    TenantMigrationsApplyFailed: Error;
    /// Operator page: a migration crashed.
    TenantMigrationsApplyCrash: Error;
    /// Operator page: no schema dump.
    TenantMigrationsDumpSkipped: Error;
    /// Operator page: comparison tool missing.
    TenantMigrationsPgDeltaMissing: Error;
    /// Operator page: comparison took too long.
    TenantMigrationsPgDeltaTimeout: Error;
    /// Operator page: comparison crashed.
    TenantMigrationsPgDeltaCrash: Error;
    /// Operator page: comparison failed.
    TenantMigrationsPgDeltaNonZeroExit: Error;
    /// Operator page: result of the comparison unreadable.
    TenantMigrationsPgDeltaPlanUnreadable: Error;
}

impl Code {
    /// Logs `CODE: text` at the code's level. `external_id` is the tenant, empty if there is none.
    pub fn log(self, external_id: &str, text: impl fmt::Display) {
        self.log_at(self.severity(), external_id, text);
    }

    /// As `log` at another level, for the codes whose trigger and whose refusals differ.
    pub fn log_at(self, severity: Severity, external_id: &str, text: impl fmt::Display) {
        let code = self.as_str();
        match severity {
            Severity::Warning => {
                tracing::warn!(external_id, error_code = code, "{code}: {text}");
            }
            Severity::Error => {
                tracing::error!(external_id, error_code = code, "{code}: {text}");
            }
            Severity::Critical => {
                tracing::error!(severity = "critical", external_id, error_code = code, "{code}: {text}");
            }
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_and_level_are_those_of_the_specification() {
        assert_eq!(Code::MissingAPIKey.as_str(), "MissingAPIKey");
        assert_eq!(Code::InvalidJWTToken.severity(), Severity::Warning);
        assert_eq!(Code::ClientJoinRateLimitReached.severity(), Severity::Critical);
        assert_eq!(Code::HttpClientError.severity(), Severity::Warning);
        assert_eq!(Code::Unauthorized.to_string(), "Unauthorized");
    }

    #[test]
    fn every_code_is_listed_once() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert!(!Code::ALL[..index].contains(code), "{code}");
        }
        // 34 of section 7.1, 11 of 7.2, 4 of 7.3, 20 of 7.4, 23 of 7.5.
        assert_eq!(Code::ALL.len(), 34 + 11 + 4 + 20 + 23);
    }
}
