/** What was made in the engine by hand, name by name: it gets a row of the operators' project, and the row follows it. */
import { amountsOf, givenBack, taken } from './held.ts';
import { type EngineSide, type EngineWatch, type Root, sealedRoot } from './roots.ts';
import { PASSING } from './statuses.ts';
import type { SnapshotRow, VolumeRow } from './storage-rows.ts';
import type { CatalogReader, CatalogSide, Change } from './types.ts';

/** names at once: their writes are one commit */
const NAMES_MAX = 64;
const PAGE = 500;

type Table = 'volume' | 'snapshot';
type Row = VolumeRow | SnapshotRow;

/** A name in the engine, taken apart. */
interface Place {
  table: Table;
  /** of a snapshot: of what is called so */
  owner: VolumeRow | undefined;
  /** as rows have it */
  root: string;
}

export class Adopting {
  constructor(
    private readonly catalog: CatalogSide,
    private readonly engine: EngineSide,
  ) {}

  /** @param ended asked between pages */
  async everything(watch: EngineWatch, ended: () => boolean): Promise<void> {
    const db = await this.catalog.reader();
    const seen = new Set<string>();
    for await (const roots of watch.list()) {
      if (ended()) return;
      const rows = await rowsNamed(db, roots);
      const others: string[] = [];
      // What changes from here on is heard of, and looked at afterwards.
      await inParts(
        roots.filter((root) => !isRight(rows.get(root.name), root)),
        async (part) => others.push(...(await this.#adoptNew(db, part)).map(({ name }) => name)),
      );
      await this.names(others);
      for (const { name } of roots) seen.add(name);
    }
    for (const table of ['volume', 'snapshot'] as const) {
      for (let after = ''; !ended(); ) {
        const rows = await rowsOf(db, table).where('id', '>', after).orderBy('id').limit(PAGE).execute();
        await this.names((await namesInEngine(db, rows)).filter((name) => !seen.has(name)));
        if (rows.length < PAGE) break;
        after = rows[rows.length - 1]!.id;
      }
    }
    await this.#forgetUnnamed(db);
  }

  async names(names: Iterable<string>): Promise<void> {
    const db = await this.catalog.reader();
    const all = [...new Set(names)];
    // Volumes first: snapshots are their owners'. What is there before what is not: it may have come from there.
    for (const table of ['volume', 'snapshot'] as const) {
      const of = all.filter((name) => tableOf(name) === table);
      const gone: string[] = [];
      await inParts(of, async (part) => {
        const found: Root[] = [];
        await each(part, async (name) => {
          const root = await this.engine.find(name);
          if (root) found.push(root);
          else gone.push(name);
        });
        await each(await this.#adoptNew(db, found), (root) => this.#isThere(db, root));
      });
      await inParts(gone, (part) => each(part, (name) => this.#isGone(db, name)));
    }
    await this.#forgetUnnamed(db);
  }

  /** Gives rows to those that nothing in the catalog has to do with. All are volumes, or all snapshots. @returns the others */
  async #adoptNew(db: CatalogReader, roots: readonly Root[]): Promise<readonly Root[]> {
    if (roots.length === 0) return [];
    const table = tableOf(roots[0]!.name);
    // Before rows: a pin goes when its row is there.
    const claimed = await claimedOf(
      db,
      roots.map(({ name }) => name),
    );
    const named = await rowsNamed(db, roots);
    const ids = roots.map(({ id }) => id);
    const known = new Set((await rowsOf(db, table).where('id', 'in', ids).execute()).map(({ id }) => id));
    const owners = await volumesNamed(db, roots);
    const project = await operatorsProject(db);
    const changes: Change[] = [];
    const others: Root[] = [];
    for (const root of roots) {
      const [owner, name = owner] = root.name.split('@') as [string, string?];
      const place = { table, owner: table === 'snapshot' ? owners.get(owner) : undefined, root: name };
      const isNew = !claimed.has(root.name) && !named.has(root.name) && !known.has(root.id);
      if (isNew) changes.push(...adoption(place, root, project));
      else others.push(root);
    }
    if (changes.length === 0) return others;
    try {
      await this.catalog.write(changes);
      return others;
    } catch {
      // One of them was written meanwhile: who that was is seen when each is looked at.
      return roots;
    }
  }

  async #isThere(db: CatalogReader, root: Root): Promise<void> {
    // Before rows: a pin goes when its row is there.
    const claimed = (await claimedOf(db, [root.name])).size > 0;
    const place = await placeOf(db, root.name);
    const { table } = place;
    const named = await rowAt(db, place);
    if (named && (named.origin === 'service' || named.id === root.id)) return this.#resized(table, named, root);
    // Another is called so now. Unless that has been seen meanwhile.
    if (named) await this.catalog.write([unnamed(table, named.id, place.root)]);
    const known = await rowsOf(db, table).where('id', '=', root.id).executeTakeFirst();
    if (!known) {
      const changes = claimed ? [] : adoption(place, root, await operatorsProject(db));
      if (changes.length > 0) await this.catalog.write(changes);
      return;
    }
    // Made by hand, it is known by what it is called there.
    await this.catalog.write([update(table, known.id, { root: place.root, name: place.root })]);
    await this.#resized(table, known, root);
  }

  async #isGone(db: CatalogReader, name: string): Promise<void> {
    const place = await placeOf(db, name);
    const named = await rowAt(db, place);
    if (named) await this.#lost(db, place.table, named);
  }

  async #resized(table: Table, row: Row, { size }: Root): Promise<void> {
    // Otherwise the service is at it.
    if (size === row.size || isPassing(table, row)) return;
    await this.catalog.write([update(table, row.id, { size }), taken(row, { volume_bytes: size - row.size })]);
  }

  /** Somebody deleted it in the engine, and with a volume its snapshots. */
  async #lost(db: CatalogReader, table: Table, row: Row): Promise<void> {
    if (row.origin === 'engine') return this.#forget(db, table, row);
    if (isPassing(table, row)) return;
    if (table === 'volume') await this.#snapshotsOf(db, row, (one) => this.#lost(db, 'snapshot', one));
    // For the service's users to see.
    const back = givenBack(row, amountsOf(table, row));
    await this.catalog.write([update(table, row.id, { status: 'error', root: null }), back]);
  }

