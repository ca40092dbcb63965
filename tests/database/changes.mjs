// Subscribers to row changes on bare sockets, tables that are published, and a fence: one more published row after which
// everything that was committed before has reached every subscriber (order per subscriber is commit order, database 8.7).
import { inSeconds, sign } from '../tokens.mjs'
import { SECRET, until } from '../server.mjs'
import { Member } from './member.mjs'
import { readyTenant } from './tenant.mjs'

export const ALICE = '11111111-1111-4111-8111-111111111111'
export const BOB = '22222222-2222-4222-8222-222222222222'
export const SUBSCRIBED = 'Subscribed to PostgreSQL'
const FENCE = 'fence'

/** A token with these claims; a role that is not given is `authenticated`. */
export const tokenOf = (claims = {}) => sign({ role: 'authenticated', sub: ALICE, exp: inSeconds(3600), ...claims }, SECRET)

/** A tenant like that of `readyTenant`, whose events are not limited, with a published table for fences. */
export async function changesTenant(server, postgres, id, options = {}) {
  const tenant = await readyTenant(server, postgres, id, { max_events_per_second: 1_000_000, ...options })
  await tenant.query(`create table public.${FENCE} (n int primary key)`)
  await publish(tenant, FENCE)
  return tenant
}

/** Adds tables to the publication. */
export const publish = (tenant, ...tables) =>
  tenant.query(`alter publication supabase_realtime add table ${tables.map((table) => `public.${table}`).join(', ')}`)

/** A commit is streamed at once, instead of when the WAL writer wakes up the next time (200 ms). */
export const PROMPT = { synchronous_commit: 'local' }

let rooms = 0

/** A socket with one channel that is subscribed to row changes. */
export class Watcher {
  /** Contents (`data`) of the changes of other tables than the fence, in order of arrival, each with its `ids`. */
  changes = []
  /** `system` messages of the subscription: [status, message]. */
  systems = []
  /** When each of `systems` arrived. */
  systemTimes = []
  #read = 0
  #fences = new Set()

  /** Joins and waits for the first outcome of the subscription; throws unless it is a success. */
  static async open(t, server, options) {
    const watcher = await Watcher.join(t, server, options)
    const [status, message] = await watcher.told()
    if (message !== SUBSCRIBED) throw new Error(`${status}: ${message}`)
    return watcher
  }

  /** Joins only. */
  static async join(t, server, { tenant, entries, token = tokenOf(), version = 2, config, room = `changes-${++rooms}` }) {
    const watcher = new Watcher()
    watcher.room = room
    watcher.member = await Member.open(t, server, { tenant: tenant.id ?? tenant, token, version })
    watcher.member.ws.on('message', () => watcher.#take())
    const fence = { event: 'INSERT', schema: 'public', table: FENCE }
    const list = typeof entries === 'string' ? [{ event: '*', schema: 'public', table: entries }] : entries
    const { status, response } = await watcher.member.attempt(room, { ...config, postgres_changes: [...list, fence] })
    if (status !== 'ok') throw new Error(`join of ${room}: ${JSON.stringify(response)}`)
    watcher.ids = response.postgres_changes.map((entry) => entry.id)
    return watcher
  }

  // Runs after the member has kept the message.
  #take() {
    for (; this.#read < this.member.messages.length; this.#read++) {
      const { topic, event, payload } = this.member.messages[this.#read]
      if (topic !== `realtime:${this.room}`) continue
      if (event === 'system' && payload.extension === 'postgres_changes') {
        this.systems.push([payload.status, payload.message])
        this.systemTimes.push(Date.now())
      }
      if (event !== 'postgres_changes') continue
      if (payload.data.table === FENCE) this.#fences.add(payload.data.record.n)
      else this.changes.push({ ids: payload.ids, ...payload.data })
    }
  }

  /** Waits for the outcome number `count` of the subscription. */
  async told(count = 1, options = { timeout: 20_000 }) {
    await until(() => this.systems.length >= count, `message ${count} about the subscription of ${this.room}`, options)
    return this.systems[count - 1]
  }

  /** Waits for one more success after `count` messages. */
  resubscribed(count, options = { timeout: 20_000 }) {
    return until(() => this.systems.slice(count).some(([, message]) => message === SUBSCRIBED), 'it is subscribed again', options)
  }

  /** Waits for `count` changes. */
  async receives(count, options) {
    await until(() => this.changes.length >= count, `${count} changes in ${this.room}`, options).catch((error) => {
      throw new Error(`${error.message}; has ${this.changes.length}, told ${JSON.stringify(this.systems)}`)
    })
    return this.changes
  }

  /** Forgets the changes so far and returns them. */
  drain() {
    return this.changes.splice(0)
  }

  passed(n, options) {
    return until(() => this.#fences.has(n), `fence ${n} arrives in ${this.room}`, options).catch((error) => {
      throw new Error(`${error.message}; told ${JSON.stringify(this.systems)}`)
    })
  }
}

