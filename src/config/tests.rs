//! The rules of operations 2 and of tuning profiles, by their observable result.

use super::{knobs::Place, *};

fn with(vars: &[(&str, &str)], profile: Option<&str>) -> Result<Config, ConfigError> {
    let env = |name: &str| vars.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned());
    Config::load(&env, profile.map(|text| ("tuning/test.toml", text)))
}

fn env(vars: &[(&str, &str)]) -> Config {
    with(vars, None).expect("valid environment")
}

fn refused(vars: &[(&str, &str)]) -> String {
    with(vars, None).expect_err("must be refused").to_string()
}

fn profile(text: &str) -> Result<Config, ConfigError> {
    with(&[], Some(text))
}

fn refused_profile(text: &str) -> String {
    profile(text).expect_err("must be refused").to_string()
}

fn source_of(config: &Config, name: &str) -> String {
    let explained = config.explain();
    let found = explained.iter().find(|e| e.knob.name == name);
    let found = found.expect("known knob");
    format!("{} ({})", found.value, found.source)
}

#[test]
fn nothing_set_starts_with_the_documented_defaults() {
    let config = Config::defaults();
    assert_eq!(config.port, 4000);
    assert_eq!(config.max_connections, 16_384);
    assert_eq!(config.outbox_bytes_max, 50_000_000);
    assert_eq!(config.tenant_defaults.max_concurrent_users, 200);
    assert_eq!(config.self_host_tenant_name, "realtime-dev");
    assert_eq!(config.state_dir, PathBuf::from("./.ringcast"));
    assert_eq!((config.shards, config.cores.clone()), (None, None));
    assert_eq!(config.spread, Spread::Auto);
    assert_eq!(config.db.host, None);
    assert_eq!(config.node_name, "realtime");
    assert!(!config.seed_self_host);
    assert!(config.warnings.is_empty());
}

#[test]
fn integers_are_strict_and_the_variable_is_named() {
    assert_eq!(env(&[("PORT", "8080")]).port, 8080);
    for bad in ["", "80x", "4_000", "0x50", " 80", "8.0", "-"] {
        let message = refused(&[("PORT", bad)]);
        assert!(message.starts_with("PORT: "), "{message}");
        assert!(message.contains("0 to 65535"), "{message}");
    }
    assert!(refused(&[("PORT", "65536")]).contains("out of range"));
    assert!(refused(&[("PORT", "-1")]).contains("out of range"));
    let huge = "99999999999999999999999";
    assert!(refused(&[("MAX_CONNECTIONS", huge)]).contains("out of range"));
}

#[test]
fn booleans_are_four_words_in_any_case_with_blanks() {
    for on in ["true", "TRUE", " 1 ", "True\n"] {
        let config = env(&[("DISABLE_HEALTHCHECK_LOGGING", on)]);
        assert!(config.disable_healthcheck_logging, "{on:?}");
    }
    for off in ["false", "0", " FALSE"] {
        assert!(!env(&[("DB_SSL", off)]).db.ssl, "{off:?}");
    }
    for bad in ["yes", "on", "", "2"] {
        assert!(refused(&[("DB_SSL", bad)]).starts_with("DB_SSL: "), "{bad:?}");
    }
}

#[test]
fn the_seed_switch_is_exactly_true() {
    assert!(env(&[("SEED_SELF_HOST", "true")]).seed_self_host);
    for off in ["TRUE", "1", "yes", " true"] {
        assert!(!env(&[("SEED_SELF_HOST", off)]).seed_self_host, "{off}");
    }
}

#[test]
fn lists_are_trimmed() {
    let config = env(&[("API_TOKEN_BLOCKLIST", " a , b,,c ")]);
    let tokens: Vec<&str> = config.api_token_blocklist.iter().map(|t| &**t).collect();
    assert_eq!(tokens, ["a", "b", "c"]);
}

