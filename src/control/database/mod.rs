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

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use serde_json::{Map, Value};

pub use live::Live;
pub use tenant_database::TenantDatabase;

use super::api::DatabaseState;
use super::capture;
use super::plane::Plane;
use super::tenants::{Cipher, Extension, Tenant};
use crate::base::clock;
use crate::realtime::database::{Ask, DatabaseRefusal, Permissions};
use crate::realtime::tenant::TenantShared;
use crate::telemetry::{Code, Severity};
use authorization::ErrorWindow;
use settings::DatabaseSettings;

/// A question is answered within this time, connecting included; the asking shard waits a little longer.
const QUESTION_MAX: Duration = Duration::from_secs(18);

/// Clients that come back after a restart have joined by then.
const FIRST_CLEAR_UP: Duration = Duration::from_secs(60);

/// How often tenants with users but without a connected database are looked for (3.1).
const RECONNECT_PERIOD: Duration = Duration::from_secs(300);

/// The databases in use, by external id.
#[derive(Default)]
pub struct Databases {
    in_use: RefCell<HashMap<String, Rc<TenantDatabase>>>,
    /// Told to end and perhaps not done yet.
    ending: RefCell<HashMap<String, Rc<TenantDatabase>>>,
    /// Failed attempts lately, and whether that was too many at the last look.
    connect_errors: RefCell<HashMap<String, (ErrorWindow, bool)>>,
    /// Being prepared without being used.
    preparing: RefCell<HashSet<String>>,
    /// How often any of them was told to end: whoever read a record before may have read an old one.
    stops: Cell<u64>,
    /// The process is ending.
    closed: Cell<bool>,
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
        self.stops.set(self.stops.get() + 1);
        self.connect_errors.borrow_mut().remove(external_id);
        let database = self.in_use.borrow_mut().remove(external_id);
        if let Some(database) = database {
            database.stop();
            self.ending.borrow_mut().insert(external_id.to_owned(), database);
        }
    }

    /// Ends all of them for good and waits until their slots are dropped.
    pub async fn stop_all(&self) {
        self.closed.set(true);
        let mut all: Vec<_> = self.in_use.borrow_mut().drain().map(|(_, database)| database).collect();
        all.extend(self.ending.borrow_mut().drain().map(|(_, database)| database));
        for database in &all {
            database.stop();
        }
        for database in all {
            database.ended().await;
        }
    }

    /// Called by a database that ends by itself: from now on a question starts a new one, which waits for its end.
    fn retire(&self, external_id: &str, database: &Rc<TenantDatabase>) {
        let mut in_use = self.in_use.borrow_mut();
        if in_use.get(external_id).is_some_and(|current| Rc::ptr_eq(current, database)) {
            in_use.remove(external_id);
            self.ending.borrow_mut().insert(external_id.to_owned(), database.clone());
        }
    }

    /// Called by a database that has ended.
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
        errors.retain(|_, (window, _)| !window.is_quiet(now_ms));
        errors.entry(external_id.to_owned()).or_insert_with(|| (ErrorWindow::connect(now_ms), false)).0.record(now_ms);
    }

    fn too_many_connect_errors(&self, external_id: &str) -> bool {
        let mut errors = self.connect_errors.borrow_mut();
        let Some((window, refused)) = errors.get_mut(external_id) else { return false };
        let refuses = window.tripped(clock::now().0);
        if refuses && !*refused {
            let text = "Too many database connections attempts per second";
            Code::DatabaseConnectionRateLimitReached.log_at(Severity::Critical, external_id, text);
        }
        *refused = refuses;
        refuses
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
        let live = connected(plane, external_id).await?;
        match ask {
            Ask::Authorize(question) => live.authorize(*question).await,
            // The others have answers of their own.
            Ask::Connect | Ask::Subscribe(_) | Ask::Resubscribe { .. } | Ask::Unsubscribe => Ok(Permissions::default()),
        }
    };
    tokio::time::timeout(QUESTION_MAX, asking).await.unwrap_or(Err(DatabaseRefusal::Initializing))
}

