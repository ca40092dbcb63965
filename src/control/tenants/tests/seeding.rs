//! Seeded tenants.

use super::*;
use crate::control::tenants::seed::{Seed, SeedDatabase, WELL_KNOWN_SECRET};

#[test]
fn the_development_tenant_has_no_database() {
    let tenant = Seed::default().tenant(context(&cipher())).unwrap();
    assert_eq!(tenant.external_id, "realtime-dev");
    assert_eq!(tenant.jwt_secret_plain(&cipher()).unwrap().as_deref(), Some(WELL_KNOWN_SECRET));
    assert!(tenant.database().is_none());
    assert_eq!(tenant.max_concurrent_users, 11);
}

#[test]
fn the_self_host_tenant_has_the_reference_settings() {
    let seed = Seed {
        external_id: Some("mine".to_owned()),
        jwt_secret: Some("env secret".to_owned()),
        jwt_jwks: Some(json!({"keys": []})),
        database: Some(SeedDatabase::default()),
    };
    let tenant = seed.tenant(context(&cipher())).unwrap();
    assert_eq!(tenant.name.as_deref(), Some("mine"));
    assert_eq!(tenant.jwt_secret_plain(&cipher()).unwrap().as_deref(), Some("env secret"));
    assert_eq!(tenant.jwt_jwks, Some(json!({"keys": []})));
    let database = tenant.database().unwrap();
    let text = |name| database.text(name, &cipher()).unwrap().unwrap();
    assert_eq!([text("db_host"), text("db_port"), text("db_user")], ["host.docker.internal", "5433", "supabase_admin"]);
    assert_eq!(database.settings["ssl_enforced"], false);
    assert_eq!(database.settings["slot_name"], "supabase_realtime_replication_slot");
}
