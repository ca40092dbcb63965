// What a server installs in a tenant's database, and what it leaves alone (database 4, 5 and 13).
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { newestPrograms, startPostgres } from '../postgres.mjs'
import { startServer, until } from '../server.mjs'
import { Member } from './member.mjs'
import { connected, createDatabaseTenant, health, POLICIES, streaming } from './tenant.mjs'

const MIGRATIONS = 81
const PARTITION_DAYS = [-1, 0, 1, 2, 3]
const ROOM = 'read-broadcast 1'

const partitionOf = (days) => `messages_${new Date(Date.now() + days * 86_400_000).toISOString().slice(0, 10).replaceAll('-', '_')}`

/** Every catalog row of the schema with the transaction that wrote it: equal before and after means that nothing was touched. */
const FINGERPRINT = `
  select 'relation ' || oid::regclass as what, xmin::text from pg_class where relnamespace = 'realtime'::regnamespace
  union all select 'function ' || oid::regprocedure, xmin::text from pg_proc where pronamespace = 'realtime'::regnamespace
  union all select 'type ' || oid::regtype, xmin::text from pg_type where typnamespace = 'realtime'::regnamespace
  union all select 'constraint ' || conrelid::regclass || conname, xmin::text from pg_constraint where connamespace = 'realtime'::regnamespace
  union all select 'policy ' || polname, xmin::text from pg_policy
  union all select 'publication ' || pubname, xmin::text from pg_publication
  union all select 'version ' || version, xmin::text from realtime.schema_migrations
  order by 1`

/** The functions, tables, columns and owners of the schema, without the history of how they came about. */
const SHAPE = `
  select 'function ' || oid::regprocedure as what, proowner::regrole || ' ' || md5(prosrc) || ' ' || coalesce(proacl::text, '') as how
  from pg_proc where pronamespace = 'realtime'::regnamespace
  union all select 'relation ' || c.oid::regclass, relowner::regrole || ' ' || relrowsecurity || ' ' || coalesce(relacl::text, '')
  from pg_class c where relnamespace = 'realtime'::regnamespace
  union all select 'column ' || attrelid::regclass || '.' || attname, format_type(atttypid, atttypmod) || attnotnull
  from pg_attribute where attrelid in (select oid from pg_class where relnamespace = 'realtime'::regnamespace) and attnum > 0 and not attisdropped
  union all select 'version ' || version, '' from realtime.schema_migrations
  order by 1`

