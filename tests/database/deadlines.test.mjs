// Databases that take their time: every check ends within its bound and holds nobody else up (database 10.5 and 14).
//
// Apart from the other faults because a transaction that sleeps holds up every new replication slot of its Postgres.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startPostgres } from '../postgres.mjs'
import { startServer, until } from '../server.mjs'
import { Member } from './member.mjs'
import { FULL, postPrivate, readyTenant, streaming, timed } from './tenant.mjs'

// Ten seconds for a statement, fifteen for a check, and what a busy machine adds.
const STATEMENT_BOUND_MS = 14_500
const CHECK_BOUND_MS = 22_000
const QUICK_MS = 3000

describe('deadlines', { concurrency: true }, () => {
  let postgres
  let frozen
  let server
  const tenants = {}
  before(async () => {
    [postgres, frozen, server] = await Promise.all([startPostgres(), startPostgres(), startServer({ shards: 2 })])
    tenants.sleepy = await readyTenant(server, postgres, 'sleepy')
    tenants.crowded = await readyTenant(server, postgres, 'crowded', { settings: { db_queue_target: 500 } })
    tenants.frozen = await readyTenant(server, frozen, 'frozen')
  })
  after(async () => {
    await server?.stop()
    await Promise.all([postgres, frozen].map((one) => one?.remove()))
  })
  const open = (t, tenant) => Member.open(t, server, { tenant: tenant.id })

  test('a policy that sleeps is cancelled in time and holds nobody else up', async (t) => {
    const [slow, quick] = await Promise.all([1, 2].map(() => open(t, tenants.sleepy)))
    const sleeping = timed(() => slow.refusal('sleep:1', { private: true }))
    const posting = timed(() => postPrivate(server, tenants.sleepy.id, 'sleep:2'))
    await sleep(100)
    for (let n = 0; n < 5; n++) {
      const [elapsed] = await timed(() => quick.join(`read-broadcast ${n}`))
      assert.ok(elapsed < QUICK_MS, `a join beside it took ${elapsed} ms`)
    }
    const [elapsed, reason] = await sleeping
    assert.match(reason, /^QueryCanceled: /)
    assert.ok(elapsed < STATEMENT_BOUND_MS, `took ${elapsed} ms`)
    const [postElapsed, answer] = await posting
    assert.deepEqual(answer, [422, '{"message":"Query canceled"}'])
    // Two permissions are tried, so the bound of the check comes first.
    assert.ok(postElapsed < CHECK_BOUND_MS, `the request took ${postElapsed} ms`)
    const [{ n }] = await tenants.sleepy.query(
      `select count(*)::int as n from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'`)
    assert.equal(n, 0, 'a backend still sleeps')
  })

  test('many policies that sleep: the pool is exhausted, then checks are refused at once', async (t) => {
    const { id, query } = tenants.crowded
    await query(`alter database "${id}" set statement_timeout = '4s'`)
    await query(`select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'realtime_connect'`)
    const members = await Promise.all(Array.from({ length: 12 }, () => open(t, tenants.crowded)))
    const reasons = await Promise.all(members.map((member, n) => member.refusal(`sleep:${n}`, { private: true })))
    const exhausted = 'IncreaseConnectionPool: Please increase your connection pool size'
    assert.ok(reasons.includes(exhausted), reasons.join('\n'))
    assert.ok(reasons.some((reason) => reason.startsWith('QueryCanceled: ')), reasons.join('\n'))
    for (const reason of reasons) assert.ok(reason === exhausted || reason.startsWith('QueryCanceled: '), reason)
    const [elapsed, reason] = await timed(() => members[0].refusal('read-broadcast 1', { private: true }))
    assert.equal(reason, exhausted)
    assert.ok(elapsed < QUICK_MS, `took ${elapsed} ms`)
    assert.deepEqual(await postPrivate(server, id, FULL), [429, '{"message":"Connection pool exhausted"}'])
    // Public rooms need no check.
    await members[1].join('open', { private: false })
  })

  test('a database that freezes: checks end in time, public rooms go on, and it thaws', async (t) => {
    const { id, query } = tenants.frozen
    const [member, joiner] = await Promise.all([1, 2].map(() => open(t, tenants.frozen)))
    await member.join('open', { private: false, broadcast: { self: true } })
    await member.join('read-broadcast rows')
    const pids = [frozen.pid, ...(await query('select pid from pg_stat_activity')).map((row) => row.pid)]
    const signal = (name) => {
      for (const pid of pids) try { process.kill(pid, name) } catch (error) { if (error.code !== 'ESRCH') throw error }
    }
    // A process that stands still does not end when it is told to.
    process.prependOnceListener('exit', () => signal('SIGCONT'))
    signal('SIGSTOP')
    try {
      const joining = timed(() => joiner.refusal('read-broadcast 1', { private: true }))
      const posting = timed(() => postPrivate(server, id, FULL))
      const shared = await timed(() => joiner.join('open', { private: false }))
      assert.ok(shared[0] < QUICK_MS, `a public join took ${shared[0]} ms`)
      member.broadcast('open', 'meanwhile')
      await member.receives('open', 'meanwhile')
      const [elapsed, reason] = await joining
      assert.match(reason, /^(UnableToConnectToProject|InitializingProjectConnection|IncreaseConnectionPool|QueryCanceled): /)
      assert.ok(elapsed < CHECK_BOUND_MS, `the join took ${elapsed} ms`)
      const [postElapsed, [status, text]] = await posting
      assert.ok(status === 422 || status === 429, `${status} ${text}`)
      assert.ok(postElapsed < CHECK_BOUND_MS, `the request took ${postElapsed} ms`)
    } finally {
      signal('SIGCONT')
    }
    await until(async () => (await joiner.attempt('read-broadcast 1', { private: true })).status === 'ok', 'joins work again', { timeout: 20_000 })
    await streaming(server, id)
    await query(`select realtime.send('{}', 'row', 'read-broadcast rows')`)
    await member.receives('read-broadcast rows', 'row')
  })
})
