//! Wall-clock and CPU time of both processes, and of Postgres where it takes part, between two instants.

use super::{Outcome, PostgresProbe, Quantity, ServerProbe, own_cpu_ns};
use crate::client::LoadError;
use crate::machine::monotonic_ns;

/// A measurement under way.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    probe: Option<ServerProbe>,
    postgres: Option<PostgresProbe>,
    server_cpu_ns: u64,
    postgres_cpu_ns: u64,
    generator_cpu_ns: u64,
    started_ns: u64,
}

/// What passed between start and stop.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Wall-clock nanoseconds.
    pub elapsed_ns: u64,
    /// CPU nanoseconds of the server, if its process is known.
    pub server_cpu_ns: Option<u64>,
    /// CPU nanoseconds of all processes of Postgres, if they are watched.
    pub postgres_cpu_ns: Option<u64>,
    /// CPU nanoseconds of this process.
    pub generator_cpu_ns: u64,
}

impl Meter {
    /// Starts measuring.
    ///
    /// # Errors
    /// When the server process is gone.
    pub fn start(probe: Option<ServerProbe>) -> Result<Self, LoadError> {
        Self::start_beside(probe, None)
    }

    /// Starts measuring, Postgres included.
    ///
    /// # Errors
    /// When the server process or the postmaster is gone.
    pub fn start_beside(probe: Option<ServerProbe>, postgres: Option<PostgresProbe>) -> Result<Self, LoadError> {
        Ok(Self {
            probe,
            postgres,
            postgres_cpu_ns: postgres_cpu(postgres)?.unwrap_or(0),
            server_cpu_ns: server_cpu(probe)?.unwrap_or(0),
            generator_cpu_ns: own_cpu_ns(),
            started_ns: monotonic_ns(),
        })
    }

    /// What passed since the start.
    ///
    /// # Errors
    /// When the server process is gone.
    pub fn stop(&self) -> Result<Usage, LoadError> {
        Ok(Usage {
            elapsed_ns: (monotonic_ns() - self.started_ns).max(1),
            server_cpu_ns: server_cpu(self.probe)?.map(|now| now.saturating_sub(self.server_cpu_ns)),
            postgres_cpu_ns: postgres_cpu(self.postgres)?.map(|now| now.saturating_sub(self.postgres_cpu_ns)),
            generator_cpu_ns: own_cpu_ns().saturating_sub(self.generator_cpu_ns),
        })
    }
}

fn server_cpu(probe: Option<ServerProbe>) -> Result<Option<u64>, LoadError> {
    let read = |probe: ServerProbe| probe.cpu_ns().map_err(LoadError::io("cannot read the server's CPU time"));
    probe.map(read).transpose()
}

fn postgres_cpu(probe: Option<PostgresProbe>) -> Result<Option<u64>, LoadError> {
    let read = |probe: PostgresProbe| probe.cpu_ns().map_err(LoadError::io("cannot read the CPU time of Postgres"));
    probe.map(read).transpose()
}

impl Usage {
    /// Adds the rate of `events` and what each cost both sides to `outcome`.
    pub fn report(&self, events: u64, rate: Quantity, cost: Quantity, outcome: &mut Outcome) {
        let seconds = self.elapsed_ns as f64 / 1e9;
        let each = events.max(1) as f64;
        outcome.put(rate, events as f64 / seconds);
        if let Some(cpu_ns) = self.server_cpu_ns {
            outcome.put(cost, cpu_ns as f64 / 1000.0 / each);
        }
        self.report_loads(outcome);
    }

    /// Adds the shares of a core that were used to `outcome`.
    pub fn report_loads(&self, outcome: &mut Outcome) {
        let mut put = |load: Quantity, cpu_ns: u64| outcome.put(load, 100.0 * cpu_ns as f64 / self.elapsed_ns as f64);
        put(Quantity::GeneratorLoad, self.generator_cpu_ns);
        self.server_cpu_ns.into_iter().for_each(|cpu_ns| put(Quantity::ServerLoad, cpu_ns));
        self.postgres_cpu_ns.into_iter().for_each(|cpu_ns| put(Quantity::PostgresLoad, cpu_ns));
    }

    /// Adds what each of `events` cost Postgres to `outcome`, if its processes are watched.
    pub fn report_postgres(&self, events: u64, cost: Quantity, outcome: &mut Outcome) {
        if let Some(cpu_ns) = self.postgres_cpu_ns {
            outcome.put(cost, cpu_ns as f64 / 1000.0 / events.max(1) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_costs_are_per_event() {
        let usage = Usage {
            elapsed_ns: 2_000_000_000,
            server_cpu_ns: Some(1_000_000_000),
            postgres_cpu_ns: Some(200_000_000),
            generator_cpu_ns: 500_000_000,
        };
        let mut outcome = Outcome::default();
        usage.report(1000, Quantity::Deliveries, Quantity::CpuPerDelivery, &mut outcome);
        usage.report_postgres(10, Quantity::PostgresCpuPerRow, &mut outcome);
        assert_eq!(outcome.get(Quantity::PostgresCpuPerRow), Some(20_000.0));
        assert_eq!(outcome.get(Quantity::PostgresLoad), Some(10.0));
        assert_eq!(outcome.get(Quantity::Deliveries), Some(500.0));
        assert_eq!(outcome.get(Quantity::CpuPerDelivery), Some(1000.0));
        assert_eq!(outcome.get(Quantity::ServerLoad), Some(50.0));
        assert_eq!(outcome.get(Quantity::GeneratorLoad), Some(25.0));
    }
}
