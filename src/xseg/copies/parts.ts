/** Stores in parts: what one pool needs of a store, and one store of several parts of it. */
import type { Native } from '../native.ts';
import { KIND_VOLUME } from '../store/batch.ts';
import type { StoreDatabase } from '../store/schema.ts';
import { EngineError } from '../types.ts';

const ENTRIES = 512;
const NAME_BYTES_MAX = 255;

/** Tables of a store; `sqlite_` ones are SQLite's. */
function tablesOf(db: StoreDatabase, schema: string): string[] {
  return db
    .prepare(`SELECT name FROM ${schema}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
    .pluck()
    .all() as string[];
}

function columnsOf(db: StoreDatabase, table: string): string[] {
  return (db.pragma(`table_info(${table})`) as { name: string }[]).map(({ name }) => name);
}

/** Removes what is of other pools: their rows in every table that says whose, and the pages that only their maps reach. */
export function keepPool(db: StoreDatabase, pool: number, native: Native): void {
  const others = db.prepare('SELECT count(*) FROM pool WHERE id != ?').pluck().get(pool) as number;
  if (others === 0) return;
  db.transaction(() => {
    for (const table of tablesOf(db, 'main'))
      if (columnsOf(db, table).includes('pool')) db.prepare(`DELETE FROM ${table} WHERE pool != ?`).run(pool);
    db.prepare('DELETE FROM pool WHERE id != ?').run(pool);
    const kept = reachable(db, native);
    db.exec('DELETE FROM resource_hash WHERE id NOT IN (SELECT id FROM resource)');
    for (const table of ['page', 'page_ref', 'page_hash']) {
      const gone = db.prepare(`DELETE FROM ${table} WHERE id = ?`);
      for (const id of db.prepare(`SELECT id FROM ${table}`).pluck().all() as number[]) if (!kept.has(id)) gone.run(id);
    }
  })();
}

/** Pages that resources and pending releases reach, bases included; a damaged page reaches nothing. */
function reachable(db: StoreDatabase, native: Native): Set<number> {
  const page = db.prepare('SELECT data FROM page WHERE id = ?').pluck();
  const entries = new Uint32Array(ENTRIES * 2);
  const header = new Float64Array(8);
  const found = new Set<number>();
  const stack = db
    .prepare('SELECT root FROM resource WHERE root != 0 UNION SELECT id FROM release WHERE kind != 3')
    .pluck()
    .all() as number[];
  for (let id = stack.pop(); id !== undefined; id = stack.pop()) {
    if (found.has(id)) continue;
    found.add(id);
    const data = page.get(id) as Buffer | undefined;
    if (data === undefined || native.decodePageTo(data, id, entries, header) !== 0) continue;
    if (header[2] !== 0) stack.push(header[2]);
    if (header[0] === 0) continue;
    for (let i = 0; i < ENTRIES; i++) {
      const value = entries[i * 2] + (entries[i * 2 + 1] & 0xffff) * 2 ** 32;
      if (value !== 0) stack.push(value);
    }
  }
  return found;
}

/**
 * Puts the store in `file` into `db`, which has the same tables. A volume whose name is taken gets another.
 * @throws {EngineError} EXISTS when both have the same ids: they went different ways since they were one
 */
export function mergeStore(db: StoreDatabase, file: string, pool: string): { from: string; to: string }[] {
  db.prepare('ATTACH ? AS part').run(file);
  try {
    return db.transaction(() => {
      const renamed = rename(db);
      for (const table of tablesOf(db, 'part')) {
        if (table === 'meta') continue;
        const columns = columnsOf(db, table).join(', ');
        db.exec(`INSERT INTO main.${table} (${columns}) SELECT ${columns} FROM part.${table}`);
      }
      db.exec(`INSERT INTO main.meta (key, value) SELECT key, value FROM part.meta WHERE key LIKE 'next\\_%' ESCAPE '\\'
        ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)`);
      return renamed;
    })();
  } catch (error) {
    if (!((error as { code?: string }).code ?? '').startsWith('SQLITE_CONSTRAINT')) throw error;
    throw new EngineError('EXISTS', `pool ${pool} went its own way since; recover it into a home of its own`);
  } finally {
    db.exec('DETACH part');
  }
}

function rename(db: StoreDatabase): { from: string; to: string }[] {
  const taken = db.prepare('SELECT 1 FROM main.resource WHERE kind = ? AND name = ?').pluck();
  const own = db.prepare('SELECT 1 FROM part.resource WHERE kind = ? AND name = ?').pluck();
  const free = (name: string) => taken.get(KIND_VOLUME, name) === undefined && own.get(KIND_VOLUME, name) === undefined;
  const renamed: { from: string; to: string }[] = [];
  const volumes = db.prepare('SELECT id, name FROM part.resource WHERE kind = ?').all(KIND_VOLUME) as {
    id: number;
    name: string;
  }[];
  for (const { id, name } of volumes) {
    if (taken.get(KIND_VOLUME, name) === undefined) continue;
    let to = '';
    for (let n = id; to === '' || !free(to); n++) to = shortened(name, `.${n}`);
    db.prepare('UPDATE part.resource SET name = ? WHERE id = ?').run(to, id);
    renamed.push({ from: name, to });
  }
  return renamed;
}

/** `name` with `end` behind it, cut so that it is a name. */
function shortened(name: string, end: string): string {
  let kept = [...name];
  while (Buffer.byteLength(kept.join('')) + end.length > NAME_BYTES_MAX) kept = kept.slice(0, -1);
  return kept.join('') + end;
}