for (const version of ['system', 'newest']) {
  const skip = version === 'newest' && !newestPrograms() && 'the npm package with Postgres 18 is not installed'
  describe(`migrations, Postgres ${version}`, { skip }, () => {
    let postgres
    let servers = []
    before(async () => { postgres = await startPostgres({ version }) })
    after(async () => {
      await Promise.all(servers.map((server) => server.stop()))
      await postgres?.remove()
    })

    /** A server that has never seen the database, with a tenant on it. */
    async function newcomer(database, { connect = true, stream = true } = {}) {
      const server = await startServer()
      servers.push(server)
      await createDatabaseTenant(server, postgres, database, database)
      if (!connect) return server
      await connected(server, database)
      if (stream) await streaming(server, database)
      return server
    }
    async function leave(server) {
      servers = servers.filter((other) => other !== server)
      await server.stop()
    }
    const query = (database, sql, parameters) => postgres.query(sql, database, parameters)
    const count = async (database) => (await query(database, 'select count(*)::int as n from realtime.schema_migrations'))[0].n
    const complaints = (server) => server.log().split('\n').filter((line) => /Migrations?FailedToRun|PartitionCreationFailed|MigrationCount/.test(line))

    if (version === 'system') {
      test('without the roles of the platform joins are refused, and the log names them', async (t) => {
        await postgres.query('create database roleless')
        await postgres.query('create schema realtime', 'roleless')
        const server = await newcomer('roleless', { connect: false })
        const member = await Member.open(t, server, { tenant: 'roleless' })
        const reason = 'UnableToConnectToProject: Realtime was unable to connect to the project database'
        assert.equal(await member.refusal(ROOM, { private: true }), reason)
        const line = server.log().split('\n').find((text) => text.includes('MigrationsFailedToRun'))
        for (const role of ['anon', 'authenticated', 'service_role', 'dashboard_user', 'postgres']) assert.ok(line?.includes(role), `${role} in ${line}`)
        assert.deepEqual(await query('roleless', `select relname from pg_class where relnamespace = 'realtime'::regnamespace`), [])
        // The bootstrap makes them, and the next join finds a database it can use.
        await postgres.database('with_roles')
        await member.join('roomy', { private: false })
        assert.equal(await count('roleless'), MIGRATIONS)
        await leave(server)
      })
    }

    test('an empty database gets everything; a second server and a restart touch nothing', async (t) => {
      await postgres.database('empty')
      const first = await newcomer('empty')
      assert.equal(await count('empty'), MIGRATIONS)
      assert.deepEqual(complaints(first), [])
      const [{ n, distinct, least, most }] = await query('empty',
        'select count(*)::int as n, count(distinct version)::int as distinct, min(version) as least, max(version) as most from realtime.schema_migrations')
      assert.deepEqual([n, distinct, least, most], [MIGRATIONS, MIGRATIONS, '20211116024918', '20260709120000'])
      const tables = await query('empty', `select relname from pg_class where relnamespace = 'realtime'::regnamespace and relkind in ('r', 'p') order by 1`)
      assert.deepEqual(tables.map((row) => row.relname),
        ['messages', ...PARTITION_DAYS.map(partitionOf), 'schema_migrations', 'subscription'].sort())
      const owners = await query('empty', `select distinct relowner::regrole::text as owner from pg_class where relname like 'messages%' and relkind in ('r', 'p')`)
      assert.deepEqual(owners, [{ owner: 'supabase_realtime_admin' }])
      const published = await query('empty',
        `select schemaname || '.' || tablename as name from pg_publication_tables where pubname = 'supabase_realtime_messages_publication'`)
      assert.ok(published.length > 0 && published.every(({ name }) => name.startsWith('realtime.messages')), JSON.stringify(published))

      await query('empty', POLICIES)
      await query('empty', `select realtime.send('{"n":1}', 'kept', '${ROOM}')`)
      const before = await query('empty', FINGERPRINT)
      // The first one streams.
      const second = await newcomer('empty', { stream: false })
      assert.equal(await count('empty'), MIGRATIONS)
      assert.deepEqual(await query('empty', FINGERPRINT), before)
      await leave(second)

      const { port, stateDir } = first
      servers = servers.filter((server) => server !== first)
      await first.stop({ keepState: true })
      const again = await startServer({ port, stateDir })
      t.after(() => again.stop({ keepState: false }))
      const member = await Member.open(t, again, { tenant: 'empty' })
      await member.join(ROOM, { broadcast: { replay: { since: Date.now() - 60_000 } } })
      await member.receives(ROOM, 'kept')
      await streaming(again, 'empty')
      await query('empty', `select realtime.send('{"n":2}', 'live', '${ROOM}')`)
      await member.receives(ROOM, 'live')
      assert.deepEqual(await query('empty', FINGERPRINT), before)
      assert.deepEqual(complaints(again), [])
    })

    test('a database where steps are missing converges, and keeps its rows', async (t) => {
      await postgres.database('partial')
      await leave(await newcomer('partial'))
      const complete = await query('partial', SHAPE)
      await query('partial', POLICIES)
      await query('partial', `select realtime.send('{"n":1}', 'kept', '${ROOM}')`)
      await query('partial', `
        delete from realtime.schema_migrations where version in (select version from realtime.schema_migrations order by version desc limit 7);
        drop function realtime.send_binary(bytea, text, text, boolean);
        create or replace function realtime.topic() returns text language sql as 'select null::text';
        alter table realtime.messages drop column binary_payload cascade;
        drop table realtime.${partitionOf(2)};`)
      const server = await newcomer('partial')
      assert.equal(await count('partial'), MIGRATIONS)
      assert.deepEqual(complaints(server), [])
      assert.deepEqual(await query('partial', SHAPE), complete)
      const member = await Member.open(t, server, { tenant: 'partial' })
      await member.join(ROOM, { broadcast: { replay: { since: Date.now() - 60_000 } } })
      await member.receives(ROOM, 'kept')
      await query('partial', `select realtime.send_binary('\\x01', 'bytes', '${ROOM}')`)
      await member.receives(ROOM, 'bytes')
    })

    test('asking for the health of a tenant that nobody uses migrates its database, and does not stay', async () => {
      await postgres.database('asked')
      const server = await newcomer('asked', { connect: false })
      assert.deepEqual([(await health(server, 'asked')).healthy, (await health(server, 'asked')).db_connected], [false, false])
      await until(async () => (await health(server, 'asked')).healthy, 'it is healthy')
      assert.equal(await count('asked'), MIGRATIONS)
      assert.equal((await health(server, 'asked')).db_connected, false)
      assert.deepEqual(await query('asked', `select slot_name from pg_replication_slots where database = 'asked'`), [])
      const sessions = () => query('asked', `select application_name from pg_stat_activity where datname = 'asked' and application_name like 'realtime%'`)
      await until(async () => (await sessions()).length === 0, 'no session is left')
      await leave(server)
    })

    test('a database that was emptied under a server is migrated anew when it connects again', async (t) => {
      await postgres.database('emptied')
      const server = await newcomer('emptied')
      assert.equal((await server.api('POST', '/emptied/shutdown')).status, 204)
      await query('emptied', 'drop schema realtime cascade; create schema realtime authorization supabase_admin')
      const member = await Member.open(t, server, { tenant: 'emptied' })
      await member.join('room', { private: false })
      assert.equal(await count('emptied'), MIGRATIONS)
      await streaming(server, 'emptied')
      await query('emptied', `select realtime.send('{"n":1}', 'tick', 'room', false)`)
      await member.receives('room', 'tick')
      await leave(server)
    })
  })
}
