// Row changes go on: streams that end, databases that restart, slots, publications, tables, policies and privileges that
// change while clients are subscribed (issue: recovery; database 8.4, 9, 15.2). Every test has a tenant of its own.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { startPostgres } from '../postgres.mjs'
import { startServer, until } from '../server.mjs'
import { ALICE, assertSequence, BOB, changesTenant, fence, ids, PROMPT, publish, range, tokenOf, Watcher, Writer } from './changes.mjs'
import { streaming, withDatabase } from './tenant.mjs'

/** A change of policies, privileges or tables has its effect within this time. */
const EFFECT_MS = 3000
const OWNED = (name) => `alter table ${name} enable row level security;
  create policy own on ${name} for select to authenticated using (owner = auth.uid());`
const everything = { event: '*', schema: 'public', table: '*' }
const inserts = (table) => [{ event: 'INSERT', schema: 'public', table }]

withDatabase('row changes recover', { settings: PROMPT, shards: 2, concurrency: 3 }, ({ server, postgres }) => {
  const watch = (t, tenant, options) => Watcher.open(t, server(), { tenant, ...options })
  const make = (id) => changesTenant(server(), postgres(), id)
  const terminate = async (tenant, name) => (await postgres().query(
    `select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name = $2`, 'postgres', [tenant.id, name])).length
  const slots = (tenant) => postgres().query('select slot_name, active from pg_replication_slots where database = $1', 'postgres', [tenant.id])
  /** Waits until a row that is written now arrives. */
  const flows = (tenant, watcher, insert, options = { timeout: 40_000 }) => until(async () => {
    const before = watcher.changes.length
    await tenant.query(insert)
    await sleep(250)
    return watcher.changes.length > before
  }, 'rows arrive again', options)

  test('the walsender is ended again and again: every row arrives once, in order', async (t) => {
    const tenant = await make('walsender')
    await tenant.query(`create table plain (id int primary key); create table owned (id int primary key, owner uuid); ${OWNED('owned')}`)
    await publish(tenant, 'plain', 'owned')
    const watchers = await Promise.all(['plain', 'owned', 'plain', 'owned'].map((name, n) =>
      watch(t, tenant, { version: n < 2 ? 1 : 2, entries: inserts(name) })))
    const writer = await Writer.start(t, tenant, { pause: 3, insert:
      `with first as (insert into plain values ($1) returning id) insert into owned select id, '${ALICE}' from first` })
    let ended = 0
    for (let n = 0; n < 4; n++) {
      await sleep(150)
      ended += await terminate(tenant, 'realtime_replication_connection')
      await sleep(100)
      await streaming(server(), tenant.id)
    }
    assert.ok(ended >= 4, `${ended} streams were ended`)
    const count = await writer.stop()
    await fence(tenant, watchers)
    for (const { changes } of watchers) assertSequence(ids(changes), range(1, count))
  })

  test('a long transaction whose stream breaks in the middle arrives once', async (t) => {
    const tenant = await make('cut')
    await tenant.query('create table plain (id int primary key)')
    await publish(tenant, 'plain')
    const watcher = await watch(t, tenant, { entries: 'plain' })
    const count = 20_000
    const inserted = tenant.query(`insert into plain select n from generate_series(1, ${count}) n`)
    await until(() => watcher.changes.length > 100, 'the first rows', { timeout: 20_000 })
    const seen = watcher.changes.length
    await terminate(tenant, 'realtime_replication_connection')
    await inserted
    await fence(tenant, watcher, { timeout: 40_000 })
    t.diagnostic(`cut after ${seen} rows or more`)
    assertSequence(ids(watcher.changes), range(1, count))
  })

  test('an administrator drops the slot: rows arrive again without the client', async (t) => {
    const tenant = await make('dropped_slot')
    await tenant.query('create table plain (id int primary key generated always as identity)')
    await publish(tenant, 'plain')
    const watcher = await watch(t, tenant, { entries: 'plain' })
    const [{ slot_name: slot }] = await slots(tenant)
    await postgres().query(`do $$ begin
      perform pg_terminate_backend(active_pid, 5000) from pg_replication_slots where slot_name = '${slot}';
      perform pg_drop_replication_slot('${slot}');
    end $$`)
    await flows(tenant, watcher, 'insert into plain default values')
    const first = ids(watcher.changes)[0]
    for (let n = 0; n < 5; n++) await tenant.query('insert into plain default values')
    await fence(tenant, watcher)
    const got = ids(watcher.changes)
    assertSequence(got, range(first, got.at(-1)))
    assert.equal(watcher.member.closed, undefined)
  })

  test('the publication is dropped and made again: the client is told, and rows arrive again without it', async (t) => {
    const tenant = await make('dropped_publication')
    await tenant.query('create table plain (id int primary key generated always as identity)')
    await publish(tenant, 'plain')
    const watcher = await watch(t, tenant, { entries: 'plain' })
    await tenant.query('insert into plain default values')
    await watcher.receives(1)
    await tenant.query('drop publication supabase_realtime')
    // Written without a publication: nobody can ask for it, and it must not stand in the way.
    await tenant.query('insert into plain default values')
    const [status] = await watcher.told(2)
    assert.equal(status, 'error')
    await tenant.query('insert into plain default values')
    const tells = watcher.systems.length
    await tenant.query('create publication supabase_realtime for table plain, fence')
    await watcher.resubscribed(tells, { timeout: 40_000 })
    const earlier = watcher.drain().length
    for (let n = 0; n < 3; n++) await tenant.query('insert into plain default values')
    await fence(tenant, watcher)
    assert.ok(earlier <= 3, `${earlier} rows`)
    assert.deepEqual(ids(watcher.changes), [4, 5, 6])
  })

  test('the publication is dropped and made again at once', async (t) => {
    const tenant = await make('swapped_publication')
    await tenant.query('create table plain (id int primary key generated always as identity)')
    await publish(tenant, 'plain')
    const watcher = await watch(t, tenant, { entries: 'plain' })
    await tenant.query('insert into plain default values')
    await watcher.receives(1)
    await tenant.query('drop publication supabase_realtime; create publication supabase_realtime for table plain, fence')
    for (let n = 0; n < 20; n++) {
      await tenant.query('insert into plain default values')
      await sleep(20)
    }
    await fence(tenant, watcher)
    assertSequence(ids(watcher.changes), range(1, 21))
  })

  test('a table is published under load: nothing is lost, and wildcards get its rows', async (t) => {
    const tenant = await make('added')
    await tenant.query(`create table plain (id int primary key); create table owned (id int primary key, owner uuid); ${OWNED('owned')}
      create table more (id int primary key)`)
    await publish(tenant, 'plain', 'owned')
    const [plain, owned, all, former] = await Promise.all([
      watch(t, tenant, { entries: inserts('plain') }), watch(t, tenant, { entries: inserts('owned') }),
      watch(t, tenant, { entries: [everything] }), watch(t, tenant, { entries: [{ event: 'INSERT', schema: 'public' }], version: 1 })])
    const writer = await Writer.start(t, tenant, { pause: 3, insert: `with a as (insert into plain values ($1) returning id),
      b as (insert into owned select id, '${ALICE}' from a returning id) insert into more select id from b` })
    await writer.writes(50)
    await publish(tenant, 'more')
    const published = writer.started
    const publishedAt = Date.now()
    const got = (watcher, table) => ids(watcher.changes.filter((change) => change.table === table))
    await until(() => [all, former].every((watcher) => got(watcher, 'more').length > 0), 'rows of the new table', { timeout: 8000 })
    t.diagnostic(`after ${Date.now() - publishedAt} ms`)
    await writer.writes(50)
    // And away again.
    await tenant.query('alter publication supabase_realtime drop table more')
    await writer.writes(200)
    const count = await writer.stop()
    await fence(tenant, [plain, owned, all, former])
    for (const [watcher, table] of [[plain, 'plain'], [owned, 'owned'], [all, 'plain'], [all, 'owned'], [former, 'plain'], [former, 'owned']]) {
      assertSequence(got(watcher, table), range(1, count), table)
    }
    for (const watcher of [all, former]) {
      const more = got(watcher, 'more')
      assertSequence(more, range(more[0], more.at(-1)))
      assert.ok(more[0] >= published - 1 && more.at(-1) < count, `rows ${more[0]} to ${more.at(-1)} of ${published} to ${count}`)
    }
  })

  test('columns come, go, get another name and another type under load', async (t) => {
    const tenant = await make('columns')
    await tenant.query(`create table plain (id int primary key, a text default 'a', b int default 1);
      create table owned (id int primary key, owner uuid, a text default 'a', b int default 1); ${OWNED('owned')}`)
    await publish(tenant, 'plain', 'owned')
    const [plain, owned, filtered, selected] = await Promise.all([
      watch(t, tenant, { entries: inserts('plain') }), watch(t, tenant, { entries: inserts('owned') }),
      watch(t, tenant, { entries: [{ ...inserts('plain')[0], filter: 'id=gt.0' }], version: 1 }),
      watch(t, tenant, { entries: [{ ...inserts('plain')[0], select: ['a'] }] })])
    const writer = await Writer.start(t, tenant, { pause: 3, insert:
      `with first as (insert into plain (id) values ($1) returning id) insert into owned (id, owner) select id, '${ALICE}' from first` })
    const steps = [
      ['add column c text default \'c\'', { a: 'a', b: 1, c: 'c' }],
      ['rename column c to d', { a: 'a', b: 1, d: 'c' }],
      ['alter column b type text using \'1\', alter column b set default \'text\'', { a: 'a', b: 'text', d: 'c' }],
      ['drop column d', { a: 'a', b: 'text' }],
      ['alter column id type bigint', { a: 'a', b: 'text' }],
    ]
    await writer.writes(20)
    const rest = ({ record: { id, owner, ...row } }) => row
    const shapes = [[0, { a: 'a', b: 1 }]]
    for (const [ddl, row] of steps) {
      await tenant.query(`alter table plain ${ddl}; alter table owned ${ddl}`)
      const from = writer.started + 1
      shapes.push([from, row])
      await until(() => [plain, owned, filtered].every(({ changes }) => changes.some((change) =>
        change.record.id >= from && JSON.stringify(Object.entries(rest(change)).sort()) === JSON.stringify(Object.entries(row).sort()))),
      `rows after "${ddl}"`, { timeout: EFFECT_MS + 2000 })
      await writer.writes(30)
    }
    const count = await writer.stop()
    await fence(tenant, [plain, owned, filtered, selected])
    for (const { changes } of [plain, owned, filtered, selected]) assertSequence(ids(changes), range(1, count))
    for (const change of selected.changes) assert.deepEqual(rest(change), { a: 'a' })
    // What a row looked like when it was written: the columns it had then, with the types of then.
    const wrong = [plain, owned, filtered].flatMap(({ changes }) => changes.filter((change) => {
      const shape = shapes.findLast(([from]) => change.record.id >= from)[1]
      // A row that was written while the table was changed may have either.
      const isEdge = shapes.some(([from]) => change.record.id >= from - 20 && change.record.id < from)
      return !isEdge && JSON.stringify(Object.entries(rest(change)).sort()) !== JSON.stringify(Object.entries(shape).sort())
    }).map((change) => `${change.table} ${JSON.stringify(change.record)}`))
    assert.equal(wrong.length, 0, `${wrong.length} rows: ${wrong.slice(0, 3)} … ${wrong.slice(-3)}`)
  })

  test('the key column gets another name under load', async (t) => {
    const tenant = await make('key')
    await tenant.query(`create table plain (id int primary key); create table owned (id int primary key, owner uuid); ${OWNED('owned')}`)
    await publish(tenant, 'plain', 'owned')
    const [plain, owned] = await Promise.all([watch(t, tenant, { entries: inserts('plain') }), watch(t, tenant, { entries: inserts('owned') })])
    let n = 0
    const write = async (count, column) => {
      for (let i = 0; i < count; i++) {
        n++
        await tenant.query(`insert into plain (${column}) values (${n}); insert into owned (${column}, owner) values (${n}, '${ALICE}')`)
      }
    }
    await write(10, 'id')
    await tenant.query('alter table plain rename column id to number; alter table owned rename column id to number')
    await write(20, 'number')
    await fence(tenant, [plain, owned])
    for (const { changes } of [plain, owned]) assertSequence(changes.map(({ record }) => record.id ?? record.number), range(1, n))
  })

  /** Rows with rising ids until `check` holds, then some more; returns the id of the last row before those. */
  async function until_effective(tenant, columns, values, check, what) {
    const limit = Date.now() + EFFECT_MS
    let id = (await tenant.query('select coalesce(max(id), 0)::int as id from owned'))[0].id
    for (;;) {
      const at = Date.now()
      await tenant.query(`insert into owned (id, ${columns}) values (${++id}, ${values})`)
      await sleep(60)
      if (await check(id)) return id
      if (at > limit) throw new Error(`${what}: no effect after ${EFFECT_MS} ms`)
    }
  }

  test('row-level security is switched on while somebody is subscribed: no leak after seconds', async (t) => {
    const tenant = await make('secured')
    await tenant.query('create table owned (id int primary key, owner uuid)')
    await publish(tenant, 'owned')
    const people = [{ sub: ALICE }, { sub: BOB }, { role: 'anon' }, { role: 'service_role' }]
    const [alice, bob, anon, service] = await Promise.all(people.map((claims) => watch(t, tenant, { entries: inserts('owned'), token: tokenOf(claims) })))
    await tenant.query(`insert into owned values (1, '${BOB}')`)
    await fence(tenant, [alice, bob, anon, service])
    for (const { changes } of [alice, bob, anon, service]) assert.deepEqual(ids(changes), [1])
    await tenant.query(OWNED('owned'))
    const last = await until_effective(tenant, 'owner', `'${BOB}'`, async (id) => {
      await service.receives(id)
      await fence(tenant, [alice, anon])
      return ![alice, anon].some(({ changes }) => ids(changes).includes(id))
    }, 'row-level security')
    for (let id = last + 1; id <= last + 20; id++) {
      await tenant.query(`insert into owned values (${id}, '${BOB}')`)
      await sleep(30)
    }
    await fence(tenant, [alice, bob, anon, service])
    for (const { changes } of [alice, anon]) assert.ok(!ids(changes).some((id) => id >= last), `${ids(changes)}`)
    for (const { changes } of [bob, service]) assertSequence(ids(changes), range(1, last + 20))
    // And off again.
    await tenant.query('alter table owned disable row level security')
    await until_effective(tenant, 'owner', `'${BOB}'`, async (id) => {
      await fence(tenant, alice)
      return ids(alice.changes).includes(id)
    }, 'no row-level security')
  })

  test('a policy is changed while somebody is subscribed: the next row is judged by it', async (t) => {
    const tenant = await make('policies')
    await tenant.query(`create table owned (id int primary key, owner uuid); ${OWNED('owned')}`)
    await publish(tenant, 'owned')
    const [alice, bob] = await Promise.all([ALICE, BOB].map((sub) => watch(t, tenant, { entries: inserts('owned'), token: tokenOf({ sub }) })))
    const insert = async (id) => {
      await tenant.query(`insert into owned values (${id}, '${ALICE}')`)
      await fence(tenant, [alice, bob])
    }
    await insert(1)
    await tenant.query(`alter policy own on owned using (owner <> auth.uid())`)
    await insert(2)
    await tenant.query(`drop policy own on owned`)
    await insert(3)
    await tenant.query(`create policy everyone on owned for select using (true)`)
    await insert(4)
    await tenant.query(`create policy but on owned as restrictive for select using (owner = auth.uid())`)
    await insert(5)
    assert.deepEqual([ids(alice.changes), ids(bob.changes)], [[1, 4, 5], [2, 4]])
  })

  test('privileges are revoked while somebody is subscribed: nothing is told of the rows after seconds', async (t) => {
    const tenant = await make('revoked')
    await tenant.query('create table owned (id int primary key, secret text)')
    await publish(tenant, 'owned')
    const [user, service] = await Promise.all([{}, { role: 'service_role' }].map((claims) => watch(t, tenant, { entries: inserts('owned'), token: tokenOf(claims) })))
    const write = (id) => tenant.query(`insert into owned values (${id}, 'secret ${id}')`)
    await write(1)
    await fence(tenant, [user, service])
    assert.deepEqual(user.changes[0].record, { id: 1, secret: 'secret 1' })
    // A column, then the table.
    await tenant.query('revoke select on owned from authenticated; grant select (id) on owned to authenticated')
    const column = await until_effective(tenant, 'secret', `'secret x'`, async (id) => {
      await fence(tenant, user)
      return user.changes.at(-1).record.id === id && user.changes.at(-1).record.secret === undefined
    }, 'the right to one column')
    for (let id = column + 1; id <= column + 10; id++) await write(id)
    await tenant.query('revoke all on owned from authenticated; revoke all (id) on owned from authenticated')
    await until_effective(tenant, 'secret', `'secret x'`, async () => {
      await fence(tenant, user)
      return user.changes.at(-1).errors?.[0] === 'Error 401: Unauthorized'
    }, 'the right to the table')
    for (const { record } of user.changes.slice(column - 1)) assert.equal(record.secret, undefined)
    const from = user.changes.length
    const last = service.changes.at(-1).record.id
    for (let id = last + 1; id <= last + 10; id++) await write(id)
    await fence(tenant, [user, service])
    for (const change of user.changes.slice(from)) assert.deepEqual([change.record, change.columns, change.errors], [{}, [], ['Error 401: Unauthorized']])
    assertSequence(ids(service.changes), range(1, last + 10))
    // And granted again.
    await tenant.query('grant select on owned to authenticated')
    await until_effective(tenant, 'secret', `'secret y'`, async (id) => {
      await fence(tenant, user)
      return user.changes.at(-1).record?.id === id
    }, 'the right that is granted again')
  })

  test('a table is dropped: others go on; one of the same name is a new one', async (t) => {
    const tenant = await make('tables')
    await tenant.query('create table plain (id int primary key); create table goner (id int primary key)')
    await publish(tenant, 'plain', 'goner')
    const [plain, goner, both] = await Promise.all([watch(t, tenant, { entries: 'plain' }), watch(t, tenant, { entries: 'goner' }),
      watch(t, tenant, { entries: [everything] })])
    await tenant.query('insert into goner values (1); insert into plain values (1)')
    await fence(tenant, [plain, goner, both])
    await tenant.query('insert into goner values (2)')
    await tenant.query('drop table goner')
    for (let id = 2; id <= 20; id++) {
      await tenant.query(`insert into plain values (${id})`)
      await sleep(20)
    }
    assert.equal((await goner.told(2))[0], 'error')
    await fence(tenant, [plain, both])
    assertSequence(ids(plain.changes), range(1, 20))
    assertSequence(ids(both.changes.filter(({ table }) => table === 'plain')), range(1, 20))
    await tenant.query('create table goner (number int primary key)')
    await publish(tenant, 'goner')
    await flows(tenant, both, 'insert into goner select coalesce(max(number), 0) + 1 from goner', { timeout: EFFECT_MS + 2000 })
    assert.ok(both.changes.at(-1).record.number > 0)
  })

  test('replica identity is changed: the old rows are complete, and are not any more', async (t) => {
    const tenant = await make('identity')
    await tenant.query(`create table plain (id int primary key, note text); insert into plain values (1, 'a')`)
    await publish(tenant, 'plain')
    const watcher = await watch(t, tenant, { entries: 'plain' })
    await tenant.query(`update plain set note = 'b'`)
    await tenant.query('alter table plain replica identity full')
    await tenant.query(`update plain set note = 'c'`)
    await tenant.query('alter table plain replica identity default')
    await tenant.query(`update plain set note = 'd'; delete from plain`)
    await fence(tenant, watcher)
    assert.deepEqual(watcher.changes.map((change) => change.old_record), [{ id: 1 }, { id: 1, note: 'b' }, { id: 1 }, { id: 1 }])
  })
})

