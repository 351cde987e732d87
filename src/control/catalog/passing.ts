/**
 * What becomes of rows that a killed daemon left in a passing state (docs/catalog.md, "Passing states"; the table is in
 * `statuses.ts`): of those with a pin when `pins.ts` settles it, of the others by the sweep before that.
 */
import { amountsOf, givenBack, taken } from './held.ts';
import type { Settle, Settled, Unfinished } from './pins.ts';
import { type EngineSide, nameInEngine } from './roots.ts';
import { PASSING, type PassingTable } from './statuses.ts';
import type { CatalogReader, CatalogSide, CatalogTables, Change, Columns } from './types.ts';

/** rows of one read */
const PAGE = 500;

/** What pins call the rows of each table. */
export const KINDS: Readonly<Record<string, PassingTable>> = {
  ...{ volume: 'volume', snapshot: 'snapshot', image: 'image', object: 'object_version' },
};

/** What is named by others goes after them. */
const ORDER: readonly PassingTable[] = ['snapshot', 'volume', 'image', 'object_version'];

type Row<T extends PassingTable = PassingTable> = CatalogTables[T];
type OwnedTable = Exclude<PassingTable, 'object_version'>;
type Owned = Row<OwnedTable>;

/** Of work that makes a root for a row. */
export function settlerOf(table: PassingTable): Settle {
  return async ({ subject, made }: Unfinished, catalog): Promise<Settled> => {
    const db = await catalog.reader();
    const row = await find(db, table, subject);
    const passing = row && PASSING[table][row.status];
    if (!row) return { keep: false, changes: [] };
    // Done, by work that wrote its row in more lists than one.
    if (!passing) return { keep: row.root !== null, changes: [] };
    if (table === 'object_version')
      return { keep: false, changes: await versionGone(db, row as Row<'object_version'>) };
    const keep = made && isKnown(row);
    const status = keep ? passing.made : passing.failed;
    return { keep, changes: [update(table, row.id, { status, ...(keep ? {} : { root: null }) })] };
  };
}

/**
 * Rows without a pin: deletions are pinned, for the pins to be settled after this; the rest is finished, or turned into an error.
 * @param run any but this daemon's
 */
export async function sweepPassing(catalog: CatalogSide, engine: EngineSide, run: string): Promise<void> {
  const db = await catalog.reader();
  for (const table of ORDER) {
    for (let after = ''; ; ) {
      const rows = await page(db, table, after);
      for (const row of rows)
        if (!(await isPinned(db, row.id)))
          await sweep(catalog, table, row, engine, () => swept(db, table, row, engine, run));
      if (rows.length < PAGE) break;
      after = rows[rows.length - 1]!.id;
    }
  }
}

/** One that cannot be deleted, such as a volume that still has snapshots, hinders no other: it is an error, and the log says so. */
async function sweep(
  catalog: CatalogSide,
  table: PassingTable,
  row: Row,
  engine: EngineSide,
  settled: () => Promise<Change[]>,
): Promise<void> {
  try {
    await catalog.write(await settled());
  } catch (error) {
    engine.failed(row.root ?? row.id, error as Error);
    if (table === 'object_version') return;
    await catalog.write([update(table, row.id, { status: table === 'image' ? 'killed' : 'error_deleting' })]);
  }
}

async function swept(
  db: CatalogReader,
  table: PassingTable,
  row: Row,
  engine: EngineSide,
  run: string,
): Promise<Change[]> {
  const passing = PASSING[table][row.status]!;
  const name = await nameInEngine(db, row);
  const root = name === null ? null : await engine.find(name);
  const outcome = root === null || !isKnown(row) ? passing.failed : passing.made;
  if (outcome === 'gone') return [...(await rowGone(db, table, row)), ...dropped(name, row, run)];
  const owned = row as Owned;
  // Nobody can ask for what there is of it.
  const useless = table === 'image' && outcome === 'killed';
  if (root === null || useless) {
    const status = outcome === 'back' ? 'error' : outcome;
    const back = givenBack(owned, amountsOf(table as OwnedTable, owned));
    return [update(table, row.id, { status, root: null }), back, ...(useless ? dropped(name, row, run) : [])];
  }
  const status = outcome === 'back' ? await statusBefore(db, table, row) : outcome;
  if (table !== 'volume' || root.size === owned.size) return [update(table, row.id, { status })];
  // An extension is in the engine, or it is not.
  const more = taken(owned, { volume_bytes: root.size - (owned.size ?? 0) });
  return [update(table, row.id, { status, size: root.size }), more];
}

/** What an image is known by is known when all of it came. */
function isKnown(row: Row): boolean {
  return !('checksum' in row) || row.checksum !== null;
}

/** Whether it is attached says it: nothing has to be remembered. */
async function statusBefore(db: CatalogReader, table: PassingTable, { id }: Row): Promise<string> {
  if (table !== 'volume') return 'available';
  const attached = db
    .selectFrom('attachment')
    .select('id')
    .where('volume_id', '=', id)
    .where('status', '=', 'attached');
  return (await attached.executeTakeFirst()) ? 'in-use' : 'available';
}

async function rowGone(db: CatalogReader, table: PassingTable, row: Row): Promise<Change[]> {
  const where = { id: row.id };
  if (table === 'object_version') return versionGone(db, row as Row<'object_version'>);
  const back = givenBack(row as Owned, amountsOf(table, row));
  if (table !== 'volume') return [{ do: 'delete', table, where }, back];
  const attachments: Change = { do: 'delete', table: 'attachment', where: { volume_id: row.id }, orNone: true };
  return [attachments, { do: 'delete', table, where }, back];
}

/** A path that nothing else is left of goes too. */
async function versionGone(db: CatalogReader, { id, object_id }: Row<'object_version'>): Promise<Change[]> {
  const others = db.selectFrom('object_version').select('id').where('object_id', '=', object_id).where('id', '!=', id);
  const gone: Change[] = [{ do: 'delete', table: 'object_version', where: { id } }];
  if (await others.executeTakeFirst()) return gone;
  return [...gone, { do: 'delete', table: 'object', where: { id: object_id, version_id: null }, orNone: true }];
}

/** Pins of what the row named, for the engine to delete. */
function dropped(name: string | null, row: Row, run: string): Change[] {
  const roots = [name, 'staged_root' in row ? row.staged_root : null].filter((root) => root !== null);
  const pin = { run, kind: 'dropped', subject: null, commission_id: null, created_at: Date.now() };
  return roots.map((name) => ({ do: 'insert', table: 'pin', row: { ...pin, name }, orKeep: true }));
}

function update(table: PassingTable, id: string, set: Columns<'volume'>): Change {
  return { do: 'update', table, where: { id }, set: { ...set, updated_at: Date.now() } } as Change;
}

function find(db: CatalogReader, table: PassingTable, id: string): Promise<Row | undefined> {
  return rowsOf(db, table).where('id', '=', id).executeTakeFirst();
}

function page(db: CatalogReader, table: PassingTable, after: string): Promise<Row[]> {
  const passing = Object.keys(PASSING[table]);
  return rowsOf(db, table).where('status', 'in', passing).where('id', '>', after).orderBy('id').limit(PAGE).execute();
}

/** One of them, for types: all have what is asked of it here. */
function rowsOf(db: CatalogReader, table: PassingTable) {
  return db.selectFrom(table as 'volume').selectAll();
}

async function isPinned(db: CatalogReader, subject: string): Promise<boolean> {
  const pin = await db.selectFrom('pin').select('name').where('subject', '=', subject).executeTakeFirst();
  return pin !== undefined;
}
