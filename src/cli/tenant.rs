//! `ringcast tenant`: the management API of a running server, from the shell (http-api 5.4 to 5.9).
//!
//! Every command is one or two requests signed with the management secret. `create` and `update` look
//! first, because the API itself creates or updates whatever is there, and a typing error in an id
//! would silently make a second tenant.

use clap::{Args, Subcommand};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::{
    http_client::{Answer, Server},
    parse_pair, secret_of,
};
use crate::{base::clock, control::tenants::seed::WELL_KNOWN_SECRET, protocol::jwt};

/// Life of the management token of one command.
const TOKEN_SECS: u64 = 300;

/// Bytes of a generated tenant secret, before hex.
const SECRET_BYTES: usize = 32;

/// Bytes of an id that need no escape in a path.
const PATH_SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TenantFlags {
    #[command(subcommand)]
    action: Action,
    /// The running server
    #[arg(long, global = true, default_value = "http://127.0.0.1:4000")]
    url: String,
    /// Management secret [default: $API_JWT_SECRET or that of `ringcast dev`]. Arguments are visible to
    /// other users of this host; prefer the variable
    #[arg(long, global = true)]
    api_secret: Option<String>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  ringcast tenant list
  ringcast tenant create shop --set max_concurrent_users=5000
  ringcast tenant update shop --set max_events_per_second=500 --set private_only=true
  ringcast tenant reload shop --url http://10.0.0.5:4000

Fields of --set: name, jwt_secret, jwt_jwks, max_concurrent_users, max_events_per_second,
max_joins_per_second, max_channels_per_client, max_presence_events_per_second,
max_payload_size_in_kb, max_client_presence_events_per_window, client_presence_window_ms,
private_only, suspend, presence_enabled, extensions. A change of jwt_secret, jwt_jwks, private_only
or suspend disconnects the tenant's sockets.";

#[derive(Debug, Subcommand)]
enum Action {
    /// All tenants.
    List,
    /// One tenant as JSON.
    Show {
        /// External id.
        id: String,
    },
    /// A new tenant; prints its secret if that was generated.
    Create {
        /// External id: the first label of the host name clients connect to.
        id: String,
        /// JWT secret of the tenant [default: a random one]
        #[arg(long)]
        secret: Option<String>,
        /// A field, KEY=VALUE. May be repeated
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
        fields: Vec<(String, Value)>,
    },
    /// Change fields of a tenant.
    Update {
        /// External id.
        id: String,
        /// A field, KEY=VALUE. May be repeated
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair, required = true)]
        fields: Vec<(String, Value)>,
    },
    /// Disconnect a tenant's sockets and delete it.
    Delete {
        /// External id.
        id: String,
    },
    /// Disconnect a tenant's sockets and restart its workers.
    Reload {
        /// External id.
        id: String,
    },
}

/// The text to print.
pub(super) fn run(flags: &TenantFlags, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let secret = secret_of(&flags.api_secret, env);
    let secret = secret.as_deref().unwrap_or(WELL_KNOWN_SECRET);
    let now = clock::unix_secs();
    let claims = json!({ "iat": now, "exp": now + TOKEN_SECS });
    let api = Api { server: Server::parse(&flags.url)?, token: jwt::sign_hs256(&claims, secret) };
    match &flags.action {
        Action::List => api.list(flags.json),
        Action::Show { id } => Ok(pretty(&api.require(id)?)),
        Action::Create { id, secret, fields } => api.create(id, secret, fields, flags.json),
        Action::Update { id, fields } => api.update(id, fields, flags.json),
        Action::Delete { id } => {
            api.require(id)?;
            api.send("DELETE", &path(id), "")?;
            Ok(format!("tenant {id} deleted"))
        }
        Action::Reload { id } => {
            api.send("POST", &format!("{}/reload", path(id)), "")?;
            Ok(format!("tenant {id} reloaded"))
        }
    }
}

struct Api {
    server: Server,
    token: String,
}

impl Api {
    /// One request; any status but 2xx is an error in words.
    fn send(&self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let answer = self.server.call(method, path, &self.token, body)?;
        read_answer(&answer)
    }