#[test]
fn claim_validators_must_be_an_object() {
    let config = env(&[("JWT_CLAIM_VALIDATORS", r#"{"iss":"me"}"#)]);
    assert_eq!(config.jwt_claim_validators["iss"], "me");
    for bad in ["[]", "1", "{", "null"] {
        let message = refused(&[("JWT_CLAIM_VALIDATORS", bad)]);
        assert!(message.starts_with("JWT_CLAIM_VALIDATORS: "), "{message}");
    }
}

#[test]
fn cipher_keys_have_exact_lengths() {
    let key = "0123456789abcdef0123456789abcdef";
    let config = env(&[("DB_ENC_KEY_GCM", key), ("DB_ENC_WRITE_GCM", "true")]);
    assert!(config.db_enc_write_gcm && config.warnings.is_empty());
    let stored = config.db_enc_key_gcm.expect("set");
    assert_eq!(&stored.bytes()[..], key.as_bytes());
    assert!(refused(&[("DB_ENC_KEY_GCM", "short")]).contains("exactly 32 bytes"));
}

#[test]
fn writing_with_a_missing_key_is_off_with_a_warning() {
    let config = env(&[("DB_ENC_WRITE_GCM", "1")]);
    assert!(!config.db_enc_write_gcm);
    assert!(config.warnings[0].contains("DB_ENC_KEY_GCM"));
}

#[test]
fn closed_sets_reject_other_words() {
    assert_eq!(env(&[("REALTIME_IP_VERSION", "ipv6")]).ip_version, IpVersion::V6);
    assert_eq!(env(&[("LOG_LEVEL", "critical")]).log_level, LogLevel::Critical);
    assert!(refused(&[("LOG_LEVEL", "loud")]).contains("debug, info, notice"));
    assert!(refused(&[("DB_IP_VERSION", "ipv5")]).starts_with("DB_IP_VERSION: "));
    assert_eq!(env(&[("RINGCAST_SPREAD", "all")]).spread, Spread::All);
    assert_eq!(env(&[("RINGCAST_SPREAD", "3")]).spread, Spread::Shards(3));
    assert!(refused(&[("RINGCAST_SPREAD", "0")]).contains("auto, all"));
}

#[test]
fn trusted_proxies_are_addresses_or_networks() {
    let config = env(&[("RINGCAST_TRUSTED_PROXIES", "10.0.0.0/8, ::1,fd00::/8")]);
    assert_eq!(config.trusted_proxies, ["10.0.0.0/8", "::1", "fd00::/8"]);
    for bad in ["10.0.0.0/33", "example.com", "::1/129", "10.0.0/8", "::1/"] {
        let message = refused(&[("RINGCAST_TRUSTED_PROXIES", bad)]);
        assert!(message.starts_with("RINGCAST_TRUSTED_PROXIES: "), "{message}");
    }
}

#[test]
fn empty_texts_count_as_unset() {
    let config = env(&[("API_JWT_SECRET", ""), ("DB_ENC_KEY_GCM", ""), ("APP_NAME", ""), ("API_JWT_JWKS", "")]);
    assert_eq!(config.api_jwt_secret, None);
    assert_eq!(config.app_name, "realtime");
    assert_eq!(source_of(&config, "app_name"), "realtime (default)");
}

#[test]
fn environment_beats_profile_beats_default() {
    let text = "# comment\nport = 5000\nring_entries = 1_024\n";
    let config = with(&[("PORT", "6000")], Some(text)).expect("valid");
    assert_eq!((config.port, config.ring_entries), (6000, 1024));
    assert_eq!(source_of(&config, "port"), "6000 (environment PORT)");
    let from_profile = "1024 (profile tuning/test.toml:3)";
    assert_eq!(source_of(&config, "ring_entries"), from_profile);
    assert_eq!(source_of(&config, "backlog"), "4096 (default)");
}

#[test]
fn a_flag_beats_everything_and_a_fallback_nothing() {
    let flag = |fallback| FlagValue { knob: "port", flag: "--port", value: "7000".to_owned(), fallback };
    let env = |name: &str| (name == "PORT").then(|| "6000".to_owned());
    let profile = Some(("p.toml", "port = 5000"));
    let source = |env: &dyn Fn(&str) -> Option<String>, profile, fallback| {
        let config = Config::load_with_flags(env, profile, &[flag(fallback)]);
        source_of(&config.expect("valid"), "port")
    };
    assert_eq!(source(&env, profile, false), "7000 (flag --port)");
    assert_eq!(source(&env, profile, true), "6000 (environment PORT)");
    assert_eq!(source(&|_| None, profile, true), "5000 (profile p.toml:1)");
    assert_eq!(source(&|_| None, None, true), "7000 (flag --port)");
}

#[test]
fn profile_values_have_toml_types() {
    let text = "shards = 2\ncores = \"0,2-3\"\nspread = 4\nproxy_protocol = true\n\
                trusted_proxies = [\"10.0.0.0/8\", \"::1\"]\n";
    let config = profile(text).expect("valid");
    assert_eq!(config.shards, Some(2));
    assert_eq!(config.cores, Some(vec![0, 2, 3]));
    assert_eq!(config.spread, Spread::Shards(4));
    assert!(config.proxy_protocol);
    assert_eq!(config.trusted_proxies.len(), 2);
    let from_array = profile("cores = [1, \"4-5\"]").expect("valid");
    assert_eq!(from_array.cores, Some(vec![1, 4, 5]));
}

#[test]
fn wrong_types_name_file_line_and_range() {
    let message = refused_profile("port = 1\n\nbacklog = \"many\"");
    assert!(message.starts_with("tuning/test.toml:3: "), "{message}");
    assert!(message.contains("`backlog` must be an integer, not string"), "{message}");
    assert!(message.contains("1 to 1048576"), "{message}");
    assert!(refused_profile("proxy_protocol = 1").contains("true or false"));
    assert!(refused_profile("[listener]\nport = 1").contains("unknown key `listener`"));
}

#[test]
fn out_of_range_in_a_profile_names_line_and_range() {
    let message = refused_profile("\nring_entries = 7");
    assert!(message.starts_with("tuning/test.toml:2: `ring_entries`"), "{message}");
    assert!(message.contains("64 to 32768"), "{message}");
}

#[test]
fn unknown_keys_suggest_the_nearest() {
    let message = refused_profile("# x\nring_entires = 4096");
    assert!(message.starts_with("tuning/test.toml:2: "), "{message}");
    assert!(message.contains("did you mean `ring_entries`?"), "{message}");
    assert!(refused_profile("RINGCAST_SHARDS = 2").contains("`shards`"));
    let far = refused_profile("colour = 1");
    assert!(far.contains("unknown key `colour`") && !far.contains("mean"), "{far}");
}

#[test]
fn secrets_do_not_belong_in_a_profile() {
    let message = refused_profile("api_jwt_secret = \"x\"");
    assert!(message.contains("environment variable API_JWT_SECRET"), "{message}");
}

#[test]
fn broken_toml_names_its_line() {
    let message = refused_profile("port = 4000\nbacklog = = 3\n");
    assert!(message.starts_with("tuning/test.toml:2: "), "{message}");
    assert!(refused_profile("port = 1\nport = 2").starts_with("tuning/test.toml:2: "));
}

#[test]
fn secrets_never_show() {
    let config = env(&[
        ("API_JWT_SECRET", "top-secret-text"),
        ("API_TOKEN_BLOCKLIST", "blocked-text"),
        ("DB_ENC_KEY", "0123456789abcdef"),
        ("DB_PASSWORD", "hunter2"),
    ]);
    let mut shown = format!("{config:?}");
    for explained in config.explain() {
        shown.push_str(&explained.value);
    }
    for secret in ["top-secret-text", "blocked-text", "0123456789abcdef", "hunter2"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    let shown = source_of(&config, "api_jwt_secret");
    assert_eq!(shown, "<set> (environment API_JWT_SECRET)");
    assert_eq!(source_of(&config, "metrics_jwt_secret"), "<unset> (default)");
    assert_eq!(config.api_jwt_secret.as_deref(), Some("top-secret-text"));
}

#[test]
fn vm_variables_are_silent_but_still_checked() {
    let config = env(&[("NUM_ACCEPTORS", "10"), ("RELEASE_COOKIE", "x"), ("ERL_AFLAGS", "")]);
    assert_eq!(config.inert, ["NUM_ACCEPTORS", "RELEASE_COOKIE"]);
    assert!(config.warnings.is_empty());
    assert!(refused(&[("NUM_ACCEPTORS", "ten")]).starts_with("NUM_ACCEPTORS: "));
}

#[test]
fn variables_of_absent_features_warn() {
    let config = env(&[("METRICS_PUSHER_ENABLED", "true")]);
    assert!(config.warnings[0].starts_with("METRICS_PUSHER_ENABLED"));
    assert!(refused(&[("METRICS_PUSHER_COMPRESS", "maybe")]).starts_with("METRICS_PUSHER_COMPRESS: "));
    assert!(refused(&[("REGION_MAPPING", "[]")]).starts_with("REGION_MAPPING: "));
    let half = refused(&[("HTTP_DYNAMIC_BUFFER_MAX", "1024")]);
    assert!(half.contains("set together"), "{half}");
}

#[test]
fn dependent_defaults_follow_their_source() {
    let config = env(&[("APP_NAME", "edge"), ("REGION", "us-east-1")]);
    assert_eq!(config.node_name, "edge");
    assert_eq!(config.db.master_region.as_deref(), Some("us-east-1"));
}

#[test]
fn bind_and_family_must_agree() {
    let vars = [("RINGCAST_BIND", "::1"), ("REALTIME_IP_VERSION", "ipv4")];
    assert!(refused(&vars).starts_with("RINGCAST_BIND: "));
    assert!(env(&[("RINGCAST_BIND", "127.0.0.1")]).bind.is_some());
}

#[test]
fn cores_are_assigned_in_turn() {
    let allowed = [0, 1, 2, 3];
    let plan = |vars: &[(&str, &str)]| env(vars).core_plan(&allowed);
    assert_eq!(plan(&[]).expect("all").shard_cores, [0, 1, 2, 3]);
    let vars = [("RINGCAST_CORES", "1,3"), ("RINGCAST_SHARDS", "3")];
    let chosen = plan(&vars).expect("allowed");
    assert_eq!(chosen.shard_cores, [1, 3, 1]);
    assert_eq!(chosen.cores, [1, 3]);
    let error = plan(&[("RINGCAST_CORES", "2,9")]).expect_err("9 is not there");
    assert_eq!(error.place, "RINGCAST_CORES");
    assert!(error.message.contains("CPU 9") && error.message.contains("0-3"));
}

#[test]
fn the_table_is_consistent() {
    for (index, knob) in KNOBS.iter().enumerate() {
        for other in &KNOBS[..index] {
            assert_ne!(knob.name, other.name);
            assert_ne!(knob.env, other.env);
        }
        assert!(knob.doc.ends_with('.'), "{}: {}", knob.name, knob.doc);
        let hidden = knob.kind.is_secret();
        assert!(!hidden || knob.place == Place::Environment, "{}", knob.name);
    }
    assert_eq!(env(&[]).explain().len(), KNOBS.len());
}

#[test]
fn the_shipped_profiles_load_and_explain_every_knob() {
    for text in [include_str!("../../tuning/dev.toml"), include_str!("../../tuning/small.toml")] {
        profile(text).expect("a shipped profile is valid");
        for knob in KNOBS.iter().filter(|knob| knob.place == Place::Both) {
            let written = text.lines().any(|line| {
                let line = line.trim_start_matches(['#', ' ']);
                line.strip_prefix(knob.name).is_some_and(|rest| rest.trim_start().starts_with('='))
            });
            assert!(written, "`{}` is not in the profile", knob.name);
        }
    }
}
