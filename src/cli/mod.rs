//! The command line: what each subcommand does is in the file of its name.
//!
//! `run` parses the arguments and dispatches. Without a subcommand the server starts, so that the
//! binary works as a container's entry point. Errors go to standard error as one sentence, results to
//! standard output. Exit codes: 0 done, 1 failed, 2 wrong usage (from the parser).

mod check;
mod http_client;
mod tenant;
mod token;
pub mod welcome;

use std::{io::Write as _, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    boot::{self, Mode},
    config::{Config, FlagValue},
    control::tenants::seed::{DEFAULT_EXTERNAL_ID, WELL_KNOWN_SECRET},
};

/// A gateway that speaks the Supabase Realtime protocol.
#[derive(Debug, Parser)]
#[command(name = "ringcast", version, after_help = TOP_EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

const TOP_EXAMPLES: &str = "\
Start here:
  ringcast dev                  a local server with a ready token and a client snippet
  ringcast check                what this host allows and every effective setting
  ringcast token --role anon    a token for the development tenant

Without a subcommand ringcast serves. Settings are environment variables (PORT, API_JWT_SECRET,
RINGCAST_STATE_DIR, ...) and a tuning profile (RINGCAST_PROFILE); `ringcast check` lists them all.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default).
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServerFlags),
    /// Run the server for local development: loopback only, known secrets, a welcome.
    #[command(after_help = DEV_EXAMPLES)]
    Dev(DevFlags),
    /// Report what the kernel, the limits and the configuration allow, and how to fix it.
    Check(check::CheckFlags),
    /// Make a JWT for a client.
    Token(token::TokenFlags),
    /// List, create, change or delete tenants of a running server.
    Tenant(tenant::TenantFlags),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  API_JWT_SECRET=... METRICS_JWT_SECRET=... ringcast serve
  ringcast serve --profile small
  ringcast serve --port 8080 --profile /etc/ringcast/edge.toml";

const DEV_EXAMPLES: &str = "\
Examples:
  ringcast dev
  ringcast dev --port 4100
  ringcast dev --no-postgres

Differs from `serve` in what is not set otherwise: RINGCAST_BIND is 127.0.0.1, API_JWT_SECRET and
METRICS_JWT_SECRET are the publicly known development secret, lines are text. Where Postgres
programs are on the machine (RINGCAST_POSTGRES_BIN names their folder), a private instance is kept
in the state folder and given to the development tenant; it stops with the server.";

#[derive(Debug, Default, Args)]
struct DevFlags {
    #[command(flatten)]
    server: ServerFlags,
    /// Do not start a private Postgres: Broadcast and Presence on public channels only
    #[arg(long)]
    no_postgres: bool,
}

#[derive(Debug, Default, Args)]
struct ServerFlags {
    /// TCP port to listen on [default: $PORT or 4000]
    #[arg(long)]
    port: Option<u16>,
    /// Tuning profile, a name (tuning/NAME.toml) or a path [default: $RINGCAST_PROFILE]
    #[arg(long)]
    profile: Option<String>,
}

impl ServerFlags {
    fn values(&self) -> Vec<FlagValue> {
        let port = self.port.map(|port| flag("port", "--port", port.to_string()));
        port.into_iter().chain(profile_flag(&self.profile)).collect()
    }
}

/// Parses the arguments of the process and does what they ask.
pub fn run() -> ExitCode {
    let command = Cli::parse().command;
    let done = match command.unwrap_or(Command::Serve(ServerFlags::default())) {
        Command::Serve(flags) => serve(&flags),
        Command::Dev(flags) => dev(&flags),
        Command::Check(flags) => return check::run(&flags),
        Command::Token(flags) => token::run(&flags, &process_env).map(|token| print_out(&token)),
        Command::Tenant(flags) => tenant::run(&flags, &process_env).map(|text| print_out(&text)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

fn serve(flags: &ServerFlags) -> Result<(), String> {
    let config = Config::from_process_with(&flags.values()).map_err(|e| e.to_string())?;
    boot::serve(config, Mode::Service)
}

fn dev(flags: &DevFlags) -> Result<(), String> {
    let mut values = flags.server.values();
    values.extend(dev_defaults());
    let config = Config::from_process_with(&values).map_err(|e| e.to_string())?;
    boot::serve(config, Mode::Development { with_postgres: !flags.no_postgres })
}

/// Settings of `ringcast dev` that neither the environment nor the profile makes.
fn dev_defaults() -> impl Iterator<Item = FlagValue> {
    [
        ("bind", "127.0.0.1"),
        ("loopback_tenant", DEFAULT_EXTERNAL_ID),
        ("log_format", "text"),
        ("api_jwt_secret", WELL_KNOWN_SECRET),
        ("metrics_jwt_secret", WELL_KNOWN_SECRET),
    ]
    .into_iter()
    .map(|(knob, value)| FlagValue { knob, flag: "ringcast dev", value: value.to_owned(), fallback: true })
}

fn profile_flag(profile: &Option<String>) -> Option<FlagValue> {
    let value = profile.clone()?;
    Some(flag("profile", "--profile", value))
}

fn flag(knob: &'static str, flag: &'static str, value: String) -> FlagValue {
    FlagValue { knob, flag, value, fallback: false }
}

fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The secret of management tokens and of the seed tenant: the flag, else the environment.
fn secret_of(given: &Option<String>, env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    given.clone().or_else(|| env("API_JWT_SECRET")).filter(|secret| !secret.is_empty())
}

/// `KEY=VALUE` with VALUE as JSON where it is JSON, else as text.
fn parse_pair(text: &str) -> Result<(String, serde_json::Value), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
            Ok((key.to_owned(), value))
        }
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

/// Prints a result; a reader that went away (`| head`) is not an error.
fn print_out(text: &str) {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    let _ = write!(std::io::stdout(), "{text}{newline}");
}

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "ringcast: {message}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        assert!(Cli::parse_from(["ringcast"]).command.is_none());
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        assert_eq!(parse_pair("n=5"), Ok(("n".to_owned(), 5.into())));
        assert_eq!(parse_pair("s=a=b"), Ok(("s".to_owned(), "a=b".into())));
        assert_eq!(parse_pair("q=\"5\""), Ok(("q".to_owned(), "5".into())));
        assert!(parse_pair("n").is_err() && parse_pair("=1").is_err());
    }

    #[test]
    fn dev_is_local_and_has_known_secrets_unless_told_otherwise() {
        let load = |env: &dyn Fn(&str) -> Option<String>| {
            let values: Vec<FlagValue> = dev_defaults().collect();
            Config::load_with_flags(env, None, &values).expect("valid")
        };
        let config = load(&|_| None);
        assert_eq!(config.api_jwt_secret.as_deref(), Some(WELL_KNOWN_SECRET));
        assert!(config.bind.is_some_and(|address| address.is_loopback()));
        let own = load(&|name| (name == "API_JWT_SECRET").then(|| "own".to_owned()));
        assert_eq!(own.api_jwt_secret.as_deref(), Some("own"));
    }
}
