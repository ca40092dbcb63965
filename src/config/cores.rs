//! From the configured shards and cores to a core for every shard.
//!
//! Boot calls this once with the CPUs the process may use; `ringcast check` calls it to show the
//! result. The core list is cut to what is allowed only when it was not written down: an explicit
//! core outside the allowed set is an error, because a silent move would defeat its purpose.

use super::{Config, error::ConfigError, knobs::Id};
use crate::base::cpuset;

/// Where the data-plane threads run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorePlan {
    /// The core of each shard, by shard number; cores repeat when there are more shards than cores.
    pub shard_cores: Vec<usize>,
    /// The cores in use, each once.
    pub cores: Vec<usize>,
}

impl Config {
    /// Assigns a core to every shard, in turn over `cores` (default: all of `allowed`).
    ///
    /// # Errors
    /// When a configured core is not allowed to this process, or none is.
    pub fn core_plan(&self, allowed: &[usize]) -> Result<CorePlan, ConfigError> {
        let cores = match &self.cores {
            None => allowed,
            Some(cores) => {
                if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
                    return Err(self.settings.refuse(
                        Id::cores,
                        format!("CPU {core} is not available to this process (available: {})", cpuset::format(allowed)),
                    ));
                }
                cores
            }
        };
        if cores.is_empty() {
            return Err(self.settings.refuse(Id::cores, "no CPU is available to this process".to_owned()));
        }
        let shards = self.shards.unwrap_or(cores.len()).min(super::SHARDS_MAX as usize);
        Ok(CorePlan { shard_cores: cores.iter().copied().cycle().take(shards).collect(), cores: cores.to_vec() })
    }
}
