//! Creates and updates tenants from the object a client sends (http-api.md 5.1–5.4).
//!
//! Every field is cast on its own, so all errors are reported together. Nothing is stored here: the result is a complete
//! [`Tenant`] whose secrets are already encrypted, or the errors. Uniqueness of the external id is the store's matter.

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::cast::{self, Cast};
use super::cipher::{Cipher, CipherError};
use super::errors::{BLANK, INVALID, NO_KEYS, ValidationErrors};
use super::extension::{self, Draft};
use super::model::{POSTGRES_CDC_RLS, Tenant, TenantDefaults};

const DEFAULT_PRESENCE_EVENTS_PER_SECOND: i32 = 1000;
const DEFAULT_PAYLOAD_SIZE_IN_KB: i32 = 3000;
const DEFAULT_BROADCAST_ADAPTER: &str = "gen_rpc";

/// What a change needs besides the request.
#[derive(Clone, Copy)]
pub struct ChangeContext<'a> {
    /// Encrypts new secrets and compares them with stored ones.
    pub cipher: &'a Cipher,
    /// Limits for fields without value.
    pub defaults: &'a TenantDefaults,
    /// Time of the change.
    pub now_unix_secs: i64,
}

/// Why a change was refused.
#[derive(Debug, PartialEq)]
pub enum ChangeError {
    /// The client's fault: status 422 with these errors.
    Invalid(ValidationErrors),
    /// The server's fault: status 500.
    Cipher(CipherError),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(errors) => write!(f, "invalid tenant: {}", errors.to_json()),
            Self::Cipher(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ChangeError {}

impl From<ValidationErrors> for ChangeError {
    fn from(errors: ValidationErrors) -> Self {
        Self::Invalid(errors)
    }
}

impl From<CipherError> for ChangeError {
    fn from(error: CipherError) -> Self {
        Self::Cipher(error)
    }
}

/// Checks a `POST` body as a new tenant and gives its external id (5.6). Extensions are judged in the order sent.
pub fn validate_new(fields: &Map<String, Value>, defaults: &TenantDefaults) -> Result<String, ValidationErrors> {
    let mut scratch = blank_tenant("", defaults, 0);
    let extensions = given_extensions(fields).map(|list| list.map(|list| list.iter().collect()));
    cast_onto(&mut scratch, fields, extensions, defaults, 0)?;
    Ok(scratch.external_id)
}

/// A new tenant under `external_id`, which also becomes its name. Incomplete extension entries are dropped and the others
/// stored last to first (5.4).
pub fn create(external_id: &str, fields: &Map<String, Value>, context: ChangeContext<'_>) -> Result<Tenant, ChangeError> {
    let is_complete = |entry: &&Value| entry.get("type").is_some() && entry.get("settings").is_some();
    let extensions = given_extensions(fields).map(|list| list.map(|list| list.iter().filter(is_complete).rev().collect()));
    let mut fields = fields.clone();
    fields.insert("external_id".to_owned(), external_id.into());
    let mut tenant = blank_tenant(external_id, context.defaults, context.now_unix_secs);
    let casted = cast_onto(&mut tenant, &fields, extensions, context.defaults, 0)?;
    tenant.name = Some(external_id.to_owned());
    casted.seal_into(&mut tenant, context)?;
    Ok(tenant)
}

/// The stored tenant with the given fields changed. Extensions, when given, replace all.
pub fn update(stored: &Tenant, fields: &Map<String, Value>, context: ChangeContext<'_>) -> Result<Tenant, ChangeError> {
    let mut tenant = stored.clone();
    let extensions = given_extensions(fields).map(|list| list.map(|list| list.iter().collect()));
    let casted = cast_onto(&mut tenant, fields, extensions, context.defaults, stored.extensions.len())?;
    casted.seal_into(&mut tenant, context)?;
    if tenant != *stored {
        tenant.updated_at = context.now_unix_secs;
    }
    Ok(tenant)
}

/// Values that still have to be encrypted.
struct Casted {
    jwt_secret: Option<Option<String>>,
    extensions: Option<Vec<Draft>>,
}

impl Casted {
    fn seal_into(self, tenant: &mut Tenant, context: ChangeContext<'_>) -> Result<(), ChangeError> {
        match self.jwt_secret {
            None => {}
            Some(None) => tenant.jwt_secret = None,
            // An equal secret keeps its stored form. One that cannot be read any more is replaced.
            Some(Some(secret)) => {
                let stored = tenant.jwt_secret_plain(context.cipher).ok().flatten();
                if stored.as_ref() != Some(&secret) {
                    tenant.jwt_secret = Some(context.cipher.encrypt(&secret)?);
                }
            }
        }
        if tenant.jwt_secret.is_none() && tenant.jwt_jwks.is_none() {
            return Err(ValidationErrors::of("jwt_secret", NO_KEYS).into());
        }
        if let Some(drafts) = self.extensions {
            let sealed = drafts.into_iter().map(|draft| draft.seal(context.cipher, context.now_unix_secs));
            tenant.extensions = sealed.collect::<Result<_, _>>()?;
        }
        Ok(())
    }
}

/// `None` when the request has no `extensions`; an error when they are no list of objects.
fn given_extensions(fields: &Map<String, Value>) -> Option<Result<&Vec<Value>, ()>> {
    fields.get("extensions").map(|value| match value {
        Value::Array(list) if list.iter().all(Value::is_object) => Ok(list),
        _ => Err(()),
    })
}

/// Casts everything but secrets onto `tenant`. `replaced_extensions` is how many stored extensions a new list replaces:
/// each contributes a leading `{}` to positional errors (5.2).
fn cast_onto(
    tenant: &mut Tenant,
    fields: &Map<String, Value>,
    extensions: Option<Result<Vec<&Value>, ()>>,
    defaults: &TenantDefaults,
    replaced_extensions: usize,
) -> Result<Casted, ValidationErrors> {
    let mut cast = Cast::new(fields);
    cast_limits(tenant, &mut cast, defaults);
    cast_options(tenant, &mut cast);
    let mut external_id = Some(tenant.external_id.clone());
    cast.set_option("external_id", cast::string, &mut external_id);
    let jwt_secret = cast.field("jwt_secret", cast::string);
    let mut errors = cast.errors;
    match external_id {
        Some(id) if !id.is_empty() => tenant.external_id = id,
        // A value of a wrong type has been reported already.
        _ if fields.get("external_id").is_some_and(|id| !cast::is_blank(id)) => {}
        _ => errors.add("external_id", BLANK),
    }
    let extensions = match extensions.map(|list| list.map(|entries| extension::drafts(&entries))) {
        None => None,
        Some(Ok(Ok(drafts))) => Some(drafts),
        Some(Ok(Err(entries))) => {
            let mut positional = vec![ValidationErrors::default(); replaced_extensions];
            positional.extend(entries);
            errors.set_list("extensions", positional);
            None
        }
        Some(Err(())) => {
            errors.add("extensions", INVALID);
            None
        }
    };
    if errors.is_empty() { Ok(Casted { jwt_secret, extensions }) } else { Err(errors) }
}

fn cast_limits(tenant: &mut Tenant, cast: &mut Cast<'_>, defaults: &TenantDefaults) {
    for (name, target, default) in [
        ("max_concurrent_users", &mut tenant.max_concurrent_users, defaults.max_concurrent_users),
        ("max_events_per_second", &mut tenant.max_events_per_second, defaults.max_events_per_second),
        ("max_joins_per_second", &mut tenant.max_joins_per_second, defaults.max_joins_per_second),
        ("max_channels_per_client", &mut tenant.max_channels_per_client, defaults.max_channels_per_client),
        ("max_bytes_per_second", &mut tenant.max_bytes_per_second, defaults.max_bytes_per_second),
        ("max_presence_events_per_second", &mut tenant.max_presence_events_per_second, DEFAULT_PRESENCE_EVENTS_PER_SECOND),
        ("max_payload_size_in_kb", &mut tenant.max_payload_size_in_kb, DEFAULT_PAYLOAD_SIZE_IN_KB),
        ("migrations_ran", &mut tenant.migrations_ran, 0),
    ] {
        cast.set(name, cast::integer, target, default);
    }
    let per_window = &mut tenant.max_client_presence_events_per_window;
    cast.set_option("max_client_presence_events_per_window", cast::integer, per_window);
    cast.set_option("client_presence_window_ms", cast::integer, &mut tenant.client_presence_window_ms);
}

fn cast_options(tenant: &mut Tenant, cast: &mut Cast<'_>) {
    cast.set("presence_enabled", cast::boolean, &mut tenant.presence_enabled, false);
    cast.set("private_only", cast::boolean, &mut tenant.private_only, false);
    cast.set("suspend", cast::boolean, &mut tenant.suspend, false);
    cast.set_option("name", cast::string, &mut tenant.name);
    cast.set_option("jwt_jwks", cast::object_value, &mut tenant.jwt_jwks);
    cast.set("feature_flags", cast::object, &mut tenant.feature_flags, Map::new());
    let driver = &mut tenant.postgres_cdc_default;
    cast.set("postgres_cdc_default", cast::string, driver, POSTGRES_CDC_RLS.to_owned());
    let adapter = &mut tenant.broadcast_adapter;
    cast.set("broadcast_adapter", cast::adapter, adapter, DEFAULT_BROADCAST_ADAPTER.to_owned());
}

fn blank_tenant(external_id: &str, defaults: &TenantDefaults, now_unix_secs: i64) -> Tenant {
    Tenant {
        id: Uuid::new_v4().to_string(),
        external_id: external_id.to_owned(),
        name: None,
        jwt_secret: None,
        jwt_jwks: None,
        postgres_cdc_default: POSTGRES_CDC_RLS.to_owned(),
        max_concurrent_users: defaults.max_concurrent_users,
        max_events_per_second: defaults.max_events_per_second,
        max_joins_per_second: defaults.max_joins_per_second,
        max_channels_per_client: defaults.max_channels_per_client,
        max_bytes_per_second: defaults.max_bytes_per_second,
        max_presence_events_per_second: DEFAULT_PRESENCE_EVENTS_PER_SECOND,
        max_payload_size_in_kb: DEFAULT_PAYLOAD_SIZE_IN_KB,
        max_client_presence_events_per_window: None,
        client_presence_window_ms: None,
        presence_enabled: false,
        private_only: false,
        suspend: false,
        broadcast_adapter: DEFAULT_BROADCAST_ADAPTER.to_owned(),
        migrations_ran: 0,
        feature_flags: Map::new(),
        gcm_migrated_at: None,
        extensions: Vec::new(),
        inserted_at: now_unix_secs,
        updated_at: now_unix_secs,
    }
}
