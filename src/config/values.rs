//! The typed values a knob can take, and the strict rules that turn text into them.
//!
//! Used by `resolve` for environment variables and profile values alike, so that both accept
//! exactly the same spellings (operations 2: strict decimal integers, `true`/`1`/`false`/`0` in any
//! case with blanks, comma-separated lists). Each parser returns a message without the place; the
//! caller adds it. Nothing here reads the environment.

use std::{fmt, net::IpAddr, ops::Deref};

/// A part of replication slot names, whose alphabet Postgres restricts; short enough to leave room for the rest of the name.
pub(super) fn parse_slot_suffix(text: &str) -> Result<String, String> {
    const BYTES_MAX: usize = 30;
    let fits = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if fits && text.len() <= BYTES_MAX {
        Ok(text.to_owned())
    } else {
        Err(format!("must be at most {BYTES_MAX} lower-case letters, digits and underscores"))
    }
}

/// Address family of the listener (`REALTIME_IP_VERSION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv6 wildcard (dual stack) where the host has IPv6, else IPv4.
    Auto,
    /// IPv4 only.
    V4,
    /// IPv6 wildcard.
    V6,
}

/// How many shards a tenant's connections may use (`RINGCAST_SPREAD`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// One shard until the threshold of connections is passed, then one more per threshold.
    Auto,
    /// All shards from the first connection on.
    All,
    /// Always exactly this many shards (at most the number there are).
    Shards(u16),
}

/// Format of a log line (`RINGCAST_LOG_FORMAT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `TIME METADATA[LEVEL] MESSAGE`.
    Text,
    /// One JSON object per line.
    Json,
}

/// Kernel interface of the shards (`RINGCAST_DRIVER`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// io_uring where the kernel allows it, else epoll with a warning.
    Auto,
    /// io_uring or refuse to start.
    IoUring,
    /// epoll even where io_uring would work.
    Epoll,
}

/// The eight levels of `LOG_LEVEL`, from most to least talkative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// The default.
    Info,
    /// Normal but significant.
    Notice,
    /// Something is off, service continues.
    Warning,
    /// A request or a connection failed.
    Error,
    /// A limit that protects the service was hit.
    Critical,
    /// Unused by this program, accepted as a filter.
    Alert,
    /// Unused by this program, accepted as a filter.
    Emergency,
}

impl LogLevel {
    /// The spelling of `LOG_LEVEL`, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }

    /// Every level, ascending.
    pub(crate) const ALL: [Self; 8] =
        [Self::Debug, Self::Info, Self::Notice, Self::Warning, Self::Error, Self::Critical, Self::Alert, Self::Emergency];
}

/// Text that must never be printed; `Debug` shows `<set>`. Use it through `Deref` (`&*secret`).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Deref for Secret {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<set>")
    }
}

/// A cipher key of exactly `N` bytes, hidden from `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct CipherKey<const N: usize>([u8; N]);

impl<const N: usize> CipherKey<N> {
    /// The key, as the bytes of the variable's text.
    pub const fn bytes(&self) -> &[u8; N] {
        &self.0
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let bytes = text.as_bytes();
        <[u8; N]>::try_from(bytes).map(Self).map_err(|_| format!("must be exactly {N} bytes long, this one has {}", bytes.len()))
    }
}

impl<const N: usize> fmt::Debug for CipherKey<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<set>")
    }
}

/// Strict decimal integer within `min..=max`.
pub(super) fn parse_int(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{text}` is not a whole decimal number (allowed: {min} to {max})"));
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    match unsigned.parse::<u64>() {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(format!("{text} is out of range (allowed: {min} to {max})")),
    }
}

/// `true`, `1`, `false`, `0` in any case with surrounding blanks.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("`{text}` is not one of true, 1, false, 0")),
    }
}

/// Comma-separated items, trimmed, empty ones dropped.
pub(super) fn parse_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// One of a closed set of lower-case words.
pub(super) fn parse_choice(text: &str, words: &'static [&'static str]) -> Result<(), String> {
    if words.contains(&text) {
        return Ok(());
    }
    Err(format!("`{text}` is not one of {}", words.join(", ")))
}

/// A JSON object.
pub(super) fn parse_json_object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(map)) => Ok(map),
        Ok(_) => Err("must be a JSON object such as {\"iss\":\"me\"}".to_owned()),
        Err(error) => Err(format!("is not valid JSON: {error}")),
    }
}

/// `auto`, `all` or a number of shards.
pub(super) fn parse_spread(text: &str) -> Result<Spread, String> {
    match text {
        "auto" => Ok(Spread::Auto),
        "all" => Ok(Spread::All),
        _ => {
            parse_int(text, 1, super::knobs::SHARDS_MAX).ok().and_then(|n| u16::try_from(n).ok()).map(Spread::Shards).ok_or_else(
                || format!("`{text}` is not one of auto, all or a number of shards (1 to {})", super::knobs::SHARDS_MAX),
            )
        }
    }
}

/// An IPv4 or IPv6 address.
pub(super) fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IPv4 or IPv6 address"))
}

/// A list of addresses or networks (`10.0.0.0/8`, `::1`), kept as written.
pub(super) fn parse_networks(text: &str) -> Result<Vec<String>, String> {
    let items = parse_list(text);
    for item in &items {
        let (address, prefix) = match item.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (item.as_str(), None),
        };
        let bits_max = match parse_address(address)? {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if let Some(prefix) = prefix {
            parse_int(prefix, 0, bits_max).map_err(|_| format!("`{item}`: the prefix length must be 0 to {bits_max}"))?;
        }
    }
    Ok(items)
}
