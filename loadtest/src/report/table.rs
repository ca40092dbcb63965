//! Plain-text tables.

use crate::measure::{Better, Outcome, Quantity, Spread};
use crate::suite::{Comparison, Section};
use std::fmt::Write as _;

/// Width of the column of quantity names.
const LABEL_WIDTH: usize = 46;
/// Width of one target's column.
const VALUE_WIDTH: usize = 20;

/// A number in three or four significant digits with thousands separated.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        return separated(value.round() as i64);
    }
    let digits = if magnitude >= 10.0 {
        1
    } else if magnitude >= 1.0 || value == 0.0 {
        2
    } else {
        3
    };
    format!("{value:.digits$}")
}

fn separated(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut out = String::from(if value < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The result of a single run.
pub fn outcome_table(name: &str, outcome: &Outcome) -> String {
    let mut out = format!("{name}\n");
    for (quantity, value) in outcome.values() {
        let _ = writeln!(out, "  {:<LABEL_WIDTH$} {:>14}", quantity.label(), number(value));
    }
    out
}

/// Medians and spreads of all targets, section by section, with ratios to each section's baseline.
pub fn comparison_table(comparison: &Comparison) -> String {
    let mut out = String::new();
    for section in &comparison.sections {
        let _ = writeln!(out, "{} {}", section.id, section.title);
        let _ = write!(out, "  {:<LABEL_WIDTH$}", "");
        for result in &section.results {
            let _ = write!(out, " {:>VALUE_WIDTH$}", result.target);
        }
        out.push('\n');
        for quantity in section.quantities() {
            let _ = write!(out, "  {:<LABEL_WIDTH$}", quantity.label());
            for result in &section.results {
                let text = result.spread(quantity).map_or_else(|| "–".to_owned(), |spread| spread_text(&spread));
                let _ = write!(out, " {text:>VALUE_WIDTH$}");
            }
            out.push('\n');
            push_ratios(section, quantity, &mut out);
        }
        for failure in section.failures() {
            let _ = writeln!(out, "  failed: {failure}");
        }
        out.push('\n');
    }
    out
}

fn spread_text(spread: &Spread) -> String {
    if spread.rounds == 1 {
        return number(spread.median);
    }
    format!("{} ±{:.0}%", number(spread.median), spread.percent())
}

/// The line of ratios below a quantity, where a ratio means something.
fn push_ratios(section: &Section, quantity: Quantity, out: &mut String) {
    let ratios: Vec<Option<f64>> = section.results.iter().map(|result| section.ratio(result, quantity)).collect();
    if quantity.better() == Better::Neither || ratios.iter().all(Option::is_none) {
        return;
    }
    let _ = write!(out, "  {:<LABEL_WIDTH$}", format!("    ÷ {}", section.baseline().unwrap_or_default()));
    for ratio in ratios {
        let text = ratio.map_or_else(String::new, |ratio| format!("× {ratio:.2}"));
        let _ = write!(out, " {text:>VALUE_WIDTH$}");
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_separated() {
        assert_eq!(number(2_130_000.4), "2,130,000");
        assert_eq!(number(-1234.0), "-1,234");
        assert_eq!(number(465.0), "465");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(5.125), "5.12");
        assert_eq!(number(0.44), "0.440");
        assert_eq!(number(0.0), "0.00");
    }

    #[test]
    fn an_outcome_lists_its_quantities() {
        let mut outcome = Outcome::default();
        outcome.put(Quantity::Deliveries, 1000.0);
        let table = outcome_table("fanout", &outcome);
        assert!(table.contains("deliveries/s") && table.contains("1,000"), "{table}");
    }
}
