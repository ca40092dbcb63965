// Two servers on one tenant database, each with a registry of its own: they migrate once, one streams, the other takes over
// (database 3.4, 4.2 and 11.1).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startServer, until } from '../server.mjs'
import { Member } from './member.mjs'
import { connected, createDatabaseTenant, health, POLICIES, streaming, withDatabase } from './tenant.mjs'

const ROOM = 'read-broadcast rows'
// The one that waits looks every five seconds.
const TAKEOVER_MS = 15_000

withDatabase('two servers', { concurrency: true }, ({ postgres }) => {
  const slots = (database) => postgres().query('select slot_name, active, active_pid from pg_replication_slots where database = $1', 'postgres', [database])
  const walsenders = async (database) => (await postgres().query(
    `select pid from pg_stat_activity where datname = $1 and application_name = 'realtime_replication_connection'
     and pid in (select pid from pg_stat_replication)`, 'postgres', [database])).length
  const send = (id, n) => postgres().query(`select realtime.send('{"n":${n}}', 'row', '${ROOM}')`, id)
  const numbers = (member) => member.broadcasts(ROOM, 'row').map((m) => m.payload.n)

  async function pair(t, id) {
    await postgres().database(id)
    const servers = await Promise.all([1, 2].map(() => startServer()))
    t.after(() => Promise.all(servers.map((server) => server.stop())))
    await Promise.all(servers.map((server) => createDatabaseTenant(server, postgres(), id, id)))
    return servers
  }
  const migrated = (server) => server.log().split('\n').filter((line) => line.includes("database was migrated"))

  /** A pair whose first server streams; members in the room at both. */
  async function streamingPair(t, id) {
    const [first, second] = await pair(t, id)
    await connected(first, id)
    await streaming(first, id)
    await postgres().query(POLICIES, id)
    await connected(second, id)
    const [here, there] = await Promise.all([first, second].map((server) => Member.open(t, server, { tenant: id })))
    await Promise.all([here, there].map((member) => member.join(ROOM)))
    return { first, second, here, there }
  }

  test('both start at the same time: the database is migrated once, without errors, and one of them streams', async (t) => {
    const id = 'together'
    const servers = await pair(t, id)
    await Promise.all(servers.map((server) => connected(server, id)))
    await until(async () => (await Promise.all(servers.map((server) => health(server, id)))).some((state) => state.replication_connected), 'one streams')
    const [{ n }] = await postgres().query('select count(*)::int as n from realtime.schema_migrations', id)
    assert.equal(n, 81)
    for (const server of servers) {
      const bad = server.log().split('\n').filter((line) => /\[error\]|Migrations?FailedToRun|PartitionCreationFailed|MigrationCount/.test(line))
      assert.deepEqual(bad, [])
    }
    const runs = servers.flatMap(migrated).filter((line) => line.includes('81 of 81'))
    assert.equal(runs.length, 1, servers.flatMap(migrated).join('\n'))
    await sleep(500)
    assert.equal(await walsenders(id), 1)
    assert.deepEqual((await slots(id)).map((slot) => slot.active), [true])
    const states = await Promise.all(servers.map((server) => health(server, id)))
    assert.deepEqual(states.map((state) => state.db_connected), [true, true])
    assert.equal(states.filter((state) => state.replication_connected).length, 1)
  })

  test('the first is killed: the second takes over and delivers what was written in between', async (t) => {
    const id = 'killed'
    const { first, second, here, there } = await streamingPair(t, id)
    await send(id, 0)
    await here.receives(ROOM, 'row')
    assert.deepEqual(await slots(id).then((all) => all.map((slot) => slot.active)), [true])
    first.signal('SIGKILL')
    for (let n = 1; n <= 30; n++) await send(id, n)
    await streaming(second, id, { timeout: TAKEOVER_MS })
    for (let n = 31; n <= 40; n++) await send(id, n)
    await until(() => numbers(there).at(-1) === 40, 'the last row')
    const received = numbers(there)
    // The row before the kill may come again: nobody knows whether the other one delivered it.
    assert.deepEqual(received, Array.from({ length: received.length }, (_, n) => 41 - received.length + n))
    assert.ok(received.length >= 40, `${received}`)
    assert.equal((await slots(id)).length, 1)
    assert.equal(await walsenders(id), 1)
    await second.stop()
    assert.deepEqual(await slots(id), [], 'the last one drops the slot')
  })

  test('the first is stopped: the second takes over', async (t) => {
    const id = 'stopped'
    const { first, second, there } = await streamingPair(t, id)
    await first.stop()
    await streaming(second, id, { timeout: TAKEOVER_MS })
    await send(id, 1)
    await there.receives(ROOM, 'row')
    assert.deepEqual(numbers(there), [1])
  })

  test('the second is stopped while it waits: the first keeps its slot', async (t) => {
    const id = 'waiting'
    const { first, second, here } = await streamingPair(t, id)
    await sleep(300)
    await second.stop()
    assert.deepEqual((await slots(id)).map((slot) => slot.active), [true])
    await send(id, 1)
    await here.receives(ROOM, 'row')
    assert.equal((await health(first, id)).replication_connected, true)
  })

  test('a server that was killed finds its slot and goes on', async (t) => {
    const id = 'again'
    await postgres().database(id)
    let server = await startServer()
    t.after(() => server.stop({ keepState: false }))
    await createDatabaseTenant(server, postgres(), id, id)
    await connected(server, id)
    await streaming(server, id)
    await postgres().query(POLICIES, id)
    const [{ slot_name: slot }] = await slots(id)
    server.signal('SIGKILL')
    await server.exited()
    await send(id, 1)
    server = await startServer({ port: server.port, stateDir: server.stateDir })
    const member = await Member.open(t, server, { tenant: id })
    await member.join(ROOM)
    await streaming(server, id)
    await send(id, 2)
    await until(() => numbers(member).includes(2), 'the new row')
    assert.deepEqual((await slots(id)).map((row) => row.slot_name), [slot])
  })
})
