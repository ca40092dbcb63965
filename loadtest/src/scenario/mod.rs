//! The kinds of load, one file each, and what they share: context, counting, the measuring loop, pacing.
//!
//! A scenario opens a fleet, warms up, measures for a fixed time and reports an [`Outcome`]. Closed loops keep a
//! number of messages outstanding; open loops send when a message is due and count latency from that instant.
//! A run fails when the server ends a connection that reads, or delivers nothing for [`STALL_NS`].

mod arrivals;
mod database_events;
mod echo;
mod fanout;
mod idle;
mod join_storm;
mod mix;
pub(crate) mod pace;
mod postgres_changes;
mod presence;
mod private_joins;
mod replication;
mod row_stream;
mod slow;
mod subscribers;
mod tcp_echo;

pub use database_events::DatabaseEvents;
pub use echo::Echo;
pub use fanout::Fanout;
pub use idle::Idle;
pub use join_storm::JoinStorm;
pub use mix::Mix;
pub use postgres_changes::PostgresChanges;
pub use presence::Presence;
pub use private_joins::PrivateJoins;
pub use slow::Slow;
pub use tcp_echo::TcpEcho;

use crate::client::{Endpoint, Fleet, Listener, LoadError, Seat};
use crate::machine::monotonic_ns;
use crate::measure::{Meter, Outcome, PostgresProbe, ServerProbe, Usage};
use crate::report::Progress;
use arrivals::Arrivals;

/// Silence after which a loop that waits for deliveries is given up.
pub const STALL_NS: u64 = 10_000_000_000;
/// Longest single wait, so that time limits, heartbeats and slow readers are seen to.
const WAIT_NS_MAX: u64 = 50_000_000;

/// What every scenario runs with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The server.
    pub endpoint: Endpoint,
    /// Its process, if known.
    pub probe: Option<ServerProbe>,
    /// The Postgres of the tenant, if it is to be measured.
    pub postgres: Option<PostgresProbe>,
    /// Size of the user payload of a broadcast, in bytes.
    pub payload_bytes: usize,
    /// Time before counting begins.
    pub warmup_ns: u64,
    /// Time counted.
    pub duration_ns: u64,
    /// Connections opened at once.
    pub concurrency: usize,
    /// Whether the generator polls without ever sleeping.
    pub spin: bool,
    /// Where to tell how far it is.
    pub progress: Progress,
}

/// A load that can be run against an endpoint.
pub trait Scenario {
    /// Runs it once.
    ///
    /// # Errors
    /// [`LoadError`] when the server or the arguments do not allow it.
    fn run(&self, context: &Context) -> Result<Outcome, LoadError>;
}

/// What a measuring loop counts.
trait Counting: Listener {
    /// Everything that has arrived so far.
    fn count(&self) -> u64;

    /// The warm-up is over: forgets its latencies.
    fn begin(&mut self);
}

impl Context {
    /// Opens and joins `seats`, telling the progress.
    fn open(&self, seats: &[Seat], listener: &mut impl Listener) -> Result<Fleet, LoadError> {
        let total = seats.len();
        let told = |done| self.progress.tell(|| format!("joined {done} of {total}"));
        Fleet::open(&self.endpoint, seats, self.concurrency, listener, told)
    }

    /// How long to wait for events when the next thing to do is due in `due_ns`.
    fn wait_ns(&self, due_ns: u64) -> u64 {
        if self.spin { 0 } else { due_ns.min(WAIT_NS_MAX) }
    }

    /// Warms up, then measures: calls `step` with the current time, polls for as long as it says, until time is up.
    /// Returns the usage and the count of the measured part.
    fn measure<C: Counting>(
        &self,
        fleet: &mut Fleet,
        arrivals: &mut C,
        mut step: impl FnMut(&mut Fleet, &C, u64) -> Result<u64, LoadError>,
    ) -> Result<(Usage, u64), LoadError> {
        self.progress.tell(|| "warming up".to_owned());
        self.drive(fleet, arrivals, self.warmup_ns, &mut step)?;
        self.progress.tell(|| "measuring".to_owned());
        arrivals.begin();
        let before = arrivals.count();
        let meter = Meter::start_beside(self.probe, self.postgres)?;
        self.drive(fleet, arrivals, self.duration_ns, &mut step)?;
        let usage = meter.stop()?;
        self.progress.clear();
        Ok((usage, arrivals.count() - before))
    }

    fn drive<C: Counting>(
        &self,
        fleet: &mut Fleet,
        arrivals: &mut C,
        span_ns: u64,
        step: &mut impl FnMut(&mut Fleet, &C, u64) -> Result<u64, LoadError>,
    ) -> Result<(), LoadError> {
        let mut now = monotonic_ns();
        let end = now + span_ns;
        let (mut seen, mut seen_ns) = (arrivals.count(), now);
        while now < end {
            let wait_ns = step(fleet, arrivals, now)?;
            fleet.poll(self.wait_ns(wait_ns.min(end - now)), arrivals)?;
            now = monotonic_ns();
            if arrivals.count() != seen {
                (seen, seen_ns) = (arrivals.count(), now);
            } else if now - seen_ns > STALL_NS {
                return Err(LoadError::Stalled(format!("nothing for 10 s, {seen} had arrived before")));
            }
        }
        Ok(())
    }
}

/// Polls until nothing has arrived for 200 ms, at most 3 s: the messages still under way when an open loop ends.
fn drain(fleet: &mut Fleet, arrivals: &mut Arrivals) -> Result<(), LoadError> {
    let end = monotonic_ns() + 3_000_000_000;
    let (mut seen, mut seen_ns) = (arrivals.deliveries, monotonic_ns());
    while monotonic_ns() < end && monotonic_ns() - seen_ns < 200_000_000 {
        fleet.poll(20_000_000, arrivals)?;
        if arrivals.deliveries != seen {
            (seen, seen_ns) = (arrivals.deliveries, monotonic_ns());
        }
    }
    Ok(())
}
