/**
 * Lines of stores (docs/format.md, "Lines"). A store that was recovered goes another way than the one it was made of, which may
 * still be somewhere, or have backups: a pool that the new one has served is neither's any more.
 */
import { randomBytes } from 'node:crypto';
import type { StoreDatabase } from '../store/schema.ts';

export const LINE_BYTES = 16;
/** Of a store that was never recovered. */
export const FIRST_LINE = '0'.repeat(2 * LINE_BYTES);

/** Names of lines: 32 hex digits. */
export interface StoreLine {
  own: string;
  /** of the stores that it was recovered from: a pool that it has not served yet has one of these */
  before: readonly string[];
}

/** What is no name, as in what an older Atoll wrote, is that of the first. */
export function lineName(bytes: Uint8Array): string {
  return bytes.length === LINE_BYTES ? Buffer.from(bytes).toString('hex') : FIRST_LINE;
}

export function readLine(db: StoreDatabase): StoreLine {
  const get = db.prepare('SELECT value FROM meta WHERE key = ?').pluck();
  const before = (get.get('lines_before') ?? '') as string;
  return { own: (get.get('line') ?? FIRST_LINE) as string, before: before.split(' ').filter(Boolean) };
}

/** @param before the lines that its pools were served by last */
export function beginLine(db: StoreDatabase, before: ReadonlySet<string>): void {
  const put = db.prepare('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)');
  put.run('line', randomBytes(LINE_BYTES).toString('hex'));
  put.run('lines_before', [...before].join(' '));
}

/** @param found of a pool; null: nothing says */
export function mayServe({ own, before }: StoreLine, found: string | null): boolean {
  return found === null || found === own || before.includes(found);
}
