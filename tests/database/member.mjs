// A socket of either protocol version, as bare as the tests of the database side need it: every message of the server is kept
// in one shape, whatever its version and frame, so that one test can be written for both.
import { once } from 'node:events'
import WebSocket from 'ws'
import { loopback, SECRET, until } from '../server.mjs'
import { clientToken } from '../tokens.mjs'

const KIND_USER_BROADCAST = 4
const JOIN_TIMEOUT_MS = 25_000

/** {topic, event, payload} of a binary frame with a user broadcast (protocol 3.4). */
function userBroadcast(data) {
  if (data[0] !== KIND_USER_BROADCAST) throw new Error(`the server sent a binary frame of kind ${data[0]}`)
  const [, topicBytes, eventBytes, metaBytes, encoding] = data
  let at = 5
  const take = (bytes) => data.subarray(at, at += bytes)
  const [topic, event, meta] = [topicBytes, eventBytes, metaBytes].map((bytes) => take(bytes).toString())
  const body = data.subarray(at)
  const payload = { type: 'broadcast', event, payload: encoding === 1 ? JSON.parse(body) : Buffer.from(body) }
  if (meta) payload.meta = JSON.parse(meta)
  return { joinRef: null, ref: null, topic, event: 'broadcast', payload }
}

function textMessage(version, text) {
  const value = JSON.parse(text)
  if (version === 1) return { ...value, joinRef: undefined }
  const [joinRef, ref, topic, event, payload] = value
  return { joinRef, ref, topic, event, payload }
}

export class Member {
  /** Every message of the server: {joinRef, ref, topic, event, payload}. */
  messages = []
  #version
  #refs = 0
  #joins = new Map()
  #close

  static async open(t, server, { tenant, version = 2, token = clientToken(SECRET), headers } = {}) {
    const member = new Member()
    member.#version = version
    const url = `${server.socketUrl(tenant)}/websocket?vsn=${version}.0.0&apikey=${token}`
    member.ws = new WebSocket(url, { lookup: loopback, perMessageDeflate: false, handshakeTimeout: 10_000, headers })
    t.after(() => member.ws.terminate())
    member.ws.on('message', (data, binary) => member.messages.push(binary ? userBroadcast(data) : textMessage(version, data)))
    member.ws.once('close', (code) => { member.#close = { code } })
    await once(member.ws, 'open')
    member.ws.on('error', () => {})
    return member
  }

  get closed() { return this.#close }

  /** Sends without waiting; returns the ref. */
  send(room, event, payload) {
    const topic = `realtime:${room}`
    const ref = String(++this.#refs)
    if (event === 'phx_join') this.#joins.set(topic, ref)
    const joinRef = this.#joins.get(topic) ?? null
    const message = this.#version === 1 ? { topic, event, payload, ref, join_ref: joinRef } : [joinRef, ref, topic, event, payload]
    this.ws.send(JSON.stringify(message))
    return ref
  }

  /** Waits for a message. */
  sees(test, what, options) {
    return until(() => this.messages.find(test), what, options)
  }

  async reply(ref, what, options) {
    return (await this.sees((m) => m.event === 'phx_reply' && m.ref === ref, what, options)).payload
  }

  /** Pushes and waits for the reply: {status, response}. */
  push(room, event, payload, options) {
    return this.reply(this.send(room, event, payload), `reply to ${event} on ${room}`, options)
  }

  /** Tries to join; returns the reply. A member that may not join gets `reason`. */
  attempt(room, config = {}, { token } = {}) {
    return this.push(room, 'phx_join', { config, ...(token && { access_token: token }) }, { timeout: JOIN_TIMEOUT_MS })
  }

  /** The reason why a join is refused. */
  async refusal(room, config, options) {
    const { status, response } = await this.attempt(room, config, options)
    if (status !== 'error') throw new Error(`the join of ${room} was not refused`)
    return response.reason
  }

  /** Joins a private channel. */
  async join(room, { private: isPrivate = true, ...config } = {}, options) {
    const { status, response } = await this.attempt(room, { private: isPrivate, ...config }, options)
    if (status !== 'ok') throw new Error(`join of ${room}: ${JSON.stringify(response)}`)
    return this
  }

  leave(room) {
    return this.push(room, 'phx_leave', {})
  }

  broadcast(room, event, payload = {}) {
    return this.send(room, 'broadcast', { type: 'broadcast', event, payload })
  }

  track(room, payload = {}) {
    return this.push(room, 'presence', { type: 'presence', event: 'track', payload })
  }

  refresh(room, token) {
    return this.send(room, 'access_token', { access_token: token })
  }

  /** Broadcasts of a room so far, in order: {event, payload, meta}. */
  broadcasts(room, event) {
    return this.messages
      .filter((m) => m.topic === `realtime:${room}` && m.event === 'broadcast' && (event === undefined || m.payload.event === event))
      .map((m) => m.payload)
  }

  /** Waits for `count` broadcasts of a room and returns them. */
  async receives(room, event, count = 1, options) {
    await until(() => this.broadcasts(room, event).length >= count, `${count} broadcasts ${event} on ${room}`, options)
    return this.broadcasts(room, event)
  }

  /** A round trip: what the server sent before is here. */
  async heartbeat() {
    const ref = String(++this.#refs)
    this.ws.send(JSON.stringify(this.#version === 1
      ? { topic: 'phoenix', event: 'heartbeat', payload: {}, ref }
      : [null, ref, 'phoenix', 'heartbeat', {}]))
    await this.reply(ref, 'heartbeat')
  }

  /** Waits until the server has closed the socket: {code}. */
  ended() {
    return until(() => this.#close, 'the socket is closed')
  }
}