    fn list(&self, as_json: bool) -> Result<String, String> {
        let answer = self.send("GET", "/api/tenants", "")?;
        let tenants = answer["data"].as_array().map_or(&[][..], Vec::as_slice);
        Ok(if as_json { pretty(&answer["data"]) } else { table(tenants) })
    }

    /// The tenant, or an error when there is none.
    fn require(&self, id: &str) -> Result<Value, String> {
        let answer = self.server.call("GET", &path(id), &self.token, "")?;
        if answer.status == 404 {
            return Err(format!("there is no tenant {id}"));
        }
        Ok(read_answer(&answer)?["data"].clone())
    }

    fn create(&self, id: &str, secret: &Option<String>, fields: &[(String, Value)], as_json: bool) -> Result<String, String> {
        let found = self.server.call("GET", &path(id), &self.token, "")?;
        if found.status == 200 {
            return Err(format!("tenant {id} exists; use `ringcast tenant update`"));
        }
        let mut tenant = Map::from_iter(fields.iter().cloned());
        tenant.insert("external_id".to_owned(), id.into());
        tenant.entry("extensions").or_insert_with(|| json!([]));
        let mut generated = None;
        if let Some(secret) = secret {
            tenant.insert("jwt_secret".to_owned(), secret.as_str().into());
        } else if !tenant.contains_key("jwt_secret") && !tenant.contains_key("jwt_jwks") {
            let secret = random_secret()?;
            tenant.insert("jwt_secret".to_owned(), secret.as_str().into());
            generated = Some(secret);
        }
        let body = json!({ "tenant": tenant }).to_string();
        let answer = self.send("POST", "/api/tenants", &body)?;
        let mut text = shown(&answer["data"], as_json);
        if let Some(secret) = generated {
            if as_json {
                text = pretty(&json!({ "tenant": answer["data"], "jwt_secret": secret }));
            } else {
                text.push_str(&format!("jwt_secret {secret}\n(shown only now; ringcast token --secret ... uses it)\n"));
            }
        }
        Ok(text)
    }

    fn update(&self, id: &str, fields: &[(String, Value)], as_json: bool) -> Result<String, String> {
        self.require(id)?;
        let tenant = Map::from_iter(fields.iter().cloned());
        let body = json!({ "tenant": tenant }).to_string();
        let answer = self.send("PATCH", &path(id), &body)?;
        Ok(shown(&answer["data"], as_json))
    }
}

fn read_answer(answer: &Answer) -> Result<Value, String> {
    let body = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    match answer.status {
        200..=299 => Ok(body),
        403 => Err("the server refused the management token; set API_JWT_SECRET to the server's own".to_owned()),
        404 => Err("there is no such tenant".to_owned()),
        422 => Err(format!("not accepted: {}", body.get("errors").unwrap_or(&body))),
        status => Err(match body.get("message").and_then(Value::as_str) {
            Some(message) => format!("the server answered {status}: {message}"),
            None => format!("the server answered {status}"),
        }),
    }
}

fn path(id: &str) -> String {
    format!("/api/tenants/{}", utf8_percent_encode(id, PATH_SEGMENT))
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn shown(tenant: &Value, as_json: bool) -> String {
    if as_json { pretty(tenant) } else { table(std::slice::from_ref(tenant)) }
}

const COLUMNS: [(&str, &str); 7] = [
    ("EXTERNAL ID", "external_id"),
    ("NAME", "name"),
    ("USERS", "max_concurrent_users"),
    ("EVENTS/S", "max_events_per_second"),
    ("JOINS/S", "max_joins_per_second"),
    ("CHANNELS", "max_channels_per_client"),
    ("PRIVATE", "private_only"),
];

fn table(tenants: &[Value]) -> String {
    let header = COLUMNS.map(|(title, _)| title.to_owned());
    let cell = |tenant: &Value, key: &str| match &tenant[key] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let row = |tenant: &Value| COLUMNS.map(|(_, key)| cell(tenant, key));
    let mut rows: Vec<_> = tenants.iter().map(row).collect();
    rows.sort_unstable();
    rows.insert(0, header);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).filter_map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: String = cells.map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn random_secret() -> Result<String, String> {
    let mut bytes = [0_u8; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests;
