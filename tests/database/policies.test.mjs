// Who may do what on private channels: policies on realtime.messages decide (database 10, protocol 12 and 16.3).
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SECRET } from '../server.mjs'
import { clientToken, inSeconds, sign } from '../tokens.mjs'
import { Member } from './member.mjs'
import { FULL, readyTenant, withDatabase } from './tenant.mjs'

const QUIET_MS = 150
const OWNER = '3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e01'
const OTHER = '3f0d2a6e-7c11-4a52-9d0e-5b7a4c2f1e02'

const token = (claims) => sign({ role: 'authenticated', sub: 'tester', exp: inSeconds(600), ...claims }, SECRET)
const unauthorized = (room) => `Unauthorized: You do not have permissions to read from this Channel topic: ${room}`

withDatabase('policies', { shards: 2 }, ({ server, postgres }) => {
  let tenant
  before(async () => { tenant = await readyTenant(server(), postgres(), 'policies') })
  const open = (t, options) => Member.open(t, server(), { tenant: tenant.id, ...options })

  for (const version of [1, 2]) {
    // Every combination of the four permissions: what a join answers, what is received, what can be sent.
    for (let bits = 0; bits < 16; bits++) {
      const names = ['read-broadcast', 'read-presence', 'write-broadcast', 'write-presence'].filter((_, n) => bits & (1 << n))
      const may = (name) => names.includes(name)
      test(`protocol ${version}: ${names.join(', ') || 'nothing'}`, async (t) => {
        const room = `${names.join(' ')} matrix ${version} ${bits}`
        const presence = { enabled: true, key: 'me' }
        const [member, witness] = await Promise.all([1, 2].map(() => open(t, { version })))
        // Its role is above the policies.
        await witness.join(room, { presence: { enabled: true, key: 'witness' } }, { token: token({ role: 'service_role' }) })
        const { status, response } = await member.attempt(room, { private: true, presence, broadcast: { ack: true } })
        if (!may('read-broadcast') && !may('read-presence')) {
          assert.deepEqual([status, response], ['error', { reason: unauthorized(room) }])
          return
        }
        assert.deepEqual([status, response], ['ok', { postgres_changes: [] }])

        const ref = member.broadcast(room, 'from-member', { n: 1 })
        const tracked = await member.track(room, { n: 1 })
        assert.deepEqual(tracked, { status: may('write-presence') ? 'ok' : 'error', response: {} })
        witness.broadcast(room, 'from-witness', { n: 2 })
        assert.equal((await witness.track(room, { n: 2 })).status, 'ok')
        if (may('read-broadcast')) await member.receives(room, 'from-witness')
        if (may('write-broadcast')) {
          await witness.receives(room, 'from-member')
          assert.deepEqual(await member.reply(ref, 'the acknowledgement'), { status: 'ok', response: {} })
        }
        if (may('write-presence')) await witness.sees((m) => m.event === 'presence_diff' && m.payload.joins.me, 'the member is present')
        if (may('read-presence')) {
          await member.sees((m) => m.event === 'presence_state', 'the state')
          await member.sees((m) => m.event === 'presence_diff' && m.payload.joins.witness, 'the witness is present')
        }
        await sleep(QUIET_MS)
        assert.equal(member.broadcasts(room).length, may('read-broadcast') ? 1 : 0, 'broadcasts to the member')
        assert.equal(witness.broadcasts(room).length, may('write-broadcast') ? 1 : 0, 'broadcasts of the member')
        assert.equal(member.messages.some((m) => m.event === 'phx_reply' && m.ref === ref), may('write-broadcast'), 'acknowledged')
        assert.equal(member.messages.some((m) => m.event.startsWith('presence_')), may('read-presence'), 'presence to the member')
        assert.equal(witness.messages.some((m) => m.payload.joins?.me), may('write-presence'), 'presence of the member')
      })
    }

    test(`protocol ${version}: presence permissions alone do not open a channel without presence`, async (t) => {
      const member = await open(t, { version })
      assert.equal(await member.refusal('read-presence 1', { private: true }), unauthorized('read-presence 1'))
    })

    test(`protocol ${version}: policies see topic, role, subject and all claims`, async (t) => {
      const member = await open(t, { version })
      await member.join('settings:1')
      await member.join(`own:${OWNER}`, {}, { token: token({ sub: OWNER }) })
      assert.equal(await member.refusal(`own:${OTHER}`, { private: true }, { token: token({ sub: OWNER }) }), unauthorized(`own:${OTHER}`))
      await member.join('plan:gold', {}, { token: token({ app: { plan: 'gold' } }) })
      assert.equal(await member.refusal('plan:silver', { private: true }, { token: token({ app: { plan: 'gold' } }) }), unauthorized('plan:silver'))
      assert.equal(await member.refusal('plan:none', { private: true }), unauthorized('plan:none'))
    })

    test(`protocol ${version}: policies see the x- headers of the upgrade, and no others`, async (t) => {
      const member = await open(t, { version, headers: { 'X-Pass': 'open', pass: 'other' } })
      await member.join('header:open')
      assert.equal(await member.refusal('header:other', { private: true }), unauthorized('header:other'))
      const stranger = await open(t, { version })
      assert.equal(await stranger.refusal('header:open', { private: true }), unauthorized('header:open'))
    })

    test(`protocol ${version}: roles that bypass, lack or do not have policies`, async (t) => {
      const member = await open(t, { version })
      await member.join('nothing special', {}, { token: token({ role: 'service_role' }) })
      for (const role of ['anon', 'no_such_role', '']) {
        const room = `read-broadcast as ${role}`
        assert.equal(await member.refusal(room, { private: true }, { token: token({ role }) }), unauthorized(room), role)
      }
    })

    test(`protocol ${version}: a policy that raises refuses the join, and writes are dropped`, async (t) => {
      const [member, witness] = await Promise.all([1, 2].map(() => open(t, { version })))
      assert.equal(await member.refusal('raise:1', { private: true }), unauthorized('raise:1'))
      const room = 'raise-write read-broadcast:1'
      await witness.join(room, {}, { token: token({ role: 'service_role' }) })
      await member.join(room, { broadcast: { ack: true } })
      const ref = member.broadcast(room, 'lost')
      assert.deepEqual(await member.track(room), { status: 'error', response: {} })
      await sleep(QUIET_MS)
      assert.deepEqual(witness.broadcasts(room), [])
      assert.equal(member.messages.some((m) => m.ref === ref), false)
    })

    test(`protocol ${version}: a private and a public channel of one name are two rooms`, async (t) => {
      const room = `${FULL} two rooms ${version}`
      const [inside, outside] = await Promise.all([1, 2].map(() => open(t, { version })))
      await inside.join(room)
      await outside.join(room, { private: false })
      inside.broadcast(room, 'secret')
      outside.broadcast(room, 'open')
      await sleep(QUIET_MS)
      assert.deepEqual([inside.broadcasts(room), outside.broadcasts(room)], [[], []])
    })
  }

  test('permissions are remembered until the token is refreshed, then asked for again', async (t) => {
    const room = `remembered ${process.pid}`
    const grant = (action) => tenant.query('insert into public.rights values ($1, $2, $3)', [room, 'broadcast', action])
    const [member, witness] = await Promise.all([1, 2].map(() => open(t)))
    await grant('read')
    await witness.join(room)
    await member.join(room)
    member.broadcast(room, 'too-early')
    await sleep(QUIET_MS)
    await grant('write')
    member.broadcast(room, 'still-denied')
    await sleep(QUIET_MS)
    assert.deepEqual(witness.broadcasts(room), [])
    member.refresh(room, token({ jti: 'second' }))
    member.broadcast(room, 'allowed')
    await witness.receives(room, 'allowed')
    await tenant.query('delete from public.rights where topic = $1', [room])
    member.broadcast(room, 'still-allowed')
    await witness.receives(room, 'still-allowed')
    member.refresh(room, token({ jti: 'third' }))
    const { payload } = await member.sees((m) => m.event === 'system', 'the channel is shut down')
    assert.deepEqual(payload, {
      extension: 'system', status: 'error', channel: room, message: `You do not have permissions to read from this Channel topic: ${room}`,
    })
    await member.sees((m) => m.event === 'phx_close', 'the channel is closed')
    await member.heartbeat()
    assert.deepEqual(witness.broadcasts(room).map((m) => m.event), ['allowed', 'still-allowed'])
  })

  test('losing one of two read permissions closes the channel with its own text', async (t) => {
    const room = `half ${process.pid}`
    for (const extension of ['broadcast', 'presence']) {
      await tenant.query('insert into public.rights values ($1, $2, $3)', [room, extension, 'read'])
    }
    const member = await open(t)
    await member.join(room, { presence: { enabled: true } })
    await tenant.query(`delete from public.rights where topic = $1 and extension = 'presence'`, [room])
    member.refresh(room, token({ jti: 'second' }))
    const { payload } = await member.sees((m) => m.event === 'system', 'the channel is shut down')
    assert.equal(payload.message, `You no longer have permission to read from this Channel topic: ${room}`)
    await member.sees((m) => m.event === 'phx_close', 'the channel is closed')
  })

  test('many identical joins at once are all answered', async (t) => {
    const room = 'read-broadcast crowd'
    const members = await Promise.all(Array.from({ length: 40 }, (_, n) => open(t, { version: 1 + n % 2 })))
    const outcomes = await Promise.all(members.flatMap((member) => [
      member.attempt(room, { private: true }), member.attempt('denied crowd', { private: true }),
    ]))
    assert.equal(outcomes.filter(({ status }) => status === 'ok').length, members.length)
    for (const { response } of outcomes.filter(({ status }) => status === 'error')) assert.deepEqual(response, { reason: unauthorized('denied crowd') })
    await tenant.query(`select realtime.send('{"n":1}', 'tick', $1)`, [room])
    for (const member of members) await member.receives(room, 'tick')
  })

  test('a private-only tenant refuses public joins', async (t) => {
    const strict = await readyTenant(server(), postgres(), 'strict', { private_only: true })
    const member = await Member.open(t, server(), { tenant: strict.id })
    assert.equal(await member.refusal('read-broadcast 1', {}), 'PrivateOnly: This project only allows private channels')
    await member.join('read-broadcast 1')
  })

  const post = (path, body, headers = {}) => server().request(path, {
    tenant: tenant.id, method: 'POST', body: JSON.stringify(body),
    headers: { authorization: `Bearer ${clientToken(SECRET)}`, 'content-type': 'application/json', ...headers },
  })
  const single = (room, headers) => post(`/api/broadcast/${encodeURIComponent(room)}/events/tick?private=true`, { n: 1 }, headers)
  const answer = async (response) => [response.status, await response.text()]

  test('HTTP single: allowed, denied, raising, unknown role', async (t) => {
    const member = await open(t)
    await member.join(`${FULL} http`)
    assert.deepEqual(await answer(await single(`${FULL} http`)), [202, ''])
    const [message] = await member.receives(`${FULL} http`, 'tick')
    assert.deepEqual(message, { type: 'broadcast', event: 'tick', payload: { n: 1 } })
    assert.deepEqual(await answer(await single('read-broadcast http')), [403, '{"message":"Unauthorized"}'])
    assert.deepEqual(await answer(await single('write-presence http')), [403, '{"message":"Unauthorized"}'])
    assert.deepEqual(await answer(await single('raise:http')), [422, '{"message":"RLS policy error"}'])
    const stranger = { authorization: `Bearer ${token({ role: 'no_such_role' })}` }
    assert.deepEqual(await answer(await single(`${FULL} http`, stranger)), [422, '{"message":"RLS policy error"}'])
  })

  test('HTTP single: policies see all request headers', async () => {
    assert.deepEqual(await answer(await single('header:open', { 'x-pass': 'open' })), [202, ''])
    assert.deepEqual(await answer(await single('header:open', { 'x-pass': 'shut' })), [403, '{"message":"Unauthorized"}'])
  })

  test('HTTP batch: denied and failing messages are dropped, the others arrive', async (t) => {
    const member = await open(t)
    const rooms = { allowed: `${FULL} batch`, denied: 'read-broadcast batch', raising: 'raise-write read-broadcast:batch' }
    for (const room of Object.values(rooms)) await member.join(room)
    await member.join(rooms.allowed + ' open', { private: false })
    const message = (topic, event, isPrivate = true) => ({ topic, event, payload: { n: 1 }, private: isPrivate })
    const response = await post('/api/broadcast', { messages: [
      message(rooms.denied, 'a'), message(rooms.raising, 'b'), message(rooms.allowed, 'c'), message(rooms.allowed, 'd'),
      message(rooms.allowed + ' open', 'e', false),
    ] })
    assert.deepEqual(await answer(response), [202, ''])
    await member.receives(rooms.allowed + ' open', 'e')
    await member.receives(rooms.allowed, 'd')
    await sleep(QUIET_MS)
    assert.deepEqual(member.broadcasts(rooms.allowed).map((m) => m.event), ['c', 'd'])
    assert.deepEqual([...member.broadcasts(rooms.denied), ...member.broadcasts(rooms.raising)], [])
  })

  test('without a partition for today joins and HTTP broadcasts say so', async (t) => {
    const bare = await readyTenant(server(), postgres(), 'bare')
    const today = new Date().toISOString().slice(0, 10).replaceAll('-', '_')
    await bare.query(`drop table realtime.messages_${today}`)
    const member = await Member.open(t, server(), { tenant: bare.id })
    assert.equal(await member.refusal('read-broadcast 1', { private: true }),
      'MissingPartition: Realtime was unable to find the expected messages partition')
    const request = (path, body) => server().request(path, {
      tenant: bare.id, method: 'POST', body: JSON.stringify(body),
      headers: { authorization: `Bearer ${clientToken(SECRET)}`, 'content-type': 'application/json' },
    })
    const path = `/api/broadcast/${encodeURIComponent(`${FULL} 1`)}/events/tick?private=true`
    assert.deepEqual(await answer(await request(path, {})), [422, '{"message":"Missing messages partition"}'])
    const messages = [{ topic: `${FULL} 1`, event: 'tick', payload: {}, private: true }]
    assert.deepEqual(await answer(await request('/api/broadcast', { messages })), [202, ''])
    await member.join('open', { private: false })
  })
})
