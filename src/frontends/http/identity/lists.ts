/** Lists, and what bodies may hold besides what is known. */
import type { FastifyRequest } from 'fastify';
import { badRequest, conflict } from '../errors.ts';
import type { Session } from './authentication.ts';
import type { IdentityContext } from './identity-context.ts';
import { LIST_MAX, type Page } from './rows.ts';

/** bytes of JSON that users may add to a resource */
export const EXTRA_BYTES_MAX = 8192;

/** What of a list is wanted: `limit` rows after `marker`. Its route has a listQuery. */
export function pageOf(request: FastifyRequest): Page {
  const { limit, marker } = request.query as { limit?: string; marker?: string };
  return { rows: Math.min(Number(limit ?? LIST_MAX), LIST_MAX), marker };
}

/**
 * A list as Keystone answers it.
 * @param rows one more than the page has, where there are more; with their ids, where there are pages
 */
export function list(
  name: string,
  rows: readonly object[],
  request: FastifyRequest,
  context: IdentityContext,
  page = pageOf(request),
) {
  const shown = rows.slice(0, page.rows);
  const isCut = rows.length > shown.length;
  const last = shown.at(-1) as { id?: string } | undefined;
  const next = isCut && last?.id !== undefined ? nextOf(request, context, last.id) : null;
  const self = context.publicUrl() + request.url;
  // Keystone says so where the bound is its own.
  const truncated = isCut && page.rows === LIST_MAX ? { truncated: true } : {};
  return { [name]: shown, links: { next, self, previous: null }, ...truncated };
}

function nextOf(request: FastifyRequest, context: IdentityContext, marker: string): string {
  const [path = '', query] = request.url.split('?', 2);
  const params = new URLSearchParams(query);
  params.set('marker', marker);
  return `${context.publicUrl()}${path}?${params}`;
}

/** The domain that a list is of: the one asked for, or the one that the token is for; undefined: all. */
export function listedDomain(session: Session, asked: { domain_id?: string }): string | undefined {
  return asked.domain_id ?? (session.scope.kind === 'domain' ? session.scope.id : undefined);
}

/** The domain that something new is in, when its body names none: that of the token, or of the token's project. */
export function homeDomain(session: Session): string {
  return session.domain?.id ?? 'default';
}

/** `enabled` and the like, as clients write it: the bare word means yes. @returns undefined where it was not asked */
export function flag(text: string): number;
export function flag(text: string | undefined): number | undefined;
export function flag(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
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

/**
 * A write that gives a name, which may be taken.
 * @throws {HttpError} 409, said as Keystone says it
 */
export async function saving(what: string, name: string, write: Promise<void>): Promise<void> {
  await write.catch((error: { code?: string }) => {
    if (error.code !== 'EXISTS') throw error;
    throw conflict(`Conflict occurred attempting to store ${what} - Duplicate entry found with name ${name}.`);
  });
}
