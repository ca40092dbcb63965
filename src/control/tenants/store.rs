//! Where tenants are kept.
//!
//! [`TenantStore`] has two kinds: the embedded one, a redb file in the state directory, and the Postgres registry shared with
//! other nodes and with the reference ([`PostgresStore`]). Calls belong on the control thread: the embedded store blocks on the
//! disk, the other one waits with a deadline. A write is durable when its call returns. A read-modify-write is two calls:
//! whoever changes tenants must do so from one place at a time.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::model::Tenant;
use super::postgres_store::PostgresStore;

/// Name of the embedded store's file in the state directory.
pub const STORE_FILE: &str = "tenants.redb";

/// Page cache of the embedded store. The library's own default is sized for large databases; a registry of thousands of
/// tenants fits here.
const CACHE_BYTES_MAX: usize = 8 << 20;

/// First byte of every stored value; the rest is the tenant as JSON. A newer layout gets a new number.
const FORMAT_VERSION: u8 = 1;

/// External id to format byte and JSON.
const TENANTS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("tenants");

/// A store of tenants by external id.
pub enum TenantStore {
    /// A file of this process.
    Embedded(EmbeddedStore),
    /// A database shared with other nodes.
    Postgres(PostgresStore),
}

impl TenantStore {
    /// One tenant.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails or the record is damaged.
    pub async fn get(&self, external_id: &str) -> Result<Option<Tenant>, StoreError> {
        match self {
            Self::Embedded(store) => store.get(external_id),
            Self::Postgres(store) => store.get(external_id).await,
        }
    }

    /// All tenants, by external id.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails or any record is damaged.
    pub async fn list(&self) -> Result<Vec<Tenant>, StoreError> {
        match self {
            Self::Embedded(store) => store.list(),
            Self::Postgres(store) => store.list().await,
        }
    }

    /// Inserts or replaces a tenant.
    ///
    /// # Errors
    /// [`StoreError`] when the store fails; nothing has been changed then, unless the answer itself was lost.
    pub async fn put(&self, tenant: &Tenant) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.write(None, tenant),
            Self::Postgres(store) => store.put(tenant).await,
        }
    }

    /// Notes how many migrations the tenant's database has, and leaves everything else as it is.
    ///
    /// # Errors
    /// As [`TenantStore::put`].
    pub async fn set_migrations_ran(&self, external_id: &str, migrations_ran: i32) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => match store.get(external_id)? {
                Some(tenant) => store.write(None, &Tenant { migrations_ran, ..tenant }),
                None => Ok(()),
            },
            Self::Postgres(store) => store.set_migrations_ran(external_id, migrations_ran).await,
        }
    }

    /// Replaces the tenant stored under `old_external_id` by one with another external id, in one step.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when a shared store has the new external id already, which the caller could not see coming when
    /// another node made it; otherwise as [`TenantStore::put`].
    pub async fn rename(&self, old_external_id: &str, tenant: &Tenant) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.write(Some(old_external_id), tenant),
            Self::Postgres(store) => store.rename(old_external_id, tenant).await,
        }
    }

    /// Removes a tenant and tells whether it existed.
    ///
    /// # Errors
    /// As [`TenantStore::put`].
    pub async fn delete(&self, external_id: &str) -> Result<bool, StoreError> {
        match self {
            Self::Embedded(store) => store.delete(external_id),
            Self::Postgres(store) => store.delete(external_id).await,
        }
    }
}