  async #forget(db: CatalogReader, table: Table, row: Row): Promise<void> {
    const changes: Change[] = [{ do: 'delete', table, where: { id: row.id } }];
    if (table === 'volume') {
      await this.#snapshotsOf(db, row, (one) => this.#forget(db, 'snapshot', one));
      changes.unshift({ do: 'delete', table: 'attachment', where: { volume_id: row.id }, orNone: true });
    }
    // It took what it takes also when another has its name.
    await this.catalog.write([...changes, givenBack(row, amountsOf(table, { ...row, root: row.root ?? '' }))]);
  }

  async #snapshotsOf(db: CatalogReader, { id }: Row, work: (row: SnapshotRow) => Promise<void>): Promise<void> {
    const all = db.selectFrom('snapshot').selectAll().where('volume_id', '=', id).orderBy('id').limit(PAGE);
    for (let after = ''; ; ) {
      const rows = await all.where('id', '>', after).execute();
      await inParts(rows, (part) => each(part, work));
      if (rows.length < PAGE) return;
      after = rows[rows.length - 1]!.id;
    }
  }

  /** Rows whose name another took, and whose own is not found under a new one. */
  async #forgetUnnamed(db: CatalogReader): Promise<void> {
    for (const table of ['snapshot', 'volume'] as const) {
      const rows = await rowsOf(db, table).where('root', 'is', null).where('origin', '=', 'engine').execute();
      for (const row of rows) await this.#forget(db, table, row);
    }
  }
}

async function inParts<T>(all: readonly T[], work: (part: readonly T[]) => Promise<unknown>): Promise<void> {
  for (let from = 0; from < all.length; from += NAMES_MAX) await work(all.slice(from, from + NAMES_MAX));
}

async function each<T>(part: readonly T[], work: (one: T) => Promise<unknown>): Promise<void> {
  await Promise.all(part.map(work));
}

function isRight(row: Row | undefined, root: Root): boolean {
  return row !== undefined && (row.origin === 'service' || row.id === root.id) && row.size === root.size;
}

function isPassing(table: Table, { status }: Row): boolean {
  return Object.hasOwn(PASSING[table], status);
}

function tableOf(name: string): Table {
  return name.includes('@') ? 'snapshot' : 'volume';
}

async function placeOf(db: CatalogReader, name: string): Promise<Place> {
  const [volume = '', snapshot] = name.split('@');
  if (snapshot === undefined) return { table: 'volume', owner: undefined, root: volume };
  return {
    table: 'snapshot',
    owner: await rowAt(db, { table: 'volume', owner: undefined, root: volume }),
    root: snapshot,
  };
}

async function rowAt(db: CatalogReader, place: Place & { table: 'volume' }): Promise<VolumeRow | undefined>;
async function rowAt(db: CatalogReader, place: Place): Promise<Row | undefined>;
async function rowAt(db: CatalogReader, { table, owner, root }: Place): Promise<Row | undefined> {
  if (table === 'volume') return rowsOf(db, table).where('root', '=', root).executeTakeFirst();
  const own = db.selectFrom('snapshot').selectAll().where('root', '=', root);
  return owner && own.where('volume_id', '=', owner.id).executeTakeFirst();
}

