// Bytes on a socket, without a client library in between: raw TCP, hand-made WebSocket frames, and a
// small protocol 2.0.0 peer over the `ws` package for tests that need many sockets.
import { once } from 'node:events'
import net from 'node:net'
import WebSocket from 'ws'
import { loopback, SECRET, until } from '../server.mjs'
import { clientToken } from '../tokens.mjs'

/** A TCP connection that collects what it receives. */
export async function dial(server) {
  const socket = net.connect(server.port, '127.0.0.1')
  let received = Buffer.alloc(0)
  socket.on('data', (chunk) => { received = Buffer.concat([received, chunk]) })
  const connected = once(socket, 'connect')
  // A reset is one way of being cut off; whoever cares looks at what was received before.
  socket.on('error', () => {})
  socket.on('end', () => socket.end())
  await connected
  return {
    socket,
    received: () => received,
    text: () => received.toString('latin1'),
    send: (data) => socket.write(data),
    isClosed: () => socket.destroyed,
  }
}

/** Sends one request on a connection of its own and returns the whole answer once the server has closed. */
export async function exchange(server, request) {
  const line = await dial(server)
  line.send(request)
  await until(line.isClosed, 'the server closes the connection')
  return line.text()
}

/** Splits a byte stream of HTTP/1.1 answers with content-length into [{status, headers, body}]. */
export function answers(text) {
  const out = []
  for (let rest = text; rest;) {
    const end = rest.indexOf('\r\n\r\n')
    if (end < 0) break
    const [line, ...fields] = rest.slice(0, end).split('\r\n')
    const headers = Object.fromEntries(fields.map((f) => [f.slice(0, f.indexOf(':')).toLowerCase(), f.slice(f.indexOf(':') + 1).trim()]))
    const length = Number(headers['content-length'] ?? 0)
    if (rest.length < end + 4 + length) break
    out.push({ status: Number(line.split(' ')[1]), headers, body: rest.slice(end + 4, end + 4 + length) })
    rest = rest.slice(end + 4 + length)
  }
  return out
}

/** A client frame. `mask: false` and `rsv` make invalid ones; `length` lies about the payload's size. */
export function frame(opcode, payload = '', { fin = true, rsv = 0, mask = true, length } = {}) {
  const data = Buffer.from(payload)
  const size = length ?? data.length
  const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode]
  const bit = mask ? 0x80 : 0
  if (size < 126) head.push(bit | size)
  else if (size < 65_536) head.push(bit | 126, size >> 8, size & 255)
  else {
    const wide = Buffer.alloc(8)
    wide.writeBigUInt64BE(BigInt(size))
    head.push(bit | 127, ...wide)
  }
  if (!mask) return Buffer.concat([Buffer.from(head), data])
  const key = Buffer.from([0x21, 0x43, 0x65, 0x87])
  return Buffer.concat([Buffer.from(head), key, data.map((byte, i) => byte ^ key[i % 4])])
}

/** The server's frames in a byte stream: [{opcode, payload}]. */
function serverFrames(bytes) {
  const out = []
  for (let at = 0; bytes.length >= at + 2;) {
    let size = bytes[at + 1] & 127
    let body = at + 2
    if (size === 126) { size = bytes.readUInt16BE(body); body += 2 }
    else if (size === 127) { size = Number(bytes.readBigUInt64BE(body)); body += 8 }
    if (bytes.length < body + size) break
    out.push({ opcode: bytes[at] & 15, payload: bytes.subarray(body, body + size) })
    at = body + size
  }
  return out
}

