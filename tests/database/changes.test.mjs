// Row changes on bare sockets: the moment a subscription counts from, both encodings, large transactions, slow and failing
// policies, the rate limit, idle cost (protocol 11, database 7–9, 15.2).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../server.mjs'
import { ALICE, assertSequence, BOB, changesTenant, fence, ids, PROMPT, publish, range, tokenOf, told, Watcher, Writer } from './changes.mjs'
import { timed, withDatabase } from './tenant.mjs'

const OWNED = (name) => `alter table ${name} enable row level security;
  create policy own on ${name} for select to authenticated using (owner = auth.uid());`

for (const shards of [1, 2]) {
  withDatabase(`row changes, ${shards} shard${shards === 1 ? '' : 's'}`, { settings: PROMPT, shards }, ({ server, postgres }) => {
    const watch = (t, tenant, options) => Watcher.open(t, server(), { tenant, ...options })

    test('every row whose insert starts after "Subscribed to PostgreSQL" arrives once, in order', async (t) => {
      const tenant = await changesTenant(server(), postgres(), 'moment')
      await tenant.query(`create table plain (id int primary key); create table owned (id int primary key, owner uuid); ${OWNED('owned')}`)
      await publish(tenant, 'plain', 'owned')
      const writer = await Writer.start(t, tenant, { pause: 1, insert:
        `with first as (insert into plain values ($1) returning id) insert into owned select id, '${ALICE}' from first` })
      await writer.writes(20)
      const watchers = []
      const one = async (n) => {
        // Not all at the same moment, and not all in the same way.
        await sleep(n * 37)
        const name = n % 2 ? 'owned' : 'plain'
        const watcher = await Watcher.join(t, server(), { tenant, version: n % 3 ? 2 : 1, entries: [{
          event: 'INSERT', schema: 'public', table: name, ...(n % 5 === 4 && { filter: 'id=gt.0' }) }] })
        await new Promise((done, fail) => {
          const look = () => {
            if (watcher.systems.length === 0) return
            watcher.member.ws.off('message', look)
            // Rows the writer starts from now on must come.
            watcher.first = writer.started + 1
            done()
          }
          watcher.member.ws.on('message', look)
          look()
          setTimeout(() => fail(new Error('not subscribed in time')), 20_000).unref()
        })
        assert.deepEqual(watcher.systems, [['ok', 'Subscribed to PostgreSQL']])
        watchers.push(Object.assign(watcher, { what: `${name}${n % 5 === 4 ? ', filtered' : ''}` }))
      }
      await Promise.all(range(0, 23).map(one))
      await writer.writes(50)
      const count = await writer.stop()
      await fence(tenant, watchers)
      for (const { changes, first, what } of watchers) {
        const got = ids(changes)
        assert.ok(got[0] <= first, `starts with ${got[0]} instead of ${first} or before`)
        assertSequence(got, range(got[0], count), what)
      }
    })

    test('sockets of both versions get the same changes, each in its own encoding', async (t) => {
      const tenant = await changesTenant(server(), postgres(), 'versions')
      await tenant.query('create table plain (id int primary key, note text)')
      await publish(tenant, 'plain')
      // One room, so that they are neighbours in the fan-out too, and some of their own.
      const watchers = await Promise.all(range(0, 9).map((n) =>
        watch(t, tenant, { entries: 'plain', version: 1 + (n % 2), ...(n < 6 && { room: 'shared' }) })))
      const raw = watchers.map(({ member }) => {
        const texts = []
        member.ws.on('message', (data, isBinary) => { if (!isBinary && data.includes('postgres_changes')) texts.push(JSON.parse(data)) })
        return texts
      })
      await tenant.query(`insert into plain values (1, 'größe 🦊')`)
      await tenant.query(`update plain set note = 'b'`)
      await tenant.query('delete from plain')
      await fence(tenant, watchers)
      const [{ changes: expected }] = watchers
      assert.deepEqual(told(expected), [['INSERT', 1], ['UPDATE', 1], ['DELETE', 1]])
      assert.deepEqual(expected[0].columns, [{ name: 'id', type: 'int4' }, { name: 'note', type: 'text' }])
      watchers.forEach((watcher, n) => {
        assert.deepEqual(watcher.changes, expected)
        assert.deepEqual(watcher.changes.map((change) => change.ids), range(1, 3).map(() => [watcher.ids[0]]))
        const topic = `realtime:${watcher.room}`
        const bodies = raw[n].slice(0, 3)
        for (const message of bodies) {
          if (n % 2) assert.deepEqual([Array.isArray(message), message.length, message.slice(0, 4)], [true, 5, [null, null, topic, 'postgres_changes']])
          else assert.deepEqual({ ...message, payload: 0 }, { topic, event: 'postgres_changes', payload: 0, ref: null })
        }
      })
    })

    test('a transaction of 10,000 rows arrives completely and in order, with and without row-level security', async (t) => {
      const tenant = await changesTenant(server(), postgres(), 'bulk')
      await tenant.query(`create table plain (id int primary key, note text);
        create table owned (id int primary key, owner uuid, note text); ${OWNED('owned')}`)
      await publish(tenant, 'plain', 'owned')
      const [plain, both, alice, bob, filtered] = await Promise.all([
        watch(t, tenant, { entries: 'plain' }),
        watch(t, tenant, { entries: [{ event: '*', schema: 'public', table: '*' }], version: 1, token: tokenOf({ role: 'service_role' }) }),
        watch(t, tenant, { entries: 'owned', token: tokenOf({ sub: ALICE }) }),
        watch(t, tenant, { entries: 'owned', token: tokenOf({ sub: BOB }) }),
        watch(t, tenant, { entries: [{ event: 'INSERT', schema: 'public', table: 'plain', filter: 'id=in.(1,5000,10000)' }] }),
      ])
      const count = 10_000
      const client = await tenant.client()
      t.after(() => client.end())
      await client.query('begin')
      await client.query(`insert into plain select n, 'row ' || n from generate_series(1, ${count}) n`)
      await client.query(`insert into owned select n, case when n % 3 = 0 then '${BOB}' else '${ALICE}' end::uuid, 'row ' || n from generate_series(1, ${count}) n`)
      await client.query('commit')
      await fence(tenant, [plain, both, alice, bob, filtered], { timeout: 60_000 })
      assertSequence(ids(plain.changes), range(1, count))
      const bobs = range(1, count).filter((n) => n % 3 === 0)
      assertSequence(ids(bob.changes), bobs)
      assertSequence(ids(alice.changes), range(1, count).filter((n) => n % 3))
      assertSequence(ids(both.changes.filter(({ table }) => table !== 'fence')), [...range(1, count), ...range(1, count)])
      assert.deepEqual(ids(filtered.changes), [1, 5000, 10000])
      assert.equal(new Set(plain.changes.map((change) => change.commit_timestamp)).size, 1)
      assert.equal(plain.changes[4321].record.note, 'row 4322')
    })
  })
}

