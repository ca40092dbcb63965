// Row changes as both generations of the official client see them (protocol 11, database 7–9).
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { ALICE, BOB, changesTenant, PROMPT, publish, tokenOf } from '../database/changes.mjs'
import { withDatabase } from '../database/tenant.mjs'
import { until } from '../server.mjs'
import { freshTopic, inbox, newClient, oldClient, subscribed } from './clients.mjs'

const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const SUBSCRIBED = 'Subscribed to PostgreSQL'
const CLIENTS = { current: newClient, former: oldClient }

const arrived = (changes, count = 1) => until(() => changes.length >= count, 'changes').catch(() => {
  throw new Error(`${changes.length} of ${count} changes arrived: ${JSON.stringify(changes)}`)
})

/** A channel with one listener for each of `entries`; what each hears, and the `system` messages. */
function listen(client, entries, config = {}, topic = freshTopic('changes')) {
  const channel = client.channel(topic, { config })
  const heard = entries.map((entry) => {
    const changes = []
    channel.on('postgres_changes', entry, (change) => changes.push(change))
    return changes
  })
  const systems = []
  channel.on('system', {}, (message) => systems.push(message))
  const told = (count = 1) => until(() => systems.length >= count, `system message ${count}`, { timeout: 20_000 }).then(() => systems[count - 1])
  return { channel, heard, changes: heard[0], systems, told }
}

/** The same, subscribed. */
async function watch(client, entries, config, topic) {
  const watched = listen(client, entries, config, topic)
  await subscribed(watched.channel)
  const { status, message } = await watched.told()
  assert.deepEqual([status, message], ['ok', SUBSCRIBED])
  return watched
}

