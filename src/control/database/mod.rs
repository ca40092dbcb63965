//! Databases of tenants: connecting, migrating, authorising, replaying, and keeping `realtime.messages` in shape.
//!
//! One [`TenantDatabase`] per tenant in use, started by the first question of a shard and ended by idleness, a change of the
//! tenant, or a loss that lasts. Questions are answered here with a deadline, whatever the database does.
//!
//! | file | concept |
//! |---|---|
//! | `tenant_database`, `preparation` | the life of one tenant's database: prepare, watch over, end |
//! | `live` | a connected database: questions, coalesced |
//! | `settings`, `dial`, `connect`, `pool` | how it is reached |
//! | `probe`, `failure`, `backoff` | whether it can be used, what went wrong, when to try again |
//! | `authorization`, `replay`, `partitions`, `migrations` | what is done in it |

pub mod authorization;
pub mod backoff;
pub mod connect;
pub mod dial;
pub mod failure;
mod live;
pub mod migrations;
pub mod partitions;
pub mod pool;
mod preparation;
pub mod probe;
pub mod replay;
pub mod settings;
mod tenant_database;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use serde_json::{Map, Value};

pub use live::Live;
pub use tenant_database::TenantDatabase;

use super::api::DatabaseState;
use super::plane::Plane;
use super::tenants::{Cipher, Extension};
use crate::base::clock;
use crate::realtime::database::{Ask, DatabaseRefusal, Permissions};
use crate::realtime::tenant::TenantShared;
use crate::telemetry::Code;
use authorization::ErrorWindow;
use settings::DatabaseSettings;

/// A question is answered within this time, connecting included; the asking shard waits a little longer.
const QUESTION_MAX: Duration = Duration::from_secs(18);

/// How often tenants with users but without a connected database are looked for (3.1).
const RECONNECT_PERIOD: Duration = Duration::from_secs(300);

/// The databases in use, by external id.
#[derive(Default)]
pub struct Databases {
    in_use: RefCell<HashMap<String, Rc<TenantDatabase>>>,
    /// Told to end and perhaps not done yet.
    ending: RefCell<HashMap<String, Rc<TenantDatabase>>>,
    connect_errors: RefCell<HashMap<String, ErrorWindow>>,
}

impl Databases {
    fn get(&self, external_id: &str) -> Option<Rc<TenantDatabase>> {
        self.in_use.borrow().get(external_id).cloned()
    }

    /// State of a tenant's database.
    pub fn state(&self, external_id: &str) -> DatabaseState {
        self.get(external_id).map_or_else(DatabaseState::default, |database| database.state())
    }

    /// Ends the use of a tenant's database, if there is one; the next question starts it anew.
    pub fn stop(&self, external_id: &str) {
        self.connect_errors.borrow_mut().remove(external_id);
        let database = self.in_use.borrow_mut().remove(external_id);
        if let Some(database) = database {
            database.stop();
            self.ending.borrow_mut().insert(external_id.to_owned(), database);
        }
    }

    /// Ends all of them and waits until their slots are dropped.
    pub async fn stop_all(&self) {
        let mut all: Vec<_> = self.in_use.borrow_mut().drain().map(|(_, database)| database).collect();
        all.extend(self.ending.borrow_mut().drain().map(|(_, database)| database));
        for database in &all {
            database.stop();
        }
        for database in all {
            database.ended().await;
        }
    }

    /// Called by a database that has ended by itself.
    fn forget(&self, external_id: &str, database: &Rc<TenantDatabase>) {
        for list in [&self.in_use, &self.ending] {
            let mut list = list.borrow_mut();
            if list.get(external_id).is_some_and(|current| Rc::ptr_eq(current, database)) {
                list.remove(external_id);
            }
        }
    }

    fn note_connect_error(&self, external_id: &str) {
        let now_ms = clock::now().0;
        let mut errors = self.connect_errors.borrow_mut();
        // Windows without recent errors say nothing any more.
        errors.retain(|_, window| !window.is_quiet(now_ms));
        errors.entry(external_id.to_owned()).or_insert_with(|| ErrorWindow::connect(now_ms)).record(now_ms);
    }

    fn too_many_connect_errors(&self, external_id: &str) -> bool {
        self.connect_errors.borrow_mut().get_mut(external_id).is_some_and(|window| window.tripped(clock::now().0))
    }
}