/** A WebSocket whose frames are made by hand. */
export async function rawWebSocket(server) {
  const line = await dial(server)
  line.send([
    `GET /socket/websocket?vsn=2.0.0&apikey=${clientToken(SECRET)} HTTP/1.1`, `host: ${server.host()}`, 'upgrade: websocket',
    'connection: Upgrade', 'sec-websocket-version: 13', 'sec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==', '', '',
  ].join('\r\n'))
  const head = await until(() => line.text().includes('\r\n\r\n') && line.text().split('\r\n\r\n')[0], 'the upgrade is answered')
  if (!head.startsWith('HTTP/1.1 101 ')) throw new Error(`refused: ${line.text()}`)
  const frames = () => serverFrames(line.received().subarray(head.length + 4))
  return {
    ...line,
    head,
    frames,
    text: () => frames().filter((f) => f.opcode === 1).map((f) => JSON.parse(f.payload)),
    /** Waits until the server has ended the connection; its close code, or null without a close frame. */
    async closeCode() {
      await until(() => line.isClosed() || frames().some((f) => f.opcode === 8), 'the server closes the WebSocket')
      const close = frames().find((f) => f.opcode === 8)
      return close ? close.payload.readUInt16BE(0) : null
    },
  }
}

/** A protocol 2.0.0 socket that keeps every text frame as [join_ref, ref, topic, event, payload]. */
export class Peer {
  frames = []
  #close
  #refs = 0
  #joins = new Map()

  static async open(t, server, { tenant, token = clientToken(SECRET) } = {}) {
    const peer = new Peer()
    const url = `${server.socketUrl(tenant)}/websocket?vsn=2.0.0&apikey=${token}`
    peer.ws = new WebSocket(url, { lookup: loopback, perMessageDeflate: false, handshakeTimeout: 10_000 })
    peer.ws.once('close', (code, reason) => { peer.#close = { code, reason: reason.toString() } })
    peer.ws.on('message', (data, binary) => { if (!binary) peer.frames.push(JSON.parse(data)) })
    t.after(() => peer.ws.terminate())
    await once(peer.ws, 'open')
    // What comes later (a reset, say) shows up in `closed`.
    peer.ws.on('error', () => {})
    return peer
  }

  push(topic, event, payload) {
    const ref = String(++this.#refs)
    if (event === 'phx_join') this.#joins.set(topic, ref)
    this.ws.send(JSON.stringify([this.#joins.get(topic) ?? null, ref, topic, event, payload]))
    return this.sees((f) => f[1] === ref && f[3] === 'phx_reply', `reply to ${event} on ${topic}`)
  }

  sees(test, what, options) {
    return until(() => this.frames.find(test), what, options)
  }

  /** Waits until the socket is closed: {code, reason}, code 1006 without a close frame. */
  closed() {
    return until(() => this.#close, 'the socket is closed')
  }

  async join(room, config = {}) {
    const reply = await this.push(`realtime:${room}`, 'phx_join', { config })
    if (reply[4].status !== 'ok') throw new Error(`join of ${room}: ${JSON.stringify(reply[4])}`)
    return this
  }

  heartbeat() {
    return this.push('phoenix', 'heartbeat', {})
  }

  track(room, payload) {
    return this.push(`realtime:${room}`, 'presence', { type: 'presence', event: 'track', payload })
  }

  /** Sends without waiting: a broadcast without `ack` has no reply. */
  broadcast(room, event, payload) {
    const topic = `realtime:${room}`
    this.ws.send(JSON.stringify([this.#joins.get(topic), String(++this.#refs), topic, 'broadcast', { type: 'broadcast', event, payload }]))
  }

  /** User payloads of the broadcasts of one event, in order of arrival. */
  received(event) {
    return this.frames.filter((f) => f[3] === 'broadcast' && f[4].event === event).map((f) => f[4].payload)
  }

  /** Presence keys with their metas, from the state and the diffs so far, as the client libraries compute it. */
  presence(room) {
    const state = {}
    for (const [, , topic, event, payload] of this.frames) {
      if (topic !== `realtime:${room}`) continue
      if (event === 'presence_state') for (const key in payload) state[key] = payload[key].metas
      if (event !== 'presence_diff') continue
      const known = (metas, meta) => metas.some((other) => other.phx_ref === meta.phx_ref)
      for (const key in payload.joins) {
        const fresh = payload.joins[key].metas
        state[key] = [...(state[key] ?? []).filter((meta) => !known(fresh, meta)), ...fresh]
      }
      for (const key in payload.leaves) {
        state[key] = (state[key] ?? []).filter((meta) => !known(payload.leaves[key].metas, meta))
        if (!state[key].length) delete state[key]
      }
    }
    return state
  }
}
