// JSON Web Tokens for tests: HS256 only, which is all that the development tenant and the
// management API need.
import { createHmac } from 'node:crypto'

const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** Seconds since the epoch, `offset` seconds from now. */
export const inSeconds = (offset) => Math.floor(Date.now() / 1000) + offset

/** A signed token with exactly these claims. */
export function sign(claims, secret) {
  const input = `${base64url({ alg: 'HS256', typ: 'JWT' })}.${base64url(claims)}`
  return `${input}.${createHmac('sha256', secret).update(input).digest('base64url')}`
}

/** A client token that expires `seconds` from now. `subject` makes two tokens differ. */
export function clientToken(secret, { seconds = 3600, subject = 'tester' } = {}) {
  return sign({ role: 'authenticated', sub: subject, exp: inSeconds(seconds) }, secret)
}