/// The tenant's database, connected when it is not yet.
///
/// # Errors
/// Why it cannot be used.
pub async fn connected(plane: &Rc<Plane>, external_id: &str) -> Result<Rc<Live>, DatabaseRefusal> {
    find_or_start(plane, external_id).await?.ready().await
}

async fn find_or_start(plane: &Rc<Plane>, external_id: &str) -> Result<Rc<TenantDatabase>, DatabaseRefusal> {
    if let Some(database) = plane.databases.get(external_id) {
        return Ok(database);
    }
    if plane.databases.closed.get() {
        return Err(DatabaseRefusal::Unavailable);
    }
    if plane.databases.too_many_connect_errors(external_id) {
        return Err(DatabaseRefusal::ConnectRateLimited);
    }
    let (settings, shared) = loop {
        let stops = plane.databases.stops.get();
        let found = coordinates(plane, external_id).await?;
        if plane.databases.stops.get() == stops {
            break found;
        }
    };
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
    let settings = settings_of(plane, &tenant)?;
    let news = plane.load(external_id).await.map_err(|error| failed(&error))?;
    let shared = news.ok_or(DatabaseRefusal::TenantNotFound)?.shared;
    Ok((settings, shared))
}

/// Where the database of a record is.
fn settings_of(plane: &Plane, tenant: &Tenant) -> Result<DatabaseSettings, DatabaseRefusal> {
    let failed = |error: &dyn std::fmt::Display| {
        Code::UnableToConnectToTenantDatabase.log(&tenant.external_id, error);
        DatabaseRefusal::Unavailable
    };
    let extension = tenant.database().ok_or(DatabaseRefusal::Unavailable)?;
    let plain = decrypted(extension, &plane.cipher).map_err(|error| failed(&error))?;
    DatabaseSettings::from_plain(&plain).map_err(|error| failed(&error))
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
        let databases = &plane.databases;
        let is_busy = databases.closed.get() || databases.get(&external_id).is_some();
        if is_busy
            || databases.too_many_connect_errors(&external_id)
            || !databases.preparing.borrow_mut().insert(external_id.clone())
        {
            return;
        }
        if let Ok((settings, _)) = coordinates(&plane, &external_id).await
            && let Err(error) = preparation::prepare(&plane, &external_id, &settings).await
        {
            error.log(&external_id);
            databases.note_connect_error(&external_id);
        }
        databases.preparing.borrow_mut().remove(&external_id);
    });
}

/// Drops the slot that a tenant, which is being deleted, may have left.
pub fn clear_up_in_background(plane: &Rc<Plane>, tenant: &Tenant) {
    let Ok(settings) = settings_of(plane, tenant) else { return };
    let (plane, external_id) = (plane.clone(), tenant.external_id.clone());
    let ending = plane.databases.ending.borrow().get(&external_id).cloned();
    tokio::task::spawn_local(async move {
        if let Some(ending) = ending {
            ending.ended().await;
        }
        capture::clear_up(&plane, &external_id, &settings).await;
    });
}

/// Drops what earlier uses and earlier processes left behind: soon after the start, when tenants that are used have taken
/// their slots over, and now and then.
pub async fn clear_up(plane: Rc<Plane>) {
    let mut pause = FIRST_CLEAR_UP;
    loop {
        tokio::time::sleep(pause).await;
        pause = RECONNECT_PERIOD;
        for external_id in plane.slots.noted() {
            if plane.databases.get(&external_id).is_some() {
                continue;
            }
            match coordinates(&plane, &external_id).await {
                Ok((settings, _)) => capture::clear_up(&plane, &external_id, &settings).await,
                // Nothing is left that would say where it was.
                Err(DatabaseRefusal::TenantNotFound) => plane.slots.strike_off(&external_id),
                Err(_) => {}
            }
        }
    }
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
