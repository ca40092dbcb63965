//! `swarm all`: the scenarios of the performance page against several servers, interleaved.
//!
//! Within a scenario the targets take turns (A B A B …) for the given number of rounds, so drift of the machine
//! hits all alike; medians and ranges are reported. Idle memory comes first and once, because only a fresh server
//! shows it. A failing run is noted and the others go on. `tcp://` targets take part in the echo scenarios only
//! and are their baseline; elsewhere the baseline is the first target.

use crate::cli::{ConnectArgs, LoadArgs};
use crate::client::LoadError;
use crate::measure::ServerProbe;
use crate::report::{comparison_table, page};
use crate::scenario::{Echo, Fanout, Idle, JoinStorm, Mix, Presence, Scenario, Slow, TcpEcho};
use clap::Args;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

mod comparison;
mod target;

#[cfg(test)]
pub(crate) use comparison::tests as comparison_tests;
pub use comparison::{Comparison, Section, TargetResult};
pub use target::TargetSpec;

/// Longest wait for a server to come to rest between two runs.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Interval over which a server must be nearly idle.
const SETTLE_INTERVAL: Duration = Duration::from_millis(200);

/// Which scenarios, how large, against whom.
#[derive(Debug, Clone, Args)]
pub struct SuiteArgs {
    /// A server, as NAME=URL[,pid=PID][,host=HOST][,skip=P7+P10]; repeat for each. The first is the baseline.
    #[arg(long = "target", required = true, value_name = "NAME=URL,…")]
    targets: Vec<TargetSpec>,
    /// Rounds of every scenario.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only these scenarios, e.g. P1,P4.
    #[arg(long, value_delimiter = ',', value_name = "ID,…")]
    only: Vec<String>,
    /// Subscribers of P1, P2 and P7.
    #[arg(long, default_value_t = 1000)]
    subscribers: usize,
    /// Messages per second of P2.
    #[arg(long, default_value_t = 50.0)]
    paced_rate: f64,
    /// Users of P4.
    #[arg(long, default_value_t = 2000)]
    users: usize,
    /// Connections of P5.
    #[arg(long, default_value_t = 15_000)]
    idle_connections: usize,
    /// Connections of P6.
    #[arg(long, default_value_t = 5000)]
    joins: usize,
    /// Members of P10.
    #[arg(long, default_value_t = 1000)]
    members: usize,
    /// Batching interval of P10, in milliseconds.
    #[arg(long, default_value_t = 50)]
    presence_interval_ms: u64,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Write all numbers to this file as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a self-contained page with plots to this file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A scenario of the performance page.
struct Entry {
    id: &'static str,
    title: String,
    rounds: usize,
    scenario: Box<dyn Scenario>,
    /// The same over bare TCP, where that means something.
    bare_tcp: Option<Box<dyn Scenario>>,
}

impl SuiteArgs {
    /// Runs everything and writes the reports.
    ///
    /// # Errors
    /// When an argument cannot be used, a report cannot be written, or any run failed.
    pub fn run(&self) -> Result<(), LoadError> {
        self.check()?;
        self.load.prepare()?;
        let mut comparison = Comparison { sections: Vec::new() };
        for entry in self.entries() {
            let section = self.run_entry(&entry)?;
            if section.results.is_empty() {
                continue;
            }
            let one = Comparison { sections: vec![section] };
            print!("{}", comparison_table(&one));
            comparison.sections.extend(one.sections);
        }
        self.write(&comparison)?;
        let failures = comparison.sections.iter().flat_map(Section::failures).count();
        if failures > 0 {
            return Err(LoadError::Argument(format!("{failures} runs failed, see above")));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), LoadError> {
        let known: Vec<&str> = self.all_entries().iter().map(|entry| entry.id).collect();
        let skips = self.targets.iter().flat_map(|target| &target.skip);
        for id in self.only.iter().chain(skips) {
            if !known.contains(&id.as_str()) {
                let what = format!(
                    "no scenario {id:?}; there are {}",
                    BTreeSet::from_iter(known).into_iter().collect::<Vec<_>>().join(", ")
                );
                return Err(LoadError::Argument(what));
            }
        }
        for target in &self.targets {
            let endpoint = self.connect.endpoint(&target.url, target.host.as_deref())?;
            self.load.context(endpoint, target.pid, &target.name)?;
        }
        if self.rounds == 0 {
            return Err(LoadError::Argument("--rounds must be above zero".to_owned()));
        }
        Ok(())
    }

    fn entries(&self) -> Vec<Entry> {
        let wanted = |entry: &Entry| self.only.is_empty() || self.only.iter().any(|id| id == entry.id);
        self.all_entries().into_iter().filter(wanted).collect()
    }

    fn all_entries(&self) -> Vec<Entry> {
        let subscribers = self.subscribers;
        let flood = |window| Fanout { subscribers, senders: 1, window, rate: None };
        let entry =
            |id, title: String, scenario: Box<dyn Scenario>| Entry { id, title, rounds: self.rounds, scenario, bare_tcp: None };
        let echo = |connections| Entry {
            bare_tcp: Some(Box::new(TcpEcho { connections })),
            ..entry("P3", format!("echo round trip, {connections} connections"), Box::new(Echo { connections }))
        };
        let paced = Fanout { rate: Some(self.paced_rate), ..flood(1) };
        let slow =
            Slow { subscribers, stopped_percent: 1.0, slow_percent: 5.0, slow_bytes_per_second: 1024, window: 32, rate: None };
        vec![
            Entry {
                rounds: 1,
                ..entry(
                    "P5",
                    format!("idle memory, {} joined connections (first run only)", self.idle_connections),
                    Box::new(Idle { connections: self.idle_connections, room_size: 6 }),
                )
            },
            entry("P1", format!("flood fan-out, 1 × {subscribers}, window 32"), Box::new(flood(32))),
            entry("P1", format!("flood fan-out, 1 × {subscribers}, window 4"), Box::new(flood(4))),
            entry("P2", format!("paced fan-out, 1 × {subscribers} at {}/s", self.paced_rate), Box::new(paced)),
            echo(1),
            echo(100),
            entry(
                "P4",
                format!("mix, {} users at 2 messages/s per channel", self.users),
                Box::new(Mix { users: self.users, rate: 2.0, room_size: 6, tick_us: 1000, shuffle: false }),
            ),
            entry(
                "P6",
                format!("connect and join, {} connections", self.joins),
                Box::new(JoinStorm { connections: self.joins, room_size: 6 }),
            ),
            entry("P7", format!("1 % of {subscribers} readers stopped, 5 % at 1 KB/s, window 32"), Box::new(slow)),
            entry(
                "P10",
                format!("presence, {} members joining and tracking", self.members),
                Box::new(Presence { members: self.members, interval_ms: self.presence_interval_ms }),
            ),
        ]
    }

    fn run_entry(&self, entry: &Entry) -> Result<Section, LoadError> {
        let takes_part = |target: &&TargetSpec| {
            !target.skip.iter().any(|id| id == entry.id) && (!target.is_bare_tcp() || entry.bare_tcp.is_some())
        };
        let targets: Vec<&TargetSpec> = self.targets.iter().filter(takes_part).collect();
        let mut results: Vec<TargetResult> = targets
            .iter()
            .map(|target| TargetResult {
                target: target.name.clone(),
                bare_tcp: target.is_bare_tcp(),
                outcomes: Vec::new(),
                failures: Vec::new(),
            })
            .collect();
        for round in 1..=entry.rounds {
            for (target, result) in targets.iter().zip(&mut results) {
                let name = format!("{} {} round {round}/{}", entry.id, target.name, entry.rounds);
                let endpoint = self.connect.endpoint(&target.url, target.host.as_deref())?;
                let context = self.load.context(endpoint, target.pid, &name)?;
                let scenario = match &entry.bare_tcp {
                    Some(bare) if target.is_bare_tcp() => bare,
                    _ => &entry.scenario,
                };
                match scenario.run(&context) {
                    Ok(outcome) => result.outcomes.push(outcome),
                    Err(error) => result.failures.push(error.to_string()),
                }
                context.progress.clear();
                settle(context.probe);
            }
        }
        Ok(Section { id: entry.id, title: entry.title.clone(), results })
    }

    fn write(&self, comparison: &Comparison) -> Result<(), LoadError> {
        let write = |path: &PathBuf, text: String| {
            fs::write(path, text).map_err(LoadError::io(format!("cannot write {}", path.display())))
        };
        if let Some(path) = &self.json {
            let text = serde_json::to_string_pretty(&comparison.summary()).expect("a summary is plain data");
            write(path, text + "\n")?;
        }
        if let Some(path) = &self.html {
            write(path, page(comparison))?;
        }
        Ok(())
    }
}

/// Waits until the server has digested the end of a run.
fn settle(probe: Option<ServerProbe>) {
    let started = Instant::now();
    let mut before = probe.and_then(|probe| probe.cpu_ns().ok());
    loop {
        thread::sleep(SETTLE_INTERVAL);
        let after = probe.and_then(|probe| probe.cpu_ns().ok());
        let used_ns = after.zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
        if u128::from(used_ns) < SETTLE_INTERVAL.as_nanos() / 10 || started.elapsed() > SETTLE_MAX {
            return;
        }
        before = after;
    }
}