describe('row changes and a database that restarts', () => {
  let server
  let postgres
  before(async () => {
    postgres = await startPostgres({ settings: PROMPT })
    server = await startServer({ shards: 2 })
  })
  after(async () => {
    await server?.stop()
    await postgres?.remove()
  })

  test('restarted and crashed under load: every row arrives once, in order, without the client', async (t) => {
    const tenant = await changesTenant(server, postgres, 'restarts')
    await tenant.query(`create table plain (id int primary key); create table owned (id int primary key, owner uuid); ${OWNED('owned')}`)
    await publish(tenant, 'plain', 'owned')
    const watchers = await Promise.all(['plain', 'owned'].map((name, n) => Watcher.open(t, server, { tenant, version: n + 1, entries: inserts(name) })))
    const writer = await Writer.start(t, tenant, { pause: 3, lasting: true, insert:
      `with first as (insert into plain values ($1) returning id) insert into owned select id, '${ALICE}' from first` })
    await writer.writes(50)
    await postgres.restart()
    await writer.writes(100)
    await fence(tenant, watchers)
    for (const [n, { changes }] of watchers.entries()) {
      // The fence is in the middle of what is written.
      const got = ids(changes)
      assertSequence(got, range(1, got.at(-1)), `${n ? 'checked' : 'unchecked'} rows before and after the restart`)
    }
    await postgres.kill()
    await postgres.restart()
    await writer.writes(100)
    const count = await writer.stop()
    await fence(tenant, watchers, { timeout: 40_000 })
    for (const [n, { changes, member }] of watchers.entries()) {
      assert.equal(member.closed, undefined)
      assertSequence(ids(changes), range(1, count), `${n ? 'checked' : 'unchecked'} rows before and after the crash`)
    }
  })
})
