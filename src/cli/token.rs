//! `ringcast token`: makes an HS256 token a client of the development tenant can use.
//!
//! The signing secret must be the tenant's; without `--secret` it is that of the seeded tenant, so the
//! printed token works at once against `ringcast dev`.

use clap::Args;
use serde_json::{Map, Value};

use super::{parse_pair, secret_of};
use crate::{base::clock, control::tenants::seed::WELL_KNOWN_SECRET, protocol::jwt};

/// A year: development tokens end up in files that nobody wants to edit.
const EXP_SECS_DEFAULT: u64 = 365 * 86_400;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct TokenFlags {
    /// Claim `role`: anon, authenticated, service_role or any other database role
    #[arg(long, default_value = "anon")]
    role: String,
    /// Claim `sub`: the user's id
    #[arg(long)]
    sub: Option<String>,
    /// Seconds until the token expires
    #[arg(long, default_value_t = EXP_SECS_DEFAULT)]
    exp_secs: u64,
    /// Another claim, KEY=VALUE; VALUE is JSON where it can be. May be repeated
    #[arg(long = "claim", value_name = "KEY=VALUE", value_parser = parse_pair)]
    claims: Vec<(String, Value)>,
    /// The tenant's JWT secret [default: $API_JWT_SECRET or the development secret]
    #[arg(long)]
    secret: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  ringcast token
  ringcast token --role authenticated --sub 7f3c... --exp-secs 3600
  ringcast token --claim email=a@b.example --claim 'app_metadata={\"team\":4}'
  TOKEN=$(ringcast token --role service_role --secret \"$TENANT_SECRET\")";

/// The token as text.
pub(super) fn run(flags: &TokenFlags, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let secret = secret_of(&flags.secret, env);
    let secret = secret.as_deref().unwrap_or(WELL_KNOWN_SECRET);
    let claims = claims(flags, clock::unix_secs())?;
    Ok(jwt::sign_hs256(&Value::Object(claims), secret))
}

/// A one-year `anon` token, for the welcome of `ringcast dev`.
pub(super) fn anon(secret: &str, now_secs: u64) -> String {
    let claims = serde_json::json!({
        "role": "anon",
        "iat": now_secs,
        "exp": now_secs + EXP_SECS_DEFAULT,
    });
    jwt::sign_hs256(&claims, secret)
}

fn claims(flags: &TokenFlags, now_secs: u64) -> Result<Map<String, Value>, String> {
    let exp = now_secs.checked_add(flags.exp_secs).ok_or("--exp-secs is too large")?;
    let mut claims = Map::new();
    claims.insert("role".to_owned(), flags.role.as_str().into());
    claims.insert("iat".to_owned(), now_secs.into());
    claims.insert("exp".to_owned(), exp.into());
    if let Some(sub) = &flags.sub {
        claims.insert("sub".to_owned(), sub.as_str().into());
    }
    claims.extend(flags.claims.iter().cloned());
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: TokenFlags,
    }

    fn claims_of(arguments: &[&str]) -> Map<String, Value> {
        let line = [&["token"], arguments].concat();
        claims(&Line::parse_from(line).flags, 1_000).expect("valid")
    }

    #[test]
    fn defaults_are_an_anon_token_for_a_year() {
        let claims = claims_of(&[]);
        assert_eq!(claims["role"], "anon");
        assert_eq!(claims["exp"], 1_000 + 31_536_000);
        assert!(!claims.contains_key("sub"));
    }

    #[test]
    fn flags_become_claims_and_given_claims_win() {
        let claims =
            claims_of(&["--role", "authenticated", "--sub", "u1", "--exp-secs", "60", "--claim", "n=5", "--claim", "exp=7"]);
        assert_eq!(claims["sub"], "u1");
        assert_eq!(claims["n"], 5);
        assert_eq!(claims["exp"], 7);
    }

    #[test]
    fn an_expiry_past_the_end_of_time_is_refused() {
        let line = ["token", "--exp-secs", "18446744073709551615"];
        assert!(claims(&Line::parse_from(line).flags, 1_000).is_err());
    }
}
