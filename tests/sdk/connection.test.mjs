// Life of the official client's connection: heartbeat, reconnecting, tokens (protocol 13, 15, 17).
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SECRET, startServer, until, withServer } from '../server.mjs'
import { clientToken } from '../tokens.mjs'
import { freshTopic, inbox, member, newClient, oldClient, subscribed } from './clients.mjs'

/** Whether `ana` reaches `ben`, tried until it does: a rejoin may still be on its way. */
const reaches = (ana, ben) => until(async () => {
  await ana.channel.send({ type: 'broadcast', event: 'probe', payload: {} })
  await sleep(50)
  return ben.messages.some((message) => message.event === 'probe')
}, 'a broadcast arrives')

withServer('connection', {}, (server) => {
  test('heartbeats are answered', async (t) => {
    const outcomes = []
    const client = newClient(t, server(), { heartbeatIntervalMs: 100, heartbeatCallback: (status) => outcomes.push(status) })
    await member(client, freshTopic())
    await until(() => outcomes.filter((status) => status === 'ok').length >= 3, 'three heartbeats')
    assert.equal(outcomes.includes('timeout'), false)
  })

  for (const [generation, open] of [['current', newClient], ['1.0.0', oldClient]]) {
    test(`a ${generation} client comes back after the server closed its socket`, async (t) => {
      const tenant = `reload-${generation.replaceAll('.', '-')}-${process.pid}-${server().shards}`
      await server().createTenant(tenant)
      t.after(() => server().api('DELETE', `/${tenant}`))
      const topic = freshTopic()
      const statuses = []
      const client = open(t, server(), { tenant })
      const channel = client.channel(topic)
      const ana = { channel, messages: inbox(channel) }
      await subscribed(channel, statuses)
      const closed = once(client.conn ?? client.socketAdapter.getSocket().conn, 'close', { signal: AbortSignal.timeout(10_000) })
      assert.equal((await server().api('POST', `/${tenant}/reload`)).status, 204)
      assert.equal((await closed)[0], 1012)
      await until(() => statuses.filter((status) => status === 'SUBSCRIBED').length === 2, 'the channel is joined again')
      const ben = await member(newClient(t, server(), { tenant }), topic)
      await reaches(ben, ana)
      await reaches(ana, ben)
    })
  }

  test('a bad key does not connect', async (t) => {
    const client = newClient(t, server(), { token: clientToken('another-secret-with-at-least-thirty-two-characters') })
    await assert.rejects(subscribed(client.channel(freshTopic())), { status: 'CHANNEL_ERROR' })
    assert.equal(client.isConnected(), false)
  })

  test('an expired token closes the channel and leaves the socket', async (t) => {
    const client = newClient(t, server())
    await client.setAuth(clientToken(SECRET, { seconds: 2 }))
    const channel = client.channel(freshTopic())
    const systems = []
    channel.on('system', {}, (payload) => systems.push(payload))
    const statuses = []
    await subscribed(channel, statuses)
    await until(() => statuses.includes('CLOSED'), 'the channel is closed', { timeout: 6000 })
    assert.equal(systems.length, 1)
    assert.equal(systems[0].status, 'error')
    assert.match(systems[0].message, /^Token has expired \d+ seconds ago$/)
    assert.equal(client.isConnected(), true)
  })

  test('setAuth keeps the channel beyond the former expiry', async (t) => {
    const client = newClient(t, server())
    await client.setAuth(clientToken(SECRET, { seconds: 2 }))
    const topic = freshTopic()
    const channel = client.channel(topic)
    const ana = { channel, messages: inbox(channel) }
    const statuses = []
    await subscribed(channel, statuses)
    await client.setAuth(clientToken(SECRET, { seconds: 600 }))
    await sleep(4000)
    assert.deepEqual(statuses, ['SUBSCRIBED'])
    const ben = await member(newClient(t, server()), topic)
    await reaches(ben, ana)
  })

  test('setAuth with an expired token closes the channel', async (t) => {
    const client = newClient(t, server())
    const channel = client.channel(freshTopic())
    const statuses = []
    await subscribed(channel, statuses)
    await client.setAuth(clientToken(SECRET, { seconds: -10 }))
    await until(() => statuses.includes('CLOSED'), 'the channel is closed')
  })

  test('a join with an expired token is refused', async (t) => {
    const client = newClient(t, server())
    await client.setAuth(clientToken(SECRET, { seconds: -10 }))
    await assert.rejects(subscribed(client.channel(freshTopic())), { reason: /^InvalidJWTToken: Token has expired \d+ seconds ago$/ })
  })
})

for (const shards of [1, 2]) {
  test(`clients return to a restarted server and track again, ${shards} shard(s)`, async (t) => {
    const first = await startServer({ shards })
    let current = first
    t.after(() => current.stop({ keepState: false }))
    const topic = freshTopic()
    const channels = ['ana', 'ben'].map((key) => newClient(t, first).channel(topic, { config: { presence: { key } } }))
    const joins = { ana: 0, ben: 0 }
    for (const channel of channels) {
      const { key } = channel.params.config.presence
      channel.on('presence', { event: 'sync' }, () => {})
      channel.subscribe((status) => {
        if (status !== 'SUBSCRIBED') return
        joins[key] += 1
        channel.track({ key })
      })
    }
    const complete = () => channels.every((channel) => ['ana', 'ben'].every((key) => channel.presenceState()[key]?.length === 1))
    await until(complete, 'both are present')
    await first.stop({ keepState: true })
    await until(() => channels.every((channel) => channel.state === 'errored'), 'both notice that the server is gone')
    current = await startServer({ shards, port: first.port, stateDir: first.stateDir })
    await until(() => joins.ana >= 2 && joins.ben >= 2, 'both have joined again', { timeout: 20_000 })
    await until(complete, 'both are present again')
    for (const channel of channels) assert.deepEqual(Object.keys(channel.presenceState()).sort(), ['ana', 'ben'])
  })
}
