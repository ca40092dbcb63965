// Broadcasts that SQL sends, as both generations of the official client see them (protocol 8.6, database 6 and 11).
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { readyTenant, withDatabase } from '../database/tenant.mjs'
import { until } from '../server.mjs'
import { freshTopic, member, newClient, oldClient } from './clients.mjs'

const QUIET_MS = 300
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const arrived = (messages, count = 1) => until(() => messages.length >= count, `${count} broadcasts, have ${messages.length}`)

withDatabase('broadcasts from the database', { shards: 2 }, ({ server, postgres }) => {
  let tenant
  before(async () => { tenant = await readyTenant(server(), postgres(), 'sql') })
  const open = (Client, t) => Client(t, server(), { tenant: tenant.id })
  /** One member of each generation. */
  const both = (t, room, config = { private: true }) =>
    Promise.all([newClient, oldClient].map((Client) => member(open(Client, t), room, config)))

  for (const isPrivate of [true, false]) {
    test(`realtime.send reaches the ${isPrivate ? 'private' : 'public'} room only`, async (t) => {
      const room = freshTopic('read-broadcast')
      const members = await both(t, room, { private: isPrivate })
      const outsiders = await both(t, room, { private: !isPrivate })
      await tenant.query(`select realtime.send('{"n": 4, "text": "größe 🦊"}', 'tick', $1, $2)`, [room, isPrivate])
      for (const { messages } of members) {
        await arrived(messages)
        const [{ payload, meta, ...rest }] = messages
        assert.deepEqual(rest, { type: 'broadcast', event: 'tick' })
        assert.match(meta.id, UUID)
        assert.deepEqual(meta, { id: meta.id })
        assert.deepEqual(payload, { n: 4, text: 'größe 🦊', id: meta.id })
      }
      await sleep(QUIET_MS)
      for (const { messages } of members) assert.equal(messages.length, 1)
      for (const { messages } of outsiders) assert.deepEqual(messages, [])
    })
  }

  test('an id in the payload stays there, and is not the id of the message', async (t) => {
    const room = freshTopic('read-broadcast')
    const members = await both(t, room)
    await tenant.query(`select realtime.send('{"id":"mine"}', 'tick', $1)`, [room])
    const [{ id }] = await tenant.query('select id from realtime.messages where topic = $1', [room])
    for (const { messages } of members) {
      await arrived(messages)
      assert.deepEqual(messages, [{ type: 'broadcast', event: 'tick', payload: { id: 'mine' }, meta: { id } }])
    }
  })

  test('nothing of a transaction that is rolled back, everything of one that is committed, in order', async (t) => {
    const room = freshTopic('read-broadcast')
    const members = await both(t, room)
    const client = await tenant.client()
    t.after(() => client.end())
    const send = (n) => client.query(`select realtime.send(jsonb_build_object('n', $1::int), 'tick', $2)`, [n, room])
    await client.query('begin')
    await send(-1)
    await client.query('rollback')
    await client.query('begin')
    for (let n = 0; n < 20; n++) await send(n)
    await client.query('savepoint s')
    await send(-2)
    await client.query('rollback to savepoint s')
    await sleep(QUIET_MS)
    for (const { messages } of members) assert.deepEqual(messages, [])
    await client.query('commit')
    for (const { messages } of members) {
      await arrived(messages, 20)
      assert.deepEqual(messages.map(({ payload }) => payload.n), Array.from({ length: 20 }, (_, n) => n))
    }
  })

  test('realtime.broadcast_changes in a trigger sends inserts, updates and deletes', async (t) => {
    const table = 'orders_sdk'
    const room = 'read-broadcast orders'
    await tenant.query(`
      create table public.${table} (id bigint primary key, label text, amount numeric);
      create function public.tell() returns trigger language plpgsql as $$
      begin
        perform realtime.broadcast_changes('${room}', tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
        return null;
      end $$;
      create trigger tell after insert or update or delete on public.${table} for each row execute function public.tell();`)
    const members = await both(t, room)
    await tenant.query(`insert into public.${table} values (1, 'pens', 2.50)`)
    await tenant.query(`update public.${table} set label = 'ink'`)
    await tenant.query(`delete from public.${table}`)
    const row = (label) => ({ id: 1, label, amount: 2.5 })
    const change = (operation, record, old_record) => ({ schema: 'public', table, operation, record, old_record })
    for (const { messages } of members) {
      await arrived(messages, 3)
      assert.deepEqual(messages.map((m) => [m.type, m.event]), ['INSERT', 'UPDATE', 'DELETE'].map((event) => ['broadcast', event]))
      assert.deepEqual(messages.map(({ payload: { id, ...payload }, meta }) => (assert.equal(id, meta.id), payload)), [
        change('INSERT', row('pens'), null), change('UPDATE', row('ink'), row('pens')), change('DELETE', null, row('ink')),
      ])
    }
  })

  test('realtime.send_binary reaches the current generation only', async (t) => {
    const room = freshTopic('read-broadcast')
    const [modern, former] = await both(t, room)
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, n) => n))
    await tenant.query(`select realtime.send_binary($1, 'blob', $2)`, [bytes, room])
    await tenant.query(`select realtime.send('{}', 'after', $1)`, [room])
    for (const { messages } of [modern, former]) await until(() => messages.some((m) => m.event === 'after'), 'the next message')
    const [blob] = modern.messages
    assert.ok(blob.payload instanceof ArrayBuffer)
    assert.deepEqual([blob.event, Buffer.from(blob.payload), Object.keys(blob.meta)], ['blob', bytes, ['id']])
    assert.deepEqual(former.messages.map((m) => m.event), ['after'])
  })

  test('rows are delivered whoever inserts them, and only inserts', async (t) => {
    const room = freshTopic('read-broadcast')
    const members = await both(t, room)
    await tenant.query(`insert into realtime.messages (topic, event, extension, payload, private)
      values ($1, 'plain', 'presence', '{"n":1}', true)`, [room])
    await tenant.query(`update realtime.messages set payload = '{"n":2}' where topic = $1`, [room])
    await tenant.query(`delete from realtime.messages where topic = $1`, [room])
    await tenant.query(`select realtime.send('{"n":3}', 'last', $1)`, [room])
    for (const { messages } of members) {
      await until(() => messages.some((m) => m.event === 'last'), 'the last one')
      assert.deepEqual(messages.map((m) => m.event), ['plain', 'last'])
      assert.deepEqual(messages[0].payload, { n: 1 })
    }
  })

  test('rows without event, payload or privacy, and those above the size limit, are left out', async (t) => {
    const room = freshTopic('read-broadcast')
    const [modern, former] = await both(t, room)
    const insert = (event, isPrivate, payload) => tenant.query(
      `insert into realtime.messages (topic, extension, event, private, payload) values ($1, 'broadcast', $2, $3, $4)`,
      [room, event, isPrivate, payload])
    await insert(null, true, '{}')
    await insert('no-privacy', null, '{}')
    await insert('no-payload', true, null)
    await tenant.query(`select realtime.send(jsonb_build_object('text', repeat('x', 3100000)), 'too-big', $1)`, [room])
    await tenant.query(`select realtime.send(jsonb_build_object('text', repeat('x', 2900000)), 'just-fits', $1)`, [room])
    for (const { messages } of [modern, former]) {
      await arrived(messages)
      assert.deepEqual(messages.map((m) => m.event), ['just-fits'])
      assert.equal(messages[0].payload.text.length, 2_900_000)
    }
  })

  test('many rows in one statement arrive in order', async (t) => {
    const room = freshTopic('read-broadcast')
    const members = await both(t, room)
    const count = 3000
    await tenant.query(`select realtime.send(jsonb_build_object('n', n), 'tick', $1) from generate_series(0, ${count - 1}) n`, [room])
    for (const { messages } of members) {
      await arrived(messages, count)
      assert.deepEqual(messages.map(({ payload }) => payload.n), Array.from({ length: count }, (_, n) => n))
    }
  })

  test('a member that asks is told once when the stream is there', async (t) => {
    const channel = open(newClient, t).channel(freshTopic('read-broadcast'), { config: { private: true, broadcast: { replication_ready: true } } })
    const systems = []
    channel.on('system', {}, (message) => systems.push(message))
    channel.subscribe()
    await until(() => systems.length, 'the system message')
    await sleep(QUIET_MS)
    assert.deepEqual(systems.map(({ extension, status, message }) => [extension, status, message]),
      [['system', 'ok', 'Replication connection established']])
  })
})
