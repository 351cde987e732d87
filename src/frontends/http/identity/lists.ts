/** Lists, and what bodies may hold besides what is known. */
import type { FastifyRequest } from 'fastify';
import { badRequest } from '../errors.ts';
import type { IdentityContext } from './identity-context.ts';

/** rows of one list; more are cut off, and the answer says so, as Keystone's list_limit does */
export const LIST_MAX = 1000;
/** bytes of JSON that users may add to a resource */
export const EXTRA_BYTES_MAX = 8192;

/** @param rows at most LIST_MAX + 1 of them were asked for */
export function list(name: string, rows: readonly unknown[], request: FastifyRequest, context: IdentityContext) {
  const self = context.publicUrl() + request.url;
  const truncated = rows.length > LIST_MAX ? { truncated: true } : {};
  return { [name]: rows.slice(0, LIST_MAX), links: { next: null, self, previous: null }, ...truncated };
}

/** Query parameters that filter: text, once. */
export function filters<K extends string>(request: FastifyRequest, names: readonly K[]): Partial<Record<K, string>> {
  const query = request.query as Record<string, unknown>;
  const found: Partial<Record<K, string>> = {};
  for (const name of names) {
    const value = query[name];
    if (value === undefined) continue;
    if (typeof value !== 'string') throw badRequest(`${name} is given more than once`);
    found[name] = value;
  }
  return found;
}

/** `enabled` and the like, as clients write it: the bare word means yes. */
export function flag(text: string): number {
  return /^(0|false|no|off)$/i.test(text) ? 0 : 1;
}

/** What a body has besides what is known, to be kept as it is. */
export function extras(body: object, known: ReadonlySet<string>, before = '{}'): string {
  const extra = JSON.parse(before) as Record<string, unknown>;
  for (const [key, value] of Object.entries(body)) {
    if (known.has(key)) continue;
    if (value === null) delete extra[key];
    else extra[key] = value;
  }
  const text = JSON.stringify(extra);
  if (Buffer.byteLength(text) > EXTRA_BYTES_MAX)
    throw badRequest(`what is added to a resource may have ${EXTRA_BYTES_MAX} bytes`);
  return text;
}

/** A conflict of names, said as Keystone says it. */
export const taken = (what: string, name: string) =>
  `Conflict occurred attempting to store ${what} - Duplicate entry found with name ${name}.`;
