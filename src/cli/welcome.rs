//! The text `ringcast dev` shows once it listens: where to connect, a token that works, what is on.
//!
//! Boot prints it after the listener is bound, because only then the port is known. It shows a token
//! of the seeded tenant; that is why it is limited to development and is never a log line.

use crate::{base::clock, config::Config, control::tenants::seed::WELL_KNOWN_SECRET};

/// The whole banner. `port` is the one that is really listened on, `database` says where the tenant's database is, or why
/// there is none.
pub fn banner(config: &Config, port: u16, has_database: bool, database: &str) -> String {
    let with_database = if has_database { "on" } else { "off: no database" };
    let secret = config.api_jwt_secret.as_deref();
    let secret = secret.unwrap_or(WELL_KNOWN_SECRET);
    let token = super::token::anon(secret, clock::unix_secs());
    let tenant = &config.self_host_tenant_name;
    // Not every resolver knows names below localhost; the development server answers on localhost itself.
    let host = match &config.loopback_tenant {
        Some(loopback) if loopback == tenant => format!("localhost:{port}"),
        _ => format!("{tenant}.localhost:{port}"),
    };
    format!(
        "\n\
         ringcast {version} is ready\n\
         \n\
         \x20 WebSocket         ws://{host}/socket\n\
         \x20 Broadcast (HTTP)  http://{host}/api/broadcast\n\
         \x20 Tenants           http://127.0.0.1:{port}/api/tenants  (ringcast tenant list)\n\
         \x20 Metrics           http://127.0.0.1:{port}/metrics\n\
         \x20 Health            http://127.0.0.1:{port}/healthcheck\n\
         \n\
         \x20 Broadcast         on\n\
         \x20 Presence          on\n\
         \x20 Private channels  {with_database}\n\
         \x20 Broadcast by SQL  {with_database}\n\
         \x20 Postgres Changes  {with_database}\n\
         \x20 Database          {database}\n\
         \n\
         \x20 anon token of tenant {tenant} (valid for a year; ringcast token makes others):\n\
         \x20 {token}\n\
         \n\
         \x20 import {{ RealtimeClient }} from '@supabase/realtime-js'\n\
         \x20 const client = new RealtimeClient('ws://{host}/socket',\n\
         \x20   {{ params: {{ apikey: '<the token above>' }} }})\n\
         \x20 const room = client.channel('room:1')\n\
         \x20 room.on('broadcast', {{ event: '*' }}, (message) => console.log(message))\n\
         \x20   .subscribe((status) => console.log(status))\n\
         \n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_url_tenant_token_and_features() {
        let text = banner(&Config::defaults(), 4123, false, "none: no Postgres");
        assert!(text.contains("ws://realtime-dev.localhost:4123/socket\n"));
        assert!(text.contains("\n  eyJ"), "a token on its own line");
        assert!(text.contains("Postgres Changes  off: no database"));
        assert!(text.lines().all(|line| line.len() < 100 || line.contains("eyJ")));
    }

    #[test]
    fn the_tenant_and_the_loopback_name_show() {
        let env = |name: &str| match name {
            "SELF_HOST_TENANT_NAME" => Some("shop".to_owned()),
            _ => None,
        };
        let text = banner(&Config::load(&env, None).expect("valid"), 4000, true, "here");
        assert!(text.contains("ws://shop.localhost:4000/socket"));
        let env = |name: &str| (name == "RINGCAST_LOOPBACK_TENANT").then(|| "realtime-dev".to_owned());
        let text = banner(&Config::load(&env, None).expect("valid"), 4000, true, "here");
        assert!(text.contains("ws://localhost:4000/socket"));
    }
}
