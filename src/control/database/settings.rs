//! Where a tenant's database is and how much of it we may use (database.md 2.1).
//!
//! Read from the *decrypted* settings of the tenant's `postgres_cdc_rls` extension by whoever starts the database side of a
//! tenant; a plain value from then on. Errors name the faulty setting and never show its value, because half of the
//! settings are secrets; for the same reason [`std::fmt::Debug`] leaves the password out.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

/// Sessions one pool may be configured to hold; far above what a Postgres accepts, low enough to catch a unit mistake.
const POOL_SIZE_MAX: u64 = 1_000;

/// Longest configurable wait for a free session: an hour, to catch a unit mistake.
const QUEUE_TARGET_MAX_MS: u64 = 3_600_000;

/// Largest configurable size of a row change: Postgres' own bound for a value.
const RECORD_BYTES_MAX: u64 = 1 << 30;

/// Coordinates and sizes of one tenant's database.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// Host name or address (`db_host`).
    pub host: String,
    /// TCP port (`db_port`).
    pub port: u16,
    /// Database name (`db_name`).
    pub name: String,
    /// Login role (`db_user`).
    pub user: String,
    /// Its password (`db_password`). Secret.
    pub password: String,
    /// TLS is required (`ssl_enforced`); the certificate is not verified.
    pub tls: bool,
    /// Sessions of the general pool (`db_pool`); also the threshold of the authorization error window.
    pub pool_size: usize,
    /// Sessions for subscription inserts (`subcriber_pool_size`); also the threshold of the subscription error window.
    pub subscriber_pool_size: usize,
    /// What the capacity check reserves for subscription inserts (`subs_pool_size`, a different key on purpose).
    pub reserved_subscriber_pool_size: usize,
    /// Publication of Postgres Changes (`publication`).
    pub publication: String,
    /// Base name of its slot (`slot_name`).
    pub slot_name: String,
    /// Longest wait for a free session (`db_queue_target`).
    pub queue_target: Duration,
    /// Home region of the tenant (`region`).
    pub region: String,
    /// Bytes of a row change beyond which only its small values are delivered (`poll_max_record_bytes`).
    pub record_bytes_max: usize,
}

impl DatabaseSettings {
    /// Reads a decrypted settings map.
    ///
    /// # Errors
    /// Names the first setting that is missing or of a wrong type or size.
    pub fn from_plain(settings: &Map<String, Value>) -> Result<Self, SettingsError> {
        let port = required_text(settings, "db_port")?;
        let port = port.parse().ok().filter(|&port: &u16| port != 0);
        Ok(Self {
            host: required_text(settings, "db_host")?,
            port: port.ok_or(SettingsError { setting: "db_port", problem: "must be digits, from 1 to 65535" })?,
            name: required_text(settings, "db_name")?,
            user: required_text(settings, "db_user")?,
            password: required_text(settings, "db_password")?,
            tls: settings.get("ssl_enforced").and_then(Value::as_bool).unwrap_or(true),
            pool_size: pool_size(settings, "db_pool", 1)?,
            subscriber_pool_size: pool_size(settings, "subcriber_pool_size", 4)?,
            reserved_subscriber_pool_size: pool_size(settings, "subs_pool_size", 1)?,
            publication: text_or(settings, "publication", "supabase_realtime")?,
            slot_name: text_or(settings, "slot_name", "supabase_realtime_replication_slot")?,
            queue_target: Duration::from_millis(whole(settings, "db_queue_target", 5_000, 0..=QUEUE_TARGET_MAX_MS)?),
            region: required_text(settings, "region")?,
            record_bytes_max: usize::try_from(whole(settings, "poll_max_record_bytes", 1_048_576, 0..=RECORD_BYTES_MAX)?)
                .unwrap_or(usize::MAX),
        })
    }
}

impl fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("name", &self.name)
            .field("user", &self.user)
            .field("tls", &self.tls)
            .field("pool_size", &self.pool_size)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A setting that cannot be used. Shows its name, never its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettingsError {
    /// Key in the extension's settings.
    pub setting: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database setting {} {}", self.setting, self.problem)
    }
}

impl std::error::Error for SettingsError {}

