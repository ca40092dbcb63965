// WebSocket framing and malformed messages (protocol 1.7, 3.5 and 15.1).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { until, withServer } from '../server.mjs'
import { frame, Peer, rawWebSocket } from './wire.mjs'

const [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] = [0, 1, 2, 8, 9, 10]
const MESSAGE_BYTES_MAX = 5_000_000
const heartbeat = (ref) => JSON.stringify([null, ref, 'phoenix', 'heartbeat', {}])
const closing = (code) => Buffer.from([code >> 8, code & 255])

withServer('frames', { shards: [1] }, (server) => {
  test('the handshake is answered with the key’s hash and no extension', async () => {
    const raw = await rawWebSocket(server())
    assert.match(raw.head, /^sec-websocket-accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r?$/im)
    assert.doesNotMatch(raw.head, /sec-websocket-(extensions|protocol)/i)
    raw.socket.destroy()
  })

  for (const [what, bytes, code] of [
    ['an unmasked frame', frame(TEXT, heartbeat('1'), { mask: false }), 1002],
    ['the first reserved bit', frame(TEXT, heartbeat('1'), { rsv: 4 }), 1002],
    ['the last reserved bit', frame(TEXT, heartbeat('1'), { rsv: 1 }), 1002],
    ['an unknown data opcode', frame(3, 'x'), 1002],
    ['an unknown control opcode', frame(11, 'x'), 1002],
    ['a fragmented control frame', frame(PING, 'x', { fin: false }), 1002],
    ['a control frame of 126 bytes', frame(PING, 'x'.repeat(126)), 1002],
    ['a continuation of nothing', frame(CONTINUATION, 'x'), 1002],
    ['a new message inside a fragmented one', Buffer.concat([frame(TEXT, 'a', { fin: false }), frame(TEXT, 'b')]), 1002],
    ['a frame above the limit', frame(BINARY, '', { length: MESSAGE_BYTES_MAX + 1 }), 1009],
    ['a frame of absurd length', frame(BINARY, '', { length: Number.MAX_SAFE_INTEGER }), 1009],
    ['fragments above the limit', Buffer.concat([
      frame(BINARY, Buffer.alloc(3_000_000), { fin: false }), frame(CONTINUATION, Buffer.alloc(3_000_000)),
    ]), 1009],
  ]) {
    test(`${what} is closed with ${code}`, async () => {
      const raw = await rawWebSocket(server())
      raw.send(bytes)
      assert.equal(await raw.closeCode(), code)
      await until(raw.isClosed, 'the connection ends')
    })
  }

  test('the largest message is read', async () => {
    const raw = await rawWebSocket(server())
    raw.send(frame(TEXT, 'x'.repeat(MESSAGE_BYTES_MAX)))
    raw.send(frame(TEXT, heartbeat('2')))
    await until(() => raw.text().length === 1, 'the heartbeat behind it is answered')
    assert.equal(raw.isClosed(), false)
    raw.socket.destroy()
  })

  test('a ping between the fragments of a message is answered at once', async () => {
    const raw = await rawWebSocket(server())
    const text = heartbeat('7')
    raw.send(frame(TEXT, text.slice(0, 5), { fin: false }))
    raw.send(frame(PING, 'still there?'))
    await until(() => raw.frames().some((f) => f.opcode === PONG), 'pong')
    assert.equal(String(raw.frames()[0].payload), 'still there?')
    raw.send(frame(CONTINUATION, text.slice(5, 9), { fin: false }))
    raw.send(frame(CONTINUATION, text.slice(9)))
    await until(() => raw.text().length === 1, 'the reply')
    assert.deepEqual(raw.text(), [[null, '7', 'phoenix', 'phx_reply', { status: 'ok', response: {} }]])
    raw.socket.destroy()
  })

  test('a close frame is echoed', async () => {
    const raw = await rawWebSocket(server())
    raw.send(frame(CLOSE, closing(1000)))
    assert.equal(await raw.closeCode(), 1000)
    await until(raw.isClosed, 'the connection ends')
  })

  test('frames cut anywhere are put together', async () => {
    const raw = await rawWebSocket(server())
    for (const byte of frame(TEXT, heartbeat('3'))) { raw.send(Buffer.from([byte])); await sleep(1) }
    await until(() => raw.text().length === 1, 'the reply')
    raw.socket.destroy()
  })

  test('malformed messages are dropped, and nobody else notices', async (t) => {
    const [ana, ben, vandal] = await Promise.all([1, 2, 3].map(() => Peer.open(t, server())))
    for (const peer of [ana, ben, vandal]) await peer.join('malformed')
    const nested = `${'['.repeat(100_000)}${']'.repeat(100_000)}`
    const garbage = [
      '', '{', 'null', '[]', '[1,2,3]', '{"topic":1}', '["1","2","realtime:malformed"]', '[null,null,null,null,null', '\u0000', nested,
      `["1","2","realtime:malformed","broadcast",${nested}`, Buffer.alloc(0), Buffer.from([3]), Buffer.from([3, 255, 255, 255, 255, 255, 1]),
      Buffer.from([9, 9, 9]), Buffer.from([0xff, 0xfe]), Buffer.alloc(70_000, 0xff),
    ]
    for (let n = 0; n < garbage.length; n++) {
      vandal.ws.send(garbage[n])
      ana.broadcast('malformed', 'tick', { n })
    }
    await vandal.heartbeat()
    await until(() => ben.received('tick').length === garbage.length, 'every broadcast')
    assert.deepEqual(ben.received('tick').map((p) => p.n), garbage.map((_, n) => n))
    assert.equal(vandal.frames.filter((f) => f[3] === 'phx_reply').length, 2, 'only the join and the heartbeat are answered')
  })

  test('invalid UTF-8 in a text frame is dropped', async () => {
    const raw = await rawWebSocket(server())
    raw.send(frame(TEXT, Buffer.from([0x5b, 0x22, 0xc3, 0x28, 0x22, 0x5d])))
    raw.send(frame(TEXT, heartbeat('4')))
    await until(() => raw.text().length === 1, 'the heartbeat is answered')
    raw.socket.destroy()
  })
})

const IDLE_MS = 1500

withServer('idle sockets', { shards: [1], env: { RINGCAST_IDLE_TIMEOUT_MS: String(IDLE_MS) } }, (server) => {
  test('are closed with 1000, those that speak are kept', async (t) => {
    const speaker = await (await Peer.open(t, server())).join('idle')
    const silent = await (await Peer.open(t, server())).join('idle')
    const started = Date.now()
    const talking = setInterval(() => speaker.broadcast('idle', 'tick', {}), 300)
    t.after(() => clearInterval(talking))
    // What the server sends does not count: the silent one receives a broadcast every 300 ms.
    assert.deepEqual(await silent.closed(), { code: 1000, reason: '' })
    const elapsed = Date.now() - started
    assert.ok(elapsed >= IDLE_MS * 0.9 && elapsed < IDLE_MS * 2 + 1500, `closed after ${elapsed} ms`)
    await sleep(IDLE_MS)
    await speaker.heartbeat()
  })
})
