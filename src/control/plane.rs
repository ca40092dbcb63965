//! What everything on the control thread shares: tenants, their store, their databases, and the mail to the shards.
//!
//! One value behind an `Rc`; tasks borrow its parts only between awaits.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;

use super::api::ApiSettings;
use super::capture::SlotJournal;
use super::capture::changes::Changes;
use super::database::{self, Databases};
use super::post::PostOffice;
use super::registry::{Entry, LoadError, Registry};
use super::tenants::{ChangeEffects, Cipher, Tenant, TenantStore};
use crate::base::clock;
use crate::config::Config;
use crate::mailbox::{TenantNews, ToShard};
use crate::realtime::rates::Restart;
use crate::telemetry::{Code, ShardCounters};

/// The control plane's state.
pub struct Plane {
    /// Configuration.
    pub config: Arc<Config>,
    /// Settings of the management API.
    pub api: ApiSettings,
    /// The tenant store.
    pub store: TenantStore,
    /// Cipher of its secrets.
    pub cipher: Cipher,
    /// Tenants in use.
    pub registry: RefCell<Registry>,
    /// Databases in use.
    pub databases: Databases,
    /// Subscribers to row changes, by tenant.
    pub changes: RefCell<HashMap<Arc<str>, Rc<Changes>>>,
    /// Replication slots that may be left behind.
    pub slots: SlotJournal,
    /// Mail to the shards.
    pub post: PostOffice,
    /// Counters of the shards, by number.
    pub counters: Vec<Arc<ShardCounters>>,
    /// Held by whoever reads a record in order to write it.
    pub writing: tokio::sync::Mutex<()>,
}

impl Plane {
    /// News of a tenant, loaded when it is not in use yet; `None` when there is no such tenant.
    ///
    /// # Errors
    /// [`LoadError`] when store or keys fail.
    pub async fn load(&self, external_id: &str) -> Result<Option<TenantNews>, LoadError> {
        if let Some(entry) = self.registry.borrow().get(external_id) {
            return Ok(Some(entry.news(false)));
        }
        let Some(tenant) = self.store.get(external_id).await.map_err(LoadError::Store)? else { return Ok(None) };
        let mut registry = self.registry.borrow_mut();
        registry.enter(tenant, &self.cipher, clock::now().0).map(|entry| Some(entry.news(false)))
    }

    /// Subscribers to the row changes of a tenant.
    pub fn changes_of(&self, external_id: &Arc<str>) -> Rc<Changes> {
        self.changes.borrow_mut().entry(external_id.clone()).or_insert_with(|| Changes::new(external_id.clone())).clone()
    }

    /// Looks whether somebody else changed a tenant in use, and does what such a change means.
    ///
    /// # Errors
    /// [`LoadError`] when store or keys fail.
    pub async fn refresh(self: &Rc<Self>, external_id: &str) -> Result<(), LoadError> {
        // Not beside a change of our own, whose record could be newer than what is read here.
        let _turn = self.writing.lock().await;
        let found = self.store.get(external_id).await.map_err(LoadError::Store)?;
        let effects = match (self.registry.borrow().get(external_id), &found) {
            (Some(entry), Some(tenant)) if entry.tenant == *tenant => return Ok(()),
            (Some(entry), Some(tenant)) => ChangeEffects::between(&entry.tenant, tenant, &self.cipher),
            (None, _) => return Ok(()),
            (Some(_), None) => ChangeEffects::default(),
        };
        match found {
            Some(tenant) => self.changed(tenant, effects),
            None => {
                self.deleted(external_id);
                Ok(())
            }
        }
    }

    /// A record was changed: tells the shards and restarts what depends on it.
    ///
    /// # Errors
    /// When its secrets cannot be decrypted.
    pub fn changed(self: &Rc<Self>, tenant: Tenant, effects: ChangeEffects) -> Result<(), LoadError> {
        let restart = Restart { events: effects.reset_events, joins: effects.reset_joins, presence: effects.reset_presence };
        let external_id = tenant.external_id.clone();
        let news = {
            let mut registry = self.registry.borrow_mut();
            let entry = registry.replace(tenant, &self.cipher, restart, clock::now().0)?;
            entry.map(|entry: &Entry| entry.news(effects.disconnect))
        };
        if effects.restart_database {
            self.databases.stop(&external_id);
        }
        if let Some(news) = news {
            self.post.send_all(|| ToShard::Tenant(news.clone()));
        }
        Ok(())
    }

    /// A tenant was deleted: disconnects its sockets and stops its database.
    pub fn deleted(self: &Rc<Self>, external_id: &str) {
        self.databases.stop(external_id);
        let entry = self.registry.borrow_mut().remove(external_id);
        if let Some(entry) = entry {
            let changes = self.changes.borrow_mut().remove(&entry.config.external_id);
            if let Some(changes) = changes {
                changes.end();
            }
            database::clear_up_in_background(self, &entry.tenant);
            self.post.send_all(|| ToShard::Tenant(TenantNews { config: None, ..entry.news(true) }));
        }
    }

    /// Looks at every tenant in use; for stores that others write to.
    pub async fn refresh_all(self: &Rc<Self>) {
        let in_use: Vec<String> = self.registry.borrow().entries().map(|entry| entry.tenant.external_id.clone()).collect();
        for external_id in in_use {
            if let Err(error) = self.refresh(&external_id).await {
                Code::UnknownError.log(&external_id, format_args!("the tenant could not be read again: {error}"));
                if matches!(error, LoadError::Store(_)) {
                    return;
                }
            }
        }
    }
}
