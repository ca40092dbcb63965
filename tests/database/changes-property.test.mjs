// For random tables, policies, privileges, filters and changes every subscriber gets exactly what Postgres says it may get.
// Oracle: direct SQL after each transaction, under each subscriber's role and claims for visibility, on the captured rows for
// filters and values; combined by the visibility matrix (database 8.3, 8.4).
//
// CHANGES_SEEDS: how many seeds (`50`), or which (`17,` or `3,9,12`). The seed is in the test's name.
import assert from 'node:assert/strict'
import { before, test } from 'node:test'
import { newestPrograms } from '../postgres.mjs'
import { ALICE, BOB, changesTenant, fence, PROMPT, publish, range, tokenOf, Watcher } from './changes.mjs'
import { withDatabase } from './tenant.mjs'

const TRANSACTIONS = 20
const wish = process.env.CHANGES_SEEDS ?? '5'
const SEEDS = wish.includes(',') ? wish.split(',').filter(Boolean).map(Number) : range(1, Number(wish))

/** Numbers that depend on the seed only (a 32-bit generator; any will do). */
function generator(seed) {
  let state = seed * 2654435761
  const next = () => {
    state = (state + 0x6d2b79f5) | 0
    let z = Math.imul(state ^ (state >>> 15), 1 | state)
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296
  }
  const below = (n) => Math.floor(next() * n)
  const one = (list) => list[below(list.length)]
  const chance = (p) => next() < p
  /** Between `min` and `max` members, in the list's order. */
  const some = (list, min = 0, max = list.length) => {
    const left = [...list.keys()]
    const taken = range(1, Math.min(list.length, min + below(max - min + 1))).map(() => left.splice(below(left.length), 1)[0])
    return taken.sort((a, b) => a - b).map((n) => list[n])
  }
  return { below, one, chance, some }
}

const quote = (text) => (text === null ? 'null' : `'${text.replaceAll("'", "''")}'`)
const UUIDS = [ALICE, BOB, '00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-4fff-8fff-ffffffffffff']
const TEXTS = ['red', 'blue', 'Red', '', 'a,b', 'größe', 'x"y', '100%', '(b)', 'back\\slash', 'null', "it's", ' space ', '🦊']
const VALUES = {
  int: ['-3', '0', '1', '2', '3', '7', '2147483647'],
  text: TEXTS,
  numeric: ['0', '1', '1.50', '1.5', '-0.1', '10', 'NaN', '123456789012345678901234567890.12345', '1e-7'],
  bool: ['true', 'false'],
  timestamptz: ['2024-01-02 03:04:05.678+02', '2024-01-02 01:04:05.678+00', '1999-12-31 23:59:59.999999+00', '2024-06-01 00:00:00+00', 'infinity'],
  uuid: UUIDS,
}
const COLUMNS = { owner: 'uuid', flag: 'bool', n: 'int', team: 'text', name: 'text', price: 'numeric', at: 'timestamptz' }
const PEOPLE = {
  alice: { sub: ALICE, team: 'red', app: { level: 2 } },
  'alice again': { sub: ALICE, team: 'red', app: { level: 2 } },
  bob: { sub: BOB, team: 'blue', app: { level: 5 } },
  anon: { role: 'anon', sub: undefined },
  service: { role: 'service_role', sub: undefined },
}
const KEYS = [{ id: 'int' }, { id: 'text' }, { id: 'uuid' }, { id: 'int', part: 'text' }, { part: 'text', id: 'int' }]

/** A condition of a policy. */
function predicate(random, depth = 2) {
  if (depth > 0 && random.chance(0.4)) {
    const [a, b] = [predicate(random, depth - 1), predicate(random, depth - 1)]
    return random.one([`(${a} and ${b})`, `(${a} or ${b})`, `not ${a}`])
  }
  return random.one([
    '(owner = auth.uid())', '(flag = true)', `(n > ${random.below(4)})`, `(team = auth.jwt() ->> 'team')`,
    `(n <= (auth.jwt() -> 'app' ->> 'level')::int)`, `(team in ('red', 'a,b'))`, `(owner is null)`, '(price >= 1)', '(true)',
  ])
}

/** Statements that replace the table's policies. */
function policies(random, table) {
  const list = range(1, random.below(3) + 1).map((n) => {
    const kind = n > 1 && random.chance(0.3) ? ' as restrictive' : ''
    return `create policy p${n} on ${table}${kind} for ${random.one(['select', 'all'])} to ${random.one(['authenticated', 'anon', 'public', 'authenticated, anon'])} using (${predicate(random)});`
  })
  return `do $$ declare p record; begin for p in select polname from pg_policy where polrelid = '${table}'::regclass loop
    execute format('drop policy %I on ${table}', p.polname); end loop; end $$; ${list.join(' ')}`
}

