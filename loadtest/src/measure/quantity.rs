//! The quantities a scenario can report, with their names, units and which direction is better.
//!
//! One table for the terminal, the JSON and the HTML report, so a number has the same name everywhere.

use serde::Serialize;
use std::collections::BTreeMap;

/// Which direction of a quantity is an improvement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// More is better.
    Higher,
    /// Less is better.
    Lower,
    /// Context only; no ratio is drawn from it.
    Neither,
}

/// Something measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Messages that arrived, per second.
    Deliveries,
    /// Rows inserted into the database and delivered, per second.
    Rows,
    /// Channels joined, per second.
    Joins,
    /// Round trips, per second.
    RoundTrips,
    /// Deliveries to healthy readers relative to a run without slow ones.
    HealthyShare,
    /// Server CPU per delivery.
    CpuPerDelivery,
    /// Server CPU per join, with whatever belongs to it in the scenario: connect and upgrade, or the leave.
    CpuPerJoin,
    /// Server CPU per row inserted into the database.
    CpuPerRow,
    /// CPU of all processes of Postgres per join.
    PostgresCpuPerJoin,
    /// CPU of all processes of Postgres per row, inserting included.
    PostgresCpuPerRow,
    /// CPU of all processes of Postgres per delivery, inserting included.
    PostgresCpuPerDelivery,
    /// Median latency.
    LatencyP50,
    /// 95th percentile of latency.
    LatencyP95,
    /// 99th percentile of latency.
    LatencyP99,
    /// Largest latency.
    LatencyMax,
    /// Growth of the server's resident set per connection.
    RssPerConnection,
    /// Growth of the server's anonymous memory per connection.
    AnonymousPerConnection,
    /// Growth of the server's resident set over the run.
    RssGrowth,
    /// Presence diffs received per member.
    DiffsPerMember,
    /// Most presence diffs any member received within one batching interval.
    DiffsPerInterval,
    /// Time until all members had joined and tracked.
    Settled,
    /// Share of expected messages that did not arrive.
    Lost,
    /// Connections that the server closed.
    Closed,
    /// Messages counted, absolute.
    Counted,
    /// Transactions of the database while nothing is written, per second.
    IdleTransactions,
    /// Share of the time in which an INSERT was under way.
    InserterLoad,
    /// Share of one core the server used.
    ServerLoad,
    /// Share of one core all processes of Postgres used.
    PostgresLoad,
    /// Share of one core the generator used.
    GeneratorLoad,
}

impl Quantity {
    /// Name and unit, as shown.
    pub fn label(self) -> &'static str {
        match self {
            Self::Deliveries => "deliveries/s",
            Self::Rows => "rows/s",
            Self::Joins => "joins/s",
            Self::RoundTrips => "round trips/s",
            Self::HealthyShare => "healthy throughput, × run without slow readers",
            Self::CpuPerDelivery => "server CPU per delivery, µs",
            Self::CpuPerJoin => "server CPU per join, µs",
            Self::CpuPerRow => "server CPU per row, µs",
            Self::PostgresCpuPerJoin => "Postgres CPU per join, µs",
            Self::PostgresCpuPerRow => "Postgres CPU per row, µs",
            Self::PostgresCpuPerDelivery => "Postgres CPU per delivery, µs",
            Self::LatencyP50 => "latency p50, µs",
            Self::LatencyP95 => "latency p95, µs",
            Self::LatencyP99 => "latency p99, µs",
            Self::LatencyMax => "latency max, µs",
            Self::RssPerConnection => "server RSS per connection, bytes",
            Self::AnonymousPerConnection => "server anonymous memory per connection, bytes",
            Self::RssGrowth => "server RSS growth, MiB",
            Self::DiffsPerMember => "presence diffs per member",
            Self::DiffsPerInterval => "most diffs per member and interval",
            Self::Settled => "all joined and tracked after, ms",
            Self::Lost => "lost, %",
            Self::Closed => "connections closed by the server",
            Self::Counted => "messages counted",
            Self::IdleTransactions => "idle transactions/s",
            Self::InserterLoad => "an INSERT under way, % of the time",
            Self::ServerLoad => "server load, % of a core",
            Self::PostgresLoad => "Postgres load, % of a core",
            Self::GeneratorLoad => "generator load, % of a core",
        }
    }

    /// Which direction is better.
    pub fn better(self) -> Better {
        match self {
            Self::Deliveries | Self::Rows | Self::Joins | Self::RoundTrips | Self::HealthyShare => Better::Higher,
            Self::Closed
            | Self::Counted
            | Self::InserterLoad
            | Self::GeneratorLoad
            | Self::ServerLoad
            | Self::PostgresLoad
            | Self::RssGrowth
            | Self::Lost => Better::Neither,
            _ => Better::Lower,
        }
    }

    /// Whether this is a point of the latency distribution.
    pub fn is_latency(self) -> bool {
        matches!(self, Self::LatencyP50 | Self::LatencyP95 | Self::LatencyP99 | Self::LatencyMax)
    }
}

/// The numbers of one run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    values: BTreeMap<Quantity, f64>,
}

impl Outcome {
    /// Sets `quantity`.
    pub fn put(&mut self, quantity: Quantity, value: f64) {
        self.values.insert(quantity, value);
    }

    /// The value of `quantity`, if it was measured.
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        self.values.get(&quantity).copied()
    }

    /// Everything measured, in the order of the table.
    pub fn values(&self) -> impl Iterator<Item = (Quantity, f64)> + '_ {
        self.values.iter().map(|(quantity, value)| (*quantity, *value))
    }
}