fn required_text(settings: &Map<String, Value>, setting: &'static str) -> Result<String, SettingsError> {
    match settings.get(setting) {
        Some(Value::String(text)) => Ok(text.clone()),
        None | Some(Value::Null) => Err(SettingsError { setting, problem: "is missing" }),
        Some(_) => Err(SettingsError { setting, problem: "must be a string" }),
    }
}

fn text_or(settings: &Map<String, Value>, setting: &'static str, default: &str) -> Result<String, SettingsError> {
    match settings.get(setting) {
        None | Some(Value::Null) => Ok(default.to_owned()),
        Some(_) => required_text(settings, setting),
    }
}

fn pool_size(settings: &Map<String, Value>, setting: &'static str, default: u64) -> Result<usize, SettingsError> {
    whole(settings, setting, default, 1..=POOL_SIZE_MAX).map(|size| usize::try_from(size).unwrap_or(usize::MAX))
}

fn whole(
    settings: &Map<String, Value>,
    setting: &'static str,
    default: u64,
    allowed: RangeInclusive<u64>,
) -> Result<u64, SettingsError> {
    match settings.get(setting) {
        None | Some(Value::Null) => Ok(default),
        Some(value) => value
            .as_u64()
            .filter(|number| allowed.contains(number))
            .ok_or(SettingsError { setting, problem: "must be a whole number of a sensible size" }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain() -> Value {
        json!({"db_host": "db.example", "db_port": "5432", "db_name": "postgres", "db_user": "supabase_admin",
               "db_password": "hunter2", "region": "eu-west-1"})
    }

    fn read(settings: &Value) -> Result<DatabaseSettings, SettingsError> {
        DatabaseSettings::from_plain(settings.as_object().unwrap())
    }

    #[test]
    fn absent_settings_have_the_documented_defaults() {
        let settings = read(&plain()).unwrap();
        assert_eq!((settings.host.as_str(), settings.port), ("db.example", 5432));
        assert!(settings.tls);
        assert_eq!((settings.pool_size, settings.subscriber_pool_size, settings.reserved_subscriber_pool_size), (1, 4, 1));
        assert_eq!(settings.publication, "supabase_realtime");
        assert_eq!(settings.slot_name, "supabase_realtime_replication_slot");
        assert_eq!(settings.queue_target, Duration::from_secs(5));
    }

    #[test]
    fn present_settings_are_taken_and_tls_needs_a_boolean_to_be_off() {
        let mut plain = plain();
        plain["ssl_enforced"] = json!(false);
        plain["db_pool"] = json!(7);
        plain["subcriber_pool_size"] = json!(9);
        plain["subs_pool_size"] = json!(11);
        plain["slot_name"] = json!("mine");
        let settings = read(&plain).unwrap();
        assert!(!settings.tls);
        assert_eq!((settings.pool_size, settings.subscriber_pool_size, settings.reserved_subscriber_pool_size), (7, 9, 11));
        assert_eq!(settings.slot_name, "mine");
        plain["ssl_enforced"] = json!("false");
        assert!(read(&plain).unwrap().tls);
    }

    #[test]
    fn errors_name_the_setting_and_not_its_value() {
        for (setting, value) in [
            ("db_port", json!("hunter2")),
            ("db_port", json!("0")),
            ("db_port", json!("65536")),
            ("db_port", json!(5432)),
            ("db_password", json!(12345)),
            ("db_host", Value::Null),
            ("db_pool", json!(0)),
            ("db_pool", json!("3")),
            ("subcriber_pool_size", json!(-1)),
            ("publication", json!(5)),
        ] {
            let mut plain = plain();
            plain[setting] = value.clone();
            let error = read(&plain).unwrap_err();
            assert_eq!(error.setting, setting);
            assert!(!error.to_string().contains("hunter2") && !error.to_string().contains("12345"), "{error}");
        }
        let mut plain = plain();
        plain.as_object_mut().unwrap().remove("db_user");
        assert_eq!(read(&plain).unwrap_err().to_string(), "database setting db_user is missing");
    }

    #[test]
    fn debug_hides_the_password() {
        let shown = format!("{:?}", read(&plain()).unwrap());
        assert!(shown.contains("db.example") && !shown.contains("hunter2"), "{shown}");
    }
}
