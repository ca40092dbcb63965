// Where sockets end up and what they run on: hand-off between shards, and the epoll driver
// (architecture 1, 2).
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { METRICS_SECRET, until, withServer } from '../server.mjs'
import { inSeconds, sign } from '../tokens.mjs'
import { Peer } from './wire.mjs'

/** Value of a shard metric by shard number. */
async function byShard(server, name) {
  const authorization = `Bearer ${sign({ exp: inSeconds(60) }, METRICS_SECRET)}`
  const answer = await server.request('/metrics', { headers: { authorization } })
  const text = typeof answer.body === 'string' ? answer.body : await answer.text()
  const values = {}
  for (const line of text.split('\n')) {
    const match = line.startsWith(`${name}{`) && line.match(/shard="(\d+)".*\} (\d+)/)
    if (match) values[match[1]] = Number(match[2])
  }
  return values
}

const total = (values) => Object.values(values).reduce((sum, n) => sum + n, 0)

withServer('a small tenant on two shards', { shards: [2], env: { RINGCAST_SPREAD: 'auto' } }, (server) => {
  test('lives on one of them: sockets that land elsewhere are handed over', async (t) => {
    const count = 40
    const peers = []
    for (let n = 0; n < count; n++) peers.push(await (await Peer.open(t, server())).join('home'))
    peers[0].broadcast('home', 'tick', { n: 1 })
    for (const peer of peers.slice(1)) await until(() => peer.received('tick').length === 1, 'the broadcast')
    const open = await byShard(server(), 'ringcast_shard_connections_open')
    assert.deepEqual(Object.values(open).sort((a, b) => a - b), [0, count])
    const handed = total(await byShard(server(), 'ringcast_shard_handoffs_out_total'))
    assert.ok(handed > 0 && handed < count, `${handed} of ${count} were handed over`)
    assert.equal(total(await byShard(server(), 'ringcast_shard_handoffs_in_total')), handed)
    for (const peer of peers) peer.ws.close()
    await until(async () => total(await byShard(server(), 'ringcast_shard_connections_open')) === 0, 'every socket is gone')
  })
})

withServer('a tenant that outgrows its shard', { shards: [2], env: { RINGCAST_SPREAD: 'auto', RINGCAST_SPREAD_CONNECTIONS: '10' } }, (server) => {
  test('uses the next one, and its rooms span both', async (t) => {
    const peers = []
    for (let n = 0; n < 160; n++) peers.push(await (await Peer.open(t, server())).join('wide'))
    const open = Object.values(await byShard(server(), 'ringcast_shard_connections_open'))
    assert.ok(open.length === 2 && open.every((n) => n >= 10), `sockets by shard: ${open}`)
    peers[0].broadcast('wide', 'tick', { n: 1 })
    for (const peer of peers.slice(1)) await until(() => peer.received('tick').length === 1, 'the broadcast')
  })
})

withServer('the epoll driver', { shards: [2], env: { RINGCAST_DRIVER: 'epoll' } }, (server) => {
  test('serves sockets, broadcasts and large messages like io_uring', async (t) => {
    const [a, b] = await Promise.all([1, 2].map(() => Peer.open(t, server())))
    for (const peer of [a, b]) await peer.join('epoll')
    const text = 'x'.repeat(1_000_000)
    for (let n = 0; n < 5; n++) a.broadcast('epoll', 'big', { n, text })
    await until(() => b.received('big').length === 5, 'five large messages')
    await a.heartbeat()
    assert.equal((await server().request('/healthcheck')).status, 200)
  })
})
