//! The schemas of request and response bodies in the OpenAPI document.

use serde_json::{Value, json};

use super::reference;

fn object(properties: Value, required: &[&str]) -> Value {
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}

fn text() -> Value {
    json!({"type": "string"})
}

fn integer() -> Value {
    json!({"type": "integer", "format": "int32"})
}

fn optional_integer() -> Value {
    json!({"type": "integer", "format": "int32", "nullable": true})
}

fn boolean() -> Value {
    json!({"type": "boolean"})
}

/// All named schemas.
pub(super) fn all() -> Value {
    let data = |schema: Value| object(json!({"data": schema}), &["data"]);
    let health = object(
        json!({
            "healthy": boolean(), "db_connected": boolean(), "replication_connected": boolean(),
            "connected_cluster": {"type": "integer"},
            "region": {"type": "string", "nullable": true}, "node": text(),
        }),
        &["healthy", "db_connected", "replication_connected", "connected_cluster"],
    );
    let message = object(
        json!({
            "topic": text(), "event": text(), "payload": {"type": "object"},
            "private": {"type": "boolean", "default": false}, "id": text(),
        }),
        &["topic", "event", "payload"],
    );
    let messages = json!({"type": "array", "minItems": 1, "items": message});
    json!({
        "TenantParams": object(json!({"tenant": tenant_params()}), &["tenant"]),
        "Tenant": tenant(),
        "TenantResponse": data(reference("Tenant")),
        "TenantResponseList": data(json!({"type": "array", "items": reference("Tenant")})),
        "TenantHealthResponse": data(health),
        "TenantBatchParams": object(json!({"messages": messages}), &["messages"]),
        "BroadcastSingleJsonParams": {"type": "object", "additionalProperties": true},
        "BroadcastSingleBinaryParams": {"type": "string", "format": "binary"},
        "ErrorResponse": object(json!({"message": text()}), &["message"]),
        "ReasonResponse": {"type": "string", "example": "Bad Request"},
        "UnsupportedMediaTypeResponse": object(json!({"error": text()}), &["error"]),
        "UnprocessableEntityResponse": object(
            json!({
                "errors": {"type": "object", "additionalProperties": {"type": "array", "items": {}},
                    "example": {"external_id": ["can't be blank"]}},
                "message": text(),
            }),
            &[],
        ),
    })
}

fn tenant_params() -> Value {
    let settings = object(
        json!({
            "region": text(), "db_host": text(), "db_port": text(), "db_name": text(), "db_user": text(),
            "db_password": text(), "ssl_enforced": boolean(), "publication": text(), "slot_name": text(),
            "poll_interval_ms": integer(), "poll_max_changes": integer(), "poll_max_record_bytes": integer(),
            "postgres_changes_pool": integer(), "db_pool": integer(),
        }),
        &["region", "db_host", "db_port", "db_name", "db_user", "db_password"],
    );
    let extension = object(json!({"type": text(), "settings": settings}), &["type", "settings"]);
    object(
        json!({
            "external_id": text(),
            "name": text(),
            "jwt_secret": {"type": "string", "description": "Required unless `jwt_jwks` is given"},
            "jwt_jwks": {"type": "object", "nullable": true,
                "properties": {"keys": {"type": "array", "items": {"type": "object"}}}},
            "postgres_cdc_default": text(),
            "max_concurrent_users": integer(),
            "max_events_per_second": integer(),
            "max_joins_per_second": integer(),
            "max_channels_per_client": integer(),
            "max_bytes_per_second": integer(),
            "max_presence_events_per_second": integer(),
            "max_payload_size_in_kb": integer(),
            "max_client_presence_events_per_window": optional_integer(),
            "client_presence_window_ms": optional_integer(),
            "presence_enabled": boolean(),
            "private_only": boolean(),
            "suspend": boolean(),
            "extensions": {"type": "array", "items": extension},
        }),
        &["external_id"],
    )
}

fn tenant() -> Value {
    let extension = object(
        json!({
            "type": text(),
            "settings": {"type": "object", "description": "Without `db_password`; other `db_*` are ciphertext"},
            "inserted_at": text(),
            "updated_at": text(),
        }),
        &["type", "settings"],
    );
    object(
        json!({
            "id": {"type": "string", "format": "uuid"},
            "external_id": text(),
            "name": {"type": "string", "nullable": true},
            "max_concurrent_users": integer(),
            "max_channels_per_client": integer(),
            "max_events_per_second": integer(),
            "max_joins_per_second": integer(),
            "inserted_at": {"type": "string", "example": "2024-05-01T10:20:30"},
            "extensions": {"type": "array", "items": extension},
            "private_only": boolean(),
            "max_client_presence_events_per_window": optional_integer(),
            "client_presence_window_ms": optional_integer(),
            "presence_enabled": boolean(),
        }),
        &["id", "external_id"],
    )
}
