//! The OpenAPI 3.0 document of `GET /api/openapi` (http-api.md 10.3).
//!
//! Built from code so that it cannot drift into an asset nobody looks at. Unlike the reference's, the error schemas are
//! those of the bodies the server really sends.

mod schemas;

use serde_json::{Map, Value, json};

/// The document for a server of this version.
pub fn document(version: &str) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {
            "title": "Realtime",
            "description": "Broadcast, Presence and Postgres Changes over WebSockets",
            "version": version,
        },
        "servers": [{
            "url": "https://{tenant}.supabase.co/realtime/v1",
            "variables": {"tenant": {"default": "tenant"}},
        }],
        "security": [{"authorization": []}],
        "paths": paths(),
        "components": {
            "securitySchemes": {"authorization": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas::all(),
        },
    })
}

fn paths() -> Value {
    let save = |summary: &str| {
        operation(
            summary,
            Some("TenantParams"),
            &[
                ("200", "Updated", Some("TenantResponse")),
                ("201", "Created", Some("TenantResponse")),
                ("400", "No `tenant` in the body", Some("ReasonResponse")),
                ("403", "Unauthorized", None),
                ("422", "Invalid fields", Some("UnprocessableEntityResponse")),
            ],
        )
    };
    let on_known = |summary: &str| {
        operation(
            summary,
            None,
            &[("204", "Done", None), ("403", "Unauthorized", None), ("404", "Unknown tenant", Some("ErrorResponse"))],
        )
    };
    let show = |summary: &str, schema| {
        operation(
            summary,
            None,
            &[("200", "Found", Some(schema)), ("403", "Unauthorized", None), ("404", "Unknown tenant", Some("ErrorResponse"))],
        )
    };
    let tenant_id = || json!([path_parameter("tenant_id", "External id of the tenant")]);
    json!({
        "/api/tenants": {
            "get": operation("List tenants", None, &[
                ("200", "All tenants", Some("TenantResponseList")),
                ("403", "Unauthorized", None),
            ]),
            "post": save("Create a tenant, or update the one with this external id"),
        },
        "/api/tenants/{tenant_id}": {
            "parameters": tenant_id(),
            "get": show("Show a tenant", "TenantResponse"),
            "put": save("Create or update a tenant"),
            "patch": save("Create or update a tenant"),
            "delete": operation("Delete a tenant", None, &[
                ("204", "Deleted, or unknown", None),
                ("403", "Unauthorized", None),
            ]),
        },
        "/api/tenants/{tenant_id}/reload": {
            "parameters": tenant_id(),
            "post": on_known("Stop a tenant's database work and disconnect its clients"),
        },
        "/api/tenants/{tenant_id}/shutdown": {
            "parameters": tenant_id(),
            "post": on_known("Stop a tenant's database connection"),
        },
        "/api/tenants/{tenant_id}/health": {
            "parameters": tenant_id(),
            "get": show("Health of a tenant", "TenantHealthResponse"),
        },
        "/api/broadcast": {
            "post": operation("Broadcast messages", Some("TenantBatchParams"), &broadcast_responses()),
        },
        "/api/broadcast/{topic}/events/{event}": {"post": broadcast_single()},
    })
}

type Response = (&'static str, &'static str, Option<&'static str>);

fn broadcast_responses() -> [Response; 5] {
    [
        ("202", "Accepted", None),
        ("401", "Unknown tenant or unusable token", Some("ErrorResponse")),
        ("403", "Suspended tenant, or denied by policies", Some("ErrorResponse")),
        ("422", "Invalid messages", Some("UnprocessableEntityResponse")),
        ("429", "Too many requests or messages", Some("ErrorResponse")),
    ]
}

fn broadcast_single() -> Value {
    let mut operation = operation("Broadcast one message", None, &broadcast_responses());
    operation["parameters"] = json!([
        path_parameter("topic", "Channel name, without the prefix `realtime:`"),
        path_parameter("event", "Event name"),
        {
            "name": "private", "in": "query", "required": false,
            "description": "`true` for a private channel", "schema": {"type": "boolean"},
        },
    ]);
    operation["requestBody"] = json!({"required": true, "content": {
        "application/json": {"schema": reference("BroadcastSingleJsonParams")},
        "application/octet-stream": {"schema": reference("BroadcastSingleBinaryParams")},
    }});
    operation["responses"]["415"] = json_response("Another content type", "UnsupportedMediaTypeResponse");
    operation
}

fn operation(summary: &str, body: Option<&str>, responses: &[Response]) -> Value {
    let responses: Map<String, Value> = responses
        .iter()
        .map(|&(status, description, schema)| {
            let response = match schema {
                Some(schema) => json_response(description, schema),
                None => json!({"description": description}),
            };
            (status.to_owned(), response)
        })
        .collect();
    let mut operation = json!({"summary": summary, "responses": responses});
    if let Some(schema) = body {
        operation["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": reference(schema)}}});
    }
    operation
}

fn json_response(description: &str, schema: &str) -> Value {
    json!({"description": description, "content": {"application/json": {"schema": reference(schema)}}})
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "description": description,
        "schema": {"type": "string"}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_those_of_the_reference() {
        let document = document("1.2.3");
        assert!(document["openapi"].as_str().unwrap().starts_with("3."));
        assert_eq!(document["info"]["version"], "1.2.3");
        let mut paths: Vec<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "/api/broadcast",
                "/api/broadcast/{topic}/events/{event}",
                "/api/tenants",
                "/api/tenants/{tenant_id}",
                "/api/tenants/{tenant_id}/health",
                "/api/tenants/{tenant_id}/reload",
                "/api/tenants/{tenant_id}/shutdown"
            ]
        );
    }

    /// Follows every `$ref` of the document.
    fn check_references(value: &Value, root: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                    assert!(root.pointer(&target[1..]).is_some(), "{target} is dangling");
                }
                fields.values().for_each(|field| check_references(field, root));
            }
            Value::Array(items) => items.iter().for_each(|item| check_references(item, root)),
            _ => {}
        }
    }

    #[test]
    fn no_reference_dangles_and_every_path_parameter_is_declared() {
        let document = document("1");
        check_references(&document, &document);
        for (path, item) in document["paths"].as_object().unwrap() {
            let text = item.to_string();
            for name in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                assert!(text.contains(&format!("\"name\":\"{name}\"")), "{name} of {path}");
            }
        }
    }
}
