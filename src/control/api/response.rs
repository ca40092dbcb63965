//! Answers of the management API and their bodies (http-api.md 4).

use serde_json::{Value, json};

use crate::control::tenants::{ChangeError, CipherError, StoreError, Tenant, ValidationErrors};

const JSON: &str = "application/json; charset=utf-8";

/// A response for the transport to write. A body comes with its content type among the headers.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiResponse {
    /// Status code.
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(&'static str, String)>,
    /// `None` is an empty body.
    pub body: Option<Value>,
    /// Why the server failed, for the log; never sent. Free of secrets.
    pub failure: Option<String>,
}

impl ApiResponse {
    pub(super) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None, failure: None }
    }

    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: vec![("content-type", JSON.to_owned())], body: Some(body), failure: None }
    }

    /// A failure that is nobody's message: the reason phrase as a JSON string.
    pub(super) fn reason(status: u16) -> Self {
        let phrase = match status {
            400 => "Bad Request",
            404 => "Not Found",
            _ => "Internal Server Error",
        };
        Self::json(status, phrase.into())
    }

    /// A failure of the server. Its cause is for the log only.
    fn failed(cause: &dyn std::error::Error) -> Self {
        Self { failure: Some(cause.to_string()), ..Self::reason(500) }
    }

    pub(super) fn not_found() -> Self {
        Self::json(404, json!({"message": "not found"}))
    }

    /// 200 with `data`.
    pub(super) fn data(data: Value) -> Self {
        Self::json(200, json!({"data": data}))
    }

    /// A created or updated tenant. The location carries the internal id, as the reference's does.
    pub(super) fn saved(status: u16, tenant: &Tenant) -> Self {
        let mut response = Self::json(status, json!({"data": tenant.to_public_json()}));
        response.headers.push(("location", format!("/api/tenants/{}", tenant.id)));
        response
    }
}

impl From<StoreError> for ApiResponse {
    fn from(error: StoreError) -> Self {
        match error {
            // Another node was faster.
            StoreError::Taken { .. } => ValidationErrors::external_id_taken().into(),
            error => Self::failed(&error),
        }
    }
}

impl From<CipherError> for ApiResponse {
    fn from(error: CipherError) -> Self {
        Self::failed(&error)
    }
}

impl From<ValidationErrors> for ApiResponse {
    fn from(errors: ValidationErrors) -> Self {
        Self::json(422, errors.to_json())
    }
}

impl From<ChangeError> for ApiResponse {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Invalid(errors) => errors.into(),
            ChangeError::Cipher(error) => error.into(),
        }
    }
}
