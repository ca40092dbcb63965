//! Starts logging: one line per event to standard output, through a bounded queue.
//!
//! A shard must never wait for a terminal or a pipe, so lines go to a writer thread over a queue that
//! drops when it is full; the dropped ones are counted (`LogGuard::dropped_lines`). The filter is
//! `LOG_LEVEL` with the reference's eight names; an event can name a level that `tracing` does not
//! have with the field `severity`. Other crates' events pass from warning on. Boot calls `init` once
//! and holds the guard until the end, so that the last lines are flushed.

use std::io::Write;

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tracing::{Event, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use super::line::Fields;
use crate::config::{Config, LogFormat, LogLevel};

/// Lines that wait for the writer thread: some MB, a second or two of the worst storm.
const LINES_MAX: usize = 16 * 1024;

/// Prefix of the targets whose debug and info events are ours.
const OWN_TARGET: &str = "ringcast";

const TIME_FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Keeps the writer thread alive; dropping it flushes what is queued.
pub struct LogGuard {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl LogGuard {
    /// Lines dropped so far because standard output was too slow.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped.dropped_lines() as u64
    }
}

/// Starts logging for the whole process and reports the configuration's warnings.
///
/// # Errors
/// When logging was started before.
pub fn init(config: &Config) -> Result<LogGuard, String> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LINES_MAX)
        .thread_name("ringcast-log")
        .finish(std::io::stdout());
    let dropped = writer.error_counter();
    tracing_subscriber::registry()
        .with(LineLayer::new(config, writer))
        .try_init()
        .map_err(|error| format!("logging could not be started: {error}"))?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if !config.inert.is_empty() {
        tracing::debug!("variables without meaning here: {}", config.inert.join(", "));
    }
    Ok(LogGuard { dropped, _writer: guard })
}

/// Where a line goes; `NonBlocking` is cloned per event, which is two reference counts.
trait Sink: Send + Sync + 'static {
    fn write_line(&self, line: &[u8]);
}

impl Sink for NonBlocking {
    fn write_line(&self, line: &[u8]) {
        // A full queue is counted by the writer itself and is not an error.
        let _ = self.clone().write_all(line);
    }
}

struct LineLayer<W> {
    level_min: LogLevel,
    format: LogFormat,
    node: Vec<(&'static str, String)>,
    sink: W,
}

impl<W: Sink> LineLayer<W> {
    fn new(config: &Config, sink: W) -> Self {
        let node = [("region", &config.region), ("cluster", &config.cluster)];
        Self {
            level_min: config.log_level,
            format: config.log_format,
            node: node.into_iter().filter_map(|(key, value)| Some((key, value.clone()?))).collect(),
            sink,
        }
    }
}

/// The most talkative `tracing` level that can carry events of `level` or above.
fn level_filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info | LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Critical | LogLevel::Alert | LogLevel::Emergency => LevelFilter::ERROR,
    }
}

impl<S: Subscriber, W: Sink> Layer<S> for LineLayer<W> {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let own = metadata.target().starts_with(OWN_TARGET);
        let limit = level_filter(self.level_min);
        *metadata.level() <= if own { limit } else { limit.min(LevelFilter::WARN) }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(level_filter(self.level_min))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = fields.level(*event.metadata().level());
        if level < self.level_min {
            return;
        }
        // The format has no part that can be missing from a UTC time.
        let time = OffsetDateTime::now_utc().format(TIME_FORMAT).unwrap_or_default();
        let line = match self.format {
            LogFormat::Text => fields.text(&time, level),
            LogFormat::Json => fields.json(&time, level, &self.node),
        };
        self.sink.write_line(line.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::telemetry::codes::{Code, Severity};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<String>>);

    impl Sink for Memory {
        fn write_line(&self, line: &[u8]) {
            let line = std::str::from_utf8(line).expect("lines are UTF-8");
            self.0.lock().expect("not poisoned").push_str(line);
        }
    }

    fn logged(variables: &[(&str, &str)], events: impl FnOnce()) -> String {
        let env = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let config = Config::load(&env, None).expect("valid");
        let memory = Memory::default();
        let layer = LineLayer::new(&config, memory.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, events);
        memory.0.lock().expect("not poisoned").clone()
    }

    /// The line without its time, whose shape is checked.
    fn untimed(line: &str) -> &str {
        let (time, rest) = line.split_once(' ').expect("a time");
        assert_eq!(time.len(), "2026-01-01T00:00:00.000Z".len(), "{time}");
        assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T');
        rest
    }

    #[test]
    fn a_code_is_logged_with_metadata_level_and_message() {
        let line = logged(&[], || Code::TenantNotFound.log("abc", "Tenant not found"));
        assert_eq!(
            untimed(&line),
            "project=abc external_id=abc error_code=TenantNotFound [error] \
             TenantNotFound: Tenant not found\n"
        );
    }

    #[test]
    fn other_fields_follow_the_message_and_empty_metadata_is_left_out() {
        let line = logged(&[], || {
            tracing::info!(target: "ringcast::t", shard = 3, external_id = "", request_id = "r", "hi");
        });
        assert_eq!(untimed(&line), "request_id=r [info] hi shard=3\n");
    }

    #[test]
    fn one_event_is_one_line_without_tokens() {
        let line = logged(&[], || {
            tracing::error!("a\nb\x1b[31m eyJhbGciOiJIUzI1NiJ9.e30.c2ln ?apikey=secret");
        });
        assert_eq!(untimed(&line), "[error] a\\nb\\u{1b}[31m <jwt> ?apikey=<redacted>\n");
    }

    #[test]
    fn the_level_filter_knows_eight_names() {
        let events = || {
            tracing::debug!(target: "ringcast::t", "d");
            tracing::info!(target: "ringcast::t", "i");
            tracing::info!(target: "ringcast::t", severity = "notice", "n");
            tracing::warn!("w");
            tracing::error!("e");
            Code::IncreaseConnectionPool.log_at(Severity::Critical, "", "c");
        };
        let count = |level| logged(&[("LOG_LEVEL", level)], events).lines().count();
        let counts = ["debug", "info", "notice", "warning", "error", "critical", "alert"].map(count);
        assert_eq!(counts, [6, 5, 4, 3, 2, 1, 0]);
        let critical = logged(&[("LOG_LEVEL", "critical")], events);
        assert!(critical.contains("[critical] IncreaseConnectionPool: c"));
    }

    #[test]
    fn chatter_of_other_crates_is_dropped() {
        let line = logged(&[("LOG_LEVEL", "debug")], || {
            tracing::info!(target: "hyper", "chatter");
            tracing::warn!(target: "hyper", "trouble");
        });
        assert_eq!(untimed(&line), "[warning] trouble\n");
    }

    #[test]
    fn json_lines_carry_the_node_and_every_field() {
        let variables = [("RINGCAST_LOG_FORMAT", "json"), ("REGION", "eu")];
        let line = logged(&variables, || {
            tracing::warn!(external_id = "abc", sub = "eyJhbGciOiJIUzI1NiJ9", n = 4, "text");
        });
        let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(object["level"], "warning");
        assert_eq!(object["message"], "text");
        assert_eq!((&object["region"], &object["n"]), (&"eu".into(), &4.into()));
        assert_eq!(object["project"], "abc");
        assert_eq!(object["sub"], "<jwt>");
        assert!(object.get("cluster").is_none());
    }

    #[test]
    fn huge_messages_are_cut() {
        let line = logged(&[], || tracing::error!("{}", "é".repeat(100_000)));
        assert!(line.len() < 17_000, "{}", line.len());
    }
}
