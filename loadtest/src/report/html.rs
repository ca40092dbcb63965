//! The HTML report: one self-contained page, no scripts, nothing loaded from elsewhere.
//!
//! Each scenario is a card: bars for what has a better direction, percentiles for latency, and a table of
//! everything measured. Names of targets come from the command line and are escaped.

use super::number;
use super::plot::{Bar, LatencyRow, bars, escaped, latencies};
use crate::measure::{Better, Quantity};
use crate::suite::{Comparison, Section};
use std::fmt::Write as _;

const STYLE: &str = "
:root{--ground:#f6f7f9;--card:#fff;--ink:#1b2330;--faint:#69748a;--rule:#e1e5ec;--c0:#8a94a6;--c1:#0f9d77;--c2:#3d6be0;--c3:#d9822b;--c4:#b0479a;--c5:#5a9e2f}
@media(prefers-color-scheme:dark){:root{--ground:#12161d;--card:#1b212b;--ink:#e7ebf2;--faint:#94a0b5;--rule:#2c3441;--c0:#7d889c;--c1:#2fc79a;--c2:#7398f5;--c3:#eda052;--c4:#d272bd;--c5:#84c857}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1100px;margin:0 auto;padding:40px 20px 80px}
h1{font-size:26px;margin:0 0 4px;letter-spacing:-.01em}
.lead{color:var(--faint);margin:0 0 28px;max-width:70ch}
section{background:var(--card);border:1px solid var(--rule);border-radius:12px;padding:22px 24px;margin:0 0 20px}
h2{font-size:17px;margin:0 0 14px}
h2 b{display:inline-block;background:var(--rule);border-radius:6px;padding:1px 8px;margin-right:8px;font-size:13px;vertical-align:1px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(420px,1fr));gap:18px 32px}
figure{margin:0;min-width:0}
figcaption{color:var(--faint);font-size:13px;margin-bottom:2px}
svg{width:100%;height:auto;display:block;overflow:visible}
svg text{fill:var(--ink);font:13px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
svg .name{text-anchor:end}svg .axis,svg .point{text-anchor:middle;fill:var(--faint);font-size:11px}
svg .value{font-variant-numeric:tabular-nums}
svg .grid{stroke:var(--rule);fill:none}svg .whisker{stroke:var(--ink);stroke-width:1.4;fill:none;opacity:.75}
svg .line{stroke-width:3;stroke-linecap:round;opacity:.45}
.t0{fill:var(--c0);stroke:var(--c0)}.t1{fill:var(--c1);stroke:var(--c1)}.t2{fill:var(--c2);stroke:var(--c2)}
.t3{fill:var(--c3);stroke:var(--c3)}.t4{fill:var(--c4);stroke:var(--c4)}.t5{fill:var(--c5);stroke:var(--c5)}
rect{stroke:none}
details{margin-top:16px}summary{cursor:pointer;color:var(--faint);font-size:13px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;margin-top:8px;font-size:13px;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}
td small{color:var(--faint)}
.failed{color:#d0453e;margin:12px 0 0}
";

/// The page for `comparison`.
pub fn page(comparison: &Comparison) -> String {
    let mut out = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>Load test report</title><style>{STYLE}</style></head>\
         <body><main><h1>Load test report</h1><p class=\"lead\">Medians over interleaved rounds; whiskers span the \
         smallest to the largest round. Ratios (×) refer to the first target of each scenario, or to the bare TCP \
         echo where it takes part. Absolute figures depend on the machine, ratios far less.</p>"
    );
    for section in &comparison.sections {
        push_section(section, &mut out);
    }
    out.push_str("</main></body></html>\n");
    out
}

fn push_section(section: &Section, out: &mut String) {
    let _ = write!(out, "<section><h2><b>{}</b>{}</h2><div class=\"plots\">", section.id, escaped(&section.title));
    let quantities = section.quantities();
    for quantity in quantities.iter().filter(|quantity| !quantity.is_latency() && quantity.better() != Better::Neither) {
        push_bars(section, *quantity, out);
    }
    push_latencies(section, &quantities, out);
    out.push_str("</div>");
    for failure in section.failures() {
        let _ = write!(out, "<p class=\"failed\">Failed: {}</p>", escaped(&failure));
    }
    push_table(section, &quantities, out);
    out.push_str("</section>");
}

fn push_bars(section: &Section, quantity: Quantity, out: &mut String) {
    let rows: Vec<Bar<'_>> = section
        .results
        .iter()
        .enumerate()
        .filter_map(|(colour, result)| {
            let spread = result.spread(quantity)?;
            Some(Bar { name: &result.target, spread, ratio: section.ratio(result, quantity), colour })
        })
        .collect();
    let direction = if quantity.better() == Better::Higher { "more is better" } else { "less is better" };
    let label = quantity.label();
    let _ = write!(out, "<figure><figcaption>{label} — {direction}</figcaption>{}</figure>", bars(label, &rows));
}

fn push_latencies(section: &Section, quantities: &[Quantity], out: &mut String) {
    let percentiles = [
        (Quantity::LatencyP50, "p50"),
        (Quantity::LatencyP95, "p95"),
        (Quantity::LatencyP99, "p99"),
        (Quantity::LatencyMax, "max"),
    ];
    if !quantities.iter().any(|quantity| quantity.is_latency()) {
        return;
    }
    let rows: Vec<LatencyRow<'_>> = section
        .results
        .iter()
        .enumerate()
        .map(|(colour, result)| {
            let point = |(quantity, label)| Some((label, result.spread(quantity)?.median));
            LatencyRow { name: &result.target, points: percentiles.into_iter().filter_map(point).collect(), colour }
        })
        .filter(|row| !row.points.is_empty())
        .collect();
    let plot = latencies("latency percentiles", &rows);
    let _ = write!(out, "<figure><figcaption>latency — less is better</figcaption>{plot}</figure>");
}

fn push_table(section: &Section, quantities: &[Quantity], out: &mut String) {
    out.push_str("<details><summary>All numbers</summary><div class=\"scroll\"><table><tr><th></th>");
    for result in &section.results {
        let _ = write!(out, "<th>{}</th>", escaped(&result.target));
    }
    out.push_str("</tr>");
    for quantity in quantities {
        let _ = write!(out, "<tr><td>{}</td>", quantity.label());
        for result in &section.results {
            match result.spread(*quantity) {
                Some(spread) if spread.rounds > 1 => {
                    let (low, high) = (number(spread.min), number(spread.max));
                    let _ = write!(out, "<td>{} <small>{low} – {high}</small></td>", number(spread.median));
                }
                Some(spread) => {
                    let _ = write!(out, "<td>{}</td>", number(spread.median));
                }
                None => out.push_str("<td>–</td>"),
            }
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div></details>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::comparison_tests::example;

    #[test]
    fn a_page_is_self_contained_and_escaped() {
        let page = page(&example());
        assert!(page.contains("a&lt;b&gt;&amp;&quot;c"));
        assert!(!page.contains("a<b>"));
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("<script"));
        assert_eq!(page.matches("<svg").count(), 2, "one bar plot, one latency plot");
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn failures_are_shown() {
        let mut comparison = example();
        comparison.sections[0].results[0].failures.push("stalled <here>".to_owned());
        assert!(page(&comparison).contains("Failed: floor: stalled &lt;here&gt;"));
    }
}
