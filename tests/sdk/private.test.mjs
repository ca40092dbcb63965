// Private channels as the official client sees them (protocol 12, 13 and 17).
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { FULL, readyTenant, withDatabase } from '../database/tenant.mjs'
import { SECRET, until } from '../server.mjs'
import { clientToken } from '../tokens.mjs'
import { freshTopic, inbox, member, newClient, oldClient, subscribed } from './clients.mjs'

const QUIET_MS = 250
const broadcast = (event, payload = {}) => ({ type: 'broadcast', event, payload })
const arrived = (messages, count = 1) => until(() => messages.length >= count, `${count} broadcasts, have ${messages.length}`)
const unauthorized = (room) => `Unauthorized: You do not have permissions to read from this Channel topic: ${room}`

withDatabase('private channels', {}, ({ server, postgres }) => {
  let tenant
  before(async () => { tenant = await readyTenant(server(), postgres(), 'private') })
  const generations = { '2.0.0': newClient, '1.0.0': oldClient }

  for (const [version, open] of Object.entries(generations)) {
    const client = (t, options) => open(t, server(), { tenant: tenant.id, ...options })
    const join = (t, room, config = {}) => member(client(t), room, { private: true, ...config })

    test(`${version}: broadcasts reach those who may read`, async (t) => {
      const room = freshTopic(FULL)
      const [ana, ben] = [await join(t, room, { broadcast: { ack: true } }), await join(t, room)]
      assert.equal(await ana.channel.send(broadcast('move', { x: 1 })), 'ok')
      await arrived(ben.messages)
      await sleep(QUIET_MS)
      assert.deepEqual(ben.messages, [broadcast('move', { x: 1 })])
      assert.deepEqual(ana.messages, [])
    })

    test(`${version}: broadcasts pass to the other generation`, async (t) => {
      const room = freshTopic(FULL)
      const ana = await join(t, room)
      const other = open === newClient ? oldClient : newClient
      const ben = await member(other(t, server(), { tenant: tenant.id }), room, { private: true })
      await ana.channel.send(broadcast('move', { x: 1 }))
      await arrived(ben.messages)
      assert.deepEqual(ben.messages, [broadcast('move', { x: 1 })])
    })

    test(`${version}: whoever may not read cannot join`, async (t) => {
      const room = freshTopic('nothing')
      const channel = client(t).channel(room, { config: { private: true } })
      // The former client quotes it.
      const reason = open === oldClient ? JSON.stringify(unauthorized(room)) : unauthorized(room)
      await assert.rejects(subscribed(channel), { status: 'CHANNEL_ERROR', reason })
    })

    test(`${version}: whoever may not write is not heard`, async (t) => {
      const room = freshTopic('read-broadcast')
      const mute = await join(t, room, { broadcast: { ack: true } })
      const ben = await join(t, room)
      // No acknowledgement at all, so the client's own timeout decides.
      assert.equal(await mute.channel.send(broadcast('lost'), { timeout: 500 }), 'timed out')
      await sleep(QUIET_MS)
      assert.deepEqual(ben.messages, [])
    })

    test(`${version}: presence is shared by those who may read it, and written by those who may`, async (t) => {
      const presenceOf = async (room, key) => {
        const channel = client(t).channel(room, { config: { private: true, presence: { key, enabled: true } } })
        channel.on('presence', { event: 'sync' }, () => {})
        await subscribed(channel)
        return channel
      }
      const room = freshTopic('read-presence write-presence')
      const [ana, ben] = [await presenceOf(room, 'ana'), await presenceOf(room, 'ben')]
      assert.equal(await ana.track({ mood: 'fine' }), 'ok')
      await until(() => ben.presenceState().ana, 'ana is present for ben')
      assert.equal(ben.presenceState().ana[0].mood, 'fine')
      assert.equal(await ana.untrack(), 'ok')
      await until(() => !ben.presenceState().ana, 'ana is gone for ben')
      const shy = await presenceOf(freshTopic('read-presence'), 'shy')
      assert.equal(await shy.track({}), 'error')
      const blind = freshTopic('read-broadcast write-presence')
      const [cleo, dan] = [await presenceOf(blind, 'cleo'), await presenceOf(blind, 'dan')]
      assert.equal(await cleo.track({}), 'ok')
      await sleep(QUIET_MS)
      assert.deepEqual(dan.presenceState(), {})
    })

    test(`${version}: setAuth with a token that may no longer read closes the channel and nothing else`, async (t) => {
      const room = freshTopic('revoked')
      const grant = `insert into public.rights select $1, 'broadcast', unnest(array['read', 'write'])`
      await tenant.query(grant, [room])
      const mine = client(t)
      const channel = mine.channel(room, { config: { private: true } })
      const systems = []
      channel.on('system', {}, (message) => systems.push(message))
      const statuses = []
      await subscribed(channel, statuses)
      const neighbour = await member(mine, freshTopic('read-broadcast'), { private: true })
      await mine.setAuth(clientToken(SECRET, { subject: 'still-allowed' }))
      await sleep(QUIET_MS)
      assert.deepEqual(systems, [])
      await tenant.query('delete from public.rights where topic = $1', [room])
      await mine.setAuth(clientToken(SECRET, { subject: 'no-longer-allowed' }))
      await until(() => statuses.includes('CLOSED'), 'the channel is closed')
      assert.deepEqual(systems.filter((message) => message.status === 'error').map(({ extension, message }) => [extension, message]),
        [['system', `You do not have permissions to read from this Channel topic: ${room}`]])
      assert.equal(neighbour.channel.state, 'joined')
    })
  }

  test('a channel that is refused joins by itself once it is allowed', async (t) => {
    const room = freshTopic('later')
    const channel = newClient(t, server(), { tenant: tenant.id }).channel(room, { config: { private: true } })
    const messages = inbox(channel)
    const statuses = []
    await assert.rejects(subscribed(channel, statuses), { status: 'CHANNEL_ERROR' })
    await tenant.query(`insert into public.rights values ($1, 'broadcast', 'read')`, [room])
    await until(() => statuses.includes('SUBSCRIBED'), 'the channel is joined')
    await tenant.query(`select realtime.send('{"n":1}', 'tick', $1)`, [room])
    await arrived(messages)
  })

  test('httpSend: allowed and denied', async (t) => {
    const room = freshTopic(FULL)
    const ana = await member(newClient(t, server(), { tenant: tenant.id }), room, { private: true })
    const ben = newClient(t, server(), { tenant: tenant.id })
    await ben.setAuth(clientToken(SECRET))
    const send = (topic) => ben.channel(topic, { config: { private: true } }).httpSend('move', { x: 1 })
    assert.deepEqual(await send(room), { success: true })
    await arrived(ana.messages)
    assert.deepEqual(ana.messages, [broadcast('move', { x: 1 })])
    await assert.rejects(send(freshTopic('read-broadcast')), /Unauthorized/)
  })
})
