// The two generations of the official client under one set of verbs: the current release, which
// speaks protocol 2.0.0, and one that speaks 1.0.0. Every client is disconnected when its test ends.
import { RealtimeClient } from '@supabase/realtime-js'
import { RealtimeClient as FormerRealtimeClient } from 'realtime-js-old'
import WebSocket from 'ws'
import { loopback, loopbackFetch, SECRET } from '../server.mjs'
import { clientToken } from '../tokens.mjs'

/** A WebSocket that never resolves names; the host only chooses the tenant. */
class LoopbackSocket extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { lookup: loopback })
  }
}

// Release 2.11.2 forgets to attach its handlers when a transport is given.
class OldClient extends FormerRealtimeClient {
  connect() {
    if (this.conn) return
    super.connect()
    this.setupConnection()
  }
}

/** Silences the client's console warnings and keeps a reconnecting test short. */
const DEFAULTS = { logger: () => {}, reconnectAfterMs: () => 200, timeout: 8000 }

function open(Client, t, server, { tenant, token = clientToken(SECRET), ...options } = {}) {
  const client = new Client(server.socketUrl(tenant), {
    transport: LoopbackSocket, fetch: loopbackFetch, params: { apikey: token }, ...DEFAULTS, ...options,
  })
  t.after(() => { client.disconnect() })
  return client
}

/** A client of the current release. */
export const newClient = (t, server, options) => open(RealtimeClient, t, server, options)
/** A client of the 1.0.0 generation. */
export const oldClient = (t, server, options) => open(OldClient, t, server, options)

/** Subscribes and waits for the first outcome; rejects unless it is SUBSCRIBED. `statuses` collects all of them. */
export function subscribed(channel, statuses = []) {
  return new Promise((done, fail) => {
    channel.subscribe((status, error) => {
      statuses.push(status)
      if (status === 'SUBSCRIBED') done(channel)
      else fail(Object.assign(new Error(`${status}: ${error?.message ?? ''}`), { status, reason: error?.message }))
    })
  })
}

/** Collects what a channel receives as broadcast `event` (`*` for all). Call it before subscribing. */
export function inbox(channel, event = '*') {
  const messages = []
  channel.on('broadcast', { event }, (message) => messages.push(message))
  return messages
}

/** Joins `topic` and collects its broadcasts. */
export async function member(client, topic, config = {}) {
  const channel = client.channel(topic, { config })
  const messages = inbox(channel)
  await subscribed(channel)
  return { client, channel, messages }
}

let topics = 0
/** A topic no other test uses. */
export const freshTopic = (name = 'room') => `${name}-${process.pid}-${++topics}`
