// Starts the release binary for a test file: its own port, its own state folder, nothing inherited
// from the environment but PATH and HOME. A server that dies early or never becomes ready fails the
// test with its whole log.
//
// Host names are never resolved: everything is dialled to 127.0.0.1, so `realtime-dev.localhost`
// only chooses the tenant.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, before, describe } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { inSeconds, sign } from './tokens.mjs'

export const BINARY = resolve(process.env.RINGCAST_BIN ?? join(import.meta.dirname, '../target/release/ringcast'))
export const DEV_TENANT = 'realtime-dev'
export const SECRET = 'sdk-and-gateway-tests-secret-with-at-least-32-characters'
export const METRICS_SECRET = 'metrics-secret-of-the-tests-with-at-least-32-characters'
const READY_TIMEOUT_MS = 15_000
const STOP_TIMEOUT_MS = 15_000
const REQUEST_TIMEOUT_MS = 15_000

// A test file that is cut off by the runner's time limit must not leave servers behind.
const running = new Set()
process.on('exit', () => { for (const child of running) child.kill('SIGKILL') })
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))

/** A `lookup` for sockets and requests that sends every host name to this machine. */
export const loopback = (_host, options, done) =>
  options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4)

/** `fetch` over `loopback`: Node's own offers no say in name resolution. */
export function loopbackFetch(url, { method = 'GET', headers = {}, body, signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS) } = {}) {
  return new Promise((done, fail) => {
    const request = http.request(url, { method, headers, signal, lookup: loopback, agent: false }, (response) => {
      const chunks = []
      response.on('error', fail)
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('end', () => {
        const { statusCode: status, statusMessage: statusText } = response
        const bytes = Buffer.concat(chunks)
        done(new Response(bytes.length ? bytes : null, { status, statusText, headers: response.headers }))
      })
    })
    request.on('error', fail)
    request.end(typeof body === 'string' || body === undefined ? body : Buffer.from(body))
  })
}

/** Polls `check` until it returns something truthy, and returns that. */
export async function until(check, what, { timeout = 10_000 } = {}) {
  const limit = Date.now() + timeout
  for (;;) {
    const value = await check()
    if (value) return value
    if (Date.now() > limit) throw new Error(`timed out after ${timeout} ms: ${what}`)
    await sleep(15)
  }
}

// Below the kernel's ephemeral range, so that no outgoing connection of another test can take the
// port between the probe and the start of the server.
export async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    const probe = net.createServer()
    const free = await new Promise((done) => {
      probe.once('error', () => done(false))
      probe.listen(port, '127.0.0.1', () => probe.close(() => done(true)))
    })
    if (free) return port
  }
}

function environment(port, stateDir, shards, env) {
  return {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    PORT: String(port),
    RINGCAST_BIND: '127.0.0.1',
    RINGCAST_STATE_DIR: stateDir,
    RINGCAST_SHARDS: String(shards),
    // With the default a small tenant stays on one shard, and a second one would test nothing.
    RINGCAST_SPREAD: 'all',
    RINGCAST_DRAIN_TIMEOUT_MS: '3000',
    API_JWT_SECRET: SECRET,
    METRICS_JWT_SECRET: METRICS_SECRET,
    CONNECT_ERROR_BACKOFF_MS: '0',
    CHANNEL_ERROR_BACKOFF_MS: '0',
    TENANT_MAX_CONCURRENT_USERS: '10000',
    TENANT_MAX_EVENTS_PER_SECOND: '100000',
    TENANT_MAX_JOINS_PER_SECOND: '100000',
    TENANT_MAX_CHANNELS_PER_CLIENT: '1000',
    CLIENT_PRESENCE_MAX_CALLS: '1000',
    LOG_LEVEL: 'info',
    ...env,
  }
}

