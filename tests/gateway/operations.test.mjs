// What an operator relies on: draining, slow consumers, shards, tenants, quiet logs
// (protocol 1.8, 15 and operations 8, 10).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { METRICS_SECRET, SECRET, startServer, until, withServer } from '../server.mjs'
import { clientToken, inSeconds, sign } from '../tokens.mjs'
import { dial, Peer } from './wire.mjs'

const DRAIN_MS = 5000

for (const shards of [1, 2]) {
  test(`SIGTERM closes every socket with 1012 and the process ends well, ${shards} shard(s)`, async (t) => {
    const server = await startServer({ shards, env: { RINGCAST_DRAIN_TIMEOUT_MS: String(DRAIN_MS) } })
    t.after(() => server.stop())
    const peers = await Promise.all(Array.from({ length: 10 }, () => Peer.open(t, server)))
    await Promise.all(peers.map((peer, n) => peer.join(`drain-${n % 3}`)))
    const bystander = await Peer.open(t, server)
    const started = Date.now()
    server.signal('SIGTERM')
    for (const peer of [...peers, bystander]) assert.deepEqual(await peer.closed(), { code: 1012, reason: '' })
    assert.deepEqual(await server.exited(), { code: 0, signal: null })
    assert.ok(Date.now() - started < DRAIN_MS + 2000, `took ${Date.now() - started} ms`)
    await assert.rejects(server.request('/healthcheck'), { code: 'ECONNREFUSED' })
  })
}

test('SIGTERM does not wait for ever for a peer that does not close', async (t) => {
  const server = await startServer({ env: { RINGCAST_DRAIN_TIMEOUT_MS: '1000' } })
  t.after(() => server.stop())
  const peer = await (await Peer.open(t, server)).join('stubborn')
  const half = await dial(server)
  half.send('GET /healthcheck HTTP/1.1\r\n')
  peer.ws.pause()
  const started = Date.now()
  server.signal('SIGTERM')
  assert.deepEqual(await server.exited(), { code: 0, signal: null })
  assert.ok(Date.now() - started < 6000, `took ${Date.now() - started} ms`)
})

withServer('a slow consumer', { env: { WEBSOCKET_MAX_HEAP_SIZE: '4000000' } }, (server) => {
  test('is disconnected, the others get everything', async (t) => {
    const count = 200
    const [sender, quick, slow] = await Promise.all([1, 2, 3].map(() => Peer.open(t, server())))
    for (const peer of [sender, quick, slow]) await peer.join('flood')
    slow.ws.pause()
    const text = 'x'.repeat(1_000_000)
    let received = 0
    quick.ws.removeAllListeners('message')
    quick.ws.on('message', (data) => {
      const payload = JSON.parse(data)[4].payload
      assert.equal(payload.n, received)
      assert.equal(payload.text.length, text.length)
      received += 1
    })
    // One at a time: a reader that keeps up must never be mistaken for a slow one.
    for (let n = 0; n < count; n++) {
      sender.broadcast('flood', 'chunk', { n, text })
      await until(() => received === n + 1, `message ${n} reaches the quick reader`)
    }
    slow.ws.resume()
    const { code } = await slow.closed()
    assert.ok(code === 1006 || code === 1011, `closed with ${code}`)
    assert.ok(slow.received('chunk').length < count, 'the slow reader missed something')
    await sender.heartbeat()

  })
})

withServer('forty sockets of one tenant', {}, (server) => {
  test('all get a broadcast and agree on who is present', async (t) => {
    const peers = await Promise.all(Array.from({ length: 40 }, () => Peer.open(t, server())))
    await Promise.all(peers.map((peer, n) => peer.join('crowd', { broadcast: { self: true }, presence: { enabled: true, key: `user-${n}` } })))
    peers[0].broadcast('crowd', 'hello', { n: 0 })
    peers[39].broadcast('crowd', 'hello', { n: 39 })
    for (const peer of peers) {
      await until(() => peer.received('hello').length === 2, 'both broadcasts')
      assert.deepEqual(peer.received('hello').map((p) => p.n).sort((a, b) => a - b), [0, 39])
    }
    const everybody = peers.map((_, n) => `user-${n}`).sort()
    const agree = async (among, keys) => {
      for (const peer of among) {
        await until(() => Object.keys(peer.presence('crowd')).length === keys.length, `${keys.length} are present`)
        assert.deepEqual(Object.keys(peer.presence('crowd')).sort(), keys)
      }
      const [first, ...others] = among.map((peer) => Object.entries(peer.presence('crowd')).sort())
      for (const other of others) assert.deepEqual(other, first)
    }
    await Promise.all(peers.map((peer, n) => peer.track('crowd', { n })))
    await agree(peers, everybody)
    for (const peer of peers.slice(20)) peer.ws.terminate()
    await agree(peers.slice(0, 20), peers.slice(0, 20).map((_, n) => `user-${n}`).sort())
    // One that comes later gets the same from its state as the others from their diffs.
    const late = await (await Peer.open(t, server())).join('crowd', { presence: { enabled: true, key: 'late' } })
    await late.sees((f) => f[3] === 'presence_state', 'the state')
    await agree([...peers.slice(0, 20), late], peers.slice(0, 20).map((_, n) => `user-${n}`).sort())
  })
})

