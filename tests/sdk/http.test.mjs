// Sending over HTTP with the official client (protocol 16 and 17.4).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { until, withServer } from '../server.mjs'
import { clientToken } from '../tokens.mjs'
import { freshTopic, member, newClient, oldClient } from './clients.mjs'

const first = (messages) => until(() => messages[0], 'a broadcast')

withServer('HTTP send', {}, (server) => {
  test('httpSend reaches both generations', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic)
    const cleo = await member(oldClient(t, server()), topic)
    const sender = newClient(t, server()).channel(topic)
    assert.deepEqual(await sender.httpSend('tick', { n: 1, text: 'Zoë 🦊' }), { success: true })
    const expected = { type: 'broadcast', event: 'tick', payload: { n: 1, text: 'Zoë 🦊' } }
    assert.deepEqual(await first(ana.messages), expected)
    assert.deepEqual(await first(cleo.messages), expected)
  })

  test('httpSend carries bytes', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic)
    const bytes = Uint8Array.from([0, 255, 10, 13, 128])
    assert.deepEqual(await newClient(t, server()).channel(topic).httpSend('blob', bytes.buffer), { success: true })
    const message = await first(ana.messages)
    assert.deepEqual(new Uint8Array(message.payload), bytes)
  })

  test('httpSend decodes topic and event from the path', async (t) => {
    const topic = freshTopic('a/b c:ü%2F?&#')
    const ana = await member(newClient(t, server()), topic)
    await newClient(t, server()).channel(topic).httpSend('my event/é', {})
    assert.equal((await first(ana.messages)).event, 'my event/é')
  })

  test('httpSend with a bad key is refused', async (t) => {
    const token = clientToken('another-secret-with-at-least-thirty-two-characters')
    const channel = newClient(t, server(), { token }).channel(freshTopic())
    await assert.rejects(channel.httpSend('tick', {}), { message: 'Unauthorized' })
  })

  test('httpSend above the payload limit is refused', async (t) => {
    const channel = newClient(t, server()).channel(freshTopic())
    await assert.rejects(channel.httpSend('big', { text: 'x'.repeat(3_100_000) }))
  })

  test('httpSend to a private topic of a tenant without a database is refused', async (t) => {
    const channel = newClient(t, server()).channel(freshTopic(), { config: { private: true } })
    await assert.rejects(channel.httpSend('tick', {}), { message: 'Tenant database unavailable' })
  })

  for (const [generation, open] of [['current', newClient], ['1.0.0', oldClient]]) {
    test(`send of a ${generation} client that has not joined falls back to HTTP`, async (t) => {
      const topic = freshTopic()
      const ana = await member(newClient(t, server()), topic)
      const message = { type: 'broadcast', event: 'fallback', payload: { n: 1 } }
      assert.equal(await open(t, server()).channel(topic).send(message), 'ok')
      assert.deepEqual(await first(ana.messages), message)
    })
  }
})
