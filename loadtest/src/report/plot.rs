//! Plots as inline SVG: bars with the range of the rounds, and latency percentiles on a logarithmic scale.
//!
//! Pure functions from numbers to markup. Colours come from the page's style sheet (classes `t0`…`t5`), so plots
//! follow the reader's light or dark scheme. Every text goes through [`escaped`].

use super::number;
use crate::measure::Spread;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
/// Room for target names.
const LEFT: f64 = 120.0;
/// Room for values.
const RIGHT: f64 = 150.0;
const ROW: f64 = 30.0;
/// Colours in the style sheet.
const COLOURS: usize = 6;

/// One row of a bar plot.
#[derive(Debug, Clone)]
pub struct Bar<'a> {
    /// Name of the target.
    pub name: &'a str,
    /// Its value over the rounds.
    pub spread: Spread,
    /// Ratio to the baseline, if it is not the baseline.
    pub ratio: Option<f64>,
    /// Position of the target in the section, for its colour.
    pub colour: usize,
}

/// One row of a latency plot.
#[derive(Debug, Clone)]
pub struct LatencyRow<'a> {
    /// Name of the target.
    pub name: &'a str,
    /// Percentile names with their values in microseconds, ascending.
    pub points: Vec<(&'static str, f64)>,
    /// Position of the target in the section, for its colour.
    pub colour: usize,
}

/// `text` with everything escaped that markup gives a meaning, in text and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// Horizontal bars of medians with whiskers from the smallest to the largest round.
pub fn bars(title: &str, rows: &[Bar<'_>]) -> String {
    let most = rows.iter().map(|row| row.spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let span = WIDTH - LEFT - RIGHT;
    let x = |value: f64| LEFT + span * (value.max(0.0) / most);
    let mut out = open(title, rows.len() as f64 * ROW + 8.0);
    for (index, row) in rows.iter().enumerate() {
        let top = 4.0 + index as f64 * ROW;
        let middle = top + ROW / 2.0;
        let end = x(row.spread.median);
        name(row.name, middle, &mut out);
        let _ = write!(
            out,
            r#"<rect class="t{}" x="{LEFT}" y="{:.1}" width="{:.1}" height="{:.1}" rx="3"/>"#,
            row.colour % COLOURS,
            top + 5.0,
            (end - LEFT).max(1.0),
            ROW - 10.0
        );
        if row.spread.rounds > 1 {
            let (from, to) = (x(row.spread.min), x(row.spread.max));
            let _ = write!(
                out,
                r#"<path class="whisker" d="M{from:.1} {middle:.1}H{to:.1}M{from:.1} {:.1}v8M{to:.1} {:.1}v8"/>"#,
                middle - 4.0,
                middle - 4.0
            );
        }
        let ratio = row.ratio.map_or_else(String::new, |ratio| format!("  (× {ratio:.2})"));
        let text_at = x(row.spread.max).max(end) + 8.0;
        let _ = write!(
            out,
            r#"<text class="value" x="{text_at:.1}" y="{:.1}">{}{ratio}</text>"#,
            middle + 4.0,
            number(row.spread.median)
        );
    }
    out.push_str("</svg>");
    out
}

/// Percentiles of each target as connected points on a logarithmic axis in microseconds.
pub fn latencies(title: &str, rows: &[LatencyRow<'_>]) -> String {
    let values = || rows.iter().flat_map(|row| row.points.iter().map(|(_, value)| value.max(0.1)));
    let least = values().fold(f64::INFINITY, f64::min).log10().floor();
    let most = values().fold(0.0, f64::max).log10().ceil().max(least + 1.0);
    if !least.is_finite() {
        return String::new();
    }
    let span = WIDTH - LEFT - 40.0;
    let x = |value: f64| LEFT + span * ((value.max(0.1).log10() - least) / (most - least));
    let rows_height = rows.len() as f64 * (ROW + 8.0);
    let mut out = open(title, rows_height + 30.0);
    for decade in least as i32..=most as i32 {
        let at = x(10f64.powi(decade));
        let _ = write!(
            out,
            r#"<path class="grid" d="M{at:.1} 0V{rows_height:.1}"/><text class="axis" x="{at:.1}" y="{:.1}">{}</text>"#,
            rows_height + 16.0,
            time_label(decade)
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let middle = 22.0 + index as f64 * (ROW + 8.0);
        let colour = row.colour % COLOURS;
        name(row.name, middle, &mut out);
        if let (Some((_, first)), Some((_, last))) = (row.points.first(), row.points.last()) {
            let _ = write!(out, r#"<path class="line t{colour}" d="M{:.1} {middle}H{:.1}"/>"#, x(*first), x(*last));
        }
        for (label, value) in &row.points {
            let at = x(*value);
            let _ = write!(
                out,
                r#"<circle class="t{colour}" cx="{at:.1}" cy="{middle}" r="5"><title>{label}: {} µs</title></circle><text class="point" x="{at:.1}" y="{:.1}">{label}</text>"#,
                number(*value),
                middle - 9.0
            );
        }
    }
    out.push_str("</svg>");
    out
}

fn open(title: &str, height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{0}"><title>{0}</title>"#, escaped(title))
}

fn name(name: &str, middle: f64, out: &mut String) {
    let _ = write!(out, r#"<text class="name" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 10.0, middle + 4.0, escaped(name));
}

fn time_label(decade: i32) -> String {
    match decade {
        6.. => format!("{} s", 10i64.pow((decade - 6) as u32)),
        3..6 => format!("{} ms", 10i64.pow((decade - 3) as u32)),
        0..3 => format!("{} µs", 10i64.pow(decade as u32)),
        _ => "0.1 µs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_in_names_is_escaped() {
        assert_eq!(escaped(r#"<a href='x'>&"b""#), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;b&quot;");
        let spread = Spread { median: 1.0, min: 0.5, max: 2.0, rounds: 3 };
        let svg = bars("a<b", &[Bar { name: "<x>", spread, ratio: Some(0.5), colour: 0 }]);
        assert!(svg.contains("&lt;x&gt;") && svg.contains("a&lt;b") && !svg.contains("<x>"));
        assert!(svg.contains("whisker") && svg.contains("× 0.50"));
    }

    #[test]
    fn percentiles_lie_in_order_on_the_axis() {
        let points = vec![("p50", 100.0), ("p99", 1000.0)];
        let svg = latencies("l", &[LatencyRow { name: "a", points, colour: 1 }]);
        let positions: Vec<f64> =
            svg.split(r#"cx=""#).skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
        assert!(positions[0] < positions[1], "{positions:?}");
        assert!(svg.contains("100 µs") && svg.contains("1 ms"));
        assert_eq!(latencies("l", &[]), "");
    }
}
