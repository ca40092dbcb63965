//! Results of a suite: sections of scenarios, targets within them, rounds within those.
//!
//! Everything shown is derived here from the rounds: medians, ranges, ratios to the baseline. The baseline of a
//! section is its bare TCP echo if one took part, else the first target.

use crate::measure::{Outcome, Quantity, Spread};
use serde::Serialize;
use std::collections::BTreeSet;

/// Everything measured.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// One section per scenario, in the order run.
    pub sections: Vec<Section>,
}

/// One scenario with the results of all targets.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Number on the performance page, e.g. `P1`.
    pub id: &'static str,
    /// What is done.
    pub title: String,
    /// One per target that took part.
    pub results: Vec<TargetResult>,
}

/// What the rounds of a scenario showed for one target.
#[derive(Debug, Clone, Serialize)]
pub struct TargetResult {
    /// Name of the target.
    pub target: String,
    /// Whether it is a bare TCP echo.
    pub bare_tcp: bool,
    /// Outcomes of the rounds that succeeded.
    pub outcomes: Vec<Outcome>,
    /// Why the other rounds failed.
    pub failures: Vec<String>,
}

impl TargetResult {
    /// Median and range of `quantity` over the rounds.
    pub fn spread(&self, quantity: Quantity) -> Option<Spread> {
        Spread::of(self.outcomes.iter().filter_map(|outcome| outcome.get(quantity)).collect())
    }
}

impl Section {
    /// All quantities that any target reported.
    pub fn quantities(&self) -> Vec<Quantity> {
        let outcomes = self.results.iter().flat_map(|result| &result.outcomes);
        let all: BTreeSet<Quantity> = outcomes.flat_map(|outcome| outcome.values().map(|(quantity, _)| quantity)).collect();
        all.into_iter().collect()
    }

    fn baseline_result(&self) -> Option<&TargetResult> {
        self.results.iter().find(|result| result.bare_tcp).or(self.results.first())
    }

    /// Name of the target that ratios refer to.
    pub fn baseline(&self) -> Option<&str> {
        self.baseline_result().map(|result| result.target.as_str())
    }

    /// The median of `result` relative to the baseline's; `None` for the baseline itself.
    pub fn ratio(&self, result: &TargetResult, quantity: Quantity) -> Option<f64> {
        let baseline = self.baseline_result().filter(|baseline| baseline.target != result.target)?;
        let below = baseline.spread(quantity)?.median;
        (below != 0.0).then_some(result.spread(quantity)?.median / below)
    }

    /// Failures with the target's name.
    pub fn failures(&self) -> impl Iterator<Item = String> + '_ {
        self.results.iter().flat_map(|result| result.failures.iter().map(|why| format!("{}: {why}", result.target)))
    }
}

impl Comparison {
    /// Medians, ranges and ratios beside the rounds they come from, for machines.
    pub fn summary(&self) -> serde_json::Value {
        let section = |section: &Section| {
            let result = |result: &TargetResult| {
                let quantity = |quantity: Quantity| {
                    let name = serde_json::to_value(quantity).ok()?.as_str()?.to_owned();
                    let spread = result.spread(quantity)?;
                    let ratio = section.ratio(result, quantity);
                    Some((name, serde_json::json!({"spread": spread, "ratio_to_baseline": ratio})))
                };
                let quantities: serde_json::Map<_, _> = section.quantities().into_iter().filter_map(quantity).collect();
                serde_json::json!({
                    "target": result.target,
                    "quantities": quantities,
                    "rounds": result.outcomes,
                    "failures": result.failures,
                })
            };
            serde_json::json!({
                "id": section.id,
                "title": section.title,
                "baseline": section.baseline(),
                "results": section.results.iter().map(result).collect::<Vec<_>>(),
            })
        };
        serde_json::json!({ "sections": self.sections.iter().map(section).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two targets over three rounds of one scenario.
    pub(crate) fn example() -> Comparison {
        let outcome = |rate: f64| {
            let mut outcome = Outcome::default();
            outcome.put(Quantity::Deliveries, rate);
            outcome.put(Quantity::LatencyP50, 100_000.0 / rate);
            outcome.put(Quantity::LatencyP99, 400_000.0 / rate);
            outcome
        };
        let result = |target: &str, rates: [f64; 3]| TargetResult {
            target: target.to_owned(),
            bare_tcp: false,
            outcomes: rates.map(outcome).to_vec(),
            failures: Vec::new(),
        };
        let results = vec![result("floor", [1000.0, 1010.0, 990.0]), result("a<b>&\"c", [800.0, 500.0, 850.0])];
        Comparison { sections: vec![Section { id: "P1", title: "flood".to_owned(), results }] }
    }

    #[test]
    fn ratios_refer_to_the_first_target_and_medians() {
        let comparison = example();
        let section = &comparison.sections[0];
        assert_eq!(section.baseline(), Some("floor"));
        assert_eq!(section.ratio(&section.results[0], Quantity::Deliveries), None);
        assert_eq!(section.ratio(&section.results[1], Quantity::Deliveries), Some(0.8));
        assert_eq!(section.quantities().len(), 3);
    }

    #[test]
    fn a_bare_tcp_target_is_the_baseline() {
        let mut comparison = example();
        comparison.sections[0].results[1].bare_tcp = true;
        assert_eq!(comparison.sections[0].ratio(&comparison.sections[0].results[0], Quantity::Deliveries), Some(1.25));
    }

    #[test]
    fn the_summary_carries_medians_and_rounds() {
        let summary = example().summary();
        let result = &summary["sections"][0]["results"][1];
        assert_eq!(result["quantities"]["deliveries"]["spread"]["median"], 800.0);
        assert_eq!(result["rounds"].as_array().unwrap().len(), 3);
    }
}