/** What rows of a table name, but those that name nothing. */
async function namesInEngine(db: CatalogReader, rows: readonly Row[]): Promise<string[]> {
  const owners = new Map<string, string | null>();
  const wanted = [...new Set(rows.flatMap((row) => ('volume_id' in row ? [row.volume_id] : [])))];
  if (wanted.length > 0)
    for (const { id, root } of await rowsOf(db, 'volume').where('id', 'in', wanted).execute()) owners.set(id, root);
  return rows.flatMap((row) => {
    if (row.root === null) return [];
    if (!('volume_id' in row)) return [row.root];
    const owner = owners.get(row.volume_id);
    return owner ? [`${owner}@${row.root}`] : [];
  });
}

/** What services make is named by a pin before, and by a row after. @returns those of the names that are */
async function claimedOf(db: CatalogReader, names: readonly string[]): Promise<Set<string>> {
  const byRoot = new Map(names.flatMap((name) => [name, sealedRoot(name)].map((root) => [root, name])));
  const roots = [...byRoot.keys()];
  const pins = await db.selectFrom('pin').select('name').where('name', 'in', roots).execute();
  const images = await db
    .selectFrom('image')
    .select(['root', 'staged_root'])
    .where((image) => image.or([image('root', 'in', roots), image('staged_root', 'in', roots)]))
    .execute();
  const objects = await db.selectFrom('object_version').select('root').where('root', 'in', roots).execute();
  const found = [
    ...pins.map(({ name }) => name),
    ...images.flatMap(({ root, staged_root }) => [root, staged_root]),
    ...objects.map(({ root }) => root),
  ];
  return new Set(found.flatMap((root) => byRoot.get(root ?? '') ?? []));
}

/** Whose what is made by hand is; undefined in a catalog that has no operators. */
async function operatorsProject(db: CatalogReader): Promise<string | undefined> {
  const setting = db.selectFrom('setting').select('value').where('key', '=', 'admin_project');
  return (await setting.executeTakeFirst())?.value;
}

/** The row of something made by hand, and what it takes; nothing where there is nobody to have it. */
function adoption({ table, owner, root: name }: Place, root: Root, operators: string | undefined): Change[] {
  const { id, size, createdMs: created_at } = root;
  const common = { id, name, user_id: null, description: null, status: 'available', size, origin: 'engine' as const };
  const times = { created_at, updated_at: created_at, root: name };
  if (table === 'snapshot') {
    // Of what a service has without a volume's row, such as an image: it is the service's.
    if (!owner) return [];
    const row: SnapshotRow = { ...common, ...times, project_id: owner.project_id, volume_id: owner.id };
    return [{ do: 'insert', table, row }, taken(row, amountsOf(table, row))];
  }
  if (operators === undefined) return [];
  const row: VolumeRow = {
    ...{ ...common, ...times, project_id: operators, previous_status: null, volume_type_id: null },
    ...{ availability_zone: 'nova', bootable: 0, read_only: 0, multiattach: 0, source_kind: null, source_id: null },
  };
  return [{ do: 'insert', table, row }, taken(row, amountsOf(table, row))];
}

/** Rows of the volumes that these are, or are snapshots of, by name. */
async function volumesNamed(db: CatalogReader, roots: readonly Root[]): Promise<Map<string, VolumeRow>> {
  const names = [...new Set(roots.map(({ name }) => name.split('@')[0]!))];
  if (names.length === 0) return new Map();
  const rows = await rowsOf(db, 'volume').where('root', 'in', names).execute();
  return new Map(rows.map((row) => [row.root!, row]));
}

/** @param roots volumes or snapshots: a page of a list. @returns rows by full names, and perhaps others */
async function rowsNamed(db: CatalogReader, roots: readonly Root[]): Promise<Map<string, Row>> {
  const parts = roots.map(({ name }) => name.split('@'));
  if (parts.length === 0) return new Map();
  const owners = [...(await volumesNamed(db, roots)).values()];
  if (parts[0]!.length === 1) return new Map(owners.map((row) => [row.root!, row]));
  const names = new Map(owners.map(({ id, root }) => [id, root]));
  if (names.size === 0) return new Map();
  const own = db
    .selectFrom('snapshot')
    .selectAll()
    .where('volume_id', 'in', [...names.keys()])
    .where('root', 'in', [...new Set(parts.map(([, snapshot]) => snapshot!))]);
  return new Map((await own.execute()).map((row) => [`${names.get(row.volume_id)}@${row.root}`, row]));
}

/** One of them, for types: both have what is asked of them here. */
function rowsOf(db: CatalogReader, table: Table) {
  return db.selectFrom(table as 'volume').selectAll();
}

function update(table: Table, id: string, set: Partial<Pick<VolumeRow, 'root' | 'name' | 'size' | 'status'>>): Change {
  return { do: 'update', table, where: { id }, set: { ...set, updated_at: Date.now() } };
}

function unnamed(table: Table, id: string, root: string): Change {
  return { do: 'update', table, where: { id, root }, set: { root: null }, orNone: true };
}
