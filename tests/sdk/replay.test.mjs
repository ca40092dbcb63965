// Stored broadcasts that a join asks for (protocol 9, database 12).
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { readyTenant, withDatabase } from '../database/tenant.mjs'
import { until } from '../server.mjs'
import { freshTopic, member, newClient, oldClient, subscribed } from './clients.mjs'

const QUIET_MS = 300
const HOUR_MS = 3_600_000
const arrived = (messages, count = 1) => until(() => messages.length >= count, `${count} broadcasts, have ${messages.length}`)

withDatabase('replay', {}, ({ server, postgres }) => {
  let tenant
  before(async () => { tenant = await readyTenant(server(), postgres(), 'replay') })

  /** Waits until the stream has brought everything that is stored now. */
  async function streamed(t) {
    const topic = freshTopic('public')
    const { messages } = await member(newClient(t, server(), { tenant: tenant.id }), topic)
    await tenant.query(`select realtime.send('{}', 'marker', $1, false)`, [topic])
    await arrived(messages)
  }

  /** Stores `count` messages n = 0…, one minute apart, the last one a minute ago. */
  async function store(t, room, count) {
    await tenant.query(`
      insert into realtime.messages (topic, extension, event, payload, private, inserted_at)
      select $1, 'broadcast', 'stored', jsonb_build_object('n', n), true, timezone('utc', now()) - make_interval(mins => $2::int - n)
      from generate_series(0, $2::int - 1) n`, [room, count])
    await streamed(t)
  }

  for (const [version, open] of Object.entries({ '2.0.0': newClient, '1.0.0': oldClient })) {
    const client = (t) => open(t, server(), { tenant: tenant.id })
    const join = (t, room, replay) => member(client(t), room, { private: true, broadcast: { replay } })
    const since = () => Date.now() - HOUR_MS
    // The former client quotes it.
    const reasonOf = (text) => (open === oldClient ? JSON.stringify(text) : text)

    test(`${version}: the newest messages, oldest first, marked as replayed`, async (t) => {
      const room = freshTopic('read-broadcast')
      await store(t, room, 5)
      const { messages } = await join(t, room, { since: since(), limit: 3 })
      await arrived(messages, 3)
      await sleep(QUIET_MS)
      assert.deepEqual(messages.map((m) => [m.type, m.event, m.payload, m.meta.replayed]),
        [2, 3, 4].map((n) => ['broadcast', 'stored', { n }, true]))
      const rows = await tenant.query('select id from realtime.messages where topic = $1 order by inserted_at desc limit 3', [room])
      assert.deepEqual(messages.map((m) => m.meta.id), rows.map((row) => row.id).reverse())
    })

    test(`${version}: 25 without a limit and at most; at least one`, async (t) => {
      const room = freshTopic('read-broadcast')
      await store(t, room, 30)
      const numbers = async (replay, count) => {
        const { messages } = await join(t, room, replay)
        await arrived(messages, count)
        await sleep(QUIET_MS)
        return messages.map((m) => m.payload.n)
      }
      const newest = (count) => Array.from({ length: count }, (_, n) => 30 - count + n)
      assert.deepEqual(await numbers({ since: since() }, 25), newest(25))
      assert.deepEqual(await numbers({ since: since(), limit: 1000 }, 25), newest(25))
      assert.deepEqual(await numbers({ since: since(), limit: -5 }, 1), newest(1))
    })

    test(`${version}: only what was stored since then, in this topic, privately, as a broadcast`, async (t) => {
      const room = freshTopic('read-broadcast')
      await store(t, room, 10)
      await store(t, `${room} other`, 3)
      await tenant.query(`insert into realtime.messages (topic, extension, event, payload, private)
        values ($1, 'presence', 'stored', '{"n":90}', true), ($1, 'broadcast', 'stored', '{"n":91}', false)`, [room])
      await streamed(t)
      const { messages } = await join(t, room, { since: Date.now() - 4.5 * 60_000 })
      await arrived(messages, 4)
      await sleep(QUIET_MS)
      assert.deepEqual(messages.map((m) => m.payload.n), [6, 7, 8, 9])
    })

    test(`${version}: public channels, missing permission and bad parameters refuse the join`, async (t) => {
      const attempt = (room, config) => subscribed(client(t).channel(room, { config }))
      const refused = (reason) => ({ status: 'CHANNEL_ERROR', reason: reasonOf(reason) })
      // The current client does not even try.
      if (open === oldClient) {
        await assert.rejects(attempt(freshTopic(), { broadcast: { replay: { since: since() } } }),
          refused('UnableToReplayMessages: Replay is not allowed for public channels'))
      }
      const room = freshTopic('read-presence')
      await assert.rejects(attempt(room, { private: true, presence: { enabled: true, key: '' }, broadcast: { replay: { since: since() } } }),
        refused(`Unauthorized: You do not have permissions to read from this Channel topic: ${room}`))
      for (const replay of [{ since: 'yesterday' }, { limit: 3 }, { since: 1.5 }, { since: since(), limit: 'all' }]) {
        await assert.rejects(attempt(freshTopic('read-broadcast'), { private: true, broadcast: { replay } }),
          refused('UnableToReplayMessages: Replay params are not valid'), JSON.stringify(replay))
      }
    })

    // Joins while rows are being written: whatever the stream brings, replay has not brought, and the other way round.
    test(`${version}: nothing twice and nothing missing when the stream brings the same rows`, async (t) => {
      const room = freshTopic('read-broadcast')
      const writer = await tenant.client()
      t.after(() => writer.end())
      let written = 0
      let writing = true
      const work = (async () => {
        while (writing) {
          await writer.query(`select realtime.send(jsonb_build_object('n', $1::int), 'tick', $2)`, [written, room])
          written += 1
          await sleep(3)
        }
      })()
      const members = []
      const start = since()
      try {
        for (let n = 0; n < 12; n++) {
          await sleep(20)
          members.push(await join(t, room, { since: start }))
        }
      } finally {
        writing = false
        await work
      }
      for (const { messages } of members) {
        await until(() => messages.some((m) => m.payload.n === written - 1), 'the last row')
        const ids = messages.map((m) => m.meta.id)
        assert.equal(new Set(ids).size, ids.length, 'every row once')
        const numbers = messages.map((m) => m.payload.n)
        const first = Math.min(...numbers)
        const ascending = [...numbers].sort((a, b) => a - b)
        assert.deepEqual(ascending, Array.from({ length: written - first }, (_, n) => first + n), 'none is missing')
        for (const replayed of [true, undefined]) {
          const part = messages.filter((m) => m.meta.replayed === replayed).map((m) => m.payload.n)
          assert.deepEqual(part, [...part].sort((a, b) => a - b), 'in order')
        }
      }
      assert.ok(members.some(({ messages }) => messages.some((m) => m.meta.replayed)), 'something was replayed')
      assert.ok(members.some(({ messages }) => messages.some((m) => !m.meta.replayed)), 'and something was not')
    })
  }

  test('binary messages are replayed to the current generation and not to the other', async (t) => {
    const room = freshTopic('read-broadcast')
    await tenant.query(`select realtime.send_binary('\\x00ff10', 'blob', $1)`, [room])
    await tenant.query(`select realtime.send('{"n":1}', 'after', $1)`, [room])
    const config = { private: true, broadcast: { replay: { since: Date.now() - HOUR_MS } } }
    const modern = await member(newClient(t, server(), { tenant: tenant.id }), room, config)
    const former = await member(oldClient(t, server(), { tenant: tenant.id }), room, config)
    for (const { messages } of [modern, former]) await until(() => messages.some((m) => m.event === 'after'), 'the last message')
    const [blob] = modern.messages
    assert.deepEqual([blob.event, Buffer.from(blob.payload), blob.meta.replayed], ['blob', Buffer.from([0, 0xff, 0x10]), true])
    assert.deepEqual(former.messages.map((m) => m.event), ['after'])
  })
})
