// A tenant with a database of its own, and the policies that the tests of this folder and of sdk/ decide by.
//
// The name of a topic says what may be done on it: `read-broadcast write-presence 7` may be read by broadcast and written by
// presence. Rows of `public.rights` grant the same and can be taken away again. The other branches are about claims, headers,
// errors and time.
import { after, before, describe } from 'node:test'
import { PASSWORD, startPostgres, SUPERUSER } from '../postgres.mjs'
import { SECRET, startServer, until } from '../server.mjs'
import { clientToken } from '../tokens.mjs'

export const POLICIES = `
  create table public.rights (topic text, extension text, action text);
  grant select on public.rights to anon, authenticated, service_role;

  create function public.refuse() returns boolean language plpgsql as
    $$ begin raise exception 'this policy has no opinion' using errcode = 'P0001'; end $$;
  create function public.nap() returns boolean language plpgsql as
    $$ begin perform pg_sleep(60); return true; end $$;

  create function public.allows(topic text, extension text, action text) returns boolean language sql stable as $$
    select position(action || '-' || extension in topic) > 0
      or exists (select from public.rights r where r.topic = $1 and r.extension = $2 and r.action = $3) $$;

  create policy test_read on realtime.messages for select to authenticated using (
    case split_part(realtime.topic(), ':', 1)
      when 'raise' then public.refuse()
      when 'sleep' then public.nap()
      when 'own' then realtime.topic() = 'own:' || (auth.uid())::text
      when 'plan' then auth.jwt() -> 'app' ->> 'plan' = split_part(realtime.topic(), ':', 2)
      when 'header' then current_setting('request.headers', true)::jsonb ->> 'x-pass' = split_part(realtime.topic(), ':', 2)
      when 'settings' then current_setting('request.jwt.claim.sub', true) = 'tester'
        and current_setting('request.jwt.claim.role', true) = 'authenticated' and current_user = 'authenticated'
        and messages.topic = realtime.topic()
      else public.allows(realtime.topic(), messages.extension, 'read')
    end);
  create policy test_write on realtime.messages for insert to authenticated with check (
    case split_part(realtime.topic(), ':', 1)
      when 'raise' then public.refuse()
      when 'raise-write read-broadcast' then public.refuse()
      when 'sleep' then public.nap()
      when 'own' then realtime.topic() = 'own:' || (auth.uid())::text
      when 'plan' then auth.jwt() -> 'app' ->> 'plan' = split_part(realtime.topic(), ':', 2)
      when 'header' then current_setting('request.headers', true)::jsonb ->> 'x-pass' = split_part(realtime.topic(), ':', 2)
      else public.allows(realtime.topic(), messages.extension, 'write')
    end);`

/** Everything is allowed on such a topic. */
export const FULL = 'read-broadcast write-broadcast read-presence write-presence'

/** The extension object of a tenant whose database is `database` on `postgres`; `settings` override. */
export const databaseExtension = (postgres, database, settings = {}) => ({
  type: 'postgres_cdc_rls',
  settings: {
    db_host: '127.0.0.1', db_port: String(postgres.port), db_name: database, db_user: SUPERUSER, db_password: PASSWORD,
    region: 'us-east-1', ssl_enforced: false, ...settings,
  },
})

/** Creates the tenant `id` on `server` with that database. */
export const createDatabaseTenant = (server, postgres, id, database, { settings, ...fields } = {}) =>
  server.createTenant(id, { extensions: [databaseExtension(postgres, database, settings)], ...fields })

/** Health of a tenant as the management API tells it. */
export async function health(server, id) {
  const response = await server.api('GET', `/${id}/health`)
  return (await response.json()).data
}

/**
 * Makes the database `id` and the tenant of the same name, has the server connect and migrate it, adds the policies above and
 * waits for the replication stream. Returns {id, query, client}: SQL in that database.
 */
export async function readyTenant(server, postgres, id, options = {}) {
  await postgres.database(id)
  await createDatabaseTenant(server, postgres, id, id, options)
  const query = (sql, parameters) => postgres.query(sql, id, parameters)
  await connected(server, id)
  await query(POLICIES)
  await streaming(server, id)
  return { id, query, client: () => postgres.client(id) }
}

/** Has the server connect the tenant's database, and waits until it has. */
export async function connected(server, id) {
  // Nobody hears it.
  await postPrivate(server, id, 'nobody')
  await until(async () => (await health(server, id)).db_connected, `the database of ${id} is connected`, { timeout: 20_000 })
}

/** Waits until what is written to the tenant's database reaches clients. */
export const streaming = (server, id, options = { timeout: 20_000 }) =>
  until(async () => (await health(server, id)).replication_connected, `the database of ${id} is streamed`, options)

/** Sends one private broadcast over HTTP: [status, text of the answer]. */
export async function postPrivate(server, id, room) {
  const response = await server.request(`/api/broadcast/${encodeURIComponent(room)}/events/tick?private=true`, {
    tenant: id, method: 'POST', body: '{}', signal: AbortSignal.timeout(25_000),
    headers: { authorization: `Bearer ${clientToken(SECRET)}`, 'content-type': 'application/json' },
  })
  return [response.status, await response.text()]
}

/** Elapsed milliseconds and the result of `work`. */
export async function timed(work) {
  const started = Date.now()
  const result = await work()
  return [Date.now() - started, result]
}

/** A suite with a Postgres and a server of its own. `define` gets {server(), postgres()}. */
export function withDatabase(title, { version, settings, env, shards = 1, concurrency = false } = {}, define) {
  describe(title, { concurrency }, () => {
    let postgres
    let server
    before(async () => {
      postgres = await startPostgres({ version, settings })
      // Roles belong to the whole cluster: tests that make databases side by side must not make them at once.
      await postgres.database('roles')
      server = await startServer({ shards, env })
    })
    after(async () => {
      await server?.stop()
      await postgres?.remove()
    })
    define({ server: () => server, postgres: () => postgres })
  })
}