let fences = 0
/** Writes one more row and waits until it is with all of them: nothing that was committed before is still to come. */
export async function fence(tenant, watchers, options = { timeout: 20_000 }) {
  const n = ++fences
  await tenant.query(`insert into public.${FENCE} values (${n})`)
  await Promise.all([watchers].flat().map((watcher) => watcher.passed(n, options)))
}

/** Records (or old records) of these changes, as [type, value of `column`]. */
export const told = (changes, column = 'id') => changes.map(({ type, record, old_record: old }) => [type, (record ?? old)[column]])

/** Numbers of the inserted rows in order of arrival. */
export const ids = (changes) => changes.filter(({ type }) => type === 'INSERT').map(({ record }) => record.id)

/** Compares rising numbers; says where they differ instead of printing thousands. */
export function assertSequence(actual, expected, what = 'rows') {
  const at = expected.findIndex((value, n) => actual[n] !== value)
  if (at < 0 && actual.length === expected.length) return
  const place = at < 0 ? expected.length : at
  const missing = expected.filter(((has) => (value) => !has.has(value))(new Set(actual)))
  const twice = actual.filter(((seen) => (value) => seen.has(value) || !seen.add(value))(new Set()))
  const some = (list) => `${list.length} (${list.slice(0, 8)}${list.length > 8 ? '…' : ''})`
  throw new Error(`${what}: at ${place} there is ${actual.slice(place, place + 5)} instead of ${expected.slice(place, place + 5)}; `
    + `${actual.length} of ${expected.length}, missing ${some(missing)}, twice ${some(twice)}`)
}

export const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n)

/** Inserts rows with rising ids, one transaction each, until it is stopped. `insert` is SQL with $1 for the id. */
export class Writer {
  /** Highest id whose insert was started, and highest that is committed. */
  started = 0
  committed = 0
  #isStopped = false

  /** `lasting`: sessions that are ended are replaced, and the insert is repeated. */
  static async start(t, tenant, { insert, pause = 2, lasting = false }) {
    const writer = new Writer()
    writer.work = writer.#run(tenant, insert, pause, lasting)
    // Reported by stop().
    writer.work.catch(() => {})
    t.after(() => writer.stop().catch(() => {}))
    return writer
  }

  async #run(tenant, insert, pause, lasting) {
    let client = await tenant.client()
    try {
      while (!this.#isStopped) {
        const id = ++this.started
        for (let tries = 0; ; tries++) {
          try {
            await client.query(insert, [id])
            break
          } catch (error) {
            // Committed, but the answer was lost.
            if (lasting && error.code === '23505') break
            if (!lasting || tries > 200) throw error
            await client.end().catch(() => {})
            await new Promise((done) => setTimeout(done, 50))
            client = await tenant.client().catch(() => client)
          }
        }
        this.committed = id
        await new Promise((done) => setTimeout(done, pause))
      }
    } finally {
      await client.end().catch(() => {})
    }
  }

  /** Ends it; the number of rows. */
  async stop() {
    this.#isStopped = true
    await this.work
    return this.committed
  }

  /** Waits for that many more rows. */
  writes(count) {
    const goal = this.committed + count
    return Promise.race([this.work.then(() => { throw new Error('the writer ended') }), until(() => this.committed >= goal, `${count} more rows are written`, { timeout: 20_000 })])
  }
}
