//! Makes the database tell about changes of tenants, whoever makes them: triggers that `NOTIFY` with the external id.
//!
//! Used once per process, by the opening; [`watch`](super::watch) listens. All objects begin with `ringcast_` and sit in the
//! registry's schema. A payload is the external id, or empty when all tenants may have changed or the id is too long to be told.
//! Where they cannot be made the server goes on and notices foreign changes when its cache expires.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::connection::reason;
use super::schema;

/// The channel of the notices.
pub(super) const CHANNEL: &str = "ringcast_tenants";

const FUNCTION: &str = "ringcast_notify_tenant";

/// The triggers' argument names the column with the external id. Payloads must stay under 8000 bytes, or the write that
/// causes the notice fails.
const BODY: &str = "
declare
  changed text;
begin
  if tg_level = 'STATEMENT' then
    perform pg_notify('ringcast_tenants', '');
    return null;
  end if;
  if tg_op <> 'INSERT' then
    changed := to_jsonb(old) ->> tg_argv[0];
    perform pg_notify('ringcast_tenants', case when octet_length(changed) < 7000 then changed else '' end);
  end if;
  if tg_op <> 'DELETE' then
    changed := to_jsonb(new) ->> tg_argv[0];
    perform pg_notify('ringcast_tenants', case when octet_length(changed) < 7000 then changed else '' end);
  end if;
  return null;
end
";

/// Trigger, table, events, and which level they fire at.
const TRIGGERS: [(&str, &str, &str); 4] = [
    ("ringcast_notify_tenant", "tenants", "after insert or update or delete on tenants for each row"),
    ("ringcast_notify_truncate", "tenants", "after truncate on tenants for each statement"),
    ("ringcast_notify_tenant", "extensions", "after insert or update or delete on extensions for each row"),
    ("ringcast_notify_truncate", "extensions", "after truncate on extensions for each statement"),
];

/// Makes what is missing in the schema the session's search path leads to.
///
/// # Errors
/// Of the connection only; a refusal by the server is logged.
pub(super) async fn ensure(client: &mut Client) -> Result<(), Error> {
    match install(client).await {
        Err(error) if error.as_db_error().is_some() => {
            let reason = reason(&error);
            tracing::warn!("changes others make to tenants are noticed when the cache expires: no triggers: {reason}");
            Ok(())
        }
        outcome => outcome,
    }
}

async fn install(client: &mut Client) -> Result<(), Error> {
    let transaction = schema::exclusive(client).await?;
    let source = "select prosrc from pg_proc where proname = $1 and pronargs = 0 \
        and pronamespace = (select oid from pg_namespace where nspname = current_schema())";
    let found = transaction.query_typed_opt(source, &[(&FUNCTION, Type::TEXT)]).await?;
    let found: Option<String> = found.map(|row| row.try_get(0)).transpose()?;
    if found.as_deref() != Some(BODY) {
        let function = format!(
            "create or replace function {FUNCTION}() returns trigger language plpgsql set search_path = pg_catalog as $body${BODY}$body$"
        );
        transaction.batch_execute(&function).await?;
    }
    let found = "select tgname::text, tgrelid = to_regclass('tenants') from pg_trigger \
        where tgrelid in (to_regclass('tenants'), to_regclass('extensions')) and not tgisinternal";
    let rows = transaction.query_typed(found, &[]).await?;
    let found = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    let found = found.collect::<Result<Vec<(String, bool)>, Error>>()?;
    for (name, table, events) in TRIGGERS {
        if !found.iter().any(|(found, is_tenants)| found == name && *is_tenants == (table == "tenants")) {
            let column = if table == "tenants" { "external_id" } else { "tenant_external_id" };
            let trigger = format!("create trigger {name} {events} execute function {FUNCTION}('{column}')");
            transaction.batch_execute(&trigger).await?;
        }
    }
    transaction.commit().await
}