withDatabase('row changes', { settings: { ...PROMPT, synchronous_standby_names: 'nobody' }, shards: 2, concurrency: 4 }, ({ server, postgres }) => {
  const watch = (t, tenant, options) => Watcher.open(t, server(), { tenant, ...options })

  /** A table whose policy calls `trouble` (SQL) for Bob only. */
  async function troubled(t, id, trouble) {
    const tenant = await changesTenant(server(), postgres(), id)
    await tenant.query(`
      create table owned (id int primary key, owner uuid);
      create table troubles (isOn boolean); insert into troubles values (true); grant select on troubles to authenticated;
      create function trouble() returns boolean language plpgsql as $$ begin
        if (select isOn from troubles) then ${trouble} end if;
        return true;
      end $$;
      alter table owned enable row level security;
      create policy own on owned for select to authenticated using (case when auth.uid() = '${BOB}' then trouble() else owner = auth.uid() end);
      create policy all_of_it on owned for select to anon using (true);`)
    await publish(tenant, 'owned')
    const people = { alice: { sub: ALICE }, bob: { sub: BOB }, anon: { role: 'anon' }, service: { role: 'service_role' } }
    const watchers = Object.fromEntries(await Promise.all(Object.entries(people).map(async ([name, claims]) =>
      [name, await watch(t, tenant, { entries: 'owned', token: tokenOf(claims) })])))
    return { tenant, ...watchers }
  }
  test('a policy that raises for one user hurts nobody else, and is over when it is over', async (t) => {
    const { tenant, alice, bob, anon, service } = await troubled(t, 'raises', `raise exception 'this policy has no opinion';`)
    for (let id = 1; id <= 30; id++) await tenant.query(`insert into owned values (${id}, '${ALICE}')`)
    await fence(tenant, [alice, anon, service])
    for (const { changes } of [alice, anon, service]) assertSequence(ids(changes), range(1, 30))
    await fence(tenant, bob)
    assert.deepEqual(bob.changes, [])
    await tenant.query('update troubles set isOn = false')
    await tenant.query(`insert into owned values (31, '${ALICE}')`)
    await fence(tenant, [alice, bob])
    assert.deepEqual(ids(bob.changes), [31])
    assertSequence(ids(alice.changes), range(1, 31))
  })

  test('a policy that sleeps for one user holds nobody else up, and is over when it is over', async (t) => {
    const { tenant, alice, bob, anon, service } = await troubled(t, 'sleeps', 'perform pg_sleep(60);')
    const slowest = []
    for (let id = 1; id <= 20; id++) {
      const [elapsed] = await timed(async () => {
        await tenant.query(`insert into owned values (${id}, '${ALICE}')`)
        await Promise.all([alice, anon, service].map((watcher) => watcher.receives(id)))
      })
      slowest.push(elapsed)
    }
    assert.ok(Math.max(...slowest) < 2500, `took ${slowest} ms`)
    assert.deepEqual(bob.changes, [])
    for (const { changes } of [alice, anon, service]) assertSequence(ids(changes), range(1, 20))
    await tenant.query('update troubles set isOn = false')
    // Questions have ten seconds. What waited is asked about then.
    await until(async () => {
      const id = (await tenant.query('select max(id) + 1 as id from owned'))[0].id
      await tenant.query(`insert into owned values (${id}, '${ALICE}')`)
      await alice.receives(id)
      await sleep(200)
      return ids(bob.changes).includes(id)
    }, 'the other user gets changes again', { timeout: 30_000 })
    const got = ids(bob.changes)
    assert.deepEqual(got, [...new Set(got)].sort((a, b) => a - b))
    assertSequence(ids(alice.changes), range(1, alice.changes.length))
  })

  /** Runs a statement whose commit is in the log, and streamed, 200 ms before others see it: its session waits for a standby
   * that does not exist. Every commit has a short moment of that kind. */
  async function lateCommits(t, tenant) {
    const client = await tenant.client()
    t.after(() => client.end())
    await client.query('set synchronous_commit = on')
    const { rows: [{ pid }] } = await client.query('select pg_backend_pid() as pid')
    return async (sql) => {
      const committed = client.query(sql)
      await until(async () => (await tenant.query(`select from pg_stat_activity where pid = ${pid} and wait_event = 'SyncRep'`)).length, 'it waits')
      await sleep(200)
      await tenant.query(`select pg_cancel_backend(${pid})`)
      await committed
    }
  }

  /** A tenant with the table `owned`, and three who watch it. */
  async function owners(t, id) {
    const tenant = await changesTenant(server(), postgres(), id)
    await tenant.query(`create table owned (id int primary key, owner uuid, note text); ${OWNED('owned')}`)
    await publish(tenant, 'owned')
    const [alice, bob, service] = await Promise.all([{ sub: ALICE }, { sub: BOB }, { role: 'service_role' }].map((claims) =>
      watch(t, tenant, { entries: 'owned', token: tokenOf(claims) })))
    await tenant.query(`insert into owned values (1, '${ALICE}')`)
    await fence(tenant, [alice, bob, service])
    return { tenant, alice, bob, service, commitLate: await lateCommits(t, tenant) }
  }

  test('a row that is streamed before it is visible arrives when it is', async (t) => {
    const { tenant, alice, bob, service, commitLate } = await owners(t, 'early')
    for (let id = 2; id <= 5; id++) {
      await commitLate(`insert into owned values (${id}, '${ALICE}')`)
      await alice.receives(id)
    }
    await fence(tenant, [alice, bob, service])
    assertSequence(ids(alice.changes), range(1, 5))
    assertSequence(ids(service.changes), range(1, 5))
    assert.deepEqual(bob.changes, [])
  })

  test('an update that takes a row away is not judged by the row before it', async (t) => {
    const { tenant, alice, bob, service, commitLate } = await owners(t, 'taken')
    await commitLate(`update owned set owner = '${BOB}', note = 'for Bob only'`)
    await commitLate(`update owned set owner = null, note = 'for nobody'`)
    await fence(tenant, [alice, bob, service])
    assert.deepEqual(service.changes.map(({ type, record }) => [type, record.note]), [['INSERT', null], ['UPDATE', 'for Bob only'], ['UPDATE', 'for nobody']])
    assert.deepEqual(told(alice.changes), [['INSERT', 1]])
    // The second may have been committed by the time the first is looked at.
    for (const { record } of bob.changes) assert.equal(record.note, 'for Bob only')
  })

  test('many users whose policy sleeps do not hold up the others', async (t) => {
    const tenant = await changesTenant(server(), postgres(), 'sleepers')
    await tenant.query(`
      create table plain (id int primary key); create table owned (id int primary key);
      create function nap_if() returns boolean language plpgsql as $$ begin
        if auth.jwt() ->> 'sleeper' is not null then perform pg_sleep(60); end if; return true; end $$;
      alter table owned enable row level security;
      create policy own on owned for select using (nap_if());`)
    await publish(tenant, 'plain', 'owned')
    const sleepers = await Promise.all(range(1, 12).map((n) => watch(t, tenant, { entries: 'owned', token: tokenOf({ sleeper: n }) })))
    const [plain, awake] = await Promise.all([watch(t, tenant, { entries: 'plain', token: tokenOf({ sub: BOB }) }), watch(t, tenant, { entries: 'owned', token: tokenOf({ sub: ALICE }) })])
    await tenant.query('insert into owned values (1)')
    const [elapsed] = await timed(async () => {
      for (let id = 1; id <= 10; id++) {
        await tenant.query(`insert into plain values (${id})`)
        await plain.receives(id)
      }
    })
    assert.ok(elapsed < 3000, `without row-level security it took ${elapsed} ms`)
    // Those who have to be asked about may wait for the deadline of the questions, not for each sleeper in turn.
    await awake.receives(1, { timeout: 15_000 })
    for (const { changes } of sleepers) assert.deepEqual(changes, [])
  })

  test('the rate limit of a tenant drops changes without ending anything', async (t) => {
    const tenant = await changesTenant(server(), postgres(), 'limited', { max_events_per_second: 5 })
    await tenant.query('create table plain (id int primary key)')
    await publish(tenant, 'plain')
    const watcher = await watch(t, tenant, { entries: 'plain' })
    const count = 3000
    // In pieces: it is the average so far that is compared.
    for (let id = 0; id < count; id += 100) {
      await tenant.query(`insert into plain select n from generate_series(${id + 1}, ${id + 100}) n`)
      await sleep(250)
    }
    await sleep(300)
    const got = ids(watcher.changes)
    assert.ok(got.length > 0 && got.length < count, `${got.length} of ${count} rows`)
    assert.deepEqual(got, [...new Set(got)].sort((a, b) => a - b))
    assert.equal(watcher.member.closed, undefined)
    await watcher.member.heartbeat()
    // Enough again: the tenant gets a higher limit.
    const response = await server().api('PUT', `/${tenant.id}`, { tenant: { max_events_per_second: 1_000_000 } })
    assert.equal(response.status, 200)
    await until(async () => {
      await tenant.query('insert into plain select max(id) + 1 from plain')
      await sleep(200)
      return ids(watcher.changes).at(-1) > count
    }, 'changes arrive again', { timeout: 20_000 })
  })

  test('subscribers without writes cost the database nothing', async (t) => {
    const tenant = await changesTenant(server(), postgres(), 'quiet')
    await tenant.query(`create table owned (id int primary key, owner uuid); ${OWNED('owned')}`)
    await publish(tenant, 'owned')
    const watchers = await Promise.all(range(1, 20).map((n) =>
      watch(t, tenant, { entries: 'owned', token: tokenOf(n % 2 ? { sub: ALICE } : { sub: BOB, n }) })))
    await fence(tenant, watchers)
    // A statement of a session changes its line here. (Counters of transactions are ten seconds late.)
    const sessions = () => postgres().query(`select pid, application_name, query_start, state_change, query from pg_stat_activity
      where datname = $1 order by pid`, 'postgres', [tenant.id])
    await sleep(2500)
    const before = await sessions()
    assert.ok(before.length >= 2, `${before.length} sessions`)
    await sleep(10_000)
    assert.deepEqual(await sessions(), before)
    await tenant.query(`insert into owned values (1, '${ALICE}')`)
    await fence(tenant, watchers)
    assert.deepEqual(watchers.map(({ changes }) => changes.length), range(1, 20).map((n) => n % 2))
  })
})