/** A value in the filter grammar (protocol 11.2). */
const plainValue = (text) => (/[",()\\]|^\s|\s$/.test(text) ? `"${text.replace(/["\\]/g, '\\$&')}"` : text)
const listValue = (text) => `"${text.replace(/["\\]/g, '\\$&')}"`

/** One condition of a filter: the text a client writes, the column, and the same as SQL. */
function condition(random, columns) {
  const [column, type] = random.one(Object.entries(columns))
  const negate = random.chance(0.3)
  const compare = { eq: '=', neq: '<>', lt: '<', lte: '<=', gt: '>', gte: '>=' }
  const ops = [...Object.keys(compare), 'eq', 'in', 'in', 'is', 'isdistinct', ...(type === 'text' ? ['like', 'ilike', 'match', 'imatch'] : [])]
  const op = random.one(ops)
  const done = (value, sql) => ({ column, text: `${column}=${negate ? 'not.' : ''}${op}.${value}`, sql: negate ? `not (${sql})` : `(${sql})` })
  if (op === 'is') {
    const word = random.one(type === 'bool' ? ['null', 'true', 'false', 'unknown'] : ['null'])
    return done(word, `${column} is ${word}`)
  }
  if (op === 'in') {
    const list = random.some(VALUES[type], 0, 4)
    return done(`(${list.map(listValue).join(',')})`, `${column} = any(array[${list.map(quote).join(', ')}]::${type}[])`)
  }
  if (['like', 'ilike', 'match', 'imatch'].includes(op)) {
    const isLike = op.endsWith('like')
    const pattern = random.one(isLike ? ['%e%', 'r_d', '', '%', 'RED', '100\\%', '_', '%ö%'] : ['^r', 'e$', '[a-c],?b', '', '^$', 'RED', '.', '\\d{3}'])
    return done(plainValue(pattern), `${column} ${{ like: 'like', ilike: 'ilike', match: '~', imatch: '~*' }[op]} ${quote(pattern)}`)
  }
  const value = random.one(VALUES[type])
  return done(plainValue(value), op === 'isdistinct' ? `${column} is distinct from ${quote(value)}::${type}` : `${column} ${compare[op]} ${quote(value)}::${type}`)
}

/** A random table with everything the oracle has to know of it. */
async function makeTable(random, tenant, name) {
  const key = random.one(KEYS)
  const columns = { ...key, ...COLUMNS }
  // Keys are not always in front.
  const order = random.chance(0.3) ? Object.keys(columns).reverse() : Object.keys(columns)
  const isFull = random.chance(0.4)
  const hasSecurity = random.chance(0.75)
  await tenant.query(`create table ${name} (${order.map((column) => `${column} ${columns[column]}`).join(', ')}, primary key (${Object.keys(key).join(', ')}));
    ${isFull ? `alter table ${name} replica identity full;` : ''}
    ${hasSecurity ? `alter table ${name} enable row level security; ${policies(random, name)}` : ''}`)
  for (const role of ['anon', 'authenticated']) {
    if (!random.chance(0.25)) continue
    const granted = random.some(order, 1)
    await tenant.query(`revoke all on ${name} from ${role}; grant select (${granted.join(', ')}) on ${name} to ${role}`)
  }
  await publish(tenant, name)
  const readable = {}
  for (const role of ['anon', 'authenticated', 'service_role']) {
    const rows = await tenant.query(`select c, has_column_privilege($1, $2, c, 'select') as may from unnest($3::text[]) c`, [role, `public.${name}`, order])
    readable[role] = rows.filter(({ may }) => may).map(({ c }) => c)
  }
  return { name, key: Object.keys(key), columns, order, isFull, hasSecurity, readable }
}

function entries(random, table, role) {
  const may = Object.fromEntries(table.readable[role].map((column) => [column, table.columns[column]]))
  return range(1, 1 + random.below(4)).map(() => {
    const conditions = range(1, random.one([0, 0, 1, 1, 2, 3])).map(() => condition(random, may))
    return {
      conditions,
      select: random.chance(0.25) ? random.some(Object.keys(may), 1, 3) : undefined,
      event: random.one(['*', '*', 'INSERT', 'UPDATE', 'DELETE']),
    }
  })
}

const wire = (table, { conditions, select, event }) => ({
  event, schema: 'public', table: table.name, ...(select && { select }),
  ...(conditions.length && { filter: conditions.map(({ text }) => text).join(',') }),
})

/** Runs one random transaction; [{kind, before, after}] with rows in Postgres' text form. */
async function transaction(random, client, table, rows, fresh) {
  const value = (column) => (random.chance(0.2) ? null : random.one(VALUES[table.columns[column]]))
  const literal = (column, text) => `${quote(text)}::${table.columns[column]}`
  const newKey = () => {
    const n = fresh.n++
    return Object.fromEntries(table.key.map((column) => [column, {
      int: String(n - 5), text: `${random.one(TEXTS)} ${n}`, uuid: `00000000-0000-4000-8000-${String(n).padStart(12, '0')}`,
    }[table.columns[column]]]))
  }
  const others = table.order.filter((column) => !table.key.includes(column))
  const done = []
  await client.query('begin')
  for (let n = random.one([1, 1, 2, 3, 5]); n > 0; n--) {
    const kind = rows.length === 0 ? 'INSERT' : random.one(['INSERT', 'INSERT', 'UPDATE', 'UPDATE', 'DELETE'])
    if (kind === 'INSERT') {
      const key = newKey()
      const values = table.order.map((column) => literal(column, column in key ? key[column] : value(column)))
      const { rows: [{ row }] } = await client.query(`insert into ${table.name} values (${values.join(', ')}) returning ${table.name}::text as row`)
      rows.push({ key, row })
      done.push({ kind, after: row })
      continue
    }
    const at = random.below(rows.length)
    const { key, row: before } = rows[at]
    const where = table.key.map((column) => `${column} = ${literal(column, key[column])}`).join(' and ')
    if (kind === 'DELETE') {
      await client.query(`delete from ${table.name} where ${where}`)
      rows.splice(at, 1)
      done.push({ kind, before })
      continue
    }
    const changed = random.chance(0.15) ? newKey() : key
    const sets = [...random.some(others, 1, 4).map((column) => [column, value(column)]), ...(changed === key ? [] : Object.entries(changed))]
    const { rows: [{ row }] } = await client.query(`update ${table.name} set ${sets.map(([column, text]) => `${column} = ${literal(column, text)}`).join(', ')}
      where ${where} returning ${table.name}::text as row`)
    rows[at] = { key: changed, row }
    done.push({ kind, before, after: row })
  }
  const isUndone = random.chance(0.1)
  await client.query(isUndone ? 'rollback' : 'commit')
  return { done, isUndone }
}

/** What direct SQL says about one change. */
class Oracle {
  constructor(client, table) {
    Object.assign(this, { client, table })
  }

  async values(row) {
    const { rows: [{ json }] } = await this.client.query(`select to_jsonb($1::${this.table.name}) as json`, [row])
    for (const [column, type] of Object.entries(this.table.columns)) {
      // Numbers that JSON does not have are null (database 8.5).
      if (type === 'numeric' && typeof json[column] === 'string') json[column] = null
    }
    return json
  }

  /** Whether the row whose key `row` has is there now for these claims. */
  async sees(claims, row) {
    // The key is taken from the row before the role is taken on, which may not read it.
    const { rows: [key] } = await this.client.query(
      `select ${this.table.key.map((column) => `($1::${this.table.name}).${column}::text`).join(', ')}`, [row])
    const where = this.table.key.map((column) => `${column} = ${quote(key[column])}::${this.table.columns[column]}`).join(' and ')
    await this.client.query('begin')
    await this.client.query(`select set_config('role', $1, true), set_config('request.jwt.claims', $2, true)`, [claims.role, JSON.stringify(claims)])
    const { rows: [{ there }] } = await this.client.query(`select exists (select from public.${this.table.name} where ${where}) as there`)
    await this.client.query('rollback')
    return there
  }

  /** For each entry whether its filter matches; `available` are the columns that the change has. */
  async matches(list, row, available) {
    const sql = list.map(({ conditions }) => (conditions.every(({ column }) => available.includes(column))
      ? conditions.map((one) => one.sql).join(' and ') || 'true' : 'false'))
    const text = `select ${sql.map((one, n) => `coalesce(${one}, false) as m${n}`).join(', ')} from (select ($1::${this.table.name}).*) r`
    const { rows: [answer] } = await this.client.query(text, [row])
    return list.map((_, n) => answer[`m${n}`])
  }

  /** The messages that a change means for one subscriber: [{type, ids, columns, record, old_record, errors}]. */
  async messages({ kind, before, after }, { claims, list, ids }) {
    const { key, order, isFull, hasSecurity, readable, columns } = this.table
    const may = readable[claims.role]
    const wanting = [...list.keys()].filter((n) => list[n].event === '*' || list[n].event === kind)
    if (wanting.length === 0) return []
    const identity = isFull ? order : key
    const withheld = kind !== 'DELETE' && !key.every((column) => may.includes(column))
    let kept = wanting
    if (!withheld) {
      const matches = await this.matches(wanting.map((n) => list[n]), after ?? before, kind === 'DELETE' ? identity : order)
      kept = wanting.filter((_, n) => matches[n])
      if (kept.length && kind !== 'DELETE' && hasSecurity && !await this.sees(claims, after)) kept = []
    }
    const groups = new Map()
    for (const n of kept) {
      const selection = list[n].select ? [...list[n].select].sort().join() : ''
      groups.set(selection, [...groups.get(selection) ?? [], n])
    }
    const messages = []
    for (const [selection, members] of [...groups].sort()) {
      const about = { type: kind, ids: [...new Set(members.map((n) => ids[n]))].sort((a, b) => a - b) }
      if (withheld) {
        messages.push({ ...about, columns: [], record: {}, ...(kind === 'UPDATE' && { old_record: {} }), errors: ['Error 401: Unauthorized'] })
        continue
      }
      const shown = order.filter((column) => may.includes(column) && (!selection || selection.split(',').includes(column) || key.includes(column)))
      const pick = async (row, among) => {
        const values = await this.values(row)
        return Object.fromEntries(shown.filter((column) => among.includes(column)).map((column) => [column, values[column]]))
      }
      messages.push({
        ...about, columns: shown.map((name) => ({ name, type: { int: 'int4' }[columns[name]] ?? columns[name] })),
        ...(after && { record: await pick(after, order) }),
        ...(before && { old_record: await pick(before, kind === 'DELETE' && hasSecurity ? key : identity) }),
        errors: null,
      })
    }
    return messages
  }
}

/** A delivered change in the oracle's shape. */
const shape = ({ type, ids, columns, record, old_record: old, errors }) => ({
  type, ids: [...new Set(ids)].sort((a, b) => a - b), columns, ...(record && { record }), ...(old && { old_record: old }), errors,
})

for (const version of newestPrograms() ? ['system', 'newest'] : ['system']) {
  withDatabase(`what direct SQL says is what subscribers get, ${version} Postgres`, { version, settings: PROMPT, shards: 2 }, ({ server, postgres }) => {
    let tenant
    before(async () => { tenant = await changesTenant(server(), postgres(), 'property') })

    for (const seed of SEEDS) {
      test(`seed ${seed}`, async (t) => {
        const random = generator(seed)
        const table = await makeTable(random, tenant, `t_${seed}`)
        const [client, asker] = await Promise.all([tenant.client(), tenant.client()])
        t.after(() => Promise.all([client.end(), asker.end()]))
        const oracle = new Oracle(asker, table)
        const wishes = Object.entries(PEOPLE).map(([name, person], n) => {
          const claims = { role: 'authenticated', exp: 4102444800, ...person }
          return { name, claims, version: n % 2 ? 1 : 2, list: entries(random, table, claims.role) }
        })
        const subscribers = await Promise.all(wishes.map(async (wish) => {
          const list = wish.list.map((entry) => wire(table, entry))
          const watcher = await Watcher.open(t, server(), { tenant, token: tokenOf(wish.claims), version: wish.version, entries: list })
            .catch((error) => { throw new Error(`${wish.name} ${JSON.stringify(list)}: ${error.message}`) })
          return { ...wish, watcher, ids: watcher.ids }
        }))
        const watchers = subscribers.map(({ watcher }) => watcher)
        let rows = []
        let delivered = 0
        const fresh = { n: 0 }
        for (let n = 0; n < TRANSACTIONS; n++) {
          if (table.hasSecurity && random.chance(0.15)) await tenant.query(policies(random, table.name))
          const earlier = [...rows]
          const { done, isUndone } = await transaction(random, client, table, rows, fresh)
          if (isUndone) rows = earlier
          await fence(tenant, watchers)
          for (const subscriber of subscribers) {
            const expected = []
            for (const change of isUndone ? [] : done) expected.push(...await oracle.messages(change, subscriber))
            const got = subscriber.watcher.drain()
            delivered += got.length
            for (const { commit_timestamp: at, errors } of got) assert.equal(at === null, errors !== null)
            assert.deepEqual(got.map(shape), expected, `seed ${seed}, transaction ${n}, ${subscriber.name}: ${JSON.stringify({
              done, entries: subscriber.list.map((entry) => wire(table, entry)), security: table.hasSecurity, full: table.isFull })}`)
          }
        }
        t.diagnostic(`${delivered} changes delivered`)
        for (const { member } of watchers) member.ws.terminate()
        await tenant.query(`drop table ${table.name}`)
      })
    }
  })
}
