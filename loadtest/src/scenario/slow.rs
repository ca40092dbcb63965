//! Fan-out with some readers that have stopped and some that crawl: do the healthy ones notice?
//!
//! Runs the same healthy audience twice, alone and with the slow readers beside it, and reports the ratio.
//!
//! A kernel queues megabytes for a reader that has stopped before the server notices anything, so each run first
//! pushes [`FILL_BYTES`] of large messages through the topic; only then do the server's own queues carry the slow
//! readers and only then does measuring begin. The server may close slow readers, which is counted and is no
//! failure. How far its memory grew, the filling included, shows whether its outgoing queues are bounded: where it
//! neither grew nor closed anybody, nothing was tested.

use super::arrivals::Arrivals;
use super::pace::{Instants, Window};
use super::{Context, STALL_NS, Scenario};
use crate::client::{Fleet, LoadError, Reading, Seat};
use crate::machine::monotonic_ns;
use crate::measure::{Memory, Outcome, Quantity, Usage};
use crate::wire::push::Channel;
use crate::wire::stamp::Template;
use clap::Args;

/// Pushed through the topic before measuring: twice what a socket may queue in the kernel (`tcp_wmem`, 4 MiB).
const FILL_BYTES: usize = 8 * 1024 * 1024;
/// User payload of the messages that fill.
const FILL_PAYLOAD_BYTES: usize = 16 * 1024;
/// Messages outstanding while filling.
const FILL_WINDOW: u64 = 4;

/// One topic with slow and stopped readers among the subscribers.
#[derive(Debug, Clone, Args)]
pub struct Slow {
    /// Subscribers of the topic, slow and stopped ones included.
    #[arg(long, default_value_t = 1000)]
    pub subscribers: usize,
    /// Percentage of subscribers that stop reading.
    #[arg(long, default_value_t = 1.0)]
    pub stopped_percent: f64,
    /// Percentage of subscribers that read slowly.
    #[arg(long, default_value_t = 5.0)]
    pub slow_percent: f64,
    /// What a slow reader reads, in bytes per second.
    #[arg(long, default_value_t = 1024)]
    pub slow_bytes_per_second: usize,
    /// Closed loop: messages outstanding, counted over the deliveries to the healthy subscribers.
    #[arg(long, default_value_t = 32, conflicts_with = "rate")]
    pub window: u64,
    /// Open loop: messages sent per second.
    #[arg(long)]
    pub rate: Option<f64>,
}

/// What one of the two runs showed.
struct Run {
    usage: Usage,
    deliveries: u64,
    arrivals: Arrivals,
    closed: usize,
    memory_growth_bytes: Option<f64>,
}

impl Scenario for Slow {
    fn run(&self, context: &Context) -> Result<Outcome, LoadError> {
        let share = |percent: f64| (self.subscribers as f64 * percent / 100.0).ceil() as usize;
        let (stopped, slow) = (share(self.stopped_percent), share(self.slow_percent));
        let healthy = self.subscribers.saturating_sub(stopped + slow);
        if healthy == 0 {
            return Err(LoadError::Argument("slow needs some healthy subscribers".to_owned()));
        }
        let mut beside = vec![Reading::Stopped; stopped];
        beside.extend(vec![Reading::Slow(self.slow_bytes_per_second); slow]);
        let alone = self.run_with(context, healthy, &[])?;
        let run = self.run_with(context, healthy, &beside)?;
        let rate = |run: &Run| run.deliveries as f64 / run.usage.elapsed_ns as f64;
        let mut outcome = Outcome::default();
        run.usage.report(run.deliveries, Quantity::Deliveries, Quantity::CpuPerDelivery, &mut outcome);
        outcome.put(Quantity::HealthyShare, rate(&run) / rate(&alone).max(f64::MIN_POSITIVE));
        outcome.put(Quantity::Closed, run.closed as f64);
        outcome.put(Quantity::Counted, run.deliveries as f64);
        if let Some(bytes) = run.memory_growth_bytes {
            outcome.put(Quantity::RssGrowth, bytes / f64::from(1 << 20));
        }
        run.arrivals.latency.report(&mut outcome);
        Ok(outcome)
    }
}

