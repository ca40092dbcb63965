//! `POST /api/broadcast` and `POST /api/broadcast/:topic/events/:event` (protocol 16).

use std::borrow::Cow;
use std::rc::Rc;

use serde_json::json;

use super::super::http::Request;
use super::super::{Shard, State, now};
use super::body::Body;
use super::messages::{Message, PAYLOAD_TOO_LARGE, read_batch};
use super::{TenantRequest, enter, permission};
use crate::protocol::http1::{Response, query_param};
use crate::protocol::phoenix::envelope::UserBody;
use crate::protocol::phoenix::json::{is_object, member};
use crate::realtime::{Form, Publication, payload_size};

const UNAUTHORIZED: &str = "Unauthorized";

/// The batch endpoint.
pub(super) async fn batch(shard: &Rc<Shard>, request: &Request, body: &Body) -> Response {
    if !accepts(request, &["application/json"]) {
        return super::by_format(request, 406, "Not Acceptable");
    }
    let tenant = match admit(shard, request).await {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let body = match body {
        Body::Json(text) => text.as_str(),
        Body::Absent | Body::Bytes(_) | Body::Unread => "{}",
    };
    let messages = match read_batch(body, tenant.config.limits.payload_bytes_max) {
        Ok(messages) => messages,
        Err(errors) => return unprocessable(&tenant, &errors),
    };
    let average = tenant.shared.events_average();
    if average > tenant.limit() as f64 {
        return tenant.refuse(429, "You have exceeded your rate limit");
    }
    if average + messages.len() as f64 > tenant.limit() as f64 {
        return tenant.refuse(429, "Too many messages to broadcast, please reduce the batch size");
    }
    let allowed = permission::allowed_topics(shard, &tenant, request, &messages).await;
    let mut state = shard.state.borrow_mut();
    let State { hub, io, .. } = &mut *state;
    for Message { sub_topic, event, payload, private, metadata } in &messages {
        // Messages to topics that the token may not write are dropped without a word.
        if *private && !allowed.contains(sub_topic.as_ref()) {
            continue;
        }
        let body = UserBody::Json(payload);
        let publication = Publication { private: *private, sub_topic, event, metadata, body, form: Form::Text };
        hub.publish(&tenant.shared, &publication, now(), io);
    }
    tenant.with_rate(Response::empty(202))
}

/// The single-message endpoint.
pub(super) async fn single(shard: &Rc<Shard>, request: &Request, sub_topic: &str, event: &str, body: &Body) -> Response {
    let private = match body {
        Body::Json(text) => member(text, "private").map(|value| matches!(value, "true" | "\"true\"")),
        Body::Absent | Body::Bytes(_) | Body::Unread => None,
    };
    let private = private.unwrap_or_else(|| query_param(&request.query, "private").as_deref() == Some("true"));
    let body = match body {
        Body::Absent => UserPayload::Json(Cow::Borrowed("{}")),
        Body::Json(text) if is_object(text) => UserPayload::Json(Cow::Borrowed(text)),
        Body::Json(text) => UserPayload::Json(Cow::Owned(format!("{{\"_json\":{text}}}"))),
        Body::Bytes(bytes) => UserPayload::Binary(bytes),
        Body::Unread => {
            const TEXT: &str = "Unsupported Media Type. Use application/json or application/octet-stream";
            return Response::json(415, &json!({ "error": TEXT }).to_string());
        }
    };
    if !accepts(request, &["application/json", "application/octet-stream"]) {
        return super::by_format(request, 406, "Not Acceptable");
    }
    let tenant = match admit(shard, request).await {
        Ok(tenant) => tenant,
        Err(response) => return response,
    };
    let too_large = match &body {
        UserPayload::Json(text) => payload_size::exceeds(text, tenant.config.limits.payload_bytes_max),
        UserPayload::Binary(bytes) => bytes.len() as u64 + 6 > tenant.config.limits.payload_bytes_max,
    };
    let mut errors = serde_json::Map::new();
    for (field, text) in [("topic", sub_topic), ("event", event)] {
        if text.trim().is_empty() {
            errors.insert(field.to_owned(), json!(["can't be blank"]));
        }
    }
    if too_large {
        errors.insert("payload".to_owned(), json!([PAYLOAD_TOO_LARGE]));
    }
    if !errors.is_empty() {
        return unprocessable(&tenant, &errors.into());
    }
    if tenant.shared.events_average() >= tenant.limit() as f64 {
        return tenant.refuse(429, "You have exceeded your rate limit");
    }
    if private {
        match permission::may_write(shard, &tenant, request, sub_topic).await {
            Ok(true) => {}
            Ok(false) => return tenant.refuse(403, UNAUTHORIZED),
            Err(refusal) => return permission::refused(&tenant, &refusal),
        }
    }
    let body = match &body {
        UserPayload::Json(text) => UserBody::Json(text),
        UserPayload::Binary(bytes) => UserBody::Binary(bytes),
    };
    let publication = Publication { private, sub_topic, event, metadata: "", body, form: Form::Binary };
    let mut state = shard.state.borrow_mut();
    let State { hub, io, .. } = &mut *state;
    hub.publish(&tenant.shared, &publication, now(), io);
    tenant.with_rate(Response::empty(202))
}

enum UserPayload<'a> {
    Json(Cow<'a, str>),
    Binary(&'a [u8]),
}

/// Tenant, request rate, authentication, suspension: in this order (protocol 16.3).
async fn admit(shard: &Rc<Shard>, request: &Request) -> Result<TenantRequest, Response> {
    let tenant = enter(shard, request).await?;
    let verified = bearer(request).is_some_and(|token| shard.state.borrow_mut().hub.verify(&tenant.config, token, now()).is_ok());
    if !verified {
        return Err(tenant.refuse(401, UNAUTHORIZED));
    }
    if tenant.config.suspended {
        return Err(tenant.refuse(403, "Tenant is suspended"));
    }
    Ok(tenant)
}

/// `Authorization: Bearer TOKEN`, the scheme in any case; another scheme or an empty header falls back to `apikey`.
pub(super) fn bearer(request: &Request) -> Option<&str> {
    match request.authorization.first().map(String::as_str) {
        None | Some("") => request.api_key.as_deref(),
        Some(value) => match value.split(' ').collect::<Vec<_>>()[..] {
            [scheme, token] if scheme.eq_ignore_ascii_case("bearer") => Some(token),
            [_, _] => request.api_key.as_deref(),
            _ => None,
        },
    }
}

fn unprocessable(tenant: &TenantRequest, errors: &serde_json::Value) -> Response {
    tenant.with_rate(Response::json(422, &json!({ "errors": errors }).to_string()))
}

/// Whether the client takes one of the types that the endpoint answers with.
fn accepts(request: &Request, types: &[&str]) -> bool {
    let Some(accept) = request.accept.as_deref() else { return true };
    accept.split(',').any(|range| {
        let range = range.split(';').next().unwrap_or("").trim();
        range.is_empty() || range == "*/*" || range == "application/*" || types.contains(&range)
    })
}
