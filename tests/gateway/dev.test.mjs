// What a newcomer does: start `ringcast dev`, take URL and token from what it prints, connect.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { RealtimeClient } from '@supabase/realtime-js'
import WebSocket from 'ws'
import { BINARY, freePort, until } from '../server.mjs'

test('the banner of `ringcast dev` is all that a client needs', async (t) => {
  const port = await freePort()
  const state = mkdtempSync(join(tmpdir(), 'ringcast-dev-'))
  const env = { PATH: process.env.PATH, HOME: process.env.HOME, RINGCAST_STATE_DIR: state }
  const child = spawn(BINARY, ['dev', '--port', String(port)], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise((done) => child.once('close', (code) => done(code)))
  t.after(() => { child.kill('SIGKILL'); rmSync(state, { recursive: true, force: true }) })
  let text = ''
  child.stdout.setEncoding('utf8').on('data', (chunk) => { text += chunk })
  await until(() => /listening on/.test(text) || /eyJ\S+\n/.test(text), 'the banner')
  const [, url] = await until(() => text.match(/WebSocket\s+(ws:\S+)/), 'the URL')
  const [token] = await until(() => text.match(/eyJ\S+/), 'the token')
  assert.equal(url, `ws://localhost:${port}/socket`)

  const client = new RealtimeClient(url, { params: { apikey: token }, transport: WebSocket })
  t.after(() => client.disconnect())
  const room = client.channel('room:1', { config: { broadcast: { self: true } } })
  let received
  room.on('broadcast', { event: 'hello' }, (message) => { received = message.payload })
  const status = await new Promise((done) => room.subscribe(done))
  assert.equal(status, 'SUBSCRIBED')
  await room.send({ type: 'broadcast', event: 'hello', payload: { n: 1 } })
  assert.deepEqual(await until(() => received, 'the own broadcast'), { n: 1 })

  await client.disconnect()
  child.kill('SIGTERM')
  assert.equal(await ended, 0)
})