/// A number for pauses that must not coincide.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness pauses are the shortest allowed ones.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Answers a question of a shard.
///
/// # Errors
/// Why the database could not be asked, or what it answered instead of an answer.
pub async fn answer(plane: &Rc<Plane>, external_id: &str, ask: Ask) -> Result<Permissions, DatabaseRefusal> {
    let asking = async {
        let live = find_or_start(plane, external_id).await?.ready().await?;
        match ask {
            Ask::Connect => Ok(Permissions::default()),
            Ask::Authorize(question) => live.authorize(*question).await,
        }
    };
    tokio::time::timeout(QUESTION_MAX, asking).await.unwrap_or(Err(DatabaseRefusal::Initializing))
}

async fn find_or_start(plane: &Rc<Plane>, external_id: &str) -> Result<Rc<TenantDatabase>, DatabaseRefusal> {
    if let Some(database) = plane.databases.get(external_id) {
        return Ok(database);
    }
    if plane.databases.too_many_connect_errors(external_id) {
        return Err(DatabaseRefusal::ConnectRateLimited);
    }
    let (settings, shared) = coordinates(plane, external_id).await?;
    // Somebody else may have started it meanwhile.
    let mut in_use = plane.databases.in_use.borrow_mut();
    let database = in_use.entry(external_id.to_owned()).or_insert_with(|| {
        let predecessor = plane.databases.ending.borrow_mut().remove(external_id);
        TenantDatabase::start(plane.clone(), settings, shared, predecessor)
    });
    Ok(database.clone())
}

/// Where the tenant's database is, as its record says now.
async fn coordinates(plane: &Rc<Plane>, external_id: &str) -> Result<(DatabaseSettings, Arc<TenantShared>), DatabaseRefusal> {
    let failed = |error: &dyn std::fmt::Display| {
        Code::UnableToConnectToTenantDatabase.log(external_id, error);
        DatabaseRefusal::Unavailable
    };
    let tenant = plane.store.get(external_id).await.map_err(|error| failed(&error))?;
    let tenant = tenant.ok_or(DatabaseRefusal::TenantNotFound)?;
    if tenant.suspend {
        return Err(DatabaseRefusal::Suspended);
    }
    let extension = tenant.database().ok_or(DatabaseRefusal::Unavailable)?;
    let plain = decrypted(extension, &plane.cipher).map_err(|error| failed(&error))?;
    let settings = DatabaseSettings::from_plain(&plain).map_err(|error| failed(&error))?;
    let news = plane.load(external_id).await.map_err(|error| failed(&error))?;
    let shared = news.ok_or(DatabaseRefusal::TenantNotFound)?.shared;
    Ok((settings, shared))
}

fn decrypted(extension: &Extension, cipher: &Cipher) -> Result<Map<String, Value>, super::tenants::CipherError> {
    let mut plain = extension.settings.clone();
    for (name, value) in &mut plain {
        if let Some(text) = extension.is_encrypted(name).then(|| extension.text(name, cipher)).transpose()?.flatten() {
            *value = text.into();
        }
    }
    Ok(plain)
}

/// Brings the database of a tenant that nobody uses up to date, and lets go of it.
pub fn migrate_in_background(plane: &Rc<Plane>, external_id: &str) {
    let (plane, external_id) = (plane.clone(), external_id.to_owned());
    tokio::task::spawn_local(async move {
        if plane.databases.get(&external_id).is_some() {
            return;
        }
        if let Ok((settings, _)) = coordinates(&plane, &external_id).await
            && let Err(error) = preparation::prepare(&plane, &external_id, &settings).await
        {
            error.log(&external_id);
        }
    });
}

/// Every five minutes, connects the databases of tenants that have users here but lost their connection for good.
pub async fn reconnect_used(plane: Rc<Plane>) {
    loop {
        tokio::time::sleep(RECONNECT_PERIOD).await;
        let used: Vec<String> = {
            let registry = plane.registry.borrow();
            let used = registry.entries().filter(|entry| entry.config.has_database && entry.shared.users() > 0);
            used.map(|entry| entry.tenant.external_id.clone()).collect()
        };
        for external_id in used {
            // Failures are logged where they happen.
            let _ = find_or_start(&plane, &external_id).await;
        }
    }
}
