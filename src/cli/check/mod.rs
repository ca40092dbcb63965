//! `ringcast check`: does this host allow what the configuration asks for?
//!
//! Reading the host (`host`) is separate from judging it (`judge`), so that the advice is tested
//! without the machines it is for. Every finding is OK, WARN or FAIL, and those that are not OK say
//! what to type. The exit code is 1 when something FAILs, so that a deployment can gate on it.

mod finding;
mod host;
mod judge;
mod probe;

use std::{fmt::Write as _, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use self::finding::{Finding, Verdict};
use super::{fail, print_out, profile_flag};
use crate::config::{Config, Explained};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CheckFlags {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Tuning profile to check, a name (tuning/NAME.toml) or a path [default: $RINGCAST_PROFILE]
    #[arg(long)]
    profile: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  ringcast check
  ringcast check --profile small
  ringcast check --json | jq '.findings[] | select(.verdict != \"OK\")'

Run it where the server will run: same user, same container, same environment. Exit code 1 means
that something FAILs.";

pub(super) fn run(flags: &CheckFlags) -> ExitCode {
    let values: Vec<_> = profile_flag(&flags.profile).into_iter().collect();
    let config = match Config::from_process_with(&values) {
        Ok(config) => config,
        Err(error) => return fail(&error.to_string()),
    };
    let findings = judge::judge(&config, &host::read(&config));
    let text =
        if flags.json { format!("{:#}\n", as_json(&findings, &config.explain())) } else { as_text(&findings, &config.explain()) };
    print_out(&text);
    if findings.iter().any(|f| f.verdict == Verdict::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn as_text(findings: &[Finding], settings: &[Explained]) -> String {
    let mut text = String::from("Host\n");
    // Writing to a `String` cannot fail, here and below.
    for finding in findings {
        let verdict = finding.verdict.as_str();
        let _ = writeln!(text, "  {verdict:<4}  {:<18}  {}", finding.subject, finding.found);
        if let Some(advice) = &finding.advice {
            for line in advice.lines() {
                let _ = writeln!(text, "        -> {line}");
            }
        }
    }
    text.push_str("\nEffective configuration (NAME = VALUE, where it comes from)\n");
    for setting in settings {
        let knob = setting.knob;
        let value = format!("{} = {}", knob.env, setting.value);
        let _ = writeln!(text, "  {value:<52}  {}", setting.source);
    }
    let count = |verdict| findings.iter().filter(|f| f.verdict == verdict).count();
    let _ = writeln!(text, "\n{} ok, {} warnings, {} failures", count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
    text
}

fn as_json(findings: &[Finding], settings: &[Explained]) -> Value {
    let findings_json: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "verdict": finding.verdict.as_str(),
                "subject": finding.subject,
                "found": finding.found,
                "advice": finding.advice,
            })
        })
        .collect();
    let settings_json: Vec<Value> = settings
        .iter()
        .map(|setting| {
            json!({
                "name": setting.knob.name,
                "variable": setting.knob.env,
                "value": setting.value,
                "source": setting.source.to_string(),
                "default": setting.knob.shown_default(),
                "allowed": setting.knob.kind.range(),
                "meaning": setting.knob.doc,
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "failed": findings.iter().any(|f| f.verdict == Verdict::Fail),
        "findings": findings_json,
        "configuration": settings_json,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_show_findings_and_settings() {
        let findings = [Finding::ok("kernel", "6.18.0"), Finding::fail("open files", "too few", "ulimit -n 5\nor more")];
        let settings = Config::defaults().explain();
        let text = as_text(&findings, &settings);
        assert!(text.contains("  FAIL  open files          too few\n        -> ulimit -n 5\n"));
        assert!(text.contains("  PORT = 4000"));
        assert!(text.ends_with("1 ok, 0 warnings, 1 failures\n"));
        let json = as_json(&findings, &settings);
        assert_eq!(json["failed"], true);
        assert_eq!(json["findings"][0]["advice"], Value::Null);
        assert_eq!(json["configuration"][0]["variable"], "PORT");
    }

    #[test]
    fn this_host_can_be_read_and_judged() {
        let config = Config::defaults();
        let host = host::read(&config);
        assert!(!host.allowed_cpus.is_empty());
        let findings = judge::judge(&config, &host);
        assert!(findings.iter().any(|f| f.subject == "kernel"));
    }
}
