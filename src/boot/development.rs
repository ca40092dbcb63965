//! What `ringcast dev` adds: a private Postgres for the development tenant, where the machine has its programs.
//!
//! Nothing here is needed to serve: without a database the tenant offers Broadcast and Presence. The instance is stopped
//! when this value is dropped, after the last connection to it is gone.

use crate::config::Config;
use crate::control;
use crate::control::tenants::seed::SeedDatabase;
use crate::local_postgres::{Binaries, Instance, Options};

/// Folder of the instance within the state folder.
const FOLDER: &str = "postgres";

/// The database of the development tenant.
pub struct Development {
    /// `None`: there is none, and `note` says why.
    pub database: Option<SeedDatabase>,
    /// One line for the banner.
    pub note: String,
    /// Lives as long as the server.
    _instance: Option<Instance>,
}

impl Development {
    /// Starts the instance and prepares its database. With a registry of its own, or when told not to, there is none.
    pub fn start(config: &Config, runtime: &control::Runtime, with_postgres: bool) -> Self {
        let without = |note: String| Self { database: None, note, _instance: None };
        if config.db.host.is_some() {
            return without("as the tenants in DB_HOST say".to_owned());
        }
        if !with_postgres {
            return without("none (--no-postgres)".to_owned());
        }
        match Self::with_instance(config, runtime) {
            Ok(development) => development,
            Err(reason) => without(format!("none: {reason}")),
        }
    }

    fn with_instance(config: &Config, runtime: &control::Runtime) -> Result<Self, String> {
        let binaries = Binaries::find()?;
        let instance = Instance::start(&config.state_dir.join(FOLDER), &binaries, &Options::development())?;
        let at = instance.connection();
        let database = SeedDatabase {
            host: at.host.clone(),
            port: at.port,
            name: at.database.clone(),
            user: at.user.clone(),
            password: at.password.clone(),
        };
        runtime.block_on(control::development::prepare(&database))?;
        let folder = if instance.is_elsewhere() { format!(", files in {}", instance.folder().display()) } else { String::new() };
        let url = format!("postgres://{}:{}@{}:{}/{}", at.user, at.password, at.host, at.port, at.database);
        let note = format!("{binaries}{folder}\n                    psql '{url}'");
        Ok(Self { database: Some(database), note, _instance: Some(instance) })
    }
}
