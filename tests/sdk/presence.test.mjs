// Presence as the official client sees it (protocol 10 and 17.5).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until, withServer } from '../server.mjs'
import { freshTopic, newClient, oldClient, subscribed } from './clients.mjs'

/** A client present (or only watching) in `topic` under `key`; `seen` collects join and leave events. */
async function visitor(client, topic, key) {
  const channel = client.channel(topic, { config: { presence: { key } } })
  const seen = []
  for (const event of ['join', 'leave']) channel.on('presence', { event }, (payload) => seen.push(payload))
  await subscribed(channel)
  return { client, channel, seen }
}

/** The presence state without the refs: {key: [meta, …]}. */
const state = (channel) => Object.fromEntries(Object.entries(channel.presenceState())
  .map(([key, metas]) => [key, metas.map(({ presence_ref, ...meta }) => meta)]).sort())
/** The presence refs, which must be the same for everybody. */
const refs = (channel) => Object.fromEntries(Object.entries(channel.presenceState())
  .map(([key, metas]) => [key, metas.map((meta) => meta.presence_ref).sort()]).sort())

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b)
async function converges(channels, expected) {
  await until(() => channels.every((channel) => same(state(channel), expected)), `presence ${JSON.stringify(expected)}`)
    .catch((error) => assert.fail(`${error.message}; have ${JSON.stringify(channels.map(state))}`))
  for (const channel of channels) assert.deepEqual(refs(channel), refs(channels[0]))
}

withServer('presence', {}, (server) => {
  test('three clients converge on the same set, and again when one leaves', async (t) => {
    const topic = freshTopic()
    const visitors = []
    for (const key of ['ana', 'ben', 'cleo']) {
      const one = await visitor(newClient(t, server()), topic, key)
      visitors.push(one)
      assert.equal(await one.channel.track({ name: key }), 'ok')
    }
    const [ana, ben, cleo] = visitors
    await converges(visitors.map((v) => v.channel), { ana: [{ name: 'ana' }], ben: [{ name: 'ben' }], cleo: [{ name: 'cleo' }] })
    await cleo.client.removeChannel(cleo.channel)
    await converges([ana.channel, ben.channel], { ana: [{ name: 'ana' }], ben: [{ name: 'ben' }] })
    ben.client.disconnect()
    await converges([ana.channel], { ana: [{ name: 'ana' }] })
    assert.deepEqual(ana.seen.filter((e) => e.event === 'leave').map((e) => e.key), ['cleo', 'ben'])
  })

  test('all at once converge too', async (t) => {
    const topic = freshTopic()
    const keys = Array.from({ length: 8 }, (_, n) => `user-${n}`)
    const visitors = await Promise.all(keys.map((key) => visitor(newClient(t, server()), topic, key)))
    await Promise.all(visitors.map(({ channel }, n) => channel.track({ n })))
    await converges(visitors.map((v) => v.channel), Object.fromEntries(keys.map((key, n) => [key, [{ n }]])))
  })

  test('an update replaces the former meta', async (t) => {
    const topic = freshTopic()
    const ana = await visitor(newClient(t, server()), topic, 'ana')
    const watcher = await visitor(newClient(t, server()), topic, 'watcher')
    await ana.channel.track({ mood: 'fine' })
    await converges([ana.channel, watcher.channel], { ana: [{ mood: 'fine' }] })
    const before = refs(watcher.channel).ana[0]
    await ana.channel.track({ mood: 'great' })
    await converges([ana.channel, watcher.channel], { ana: [{ mood: 'great' }] })
    assert.notEqual(refs(watcher.channel).ana[0], before)
    // A late comer gets the same from the state as the others from the diffs.
    const late = await visitor(newClient(t, server()), topic, 'late')
    await converges([ana.channel, watcher.channel, late.channel], { ana: [{ mood: 'great' }] })
  })

  test('tracking the same again changes nothing', async (t) => {
    const topic = freshTopic()
    const ana = await visitor(newClient(t, server()), topic, 'ana')
    await ana.channel.track({ mood: 'fine' })
    await converges([ana.channel], { ana: [{ mood: 'fine' }] })
    const before = refs(ana.channel)
    const count = ana.seen.length
    assert.equal(await ana.channel.track({ mood: 'fine' }), 'ok')
    await sleep(400)
    assert.deepEqual(refs(ana.channel), before)
    assert.equal(ana.seen.length, count)
  })

  test('untrack removes, and tracking again brings back', async (t) => {
    const topic = freshTopic()
    const ana = await visitor(newClient(t, server()), topic, 'ana')
    const watcher = await visitor(newClient(t, server()), topic, 'watcher')
    await ana.channel.track({ n: 1 })
    await converges([ana.channel, watcher.channel], { ana: [{ n: 1 }] })
    assert.equal(await ana.channel.untrack(), 'ok')
    await converges([ana.channel, watcher.channel], {})
    await ana.channel.track({ n: 2 })
    await converges([ana.channel, watcher.channel], { ana: [{ n: 2 }] })
  })

  test('two sockets under one key have two metas', async (t) => {
    const topic = freshTopic()
    const phone = await visitor(newClient(t, server()), topic, 'ana')
    const laptop = await visitor(newClient(t, server()), topic, 'ana')
    await phone.channel.track({ device: 'phone' })
    await converges([phone.channel, laptop.channel], { ana: [{ device: 'phone' }] })
    await laptop.channel.track({ device: 'laptop' })
    for (const { channel } of [phone, laptop]) {
      await until(() => channel.presenceState().ana?.length === 2, 'two metas under one key')
    }
    phone.client.disconnect()
    await converges([laptop.channel], { ana: [{ device: 'laptop' }] })
  })

  test('a key is generated when none is given', async (t) => {
    const topic = freshTopic()
    const visitors = [await visitor(newClient(t, server()), topic, ''), await visitor(newClient(t, server()), topic, '')]
    for (const { channel } of visitors) await channel.track({})
    await until(() => Object.keys(state(visitors[0].channel)).length === 2, 'two generated keys')
    for (const key of Object.keys(state(visitors[0].channel))) assert.match(key, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  })

  test('a 1.0.0 client is seen by the current one', async (t) => {
    const topic = freshTopic()
    const watcher = await visitor(newClient(t, server()), topic, 'watcher')
    const former = await visitor(oldClient(t, server()), topic, 'former')
    assert.equal(await former.channel.track({ generation: 1 }), 'ok')
    await converges([watcher.channel], { former: [{ generation: 1 }] })
    former.client.disconnect()
    await converges([watcher.channel], {})
  })

  test('a 1.0.0 client sees everybody where the tenant has presence on', async (t) => {
    const tenant = `presence-${process.pid}`
    await server().createTenant(tenant, { presence_enabled: true })
    t.after(() => server().api('DELETE', `/${tenant}`))
    const topic = freshTopic()
    const modern = await visitor(newClient(t, server(), { tenant }), topic, 'modern')
    await modern.channel.track({ generation: 2 })
    const former = await visitor(oldClient(t, server(), { tenant }), topic, 'former')
    await former.channel.track({ generation: 1 })
    await converges([modern.channel, former.channel], { former: [{ generation: 1 }], modern: [{ generation: 2 }] })
    await modern.client.removeChannel(modern.channel)
    await converges([former.channel], { former: [{ generation: 1 }] })
  })
})
