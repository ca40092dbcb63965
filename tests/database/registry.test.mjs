// Tenants in a Postgres that several servers share (`DB_HOST`), http-api 12–14: what one of them or SQL changes is in force at all
// of them at once.
import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { startPostgres } from '../postgres.mjs'
import { SECRET, startServer, until } from '../server.mjs'
import { clientToken } from '../tokens.mjs'
import { Member } from './member.mjs'
import { connected, createDatabaseTenant, databaseExtension, POLICIES } from './tenant.mjs'

// Without notices it would take the life of a cached record, 30 s.
const AT_ONCE_MS = 5000

describe('a registry in Postgres', () => {
  let postgres
  let first
  let second
  before(async () => {
    postgres = await startPostgres()
    await postgres.database('registry')
    const env = {
      DB_HOST: '127.0.0.1', DB_PORT: String(postgres.port), DB_NAME: 'registry', DB_USER: postgres.user, DB_PASSWORD: postgres.password,
      DB_ENC_KEY: '0123456789abcdef', DB_AFTER_CONNECT_QUERY: 'SET search_path TO _realtime',
    }
    // Both find an empty database.
    const servers = await Promise.all([1, 2].map(() => startServer({ env })))
    first = servers[0]
    second = servers[1]
  })
  after(async () => {
    await Promise.all([first, second].map((server) => server?.stop()))
    await postgres?.remove()
  })
  const sql = (text, parameters) => postgres.query(text, 'registry', parameters)
  /** Whether and how an upgrade of this tenant is refused: the status, or 101. */
  async function upgrade(server, tenant, token = clientToken(SECRET)) {
    const response = await server.request(`/socket/websocket?vsn=2.0.0&apikey=${token}`, { tenant })
    // A plain GET that passes every check lacks the upgrade headers.
    return response.status === 400 ? 101 : response.status
  }
  const soon = (check, what) => until(check, what, { timeout: AT_ONCE_MS })

  test('the schema is the reference’s, made once', async () => {
    const tables = await sql(`select relname from pg_class where relnamespace = '_realtime'::regnamespace and relkind = 'r' order by 1`)
    for (const name of ['extensions', 'feature_flags', 'schema_migrations', 'tenants']) assert.ok(tables.some((row) => row.relname === name), name)
    const [{ n, newest }] = await sql('select count(*)::int as n, max(version) as newest from _realtime.schema_migrations')
    assert.deepEqual([n, newest], [33, '20260805000000'])
    for (const server of [first, second]) assert.deepEqual(server.log().split('\n').filter((line) => line.includes('[error]')), [])
  })

  test('a tenant that one server creates is usable at the other, database included', async (t) => {
    const id = 'shared'
    await postgres.database(id)
    assert.equal(await upgrade(second, id), 404)
    await createDatabaseTenant(first, postgres, id, id)
    assert.equal(await upgrade(second, id), 101)
    await connected(second, id)
    await postgres.query(POLICIES, id)
    const [here, there] = await Promise.all([first, second].map((server) => Member.open(t, server, { tenant: id })))
    for (const member of [here, there]) {
      await member.join('read-broadcast 1')
      assert.match(await member.refusal('nothing', { private: true }), /^Unauthorized: /)
    }
    const listed = (await (await second.api('GET', '')).json()).data.map((tenant) => tenant.external_id)
    assert.ok(listed.includes(id), `${listed}`)
  })

  test('secrets and database settings are encrypted in the table', async () => {
    await createDatabaseTenant(first, postgres, 'encrypted', 'registry')
    const [row] = await sql(`select jwt_secret, settings from _realtime.tenants join _realtime.extensions on tenant_external_id = external_id
      where external_id = 'encrypted'`)
    assert.notEqual(row.jwt_secret, SECRET)
    for (const name of ['db_host', 'db_port', 'db_name', 'db_user', 'db_password']) {
      assert.notEqual(row.settings[name], databaseExtension(postgres, 'registry').settings[name], name)
    }
    assert.equal(row.settings.region, 'us-east-1')
    assert.equal(row.settings.ssl_enforced, false)
  })

  test('SQL suspends and revives a tenant', async (t) => {
    const id = 'suspended'
    await first.createTenant(id)
    await Promise.all([first, second].map((server) => Member.open(t, server, { tenant: id }).then((member) => member.join('room', { private: false }))))
    await sql('update _realtime.tenants set suspend = true where external_id = $1', [id])
    for (const server of [first, second]) await soon(async () => (await upgrade(server, id)) === 403, 'upgrades are refused')
    await sql('update _realtime.tenants set suspend = false where external_id = $1', [id])
    for (const server of [first, second]) await soon(async () => (await upgrade(server, id)) === 101, 'upgrades work')
  })

  test('SQL changes limits, flags and the secret of a tenant', async (t) => {
    const id = 'limited'
    await first.createTenant(id)
    const servers = [first, second]
    const set = (fields) => sql(`update _realtime.tenants set ${fields} where external_id = $1`, [id])
    /** What a join of a public room is told by a fresh socket that is in one room already, if it may. */
    const secondRoom = async (server, token) => {
      const member = await Member.open(t, server, { tenant: id, token })
      await member.attempt('room 1')
      return (await member.attempt('room 2')).response.reason
    }
    for (const server of servers) assert.equal(await secondRoom(server), undefined)
    await set('max_channels_per_client = 1')
    for (const server of servers) {
      await soon(async () => (await secondRoom(server)) === 'ChannelRateLimitReached: Too many channels', 'the channel limit is in force')
    }
    await set('private_only = true')
    for (const server of servers) {
      await soon(async () => (await secondRoom(server)) === 'PrivateOnly: This project only allows private channels', 'public rooms are refused')
    }
    const secret = 'the-secret-of-another-tenant-with-32-characters'
    await first.createTenant('neighbour', { jwt_secret: secret })
    await set(`jwt_secret = (select jwt_secret from _realtime.tenants where external_id = 'neighbour')`)
    for (const server of servers) {
      await soon(async () => (await upgrade(server, id, clientToken(secret))) === 101, 'the new secret counts')
      assert.equal(await upgrade(server, id), 401)
    }
  })

  test('an update by one server disconnects the sockets at both, and is in force', async (t) => {
    const id = 'updated'
    await first.createTenant(id)
    const members = await Promise.all([first, second].map((server) => Member.open(t, server, { tenant: id })))
    for (const member of members) await member.join('room', { private: false })
    const secret = 'the-next-secret-of-the-tenant-with-32-characters'
    const response = await first.api('PUT', `/${id}`, { tenant: { name: id, jwt_secret: secret, extensions: [] } })
    assert.equal(response.status, 200)
    for (const member of members) assert.equal((await member.ended()).code, 1012)
    for (const server of [first, second]) {
      await soon(async () => (await upgrade(server, id, clientToken(secret))) === 101, 'the new secret counts')
      assert.equal(await upgrade(server, id), 401)
    }
  })

  for (const how of ['HTTP', 'SQL']) {
    test(`deleting a tenant by ${how} disconnects its sockets at both`, async (t) => {
      const id = `deleted-${how.toLowerCase()}`
      await first.createTenant(id)
      const members = await Promise.all([first, second].map((server) => Member.open(t, server, { tenant: id })))
      for (const member of members) await member.join('room', { private: false })
      if (how === 'HTTP') assert.equal((await second.api('DELETE', `/${id}`)).status, 204)
      else await sql('delete from _realtime.tenants where external_id = $1', [id])
      for (const member of members) assert.equal((await member.ended()).code, 1012)
      for (const server of [first, second]) assert.equal(await upgrade(server, id), 404)
    })
  }

  test('the registry goes away and comes back: known tenants are served, changes are noticed again', async (t) => {
    const id = 'steady'
    await first.createTenant(id)
    const member = await Member.open(t, first, { tenant: id })
    await member.join('room', { private: false, broadcast: { self: true } })
    await postgres.stop()
    member.broadcast('room', 'meanwhile')
    await member.receives('room', 'meanwhile')
    const next = await Member.open(t, first, { tenant: id })
    await next.join('room', { private: false })
    assert.equal((await first.request('/healthcheck')).status, 200)
    await postgres.restart()
    await until(async () => (await second.api('GET', `/${id}`)).status === 200, 'the registry is back')
    await sql('update _realtime.tenants set suspend = true where external_id = $1', [id])
    for (const server of [first, second]) {
      await until(async () => (await upgrade(server, id)) === 403, 'the change is noticed', { timeout: 35_000 })
    }
  })
})
