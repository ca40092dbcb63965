// Broadcast as the official client sees it (protocol 8 and 17).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until, withServer } from '../server.mjs'
import { freshTopic, member, newClient, oldClient, subscribed } from './clients.mjs'

const broadcast = (event, payload) => ({ type: 'broadcast', event, payload })
const arrived = (messages, count = 1) => until(() => messages.length >= count, `${count} broadcasts, have ${messages.length}`)
const QUIET_MS = 300

withServer('broadcast', {}, (server) => {
  test('reaches the other client and not the sender', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic)
    const ben = await member(newClient(t, server()), topic)
    assert.equal(await ana.channel.send(broadcast('move', { x: 1, nested: { list: [1, 'two', null, true] } })), 'ok')
    await arrived(ben.messages)
    await sleep(QUIET_MS)
    assert.deepEqual(ben.messages, [broadcast('move', { x: 1, nested: { list: [1, 'two', null, true] } })])
    assert.deepEqual(ana.messages, [])
  })

  test('comes back to a sender that joined with self', async (t) => {
    const ana = await member(newClient(t, server()), freshTopic(), { broadcast: { self: true } })
    await ana.channel.send(broadcast('echo', { n: 1 }))
    await arrived(ana.messages)
    assert.deepEqual(ana.messages, [broadcast('echo', { n: 1 })])
  })

  test('stays inside its topic', async (t) => {
    const ana = await member(newClient(t, server()), freshTopic())
    const ben = await member(newClient(t, server()), freshTopic())
    await ana.channel.send(broadcast('move', {}))
    await sleep(QUIET_MS)
    assert.deepEqual(ben.messages, [])
  })

  test('is acknowledged when asked for', async (t) => {
    const ana = await member(newClient(t, server()), freshTopic(), { broadcast: { ack: true } })
    assert.equal(await ana.channel.send(broadcast('move', { x: 1 })), 'ok')
  })

  test('above the payload limit is refused to a sender that wants acknowledgements', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic, { broadcast: { ack: true } })
    const ben = await member(newClient(t, server()), topic)
    assert.equal(await ana.channel.send(broadcast('big', { text: 'x'.repeat(3_100_000) })), 'error')
    assert.equal(await ana.channel.send(broadcast('small', {})), 'ok')
    await arrived(ben.messages)
    assert.deepEqual(ben.messages, [broadcast('small', {})])
  })

  test('carries binary payloads unchanged', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic)
    const ben = await member(newClient(t, server()), topic)
    const bytes = Uint8Array.from({ length: 256 }, (_, i) => i)
    await ana.channel.send(broadcast('blob', bytes.buffer))
    await arrived(ben.messages)
    assert.equal(ben.messages[0].event, 'blob')
    assert.ok(ben.messages[0].payload instanceof ArrayBuffer)
    assert.deepEqual(new Uint8Array(ben.messages[0].payload), bytes)
  })

  test('passes between the protocol generations', async (t) => {
    const topic = freshTopic()
    const modern = await member(newClient(t, server()), topic)
    const former = await member(oldClient(t, server()), topic)
    await modern.channel.send(broadcast('from-new', { n: 1 }))
    await former.channel.send(broadcast('from-old', { n: 2 }))
    await arrived(former.messages)
    await arrived(modern.messages)
    assert.deepEqual(former.messages, [broadcast('from-new', { n: 1 })])
    assert.deepEqual(modern.messages, [broadcast('from-old', { n: 2 })])
  })

  test('binary payloads are withheld from 1.0.0 clients', async (t) => {
    const topic = freshTopic()
    const modern = await member(newClient(t, server()), topic)
    const former = await member(oldClient(t, server()), topic)
    await modern.channel.send(broadcast('blob', new ArrayBuffer(8)))
    await modern.channel.send(broadcast('after', {}))
    await arrived(former.messages)
    assert.deepEqual(former.messages, [broadcast('after', {})])
  })

  test('acknowledgement and self work for 1.0.0 clients', async (t) => {
    const former = await member(oldClient(t, server()), freshTopic(), { broadcast: { ack: true, self: true } })
    assert.equal(await former.channel.send(broadcast('echo', { n: 1 })), 'ok')
    await arrived(former.messages)
    assert.deepEqual(former.messages, [broadcast('echo', { n: 1 })])
  })

  test('keeps one sender’s order', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic)
    const ben = await member(newClient(t, server()), topic)
    const count = 500
    for (let n = 0; n < count; n++) ana.channel.send(broadcast('tick', { n }))
    await arrived(ben.messages, count)
    assert.deepEqual(ben.messages.map((m) => m.payload.n), Array.from({ length: count }, (_, n) => n))
  })

  test('keeps unicode in topic, event and payload', async (t) => {
    const topic = freshTopic('комната-🏠-é-部屋 with space:and*star')
    const payload = { 'ключ 🗝': 'Zoë 🦊 \u0000 \u2028 "\\" \ud83d\udc69\u200d\ud83d\ude80', empty: '', rtl: 'שלום' }
    const ana = await member(newClient(t, server()), topic)
    const ben = await member(newClient(t, server()), topic)
    const cleo = await member(oldClient(t, server()), topic)
    await ana.channel.send(broadcast('événement-🎉', payload))
    await arrived(ben.messages)
    await arrived(cleo.messages)
    assert.deepEqual(ben.messages, [broadcast('événement-🎉', payload)])
    assert.deepEqual(cleo.messages, [broadcast('événement-🎉', payload)])
  })

  test('carries a payload of one megabyte in both generations', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic)
    const ben = await member(newClient(t, server()), topic)
    const cleo = await member(oldClient(t, server()), topic)
    const text = 'abcdefgh'.repeat(125_000)
    await ana.channel.send(broadcast('big', { text }))
    await cleo.channel.send(broadcast('big', { text }))
    await arrived(ben.messages, 2)
    await arrived(cleo.messages)
    for (const message of [...ben.messages, ...cleo.messages]) assert.equal(message.payload.text === text, true)
  })

  test('one client can hold many channels', async (t) => {
    const client = newClient(t, server())
    const peer = newClient(t, server())
    const names = Array.from({ length: 60 }, () => freshTopic('many'))
    const here = await Promise.all(names.map((name) => member(client, name)))
    const there = await Promise.all(names.map((name) => member(peer, name)))
    await Promise.all(there.map(({ channel }, n) => channel.send(broadcast('n', { n }))))
    await until(() => here.every(({ messages }) => messages.length > 0), 'one broadcast in every channel')
    assert.deepEqual(here.map(({ messages }) => messages), names.map((_, n) => [broadcast('n', { n })]))
  })

  test('stops after leaving, and the topic can be joined again', async (t) => {
    const topic = freshTopic()
    const ana = await member(newClient(t, server()), topic, { broadcast: { ack: true } })
    const ben = await member(newClient(t, server()), topic)
    assert.equal(await ben.client.removeChannel(ben.channel), 'ok')
    assert.equal(await ana.channel.send(broadcast('missed', {})), 'ok')
    await sleep(QUIET_MS)
    const again = await member(ben.client, topic)
    await ana.channel.send(broadcast('seen', {}))
    await arrived(again.messages)
    assert.deepEqual(ben.messages, [])
    assert.deepEqual(again.messages, [broadcast('seen', {})])
  })

  test('a private channel of a tenant without a database is refused', async (t) => {
    const channel = newClient(t, server()).channel(freshTopic(), { config: { private: true } })
    await assert.rejects(subscribed(channel), {
      status: 'CHANNEL_ERROR',
      reason: 'UnableToConnectToProject: Realtime was unable to connect to the project database',
    })
  })
})