/// A failing store. Texts name files, columns and ids, never contents.
#[derive(Debug)]
pub enum StoreError {
    /// The file could not be opened or created; it may be damaged or in use by another process.
    Open {
        /// The file.
        path: PathBuf,
        /// What the system or the library said.
        reason: String,
    },
    /// A read or write failed.
    Io(redb::Error),
    /// One record cannot be understood.
    Corrupt {
        /// Whose record it is.
        external_id: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The Postgres registry could not be opened, did not answer in time, or refused a statement.
    Registry {
        /// What was being done.
        action: &'static str,
        /// What the server or the connection said, without row contents.
        reason: String,
    },
    /// Another tenant of the Postgres registry has this external id.
    Taken {
        /// The external id.
        external_id: String,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { path, reason } => {
                write!(f, "cannot open the tenant store {}: {reason}", path.display())
            }
            Self::Io(error) => write!(f, "the tenant store failed: {error}"),
            Self::Corrupt { external_id, reason } => {
                write!(f, "the stored record of tenant {external_id:?} is damaged: {reason}")
            }
            Self::Registry { action, reason } => write!(f, "the tenant database failed while {action}: {reason}"),
            Self::Taken { external_id } => write!(f, "another tenant has the external id {external_id:?}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Lets `?` turn any of the library's errors into ours.
fn failed(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Io(error.into())
}

/// Tenants in one redb file, readable by its owner only.
pub struct EmbeddedStore {
    database: Database,
}

impl EmbeddedStore {
    /// Opens `tenants.redb` in the state directory, which must exist, making the file on first use. A second process
    /// gets an error.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        let path = state_dir.join(STORE_FILE);
        let open = |reason: String| StoreError::Open { path: path.clone(), reason };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|error| open(error.to_string()))?;
        let database = FileBackend::new(file)
            .and_then(|backend| Database::builder().set_cache_size(CACHE_BYTES_MAX).create_with_backend(backend))
            .map_err(|error| open(error.to_string()))?;
        let store = Self { database };
        // With the table in place every read can rely on it.
        store.ensure_table().map_err(|error| open(error.to_string()))?;
        Ok(store)
    }

    fn ensure_table(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        write.open_table(TENANTS).map_err(failed)?;
        write.commit().map_err(failed)
    }

    fn get(&self, external_id: &str) -> Result<Option<Tenant>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(TENANTS).map_err(failed)?;
        let value = table.get(external_id).map_err(failed)?;
        value.map(|value| decode(external_id, value.value())).transpose()
    }

    fn list(&self) -> Result<Vec<Tenant>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(TENANTS).map_err(failed)?;
        let entries = table.iter().map_err(failed)?;
        entries
            .map(|entry| {
                let (key, value) = entry.map_err(failed)?;
                decode(key.value(), value.value())
            })
            .collect()
    }

    fn write(&self, replaces: Option<&str>, tenant: &Tenant) -> Result<(), StoreError> {
        let value = encode(tenant)?;
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut table = write.open_table(TENANTS).map_err(failed)?;
            if let Some(old) = replaces {
                table.remove(old).map_err(failed)?;
            }
            table.insert(tenant.external_id.as_str(), value.as_slice()).map_err(failed)?;
        }
        write.commit().map_err(failed)
    }

    fn delete(&self, external_id: &str) -> Result<bool, StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        let existed = {
            let mut table = write.open_table(TENANTS).map_err(failed)?;
            table.remove(external_id).map_err(failed)?.is_some()
        };
        write.commit().map_err(failed)?;
        Ok(existed)
    }
}

fn encode(tenant: &Tenant) -> Result<Vec<u8>, StoreError> {
    let mut value = vec![FORMAT_VERSION];
    serde_json::to_writer(&mut value, tenant).map_err(|error| corrupt(&tenant.external_id, error.to_string()))?;
    Ok(value)
}

fn decode(external_id: &str, value: &[u8]) -> Result<Tenant, StoreError> {
    match value.split_first() {
        // The parser's text could quote the record, so only the place of the fault is kept.
        Some((&FORMAT_VERSION, json)) => {
            serde_json::from_slice(json).map_err(|error| corrupt(external_id, format!("unreadable at byte {}", error.column())))
        }
        Some((version, _)) => Err(corrupt(external_id, format!("unknown format version {version}"))),
        None => Err(corrupt(external_id, "empty".to_owned())),
    }
}

pub(super) fn corrupt(external_id: &str, reason: String) -> StoreError {
    StoreError::Corrupt { external_id: external_id.to_owned(), reason }
}

#[cfg(test)]
impl EmbeddedStore {
    /// Plants a record as it is, for tests of damage.
    pub fn put_raw(&self, external_id: &str, value: &[u8]) {
        let write = self.database.begin_write().unwrap();
        write.open_table(TENANTS).unwrap().insert(external_id, value).unwrap();
        write.commit().unwrap();
    }
}