impl Slow {
    /// One run with `healthy` readers (seats 0…), the sender next, then the readers of `beside`.
    fn run_with(&self, context: &Context, healthy: usize, beside: &[Reading]) -> Result<Run, LoadError> {
        let channel = Channel::named("slow");
        let template = Template::new(context.endpoint.form(), "1", &channel.topic, context.payload_bytes);
        let seat = |reading| Seat { channels: vec![channel.clone()], reading };
        let mut seats = vec![seat(Reading::Eager); healthy + 1];
        seats.extend(beside.iter().map(|reading| seat(*reading)));
        let mut arrivals = match self.rate {
            Some(_) => Arrivals::sampling_all(healthy),
            None => Arrivals::sampling_some(healthy),
        };
        let mut fleet = context.open(&seats, &mut arrivals)?;
        let before = memory(context)?;
        fill(context, &mut fleet, &mut arrivals, healthy, &channel.topic)?;
        let filled = arrivals.deliveries;
        let mut window = Window::new(self.window, healthy as u64);
        let mut instants = self.rate.map(|rate| Instants::at_rate(rate, monotonic_ns())).transpose()?;
        let mut frames = Vec::new();
        let (usage, deliveries) = context.measure(&mut fleet, &mut arrivals, |fleet, arrivals, now| {
            frames.clear();
            let wait_ns = match &mut instants {
                Some(instants) => {
                    while let Some((due_ns, _)) = instants.take(now) {
                        template.stage(due_ns, &mut frames);
                    }
                    instants.wait_ns(now)
                }
                None => {
                    (0..window.take(arrivals.deliveries - filled)).for_each(|_| template.stage(now, &mut frames));
                    u64::MAX
                }
            };
            if !frames.is_empty() {
                fleet.send(healthy, &frames)?;
            }
            Ok(wait_ns)
        })?;
        let after = memory(context)?;
        let growth = |before: Memory, after: Memory| after.rss_bytes as f64 - before.rss_bytes as f64;
        let memory_growth_bytes = before.zip(after).map(|(before, after)| growth(before, after));
        Ok(Run { usage, deliveries, arrivals, closed: fleet.closed(), memory_growth_bytes })
    }
}

/// Pushes [`FILL_BYTES`] through `topic` from the sender at seat `healthy` and waits until the healthy have them.
fn fill(context: &Context, fleet: &mut Fleet, arrivals: &mut Arrivals, healthy: usize, topic: &str) -> Result<(), LoadError> {
    let template = Template::new(context.endpoint.form(), "1", topic, FILL_PAYLOAD_BYTES);
    let messages = (FILL_BYTES / FILL_PAYLOAD_BYTES) as u64;
    let mut window = Window::new(FILL_WINDOW, healthy as u64);
    let (mut sent, mut moved_ns, mut seen) = (0, monotonic_ns(), 0);
    let mut frames = Vec::new();
    while arrivals.deliveries < messages * healthy as u64 {
        let count = window.take(arrivals.deliveries).min(messages - sent);
        if count > 0 {
            sent += count;
            frames.clear();
            (0..count).for_each(|_| template.stage(monotonic_ns(), &mut frames));
            fleet.send(healthy, &frames)?;
        }
        fleet.poll(context.wait_ns(u64::MAX), arrivals)?;
        context.progress.tell(|| format!("filling socket buffers, {sent} of {messages} messages"));
        if arrivals.deliveries != seen {
            (seen, moved_ns) = (arrivals.deliveries, monotonic_ns());
        } else if monotonic_ns() - moved_ns > STALL_NS {
            return Err(LoadError::Stalled(format!("no delivery for 10 s while filling, {seen} had arrived")));
        }
    }
    Ok(())
}

fn memory(context: &Context) -> Result<Option<Memory>, LoadError> {
    let read = |probe: crate::measure::ServerProbe| probe.memory().map_err(LoadError::io("cannot read the server's memory"));
    context.probe.map(read).transpose()
}
