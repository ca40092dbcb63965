//! The database of the development tenant: everything a newcomer needs is there before the first client connects.

use time::OffsetDateTime;

use super::database::{connect::connect, migrations, partitions, settings::DatabaseSettings};
use super::tenants::seed::SeedDatabase;
use crate::local_postgres::{bootstrap_sql, demo_policies_sql, demo_sql};

/// Roles, the server's own objects, the demo's table and its policies. May be run again.
///
/// # Errors
/// One sentence for the user.
pub async fn prepare(database: &SeedDatabase) -> Result<(), String> {
    let settings = DatabaseSettings::from_plain(&database.settings()).map_err(|error| error.to_string())?;
    let mut session = connect(&settings, "realtime_migrations").await.map_err(|error| error.to_string())?;
    let failed = |what: &str, error: &dyn std::fmt::Display| format!("{what} could not be made: {error}");
    session.batch_execute(bootstrap_sql()).await.map_err(|error| failed("the roles", &error))?;
    migrations::run(&mut session).await.map_err(|error| error.to_string())?;
    // A missing partition is logged where it is missed, and made by the server's own schedule.
    let _ = partitions::create(&session, OffsetDateTime::now_utc().date()).await;
    for sql in [demo_sql(), demo_policies_sql()] {
        session.batch_execute(sql).await.map_err(|error| failed("the demo's tables and policies", &error))?;
    }
    Ok(())
}