withServer('tenants', {}, (server) => {
  test('can be created, used and deleted while the server runs', async (t) => {
    const tenant = `brief-${process.pid}`
    await assert.rejects(Peer.open(t, server(), { tenant }), /404/)
    await server().createTenant(tenant)
    const peers = await Promise.all([1, 2, 3, 4].map(() => Peer.open(t, server(), { tenant })))
    for (const peer of peers.slice(0, 3)) await peer.join('rooms')
    const neighbour = await (await Peer.open(t, server())).join('rooms')
    peers[0].broadcast('rooms', 'tick', { n: 1 })
    for (const peer of peers.slice(1, 3)) await until(() => peer.received('tick').length === 1, 'the broadcast')
    assert.equal((await server().api('DELETE', `/${tenant}`)).status, 204)
    for (const peer of peers) assert.deepEqual(await peer.closed(), { code: 1012, reason: '' })
    for (const peer of peers.slice(0, 3)) {
      const [, , topic, , payload] = await peer.sees((f) => f[3] === 'system', 'the farewell')
      assert.equal(topic, 'realtime:rooms')
      assert.deepEqual(payload, { extension: 'system', status: 'ok', message: 'Server requested disconnect' })
    }
    await assert.rejects(Peer.open(t, server(), { tenant }), /404/)
    await neighbour.heartbeat()
    assert.deepEqual(neighbour.received('tick'), [], 'another tenant’s topic of the same name')
  })

  test('survive a restart', async (t) => {
    const first = await startServer()
    let current = first
    t.after(() => current.stop({ keepState: false }))
    await first.createTenant('lasting')
    await first.stop({ keepState: true })
    current = await startServer({ port: first.port, stateDir: first.stateDir })
    await (await Peer.open(t, current, { tenant: 'lasting' })).join('room')
  })
})

test('neither tokens nor secrets reach the log', async (t) => {
  const server = await startServer({ env: { LOG_LEVEL: 'debug' } })
  t.after(() => server.stop())
  const wrong = clientToken('another-secret-with-at-least-thirty-two-characters', { subject: 'wrong' })
  const stale = clientToken(SECRET, { seconds: -60, subject: 'stale' })
  const good = clientToken(SECRET, { subject: 'good' })
  const refreshed = clientToken(SECRET, { subject: 'refreshed' })
  const management = sign({ exp: inSeconds(600) }, SECRET)
  const metrics = sign({ exp: inSeconds(600) }, METRICS_SECRET)
  const tenantSecret = 'tenant-secret-of-the-log-test-with-32-characters'
  await assert.rejects(Peer.open(t, server, { token: wrong }), /401/)
  await assert.rejects(Peer.open(t, server, { token: stale }), /401/)
  const peer = await (await Peer.open(t, server, { token: `${good}&log_level=info` })).join('quiet')
  const push = (event, payload) => peer.ws.send(JSON.stringify(['1', '9', 'realtime:quiet', event, payload]))
  push('access_token', { access_token: refreshed })
  push('access_token', { access_token: stale })
  peer.ws.send(`["1","10","realtime:quiet","access_token",{"access_token":"${good}"`)
  await peer.sees((f) => f[3] === 'phx_close', 'the stale token closes the channel')
  await peer.push('realtime:other', 'phx_join', { config: {}, access_token: wrong })
  for (const [path, token] of [['/metrics', metrics], ['/metrics', wrong], ['/api/tenants', management], ['/api/tenants', wrong]]) {
    await server.request(path, { headers: { authorization: `Bearer ${token}` } })
  }
  await server.createTenant('quiet', { jwt_secret: tenantSecret })
  for (const headers of [{ authorization: `Bearer ${wrong}` }, { authorization: good }, { apikey: stale }]) {
    await server.request('/api/broadcast', { method: 'POST', headers: { ...headers, 'content-type': 'application/json' }, body: '{"messages":[]}' })
  }
  await server.request(`/socket/websocket?vsn=2.0.0&apikey=${wrong}`)
  await sleep(200)
  await server.stop()
  const log = server.log()
  assert.ok(log.length > 0, 'there is a log')
  for (const token of [wrong, stale, good, refreshed, management, metrics]) {
    for (const part of [token, token.split('.')[1], token.split('.')[2]]) assert.equal(log.includes(part), false, `the log contains ${part}`)
  }
  for (const secret of [SECRET, METRICS_SECRET, tenantSecret]) assert.equal(log.includes(secret), false, `the log contains ${secret}`)
})
