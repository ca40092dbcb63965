//! Turning a run into numbers: clocks and counters of both processes, latency histograms, medians over rounds.

mod latency;
mod meter;
mod postgres;
mod probe;
mod quantity;
mod spread;

pub use latency::Latency;
pub use meter::{Meter, Usage};
pub use postgres::PostgresProbe;
pub use probe::{Memory, ServerProbe, own_cpu_ns};
pub use quantity::{Better, Outcome, Quantity};
pub use spread::Spread;