// One health check on a bare connection, because `preamble` (a PROXY header) has to come first.
function healthy(port, preamble) {
  return new Promise((done) => {
    const socket = net.connect(port, '127.0.0.1')
    let text = ''
    socket.setTimeout(1000, () => socket.destroy())
    socket.on('data', (chunk) => { text += chunk })
    socket.on('error', () => {})
    socket.on('close', () => done(text.startsWith('HTTP/1.1 200 ')))
    socket.end(`${preamble}GET /healthcheck HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`)
  })
}

/**
 * Starts a server and waits until it is ready. Pass the `port` and `stateDir` of a stopped one to restart it.
 * `preamble` is sent before the health check that decides readiness.
 */
export async function startServer({ shards = 1, env = {}, port, stateDir, preamble = '' } = {}) {
  port ??= await freePort()
  const ownsStateDir = stateDir === undefined
  stateDir ??= mkdtempSync(join(tmpdir(), 'ringcast-test-'))
  const child = spawn(BINARY, ['serve'], { env: environment(port, stateDir, shards, env), stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  let log = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => { log += text })
  // `close` comes when the process has ended and its output has been read.
  const ended = new Promise((done) => {
    child.once('error', (error) => done({ code: null, signal: error.message }))
    child.once('close', (code, signal) => done({ code, signal }))
  })
  let exit
  ended.then((how) => {
    exit = how
    running.delete(child)
  })

  const url = (tenant = DEV_TENANT) => `http://${tenant}.localhost:${port}`
  const server = {
    port, stateDir, shards, url,
    host: (tenant = DEV_TENANT) => `${tenant}.localhost:${port}`,
    socketUrl: (tenant) => `${url(tenant).replace('http', 'ws')}/socket`,
    log: () => log,
    /** Waits until the process has ended: {code, signal}. */
    exited: () => until(() => exit, 'the server ends', { timeout: STOP_TIMEOUT_MS }),
    signal: (name) => child.kill(name),
    request: (path, { tenant, ...options } = {}) => loopbackFetch(`${url(tenant)}${path}`, options),

    /** A call of the management API: `path` follows `/api/tenants`. */
    api: (method, path, body) => loopbackFetch(`${url()}/api/tenants${path}`, {
      method,
      headers: { authorization: `Bearer ${sign({ exp: inSeconds(600) }, SECRET)}`, 'content-type': 'application/json' },
      body: body && JSON.stringify(body),
    }),

    /** Creates a tenant without a database; `fields` override the defaults. */
    async createTenant(externalId, fields = {}) {
      const tenant = { external_id: externalId, name: externalId, jwt_secret: SECRET, extensions: [], ...fields }
      const response = await server.api('POST', '', { tenant })
      if (response.status !== 201) throw new Error(`creating ${externalId}: ${response.status} ${await response.text()}`)
    },

    /** SIGTERM, then SIGKILL if that does not help. Keeps a state folder that was passed in. */
    async stop({ keepState = !ownsStateDir } = {}) {
      if (!exit) {
        child.kill('SIGTERM')
        const killer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
        await ended
        clearTimeout(killer)
      }
      if (!keepState) rmSync(stateDir, { recursive: true, force: true })
      return exit
    },
  }

  try {
    await until(async () => {
      if (exit) throw new Error(`the server ended: ${JSON.stringify(exit)}`)
      return healthy(port, preamble)
    }, 'the server answers /healthcheck', { timeout: READY_TIMEOUT_MS })
  } catch (error) {
    await server.stop({ keepState: !ownsStateDir })
    throw new Error(`${error.message}\n${BINARY} serve said:\n${log}`)
  }
  return server
}

/** A suite with a server of its own, once per number of shards. `define` gets a function that returns the server. */
export function withServer(title, { shards = [1, 2], env } = {}, define) {
  for (const count of shards) {
    describe(`${title}, ${count} shard${count === 1 ? '' : 's'}`, () => {
      let server
      before(async () => { server = await startServer({ shards: count, env }) })
      after(() => server?.stop())
      define(() => server)
    })
  }
}
