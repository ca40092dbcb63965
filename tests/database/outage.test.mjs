// A tenant's database that goes away under load and comes back (database 3.3 and 3.4): joins are refused meanwhile, open channels
// go on, and afterwards everything is as before without the clients' doing.
import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startPostgres } from '../postgres.mjs'
import { startServer, until } from '../server.mjs'
import { Member } from './member.mjs'
import { FULL, readyTenant, streaming } from './tenant.mjs'

const UNREACHABLE = 'UnableToConnectToProject: Realtime was unable to connect to the project database'
const OUTAGE_MS = 1500
// The stream is tried again at once, then after five to fifteen seconds.
const RECOVERY_MS = 40_000
const ROOM = 'read-broadcast rows'

/** Repeats `work(n)` every `pause` ms until stopped. */
function repeatedly(pause, work) {
  let running = true
  const done = (async () => {
    for (let n = 0; running; n++) {
      await work(n)
      await sleep(pause)
    }
  })()
  return { stop: () => { running = false; return done } }
}

describe('outages', { concurrency: true }, () => {
  for (const how of ['stop', 'kill']) {
    test(`a database that ${how === 'stop' ? 'is shut down' : 'crashes'} and starts again under load`, async (t) => {
      const postgres = await startPostgres()
      t.after(() => postgres.remove())
      const server = await startServer({ shards: 2 })
      t.after(() => server.stop())
      const tenant = await readyTenant(server, postgres, 'outage')
      const open = (options) => Member.open(t, server, { tenant: tenant.id, ...options })
      const [ana, ben, joiner] = [await open(), await open({ version: 1 }), await open()]
      for (const member of [ana, ben]) {
        await member.join('open', { private: false })
        await member.join(ROOM)
        await member.join(`${FULL} talk`, { broadcast: { ack: true } })
      }
      // The write permission is known from here on.
      await ana.reply(ana.broadcast(`${FULL} talk`, 'first'), 'the acknowledgement')

      let sent = 0
      let down = false
      const joins = { ok: 0, refused: new Map() }
      const failedWhileUp = []
      const talking = repeatedly(20, () => { ana.broadcast('open', 'tick', { n: sent++ }) })
      const joining = repeatedly(60, async (n) => {
        const wasDown = down
        const { status, response } = await joiner.attempt(`read-broadcast ${n}`, { private: true })
        if (status === 'ok') { joins.ok += 1; return }
        joins.refused.set(response.reason, (joins.refused.get(response.reason) ?? 0) + 1)
        if (!wasDown && !down) failedWhileUp.push(response.reason)
      })
      let written = 0
      const writing = repeatedly(15, async (n) => {
        // What is committed is found in the table afterwards.
        try {
          await tenant.query(`select realtime.send('{"n":${n}}', 'row', '${ROOM}')`)
          written += 1
        } catch { await sleep(50) }
      })
      try {
        await until(() => written >= 10 && joins.ok >= 3, 'everything is under way', { timeout: 20_000 })
        down = true
        await postgres[how]()
        await sleep(OUTAGE_MS)
        assert.ok(joins.refused.size > 0, 'joins are refused while it is down')
        ana.broadcast(`${FULL} talk`, 'meanwhile')
        await ben.receives(`${FULL} talk`, 'meanwhile')
        await postgres.restart()
        await until(async () => (await joiner.attempt('read-broadcast after', { private: true })).status === 'ok', 'joins work again', { timeout: 25_000 })
        down = false
        const joined = joins.ok
        await streaming(server, tenant.id, { timeout: RECOVERY_MS })
        const after = written
        await until(() => joins.ok > joined + 3 && written >= after + 10, 'everything goes on', { timeout: 20_000 })
      } finally {
        await Promise.all([talking.stop(), joining.stop(), writing.stop()])
      }
      assert.deepEqual([...joins.refused.keys()], [UNREACHABLE])
      assert.deepEqual(failedWhileUp, [])

      await tenant.query(`select realtime.send('{"n":-1}', 'last', '${ROOM}')`)
      const committed = await tenant.query(
        `select payload -> 'n' as n from realtime.messages where topic = $1 and event = 'row' order by (payload -> 'n')::int`, [ROOM])
      const rows = committed.map((row) => row.n)
      assert.ok(rows.length >= 10, `${rows.length} rows`)
      for (const member of [ana, ben]) {
        await member.receives(ROOM, 'last', 1, { timeout: 15_000 })
        assert.deepEqual(member.broadcasts(ROOM, 'row').map((m) => m.payload.n), rows, 'what is in the table, once and in order')
        assert.equal(member.closed, undefined)
        assert.equal(member.messages.some((m) => ['phx_close', 'phx_error'].includes(m.event)), false, 'no channel was closed')
      }
      const ticks = await ben.receives('open', 'tick', sent)
      assert.deepEqual(ticks.map((m) => m.payload.n), Array.from({ length: sent }, (_, n) => n))
    })
  }

  test('a server that starts while the database is down connects when it is there', async (t) => {
    const postgres = await startPostgres()
    t.after(() => postgres.remove())
    let server = await startServer()
    t.after(() => server.stop({ keepState: false }))
    const tenant = await readyTenant(server, postgres, 'late')
    await server.stop({ keepState: true })
    await postgres.stop()
    server = await startServer({ port: server.port, stateDir: server.stateDir })
    const member = await Member.open(t, server, { tenant: tenant.id })
    assert.equal(await member.refusal('read-broadcast 1', { private: true }), UNREACHABLE)
    await postgres.restart()
    await until(async () => (await member.attempt('read-broadcast 1', { private: true })).status === 'ok', 'the join works')
    await streaming(server, tenant.id)
    await tenant.query(`select realtime.send('{}', 'tick', 'read-broadcast 1')`)
    await member.receives('read-broadcast 1', 'tick')
  })
})
