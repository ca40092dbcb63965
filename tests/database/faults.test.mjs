// Databases that cannot be reached or refuse, and sessions that somebody else ends (database 3, 10.5 and 11).
// Every test has a tenant and a database of its own, so they run side by side.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort, SECRET, startServer, until } from '../server.mjs'
import { Member } from './member.mjs'
import {
  createDatabaseTenant, databaseExtension, FULL, health, postPrivate, readyTenant, streaming, timed, withDatabase,
} from './tenant.mjs'

const UNREACHABLE = 'UnableToConnectToProject: Realtime was unable to connect to the project database'
const RATE_LIMITED = 'DatabaseConnectionRateLimitReached: Too many database connections attempts per second'
const unauthorized = (room) => `Unauthorized: You do not have permissions to read from this Channel topic: ${room}`

withDatabase('faults', { concurrency: true, shards: 2 }, ({ server, postgres }) => {
  const open = (t, tenant, options) => Member.open(t, server(), { tenant, ...options })
  const post = (tenant, room) => postPrivate(server(), tenant, room)
  /** Ends the sessions of a database with that name; how many there were. */
  const terminate = async (database, name) => (await postgres().query(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name = $2`, 'postgres', [database, name])).length
  const slots = (database) => postgres().query('select slot_name, active from pg_replication_slots where database = $1', 'postgres', [database])

  test('a wrong password: documented refusals, no password in the log, repaired by an update', async (t) => {
    const id = 'wrong-password'
    await postgres().database(id)
    const wrong = 'not-the-password-of-this-database'
    await createDatabaseTenant(server(), postgres(), id, id, { settings: { db_password: wrong } })
    const member = await open(t, id)
    assert.equal(await member.refusal('read-broadcast 1', { private: true }), UNREACHABLE)
    assert.equal(await member.refusal('open', {}), UNREACHABLE)
    assert.deepEqual(await post(id, FULL), [422, '{"message":"Tenant database unavailable"}'])
    // Three failures within five seconds.
    await until(async () => (await member.refusal('open', {})) === RATE_LIMITED, 'attempts are limited')
    assert.deepEqual(await post(id, FULL), [422, '{"message":"Connect rate limit reached"}'])
    assert.ok(server().log().includes('UnableToConnectToTenantDatabase'))
    assert.equal(server().log().includes(wrong), false, 'the password is in the log')
    const response = await server().api('PUT', `/${id}`, { tenant: { name: id, jwt_secret: SECRET, extensions: [databaseExtension(postgres(), id)] } })
    assert.equal(response.status, 200)
    const again = await open(t, id)
    await again.join('open', { private: false })
  })

  test('no such database, no such host, nothing at the port: refused within seconds', async (t) => {
    const cases = {
      'no-database': { db_name: 'there_is_no_such_database' },
      'no-host': { db_host: 'no-such-host.invalid' },
      'no-port': { db_port: String(await freePort()) },
      'no-role': { db_user: 'no_such_login' },
      'no-tls': { ssl_enforced: true },
    }
    await Promise.all(Object.entries(cases).map(async ([id, settings]) => {
      await createDatabaseTenant(server(), postgres(), id, 'postgres', { settings })
      const member = await open(t, id)
      const [elapsed, reason] = await timed(() => member.refusal('read-broadcast 1', { private: true }))
      assert.equal(reason, UNREACHABLE, id)
      assert.ok(elapsed < 12_000, `${id} took ${elapsed} ms`)
    }))
  })

  test('too few free connections', async (t) => {
    await createDatabaseTenant(server(), postgres(), 'greedy', 'postgres', { settings: { db_pool: 500 } })
    const member = await open(t, 'greedy')
    assert.equal(await member.refusal('open', {}), 'DatabaseLackOfConnections: Database can\'t accept more connections, Realtime won\'t connect')
    assert.deepEqual(await post('greedy', FULL), [422, '{"message":"Tenant database has too many connections"}'])
  })

  test('a full disk (53100): checks are refused, public rooms go on, and it is over when it is over', async (t) => {
    const tenant = await readyTenant(server(), postgres(), 'full-disk')
    const member = await open(t, tenant.id)
    await member.join('open', { private: false, broadcast: { self: true } })
    await member.join(`${FULL} joined`, { broadcast: { self: true } })
    await tenant.query(`
      create function public.no_space() returns trigger language plpgsql as
        $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
      create trigger no_space before insert on realtime.messages for each row execute function public.no_space();`)
    assert.equal(await member.refusal(`${FULL} 1`, { private: true }), unauthorized(`${FULL} 1`))
    assert.deepEqual(await post(tenant.id, FULL), [422, '{"message":"RLS policy error"}'])
    member.broadcast(`${FULL} joined`, 'lost')
    member.broadcast('open', 'goes-on')
    await member.receives('open', 'goes-on')
    await tenant.query(`select realtime.send('{}', 'warned', 'open', false)`)
    await tenant.query('drop trigger no_space on realtime.messages')
    await member.join(`${FULL} 1`)
    assert.deepEqual(await post(tenant.id, `${FULL} 1`), [202, ''])
    await member.receives(`${FULL} 1`, 'tick')
    await tenant.query(`select realtime.send('{}', 'arrives', 'open', false)`)
    await member.receives('open', 'arrives')
    assert.deepEqual(member.broadcasts(`${FULL} joined`), [])
    assert.deepEqual(member.broadcasts('open').map((m) => m.event), ['goes-on', 'arrives'])
  })

  test('the session of the pool is ended again and again: joins go on', async (t) => {
    const tenant = await readyTenant(server(), postgres(), 'pool')
    const member = await open(t, tenant.id)
    let ended = 0
    for (let n = 0; n < 5; n++) {
      await member.join(`read-broadcast ${n}`)
      ended += await terminate(tenant.id, 'realtime_connect')
      await sleep(50)
    }
    await member.join('read-broadcast last')
    assert.ok(ended >= 5, `${ended} sessions were ended`)
    assert.equal((await health(server(), tenant.id)).replication_connected, true)
  })

  test('the walsender is ended again and again: every row arrives once, in order', async (t) => {
    const tenant = await readyTenant(server(), postgres(), 'walsender')
    const members = await Promise.all([1, 2].map((version) => open(t, tenant.id, { version })))
    const room = 'read-broadcast rows'
    for (const member of members) await member.join(room)
    const writer = await tenant.client()
    t.after(() => writer.end())
    let rows = 0
    let writing = true
    const work = (async () => {
      while (writing) {
        // Single rows and transactions of many, so that some are cut in the middle.
        const count = rows % 7 === 0 ? 400 : 1
        await writer.query(`select realtime.send(jsonb_build_object('n', n), 'row', $1) from generate_series($2::int, $3::int) n`, [room, rows, rows + count - 1])
        rows += count
        await sleep(4)
      }
    })()
    let ended = 0
    try {
      for (let n = 0; n < 4; n++) {
        await sleep(150)
        ended += await terminate(tenant.id, 'realtime_replication_connection')
        await sleep(100)
        await streaming(server(), tenant.id)
      }
    } finally {
      writing = false
      await work
    }
    assert.ok(ended >= 4, `${ended} streams were ended`)
    for (const member of members) {
      const received = await member.receives(room, 'row', rows, { timeout: 20_000 })
      assert.deepEqual(received.map((m) => m.payload.n), Array.from({ length: rows }, (_, n) => n))
    }
  })

  test('a long transaction whose stream breaks in the middle arrives once', async (t) => {
    const tenant = await readyTenant(server(), postgres(), 'long')
    const member = await open(t, tenant.id)
    const room = 'read-broadcast long'
    await member.join(room)
    const count = 30_000
    const inserted = tenant.query(`select realtime.send(jsonb_build_object('n', n), 'row', $1) from generate_series(0, ${count - 1}) n`, [room])
    await until(() => member.broadcasts(room).length > 100, 'the first rows', { timeout: 20_000 })
    const seen = member.broadcasts(room).length
    assert.equal(await terminate(tenant.id, 'realtime_replication_connection'), 1)
    await inserted
    const received = await member.receives(room, 'row', count, { timeout: 30_000 })
    assert.ok(seen < count, 'it broke in the middle')
    assert.deepEqual(received.map((m) => m.payload.n), Array.from({ length: count }, (_, n) => n))
  })

  test('an administrator drops the slot: the stream comes back with a new one', async (t) => {
    const tenant = await readyTenant(server(), postgres(), 'dropped')
    const member = await open(t, tenant.id)
    await member.join('read-broadcast rows')
    const [{ slot_name: slot }] = await slots(tenant.id)
    // In one go, before the server can come back.
    await postgres().query(`do $$ begin
      perform pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = '${slot}';
      perform pg_drop_replication_slot('${slot}');
    end $$`)
    await until(async () => (await slots(tenant.id))[0]?.active, 'the slot is back', { timeout: 20_000 })
    await streaming(server(), tenant.id)
    await tenant.query(`select realtime.send('{"n":1}', 'row', 'read-broadcast rows')`)
    await member.receives('read-broadcast rows', 'row')
  })

  test('an administrator drops or spoils the publication: the stream comes back', async (t) => {
    const tenant = await readyTenant(server(), postgres(), 'unpublished')
    const member = await open(t, tenant.id)
    await member.join('read-broadcast rows')
    await tenant.query('drop publication supabase_realtime_messages_publication')
    await terminate(tenant.id, 'realtime_replication_connection')
    const sees = async (n) => {
      await until(async () => {
        await tenant.query(`select realtime.send('{"n":${n}}', 'row', 'read-broadcast rows')`)
        await sleep(200)
        return member.broadcasts('read-broadcast rows').some((m) => m.payload.n === n)
      }, 'rows arrive again', { timeout: 40_000 })
    }
    await sees(1)
    await tenant.query('create table public.foreign_one (id int); alter publication supabase_realtime_messages_publication set table public.foreign_one')
    await terminate(tenant.id, 'realtime_replication_connection')
    await sees(2)
    const tables = await tenant.query(`select distinct schemaname from pg_publication_tables where pubname = 'supabase_realtime_messages_publication'`)
    assert.deepEqual(tables, [{ schemaname: 'realtime' }])
  })

  test('a tenant nobody uses is disconnected and its slot dropped; the next join connects again', async (t) => {
    const impatient = await startServer({ env: { RINGCAST_DATABASE_CHECK_MS: '50' } })
    t.after(() => impatient.stop())
    const id = 'idle'
    await postgres().database(id)
    await createDatabaseTenant(impatient, postgres(), id, id)
    const member = await Member.open(t, impatient, { tenant: id })
    await member.join('open', { private: false })
    await streaming(impatient, id)
    const sessions = async () => (await postgres().query(
      `select application_name from pg_stat_activity where datname = $1 and application_name like 'realtime%'`, 'postgres', [id])).length
    // Far more looks than an idle tenant gets.
    await sleep(1500)
    assert.equal((await health(impatient, id)).replication_connected, true, 'a tenant with a client stays connected')
    const started = Date.now()
    member.ws.close()
    await until(async () => !(await health(impatient, id)).db_connected, 'it is disconnected')
    assert.ok(Date.now() - started > 500, `after ${Date.now() - started} ms already`)
    await until(async () => (await slots(id)).length === 0 && (await sessions()) === 0, 'slot and sessions are gone')
    const next = await Member.open(t, impatient, { tenant: id })
    await next.join('open', { private: false })
    await streaming(impatient, id)
    await postgres().query(`select realtime.send('{}', 'tick', 'open', false)`, id)
    await next.receives('open', 'tick')
  })

  test('SIGTERM drops the slots', async (t) => {
    const brief = await startServer({ shards: 2 })
    t.after(() => brief.stop())
    const ids = ['brief_a', 'brief_b']
    for (const id of ids) {
      await readyTenant(brief, postgres(), id)
      assert.equal((await slots(id)).length, 1)
    }
    const member = await Member.open(t, brief, { tenant: ids[0] })
    await member.join('read-broadcast 1')
    const started = Date.now()
    brief.signal('SIGTERM')
    assert.deepEqual(await brief.exited(), { code: 0, signal: null })
    assert.ok(Date.now() - started < 8000, `took ${Date.now() - started} ms`)
    for (const id of ids) assert.deepEqual(await slots(id), [])
  })

  test('shutdown and reload by the management API end the use of the database; suspension refuses', async (t) => {
    const tenant = await readyTenant(server(), postgres(), 'managed')
    assert.equal((await server().api('POST', `/${tenant.id}/shutdown`)).status, 204)
    await until(async () => (await slots(tenant.id)).length === 0, 'the slot is gone')
    assert.equal((await health(server(), tenant.id)).db_connected, false)
    const member = await open(t, tenant.id)
    await member.join('read-broadcast 1')
    await streaming(server(), tenant.id)
    assert.equal((await server().api('POST', `/${tenant.id}/reload`)).status, 204)
    await member.ended()
    const next = await open(t, tenant.id)
    await next.join('read-broadcast 1')
    await streaming(server(), tenant.id)
    await tenant.query(`select realtime.send('{}', 'tick', 'read-broadcast 1')`)
    await next.receives('read-broadcast 1', 'tick')
    assert.equal((await server().api('DELETE', `/${tenant.id}`)).status, 204)
    await until(async () => (await slots(tenant.id)).length === 0, 'the slot is gone')
  })
})
