//! The work of each management call (http-api.md 5.4–5.11).
//!
//! Every action either finishes with a response and its effects or leaves with a refusal before anything has been stored,
//! so effects always describe what the store now says.

use serde_json::{Map, Value, json};

use super::{ApiBody, ApiEffect, ApiResponse, ApiSettings, Runtime};
use crate::control::tenants::changeset;
use crate::control::tenants::{ChangeContext, ChangeEffects, Cipher, Tenant, TenantStore, ValidationErrors};

/// An action's result; the error is the refusal to send.
type Outcome = Result<ApiResponse, ApiResponse>;

/// One authorised call: what it works with and the effects it has had so far.
pub(super) struct Call<'a> {
    pub store: &'a TenantStore,
    pub cipher: &'a Cipher,
    pub settings: &'a ApiSettings,
    pub runtime: &'a dyn Runtime,
    pub now_unix_secs: i64,
    pub effects: Vec<ApiEffect>,
}

impl Call<'_> {
    pub async fn list(&self) -> Outcome {
        let tenants = self.store.list().await?;
        Ok(ApiResponse::data(tenants.iter().map(Tenant::to_public_json).collect()))
    }

    pub async fn show(&self, external_id: &str) -> Outcome {
        Ok(ApiResponse::data(self.find(external_id).await?.to_public_json()))
    }

    /// `POST`: judged as a new tenant first, then created or, if the external id exists, updated.
    pub async fn create(&mut self, body: &ApiBody) -> Outcome {
        let fields = tenant_fields(body)?;
        let external_id = changeset::validate_new(fields, &self.settings.defaults)?;
        self.save(&external_id, fields).await
    }

    /// `PUT` and `PATCH`: the external id comes from the path.
    pub async fn update(&mut self, external_id: &str, body: &ApiBody) -> Outcome {
        self.save(external_id, tenant_fields(body)?).await
    }

    pub async fn delete(&mut self, external_id: &str) -> Outcome {
        self.store.delete(external_id).await?;
        self.effects.push(ApiEffect::TenantDeleted { external_id: external_id.to_owned() });
        Ok(ApiResponse::empty(204))
    }

    pub async fn reload(&mut self, external_id: &str) -> Outcome {
        let external_id = self.find(external_id).await?.external_id;
        self.effects.push(ApiEffect::Reload { external_id });
        Ok(ApiResponse::empty(204))
    }

    pub async fn shutdown(&mut self, external_id: &str) -> Outcome {
        let external_id = self.find(external_id).await?.external_id;
        self.effects.push(ApiEffect::Shutdown { external_id });
        Ok(ApiResponse::empty(204))
    }

    /// A tenant without a database is always healthy. One whose database connection is down is not while it has users; idle
    /// it is healthy once its migrations are done, and asks for them otherwise.
    pub async fn health(&mut self, external_id: &str) -> Outcome {
        let tenant = self.find(external_id).await?;
        let users = self.runtime.connected_users(external_id);
        let database = self.runtime.database(external_id);
        let is_migrated = tenant.migrations_ran >= self.runtime.migrations_total();
        let healthy = match tenant.database() {
            None => true,
            Some(_) if database.connected => true,
            Some(_) => users == 0 && is_migrated,
        };
        if !healthy && users == 0 {
            self.effects.push(ApiEffect::Migrate { external_id: external_id.to_owned() });
        }
        Ok(ApiResponse::data(json!({
            "healthy": healthy,
            "db_connected": database.connected,
            "replication_connected": database.connected && database.replication,
            "connected_cluster": users,
            "region": self.runtime.region(),
            "node": self.runtime.node(),
        })))
    }

    async fn find(&self, external_id: &str) -> Result<Tenant, ApiResponse> {
        self.store.get(external_id).await?.ok_or_else(ApiResponse::not_found)
    }

    async fn save(&mut self, external_id: &str, fields: &Map<String, Value>) -> Outcome {
        let context = ChangeContext { cipher: self.cipher, defaults: &self.settings.defaults, now_unix_secs: self.now_unix_secs };
        let Some(stored) = self.store.get(external_id).await? else {
            let tenant = changeset::create(external_id, fields, context)?;
            self.store.put(&tenant).await?;
            self.upserted(&tenant, true, ChangeEffects::default());
            return Ok(ApiResponse::saved(201, &tenant));
        };
        let tenant = changeset::update(&stored, fields, context)?;
        let effects = ChangeEffects::between(&stored, &tenant, self.cipher);
        if tenant.external_id == stored.external_id {
            self.store.put(&tenant).await?;
        } else {
            if self.store.get(&tenant.external_id).await?.is_some() {
                return Err(ValidationErrors::external_id_taken().into());
            }
            self.store.rename(&stored.external_id, &tenant).await?;
            // Sockets belong to the old name; for the server it is another tenant.
            self.effects.push(ApiEffect::TenantDeleted { external_id: stored.external_id });
        }
        self.upserted(&tenant, false, effects);
        Ok(ApiResponse::saved(200, &tenant))
    }

    fn upserted(&mut self, tenant: &Tenant, created: bool, effects: ChangeEffects) {
        let external_id = tenant.external_id.clone();
        self.effects.push(ApiEffect::TenantUpserted { external_id, created, effects });
    }
}

/// The `tenant` object of a body; without one the request is bad.
fn tenant_fields(body: &ApiBody) -> Result<&Map<String, Value>, ApiResponse> {
    let ApiBody::Json(body) = body else {
        return Err(ApiResponse::reason(400));
    };
    body.get("tenant").and_then(Value::as_object).ok_or_else(|| ApiResponse::reason(400))
}
