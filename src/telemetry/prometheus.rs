//! Renders metric families as Prometheus text (format 0.0.4, operations 6.1).
//!
//! Each family gives its HELP and TYPE lines once, even without samples, followed by its samples with
//! labels sorted by name; the text ends with one `# EOF`. Help and label values are escaped, so any
//! tenant name is safe. Names of metrics and labels are the program's own and are checked in debug
//! builds only. Pure: text in, text out.

use std::fmt::Write as _;

use super::counters::CounterKind;

/// One metric with all its samples.
#[derive(Debug, Clone)]
pub struct Family {
    /// Name of the metric.
    pub name: &'static str,
    /// What it means, one sentence.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: CounterKind,
    /// Samples; may be empty.
    pub samples: Vec<Sample>,
}

/// One value of a family.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Label names and values, in any order, names without repeats.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Family {
    /// A family without samples.
    pub const fn new(name: &'static str, kind: CounterKind, help: &'static str) -> Self {
        Self { name, help, kind, samples: Vec::new() }
    }

    /// Adds a sample. Counts above 2^53 lose their last digits, as in every Prometheus value.
    pub fn push(&mut self, labels: Vec<(&'static str, String)>, value: u64) {
        let value = value as f64;
        self.samples.push(Sample { labels, value });
    }
}

/// Renders the families in the given order; names must not repeat.
pub fn render(families: &[Family]) -> String {
    let samples: usize = families.iter().map(|family| family.samples.len()).sum();
    let mut text = String::with_capacity(160 * (families.len() + samples));
    for family in families {
        debug_assert!(is_name(family.name), "{}", family.name);
        let kind = match family.kind {
            CounterKind::Counter => "counter",
            CounterKind::Gauge => "gauge",
        };
        text.push_str("# HELP ");
        text.push_str(family.name);
        text.push(' ');
        push_escaped(&mut text, family.help, false);
        // Writing to a `String` cannot fail, here and below.
        let _ = write!(text, "\n# TYPE {} {kind}\n", family.name);
        for sample in &family.samples {
            text.push_str(family.name);
            push_labels(&mut text, &sample.labels);
            let _ = writeln!(text, " {}", sample.value);
        }
    }
    text.push_str("# EOF\n");
    text
}

fn push_labels(text: &mut String, labels: &[(&'static str, String)]) {
    if labels.is_empty() {
        return;
    }
    let mut sorted: Vec<&(&str, String)> = labels.iter().collect();
    sorted.sort_unstable_by_key(|(name, _)| *name);
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        debug_assert!(is_name(name), "{name}");
        text.push(if index == 0 { '{' } else { ',' });
        text.push_str(name);
        text.push_str("=\"");
        push_escaped(text, value, true);
        text.push('"');
    }
    text.push('}');
}

fn push_escaped(text: &mut String, value: &str, quotes: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

fn is_name(name: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(valid)
}

#[cfg(test)]
pub(super) mod strict;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_sorted_and_escaped() {
        let mut family = Family::new("a_total", CounterKind::Counter, "Back\\slash and\nline.");
        let odd = "q\"b\\n\nx".to_owned();
        family.push(vec![("tenant", odd.clone()), ("id", "1".to_owned())], 7);
        let text = render(&[family]);
        assert_eq!(
            text,
            "# HELP a_total Back\\\\slash and\\nline.\n# TYPE a_total counter\n\
             a_total{id=\"1\",tenant=\"q\\\"b\\\\n\\nx\"} 7\n# EOF\n"
        );
        let parsed = strict::parse(&text);
        assert_eq!(parsed.value("a_total", &[("id", "1"), ("tenant", &odd)]), Some(7.0));
    }

    #[test]
    fn families_without_samples_and_samples_without_labels() {
        let mut plain = Family::new("plain", CounterKind::Gauge, "Plain.");
        plain.push(Vec::new(), 3);
        let empty = Family::new("empty", CounterKind::Gauge, "Empty.");
        let parsed = strict::parse(&render(&[plain, empty]));
        assert_eq!(parsed.value("plain", &[]), Some(3.0));
        assert_eq!(parsed.families, ["plain", "empty"]);
    }

    #[test]
    fn big_counts_are_written_without_exponent() {
        let mut family = Family::new("big", CounterKind::Gauge, "Big.");
        family.push(Vec::new(), 1 << 53);
        assert!(render(&[family]).contains("big 9007199254740992\n"));
    }
}