withDatabase('row changes', { settings: PROMPT, shards: 2, concurrency: true }, ({ server, postgres }) => {
  let tenant
  // Nobody publishes tables here while tests run, which would give every subscriber one more message.
  let calm
  before(async () => {
    // The former client does not ask for presence.
    tenant = await changesTenant(server(), postgres(), 'sdk-changes', { presence_enabled: true })
    // The last row of a test: what would have come before it has come.
    await tenant.query('create table public.last_ones (name text primary key)')
    await publish(tenant, 'last_ones')
    calm = await changesTenant(server(), postgres(), 'sdk-calm')
    await calm.query(`${Object.keys(CLIENTS).map((name) => `create table ${name} (id int primary key, owner uuid); ${OWNED(name)}`).join('')}
      create table anew (id int primary key)`)
    await publish(calm, ...Object.keys(CLIENTS), 'anew')
  })
  const open = (Client, t, claims, { id } = tenant) => Client(t, server(), { tenant: id, token: tokenOf(claims) })
  const all = (table, rest = {}) => ({ event: '*', schema: 'public', table, ...rest })
  let tables = 0
  /** A published table with that definition (of columns); `more` is SQL about it. */
  async function table(columns, more = () => '') {
    const name = `things_${++tables}`
    await tenant.query(`create table public.${name} (${columns}); ${more(name)}`)
    await publish(tenant, name)
    return name
  }
  const OWNED = (name) => `alter table ${name} enable row level security;
    create policy own on ${name} for select to authenticated using (owner = auth.uid());`

  for (const [generation, Client] of Object.entries(CLIENTS)) {
    test(`the ${generation} client: insert, update and delete`, async (t) => {
      const name = await table('id bigint primary key, label text, amount numeric, done boolean, tags text[], at timestamptz, extra jsonb')
      const { changes } = await watch(open(Client, t), [all(name)])
      const earliest = Date.now() - 5
      await tenant.query(`insert into ${name} values (1, 'größe 🦊', 2.50, true, '{x,"y z"}', '2024-01-02 03:04:05.678+02', '{"a": [1, null]}')`)
      await tenant.query(`update ${name} set label = null, amount = 3`)
      await tenant.query(`delete from ${name}`)
      await arrived(changes, 3)
      const row = { id: 1, label: 'größe 🦊', amount: 2.5, done: true, tags: ['x', 'y z'], at: '2024-01-02T01:04:05.678+00:00', extra: { a: [1, null] } }
      const about = { schema: 'public', table: name, errors: null }
      assert.deepEqual(changes.map(({ commit_timestamp, ...rest }) => rest), [
        { ...about, eventType: 'INSERT', new: row, old: {} },
        { ...about, eventType: 'UPDATE', new: { ...row, label: null, amount: 3 }, old: { id: 1 } },
        { ...about, eventType: 'DELETE', new: {}, old: { id: 1 } },
      ])
      for (const { commit_timestamp: at } of changes) {
        assert.match(at, TIMESTAMP)
        assert.ok(Date.parse(at) >= earliest && Date.parse(at) <= Date.now() + 5, at)
      }
    })

    test(`the ${generation} client: two users see their own rows, service_role all, anon none`, async (t) => {
      const name = await table('id int primary key, owner uuid, note text', OWNED)
      const people = [{ sub: ALICE }, { sub: BOB }, { role: 'service_role' }, { role: 'anon' }]
      const [alice, bob, service, anon] = await Promise.all(people.map((claims) =>
        watch(open(Client, t, claims), [all(name), all('last_ones')])))
      await tenant.query(`insert into ${name} values (1, '${ALICE}', 'a'), (2, '${BOB}', 'b'), (3, null, 'c')`)
      await arrived(service.changes, 3)
      await arrived(bob.changes)
      await tenant.query(`update ${name} set note = note || '!' where id < 3`)
      await arrived(service.changes, 5)
      await arrived(bob.changes, 2)
      await tenant.query(`update ${name} set owner = '${BOB}' where id = 1`)
      await arrived(service.changes, 6)
      await arrived(bob.changes, 3)
      await tenant.query(`delete from ${name}`)
      await tenant.query(`insert into last_ones values ('${name}')`)
      for (const { heard } of [alice, bob, service, anon]) await until(() => heard[1].some((change) => change.new.name === name), 'the last row')
      const seen = ({ changes }) => changes.map(({ eventType, new: row, old }) => [eventType, row.id ?? old.id, row.note])
      // Nobody checks deletes: whoever subscribed gets the keys.
      const deletes = [1, 2, 3].map((id) => ['DELETE', id, undefined])
      // An update whose row is looked at after the delete is left out; so the order of deletes is the order of the table.
      assert.deepEqual(seen(alice), [['INSERT', 1, 'a'], ['UPDATE', 1, 'a!'], ...sorted(deletes, seen(alice))])
      assert.deepEqual(seen(bob), [['INSERT', 2, 'b'], ['UPDATE', 2, 'b!'], ['UPDATE', 1, 'a!'], ...sorted(deletes, seen(bob))])
      assert.deepEqual(seen(service), [
        ['INSERT', 1, 'a'], ['INSERT', 2, 'b'], ['INSERT', 3, 'c'], ['UPDATE', 1, 'a!'], ['UPDATE', 2, 'b!'], ['UPDATE', 1, 'a!'],
        ...sorted(deletes, seen(service))])
      assert.deepEqual(seen(anon), sorted(deletes, seen(anon)))
      for (const change of service.changes.filter((c) => c.eventType === 'DELETE')) assert.deepEqual(Object.keys(change.old), ['id'])
    })

    test(`the ${generation} client: filters`, async (t) => {
      const name = await table('id int primary key, name text, price numeric, done boolean, note text')
      const filters = {
        'id=eq.3': [3], 'id=in.(1,4,9)': [1, 4], 'id=gt.1,id=lt.4': [2, 3], 'price=gte.2.5,done=is.true': [3],
        'name=not.eq.red': [2, 3, 4], 'name=like.b%': [2, 4], 'name=not.like.b%': [1, 3], 'note=is.null': [1, 2],
        'note=not.is.null': [3, 4], 'note=isdistinct.x': [1, 2, 4], 'note=not.isdistinct.x': [3], 'name=in.(red,"dark, green")': [1, 3],
        'name=neq.red,note=eq.x': [3], 'name=match.^(b|d).*e': [2, 3], 'done=is.unknown': [4], 'id=not.in.(1,2)': [3, 4],
      }
      const keys = Object.keys(filters)
      const { heard } = await watch(open(Client, t), [...keys.map((filter) => all(name, { event: 'INSERT', filter })), all(name)])
      await tenant.query(`insert into ${name} values (1, 'red', 1, true, null), (2, 'blue', 2.49, false, null),
        (3, 'dark, green', 2.5, true, 'x'), (4, 'black', 10, null, 'y')`)
      await arrived(heard.at(-1), 4)
      assert.deepEqual(Object.fromEntries(keys.map((filter, n) => [filter, heard[n].map((change) => change.new.id)])), filters)
    })

    test(`the ${generation} client: selected columns`, async (t) => {
      const name = await table('id int primary key, a text, b text, c text')
      const { heard: [some, everything] } = await watch(open(Client, t), [all(name, { select: ['b'] }), all(name, { event: 'UPDATE' })])
      await tenant.query(`insert into ${name} values (1, 'a', 'b', 'c')`)
      await tenant.query(`update ${name} set a = 'x', b = 'y'`)
      await arrived(some, 2)
      await arrived(everything)
      assert.deepEqual(some.map((change) => change.new), [{ id: 1, b: 'b' }, { id: 1, b: 'y' }])
      assert.deepEqual(everything.map((change) => change.new), [{ id: 1, a: 'x', b: 'y', c: 'c' }])
    })

    test(`the ${generation} client: several listeners and wildcards on one channel`, async (t) => {
      const name = await table('id int primary key, n int')
      const other = await table('id int primary key, n int')
      const client = open(Client, t)
      const entries = [
        all(name, { event: 'INSERT' }), all(name, { event: 'UPDATE' }), all(name, { event: 'DELETE' }), all(name), all(other),
        all(name, { filter: 'n=gt.5' }), { event: 'INSERT', schema: 'public', table: '*' }, { event: '*', schema: 'public' },
        { event: 'INSERT', schema: '*' },
      ]
      const { heard } = await watch(client, entries)
      await tenant.query(`insert into ${name} values (1, 1)`)
      await tenant.query(`insert into ${other} values (1, 10)`)
      await tenant.query(`update ${name} set n = 6`)
      await tenant.query(`delete from ${name}`)
      await tenant.query(`insert into last_ones values ('${name}')`)
      await until(() => heard.at(-1).some((change) => change.new.name === name), 'the last row')
      // Other tests write to the same schema meanwhile.
      const seen = (changes) => changes.filter((c) => [name, other].includes(c.table)).map((c) => `${c.eventType} ${c.table === name ? 1 : 2}`)
      assert.deepEqual(heard.map(seen), [
        ['INSERT 1'], ['UPDATE 1'], ['DELETE 1'], ['INSERT 1', 'UPDATE 1', 'DELETE 1'], ['INSERT 2'], ['UPDATE 1'],
        ['INSERT 1', 'INSERT 2'], ['INSERT 1', 'INSERT 2', 'UPDATE 1', 'DELETE 1'], ['INSERT 1', 'INSERT 2'],
      ])
    })

    test(`the ${generation} client: nothing after unsubscribe; the same topic can be subscribed again`, async (t) => {
      const name = await table('id int primary key')
      const client = open(Client, t)
      const topic = freshTopic('again')
      const first = await watch(client, [all(name)], {}, topic)
      const witness = await watch(open(Client, t), [all(name)])
      await tenant.query(`insert into ${name} values (1)`)
      await arrived(first.changes)
      assert.equal(await client.removeChannel(first.channel), 'ok')
      await tenant.query(`insert into ${name} values (2)`)
      await arrived(witness.changes, 2)
      const second = await watch(client, [all(name)], {}, topic)
      await tenant.query(`insert into ${name} values (3)`)
      for (const [{ changes }, count] of [[second, 1], [witness, 3]]) await arrived(changes, count)
      assert.deepEqual([first, second, witness].map(({ changes }) => changes.map((c) => c.new.id)), [[1], [3], [1, 2, 3]])
    })

    test(`the ${generation} client: setAuth with another user's token changes what is seen`, async (t) => {
      const name = generation
      const client = open(Client, t, { sub: ALICE }, calm)
      await client.setAuth(tokenOf({ sub: ALICE }))
      const { changes, told } = await watch(client, [all(name)])
      await calm.query(`insert into ${name} values (1, '${ALICE}'), (2, '${BOB}')`)
      await arrived(changes)
      await client.setAuth(tokenOf({ sub: BOB }))
      assert.equal((await told(2)).message, SUBSCRIBED)
      await calm.query(`insert into ${name} values (3, '${ALICE}'), (4, '${BOB}')`)
      await arrived(changes, 2)
      await client.setAuth(tokenOf({ role: 'service_role' }))
      assert.equal((await told(3)).message, SUBSCRIBED)
      await calm.query(`insert into ${name} values (5, '${ALICE}')`)
      await arrived(changes, 3)
      assert.deepEqual(changes.map((c) => c.new.id), [1, 4, 5])
    })

    test(`the ${generation} client: a table that is not published is an error; the channel lives`, async (t) => {
      await tenant.query(`create table if not exists public.private_${generation} (id int primary key)`)
      const { channel, told, changes } = listen(open(Client, t), [all(`private_${generation}`)], { broadcast: { self: true } })
      const broadcasts = inbox(channel)
      await subscribed(channel)
      const { status, message, extension } = await told()
      assert.deepEqual([extension, status], ['postgres_changes', 'error'])
      assert.equal(message.replace(/\s+/g, ' '), 'Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given '
        + `connect parameters: [event: *, schema: public, table: private_${generation}, filters: [], select: nil]`)
      await tenant.query(`insert into private_${generation} values (1)`)
      await channel.send({ type: 'broadcast', event: 'still', payload: {} })
      await until(() => broadcasts.length, 'its own broadcast')
      assert.deepEqual(changes, [])
    })

    test(`the ${generation} client: a filter on a column that does not exist, and a value that cannot be cast`, async (t) => {
      const name = await table('id int primary key')
      const client = open(Client, t)
      const reason = async (filter) => {
        const { channel, told } = listen(client, [all(name, { filter })])
        await subscribed(channel)
        const { status, message } = await told()
        assert.equal(status, 'error')
        return message.replace(/\s+/g, ' ').split('Exception: ').at(-1)
      }
      assert.equal(await reason('nope=eq.1'), 'ERROR P0001 (raise_exception) invalid column for filter nope')
      assert.match(await reason('id=eq.abc'), /^ERROR 22P02 \(invalid_text_representation\) invalid input syntax for type integer: "abc"/)
      assert.equal(await reason('id'), 'Error parsing `filter` params: ["id"]')
    })

    test(`the ${generation} client: broadcast, presence and changes on one channel`, async (t) => {
      const name = await table('id int primary key')
      const topic = freshTopic('all-three')
      const both = await Promise.all(['one', 'two'].map(async (key) => {
        const watched = listen(open(Client, t), [all(name)], { presence: { key } }, topic)
        watched.broadcasts = inbox(watched.channel)
        watched.channel.on('presence', { event: 'sync' }, () => {})
        await subscribed(watched.channel)
        await watched.told()
        return watched
      }))
      const [one, two] = both
      await one.channel.track({ here: true })
      await two.channel.track({ here: true })
      await one.channel.send({ type: 'broadcast', event: 'hello', payload: { n: 1 } })
      await tenant.query(`insert into ${name} values (1)`)
      await until(() => two.broadcasts.length, 'the broadcast')
      assert.deepEqual([two.broadcasts[0].event, two.broadcasts[0].payload], ['hello', { n: 1 }])
      for (const { channel, changes } of both) {
        await arrived(changes)
        await until(() => Object.keys(channel.presenceState()).length === 2, 'both are present')
        assert.deepEqual(changes.map((c) => c.new.id), [1])
      }
    })

    test(`the ${generation} client: errors for tables without a primary key, keys that may not be read and large rows`, async (t) => {
      const keyless = await table('id int')
      const hidden = await table('id int primary key, note text', (name) => `revoke all on ${name} from authenticated; grant select (note) on ${name} to authenticated;`)
      const large = await table('id int primary key, big text, small text')
      const { heard: [a, b, c] } = await watch(open(Client, t), [all(keyless), all(hidden), all(large)])
      await tenant.query(`insert into ${keyless} values (1)`)
      await tenant.query(`insert into ${hidden} values (1, 'x')`)
      await tenant.query(`insert into ${large} values (1, repeat('x', 1100000), 'y')`)
      for (const changes of [a, b, c]) await arrived(changes)
      const parts = ({ commit_timestamp: at, new: row, errors }) => [at === null, row, errors]
      assert.deepEqual(parts(a[0]), [true, {}, ['Error 400: Bad Request, no primary key']])
      assert.deepEqual(parts(b[0]), [true, {}, ['Error 401: Unauthorized']])
      const [hasNoTime, row, errors] = parts(c[0])
      assert.deepEqual([hasNoTime, errors], [false, ['Error 413: Payload Too Large']])
      assert.equal(row.small, 'y')
      assert.equal(row.id, 1)
      assert.ok(!row.big)
    })
  }

  test('a client that reconnects is subscribed again', async (t) => {
    const client = open(newClient, t, {}, calm)
    const { changes, told } = await watch(client, [all('anew')])
    await calm.query(`insert into anew values (1)`)
    await arrived(changes)
    client.socketAdapter.getSocket().conn.close()
    await told(2)
    await calm.query(`insert into anew values (2)`)
    await arrived(changes, 2)
    assert.deepEqual(changes.map((c) => c.new.id), [1, 2])
  })
})

/** `wanted` in the order in which its members stand in `list`. */
function sorted(wanted, list) {
  const place = (item) => list.findIndex((other) => JSON.stringify(other) === JSON.stringify(item))
  return [...wanted].sort((a, b) => place(a) - place(b))
}
