//! Validates the `extensions` of a request (http-api.md 5.2) and turns them into stored ones.
//!
//! Validation works on plaintext and makes [`Draft`]s; [`Draft::seal`] encrypts. So a request that is refused for another
//! reason costs no encryption, and a value of a wrong type is an ordinary validation error.

use serde_json::{Map, Value, json};

use super::cast::is_blank;
use super::cipher::{Cipher, CipherError};
use super::errors::{BLANK, INVALID, TAKEN, ValidationErrors};
use super::model::{ENCRYPTED_SETTINGS, Extension, POSTGRES_CDC_RLS};

/// A valid extension in plaintext.
pub(super) struct Draft {
    kind: String,
    settings: Map<String, Value>,
}

/// Validates a list. On failure gives one entry per extension, empty where it is good.
pub(super) fn drafts(entries: &[&Value]) -> Result<Vec<Draft>, Vec<ValidationErrors>> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut errors = Vec::new();
    for entry in entries {
        let outcome = Draft::new(entry).and_then(|draft| {
            if drafts.iter().any(|earlier| earlier.kind == draft.kind) {
                return Err(ValidationErrors::of("tenant_external_id", TAKEN));
            }
            Ok(draft)
        });
        match outcome {
            Ok(draft) => {
                drafts.push(draft);
                errors.push(ValidationErrors::default());
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.iter().all(ValidationErrors::is_empty) { Ok(drafts) } else { Err(errors) }
}

impl Draft {
    fn new(entry: &Value) -> Result<Self, ValidationErrors> {
        let mut errors = ValidationErrors::default();
        let kind = match entry.get("type") {
            Some(Value::String(kind)) if kind == "postgres" => POSTGRES_CDC_RLS.to_owned(),
            Some(Value::String(kind)) if !kind.trim().is_empty() => kind.clone(),
            other => {
                errors.add("type", blank_or_invalid(other));
                String::new()
            }
        };
        let mut settings = match entry.get("settings") {
            Some(Value::Object(settings)) => settings.clone(),
            other => {
                errors.add("settings", blank_or_invalid(other));
                return Err(errors);
            }
        };
        if let Some(pool_size) = settings.remove("postgres_changes_pool") {
            settings.insert("subcriber_pool_size".to_owned(), pool_size);
        }
        if kind == POSTGRES_CDC_RLS {
            add_defaults(&mut settings);
            check_required(&settings, &mut errors);
        }
        if errors.is_empty() { Ok(Self { kind, settings }) } else { Err(errors) }
    }

    /// Encrypts the secrets and dates the extension.
    pub fn seal(mut self, cipher: &Cipher, now_unix_secs: i64) -> Result<Extension, CipherError> {
        if self.kind == POSTGRES_CDC_RLS {
            for name in ENCRYPTED_SETTINGS {
                if let Some(Value::String(text)) = self.settings.get_mut(name) {
                    *text = cipher.encrypt(text)?;
                }
            }
        }
        Ok(Extension { kind: self.kind, settings: self.settings, inserted_at: now_unix_secs, updated_at: now_unix_secs })
    }
}

fn blank_or_invalid(value: Option<&Value>) -> &'static str {
    if value.is_none_or(is_blank) { BLANK } else { INVALID }
}

fn add_defaults(settings: &mut Map<String, Value>) {
    for (name, default) in [
        ("poll_interval_ms", json!(100)),
        ("poll_max_changes", json!(100)),
        ("poll_max_record_bytes", json!(1_048_576)),
        ("publication", json!("supabase_realtime")),
        ("slot_name", json!("supabase_realtime_replication_slot")),
    ] {
        settings.entry(name).or_insert(default);
    }
}

/// Names the faulty settings last to first, as the reference does.
fn check_required(settings: &Map<String, Value>, errors: &mut ValidationErrors) {
    for name in ENCRYPTED_SETTINGS.into_iter().rev().chain(["region"]) {
        match settings.get(name) {
            Some(Value::String(_)) => {}
            None | Some(Value::Null) => errors.add("settings", &format!("{name} {BLANK}")),
            Some(_) => errors.add("settings", &format!("{name} {INVALID}")),
        }
    }
}
