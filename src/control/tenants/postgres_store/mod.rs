//! The registry in Postgres: tenants in tables shared with other nodes and with the reference (http-api.md 13, operations.md
//! 2.2).
//!
//! Opened at boot when `DB_HOST` is set; the [`TenantStore`](super::TenantStore) forwards its calls here. Tables are used
//! unqualified, in the schema that [`schema`] finds. Every call ends within `DB_QUEUE_TARGET` plus [`STATEMENT_TIMEOUT`]
//! plus [`GRACE`]; a connection that did not answer is thrown away, so when the database is back the next call works. Errors
//! contain neither the password nor row contents. Foreign changes come out of [`PostgresStore::watch`].

mod connection;
mod layout;
mod notices;
mod record;
mod rows;
mod schema;
mod settings;
mod tls;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod};
use tokio::sync::mpsc::Receiver;
use tokio_postgres::Client;

use super::model::Tenant;
use super::store::StoreError;
use connection::{Dialer, PoolDialer, STATEMENT_TIMEOUT};
use rows::Failure;

#[cfg(test)]
pub(super) use tests::settings_of as settings_for_tests;

pub use settings::{IpVersion, RegistrySettings};
pub use watch::StoreChange;

/// Time a call has beyond the server's own statement deadline, so that the server's refusal arrives.
const GRACE: Duration = Duration::from_millis(500);

/// Tenants in a Postgres database.
pub struct PostgresStore {
    pool: Pool,
    dialer: Arc<Dialer>,
    queue_target: Duration,
}

impl PostgresStore {
    /// Connects, completes the schema, makes the triggers for change notices, and checks the columns. Two nodes may do so at
    /// once, and an up-to-date database is not touched. Reads the CA file, if any, on this thread.
    ///
    /// # Errors
    /// [`StoreError::Registry`] when the host is unknown, the CA file unusable, the database down or not answering in
    /// time, or when required columns are missing and may not be added.
    pub async fn open(settings: &RegistrySettings) -> Result<Self, StoreError> {
        let mut dialer = Dialer::new(settings).await?;
        let queue_target = Duration::from_millis(settings.queue_target_ms);
        let dialled = tokio::time::timeout(queue_target + STATEMENT_TIMEOUT, dialer.dial()).await;
        let (mut client, _driver) = dialled
            .map_err(|_| too_late("connecting"))?
            .map_err(|error| Failure::Postgres(error).into_store_error("connecting"))?;
        let prepared = tokio::time::timeout(schema::PREPARE_TIMEOUT, prepare(&mut client, &mut dialer, settings)).await;
        prepared
            .map_err(|_| too_late("preparing its schema"))?
            .map_err(|failure| failure.into_store_error("preparing its schema"))?;

        let dialer = Arc::new(dialer);
        let manager = Manager::from_connect(
            tokio_postgres::Config::new(),
            PoolDialer(dialer.clone()),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let pool = Pool::builder(manager).max_size(settings.pool_size.max(1)).build();
        let pool = pool.map_err(|error| StoreError::Registry { action: "making its pool", reason: error.to_string() })?;
        let store = Self { pool, dialer, queue_target };
        store.call("checking its columns", rows::check).await?;
        Ok(store)
    }

    /// Listens for changes from now on. The first message is [`StoreChange::Unknown`], once the listener is ready. Stops when
    /// the receiver is dropped; several may exist.
    pub fn watch(&self) -> Receiver<StoreChange> {
        watch::start(self.dialer.clone())
    }

    pub(super) async fn get(&self, external_id: &str) -> Result<Option<Tenant>, StoreError> {
        self.call("reading a tenant", async |client| rows::get(client, external_id).await).await
    }

    pub(super) async fn list(&self) -> Result<Vec<Tenant>, StoreError> {
        self.call("listing tenants", async |client| rows::list(client).await).await
    }

    pub(super) async fn put(&self, tenant: &Tenant) -> Result<(), StoreError> {
        self.call("storing a tenant", async |client| rows::write(client, None, tenant).await).await
    }

    pub(super) async fn set_migrations_ran(&self, external_id: &str, migrations_ran: i32) -> Result<(), StoreError> {
        let work = async |client: &mut Client| rows::set_migrations_ran(client, external_id, migrations_ran).await;
        self.call("noting migrations", work).await
    }

    pub(super) async fn rename(&self, old: &str, tenant: &Tenant) -> Result<(), StoreError> {
        self.call("renaming a tenant", async |client| rows::write(client, Some(old), tenant).await).await
    }

    pub(super) async fn delete(&self, external_id: &str) -> Result<bool, StoreError> {
        self.call("deleting a tenant", async |client| rows::delete(client, external_id).await).await
    }

    /// Runs work on a pooled connection, within the deadlines.
    async fn call<T>(
        &self,
        action: &'static str,
        work: impl AsyncFnOnce(&mut Client) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let waited = tokio::time::timeout(self.queue_target, self.pool.get()).await;
        let mut connection = match waited.map_err(|_| too_late(action))? {
            Ok(connection) => connection,
            Err(deadpool_postgres::PoolError::Backend(error)) => {
                return Err(Failure::Postgres(error).into_store_error(action));
            }
            Err(error) => return Err(StoreError::Registry { action, reason: error.to_string() }),
        };
        match tokio::time::timeout(STATEMENT_TIMEOUT + GRACE, work(&mut connection)).await {
            Ok(outcome) => outcome.map_err(|failure| failure.into_store_error(action)),
            Err(_) => {
                // Whatever it is doing, nobody shall wait for it again.
                drop(Object::take(connection));
                Err(too_late(action))
            }
        }
    }
}

/// Prepares the database and adds the schema to the session set-up.
async fn prepare(client: &mut Client, dialer: &mut Dialer, settings: &RegistrySettings) -> Result<(), Failure> {
    let has_own_path = settings.after_connect_query.is_some();
    let home = schema::home(client, has_own_path).await?;
    let home = home.unwrap_or_else(|| schema::SCHEMA.to_owned());
    if !has_own_path {
        let path = format!("set search_path to {}", schema::quoted(&home));
        client.batch_execute(&path).await?;
        dialer.add_setup(path);
    }
    schema::prepare(client, &home).await?;
    Ok(notices::ensure(client).await?)
}

fn too_late(action: &'static str) -> StoreError {
    StoreError::Registry { action, reason: "no answer in time".to_owned() }
}
