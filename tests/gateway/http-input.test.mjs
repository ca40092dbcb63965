// Hostile and unusual HTTP on the listener (HTTP API 1, protocol 1.3 and 16).
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { afterEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { SECRET, startServer, until, withServer } from '../server.mjs'
import { clientToken } from '../tokens.mjs'
import { answers, dial, exchange, Peer } from './wire.mjs'

const HEAD_TIMEOUT_MS = 1000
const BODY_TIMEOUT_MS = 1500
const env = { RINGCAST_HEAD_TIMEOUT_MS: String(HEAD_TIMEOUT_MS), RINGCAST_BODY_TIMEOUT_MS: String(BODY_TIMEOUT_MS) }

const request = (server, method, path, fields = [], body = '') =>
  [`${method} ${path} HTTP/1.1`, `host: ${server.host()}`, ...fields, '', body].join('\r\n')
const status = (text) => answers(text)[0]?.status

withServer('HTTP input', { shards: [1], env }, (server) => {
  afterEach(async () => { assert.equal((await server().request('/healthcheck')).status, 200, 'the server still answers') })

  for (const [what, bytes] of [
    ['a request line without a version', 'GET /healthcheck\r\n\r\n'],
    ['a request line of one word', 'HELLO\r\n\r\n'],
    ['a header without a colon', 'GET /healthcheck HTTP/1.1\r\nhost localhost\r\n\r\n'],
    ['a space before the colon', 'GET /healthcheck HTTP/1.1\r\nhost : realtime-dev.localhost\r\n\r\n'],
    ['two different content-lengths', 'POST /api/broadcast HTTP/1.1\r\nhost: realtime-dev.localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}'],
    ['a negative content-length', 'POST /api/broadcast HTTP/1.1\r\nhost: realtime-dev.localhost\r\ncontent-length: -1\r\n\r\n'],
    ['a chunk size that is no number', 'POST /api/broadcast HTTP/1.1\r\nhost: realtime-dev.localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n'],
  ]) {
    test(`${what} is answered 400 and the connection closed`, async () => {
      assert.equal(status(await exchange(server(), bytes)), 400)
    })
  }

  test('garbage bytes end the connection', async () => {
    for (const bytes of [randomBytes(4096), Buffer.alloc(4096), Buffer.from('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 'latin1')]) {
      const text = await exchange(server(), bytes)
      assert.ok(text === '' || status(text) === 400 || status(text) === 408 || status(text) === 431, text)
    }
  })

  test('one long header value is answered 431', async () => {
    assert.equal(status(await exchange(server(), request(server(), 'GET', '/healthcheck', [`x-long: ${'y'.repeat(5000)}`]))), 431)
  })

  test('a head without end is answered 431', async () => {
    const fields = Array.from({ length: 400 }, (_, n) => `x-field-${n}: ${'y'.repeat(1000)}`)
    const text = await exchange(server(), request(server(), 'GET', '/healthcheck', fields))
    // A peer that is still writing may see the reset before the answer.
    assert.ok(text === '' || status(text) === 431, text)
  })

  test('a long request line is answered 414', async () => {
    assert.equal(status(await exchange(server(), request(server(), 'GET', `/healthcheck?x=${'y'.repeat(9000)}`))), 414)
  })

  test('an unknown path is answered 404', async () => {
    assert.equal((await server().request('/nothing/here')).status, 404)
  })

  test('a client that sends its head a byte at a time is cut off at the deadline', async (t) => {
    const peer = await Peer.open(t, server())
    const line = await dial(server())
    const started = Date.now()
    const head = request(server(), 'GET', '/healthcheck')
    for (let at = 0; !line.isClosed() && Date.now() - started < 5000; at++) {
      line.send(head[at])
      await sleep(200)
    }
    const elapsed = Date.now() - started
    assert.ok(line.isClosed(), 'still open after 5 s')
    assert.ok(elapsed >= HEAD_TIMEOUT_MS * 0.9 && elapsed < HEAD_TIMEOUT_MS + 1500, `cut off after ${elapsed} ms`)
    assert.ok(line.text() === '' || status(line.text()) === 408, line.text())
    await peer.heartbeat()
  })

  test('a silent connection is cut off at the deadline', async () => {
    const started = Date.now()
    const line = await dial(server())
    await until(line.isClosed, 'the server closes', { timeout: HEAD_TIMEOUT_MS + 3000 })
    assert.ok(Date.now() - started >= HEAD_TIMEOUT_MS * 0.9)
  })

  test('a body that does not come is cut off at its deadline', async () => {
    const started = Date.now()
    const text = await exchange(server(), request(server(), 'POST', '/api/broadcast', [
      `authorization: Bearer ${clientToken(SECRET)}`, 'content-type: application/json', 'content-length: 1000',
    ], '{"messages":['))
    assert.ok(text === '' || status(text) === 408, text)
    assert.ok(Date.now() - started < BODY_TIMEOUT_MS + 2000)
  })

  test('a body above the limit is answered 413', async () => {
    const text = await exchange(server(), request(server(), 'POST', '/api/broadcast', [
      `authorization: Bearer ${clientToken(SECRET)}`, 'content-type: application/json', 'content-length: 20000000',
    ]))
    assert.equal(status(text), 413)
  })

  test('two requests share one connection', async () => {
    const line = await dial(server())
    for (const count of [1, 2]) {
      line.send(request(server(), 'GET', '/healthcheck'))
      await until(() => answers(line.text()).length === count, `answer ${count}`)
    }
    assert.deepEqual(answers(line.text()).map((a) => [a.status, a.body]), [[200, 'ok'], [200, 'ok']])
    assert.equal(line.isClosed(), false)
    line.socket.destroy()
  })

  test('pipelined requests are answered in order', async () => {
    const line = await dial(server())
    line.send(request(server(), 'GET', '/healthcheck') + request(server(), 'GET', '/api/ping') + request(server(), 'GET', '/nothing')
      + request(server(), 'GET', '/healthcheck'))
    await until(() => answers(line.text()).length === 4, 'four answers')
    assert.deepEqual(answers(line.text()).map((a) => a.status), [200, 200, 404, 200])
    line.socket.destroy()
  })

  test('a request in pieces is put together', async () => {
    const line = await dial(server())
    for (const byte of request(server(), 'GET', '/healthcheck')) { line.send(byte); await sleep(1) }
    await until(() => answers(line.text()).length === 1, 'the answer')
    line.socket.destroy()
  })

  test('HEAD is answered like GET without the body', async () => {
    const text = await exchange(server(), request(server(), 'HEAD', '/healthcheck', ['connection: close']))
    assert.match(text, /^HTTP\/1\.1 200 /)
    assert.equal(text.endsWith('\r\n\r\n'), true)
  })

  test('connection: close and HTTP/1.0 are honoured', async () => {
    assert.equal(status(await exchange(server(), request(server(), 'GET', '/healthcheck', ['connection: close']))), 200)
    assert.equal(status(await exchange(server(), `GET /healthcheck HTTP/1.0\r\nhost: ${server().host()}\r\n\r\n`)), 200)
  })

  test('a chunked body is read', async (t) => {
    const peer = await (await Peer.open(t, server())).join('chunked')
    const body = JSON.stringify({ messages: [{ topic: 'chunked', event: 'tick', payload: { n: 1 } }] })
    const chunks = [body.slice(0, 7), body.slice(7, 30), body.slice(30)]
    const text = await exchange(server(), request(server(), 'POST', '/api/broadcast', [
      `authorization: Bearer ${clientToken(SECRET)}`, 'content-type: application/json', 'transfer-encoding: chunked', 'connection: close',
    ], `${chunks.map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('')}0\r\n\r\n`))
    assert.equal(status(text), 202)
    await until(() => peer.received('tick').length === 1, 'the broadcast')
    assert.deepEqual(peer.received('tick'), [{ n: 1 }])
  })

  test('the metrics need their own token', async () => {
    assert.equal((await server().request('/metrics')).status, 403)
    assert.equal((await server().request('/metrics', { headers: { authorization: `Bearer ${clientToken(SECRET)}` } })).status, 403)
  })
})

const PROXY = 'PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n'

withServer('without PROXY protocol', { shards: [1] }, (server) => {
  test('its header is a bad request', async () => {
    assert.equal(status(await exchange(server(), PROXY + request(server(), 'GET', '/healthcheck'))), 400)
  })
})

test('with PROXY protocol its header is read before HTTP', async (t) => {
  const server = await startServer({ env: { ...env, RINGCAST_PROXY_PROTOCOL: 'true' }, preamble: PROXY })
  t.after(() => server.stop())
  const close = request(server, 'GET', '/healthcheck', ['connection: close'])
  for (const header of [PROXY, 'PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n', 'PROXY UNKNOWN\r\n']) {
    assert.equal(status(await exchange(server, header + close)), 200, header)
  }
  // In two packets, cut inside the header.
  const line = await dial(server)
  line.send(PROXY.slice(0, 9))
  await sleep(100)
  line.send(PROXY.slice(9) + close)
  await until(line.isClosed, 'the server closes')
  assert.equal(status(line.text()), 200)
  // A malformed one ends the connection without an answer to the request behind it.
  assert.notEqual(status(await exchange(server, `PROXY TCP4 nonsense\r\n${close}`)), 200)
})
