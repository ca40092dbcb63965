//! Tenants: what is stored about them, how requests change them, and how their secrets rest.
//!
//! Owned by the control plane. The management API and the seeds write here; shards receive finished records and
//! [`ChangeEffects`]. Data flows one way: a request object passes [`changeset`], becomes a [`Tenant`] with encrypted
//! secrets, and goes into the [`TenantStore`], which is a file of this process or a database shared with other nodes. No error of this module contains a secret.

mod cast;
mod change;
pub mod changeset;
mod cipher;
mod errors;
mod extension;
mod model;
mod postgres_store;
pub mod seed;
mod store;

#[cfg(test)]
mod tests;

pub use change::ChangeEffects;
pub use changeset::{ChangeContext, ChangeError};
pub use cipher::{Cipher, CipherError, load_or_create_key};
pub use errors::ValidationErrors;
pub use model::{ENCRYPTED_SETTINGS, Extension, POSTGRES_CDC_RLS, Tenant, TenantDefaults};
pub use postgres_store::{IpVersion, PostgresStore, RegistrySettings, StoreChange};
pub use store::{EmbeddedStore, STORE_FILE, StoreError, TenantStore};
