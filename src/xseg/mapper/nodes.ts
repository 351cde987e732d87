/** Volumes and snapshots as a tree of files needs them: by number, in pages, with little about each (docs/fuse.md). */
import { VolumeRecord } from '../layout.gen.ts';
import { HIDDEN_PREFIX, isHiddenName } from '../names.ts';
import { KIND_SNAPSHOT, KIND_VOLUME } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import { EngineError, type FileNode, type NodeFolder, type NodePage, PAGE_NUMBERS, type RootInfo } from '../types.ts';
import type { Frames } from './frames.ts';
import type { Registry } from './registry.ts';
import type { Resource } from './resource.ts';
import type { Views } from './views.ts';

/** Nodes of one page. */
export const LIST_MAX = 1024;

/** the first name behind all that begin with HIDDEN_PREFIX */
const HIDDEN_BEHIND = '.atoll.';

/** Rows of lists are arrays: a hundred thousand objects would take longer than the rest. */
const LIST_COLUMNS = 'id, kind, volume, name, size, pool, created_at, mapped, root, attached IS NOT NULL';
type ListRow = [
  id: number,
  kind: number,
  volume: number,
  name: string,
  size: number,
  pool: number,
  createdAt: number,
  mapped: number,
  root: number,
  attached: number,
];

interface Draft {
  numbers: Float64Array;
  count: number;
  names: string;
}

export class Nodes {
  readonly #statements;
  /** a page of a folder, and one of those behind it */
  readonly #scratch = new Float64Array(2 * LIST_MAX * PAGE_NUMBERS);

  constructor(
    readonly registry: Registry,
    readonly frames: Frames,
    readonly views: Views,
    readonly recordAt: (handle: number) => number,
    reader: StoreReader,
  ) {
    const p = (sql: string) => reader.db.prepare(sql);
    const list = (where: string) => p(`SELECT ${LIST_COLUMNS} FROM resource WHERE ${where}`).raw();
    this.#statements = {
      hidden: p(
        'SELECT id FROM resource WHERE kind IN (1, 2) AND name >= ? AND name < ? ORDER BY kind DESC, id',
      ).pluck(),
      one: list('id = ?'),
      // by number: an index on kinds would sort all of them for each page
      volumes: list('+kind = 1 AND id > ? ORDER BY id LIMIT ?'),
      snapshots: list('volume = ? AND volume != 0 AND id > ? ORDER BY id LIMIT ?'),
      further: list('volume >= ? AND volume != 0 ORDER BY volume, id LIMIT ?'),
      roots:
        p(`SELECT r.id, r.uuid, CASE r.kind WHEN 2 THEN v.name || '@' || r.name ELSE r.name END AS name, r.size, r.created_at AS createdMs
        FROM resource r LEFT JOIN resource v ON v.id = r.volume WHERE r.kind = ? AND r.id > ? ORDER BY r.id LIMIT ?`),
      owners: p(
        'SELECT DISTINCT volume FROM resource WHERE volume != 0 AND volume > ? ORDER BY volume LIMIT ?',
      ).pluck(),
    };
  }

  /** A name in `volumes` or in the folder of a volume's snapshots. @throws {EngineError} NOT_FOUND */
  lookup(folder: NodeFolder, name: string): FileNode {
    const owner = typeof folder === 'number' ? this.registry.get(folder) : undefined;
    const r =
      folder === 'volumes' || folder === 'owners'
        ? this.registry.volume(name)
        : owner && this.registry.snapshot(owner, name);
    if (r === undefined || r.dead || isHiddenName(name)) throw new EngineError('NOT_FOUND', `there is no ${name}`);
    return this.#node(r);
  }

  /** @throws {EngineError} NOT_FOUND */
  node(id: number): FileNode {
    return this.#node(this.need(id));
  }

  /** @throws {EngineError} NOT_FOUND */
  need(id: number): Resource {
    const r = this.registry.get(id);
    if (r === undefined || r.dead) throw new EngineError('NOT_FOUND', `there is no resource ${id} any more`);
    return r;
  }

  /** Full names of the daemon's own, snapshots first. */
  hidden(): string[] {
    const found: string[] = [];
    for (const id of this.#statements.hidden.all(HIDDEN_PREFIX, HIDDEN_BEHIND) as number[]) {
      const r = this.registry.get(id);
      if (r !== undefined && !r.dead) found.push(this.registry.fullName(r));
    }
    return found;
  }

  /** Those with numbers above `after`, ascending; with the last page come again, or at all, those whose way into the store may not be over. */
  roots(kind: 'volume' | 'snapshot', after: number): { roots: RootInfo[]; last: number | null } {
    const wanted = kind === 'volume' ? KIND_VOLUME : KIND_SNAPSHOT;
    const rows = this.#statements.roots.all(wanted, after, LIST_MAX) as (RootInfo & { id: number })[];
    const found: RootInfo[] = rows.filter((row) => this.registry.known(row.id) !== null);
    const end = rows.length < LIST_MAX;
    if (end)
      for (const r of this.registry.all())
        if (r.row.kind === wanted && !r.dead)
          found.push({
            uuid: r.row.uuid,
            name: this.registry.fullName(r),
            size: r.row.size,
            createdMs: r.row.created_at,
          });
    return { roots: found.filter(({ name }) => !isHiddenName(name)), last: end ? null : rows[rows.length - 1]!.id };
  }

  /** Of a folder, those with numbers above `after`, ascending. */
  list(folder: NodeFolder, after: number, ahead: boolean): NodePage {
    const rows = this.#rows(folder, after);
    const end = rows.length < LIST_MAX;
    const draft: Draft = { numbers: this.#scratch, count: 0, names: '' };
    this.#draw(draft, rows, 0, rows.length);
    const page = { last: rows.at(-1)?.[0] ?? after, end, ahead: [], next: 0 };
    if (typeof folder === 'number' && end) {
      page.next = (this.#statements.owners.get(folder, 1) as number | undefined) ?? 0;
      // what is on its way into the store would be missing for as long as the list is kept
      if (ahead && page.next !== 0 && !this.registry.naming) this.#readAhead(draft, page);
    }
    return { ...page, numbers: draft.numbers.slice(0, draft.count * PAGE_NUMBERS), names: draft.names };
  }

  /** Whole folders only. */
  #readAhead(draft: Draft, page: Pick<NodePage, 'ahead' | 'next'>): void {
    const rows = this.#statements.further.all(page.next, LIST_MAX) as ListRow[];
    for (let from = 0; from < rows.length; ) {
      const volume = rows[from][2];
      let to = from + 1;
      while (to < rows.length && rows[to][2] === volume) to++;
      page.next = volume;
      if (to === rows.length && rows.length === LIST_MAX) return;
      const before = draft.count;
      this.#draw(draft, rows, from, to);
      page.ahead.push({ volume, count: draft.count - before });
      from = to;
    }
    page.next = 0;
  }

  /** Adds those that are there and shown. */
  #draw(draft: Draft, rows: readonly ListRow[], from: number, to: number): void {
    const { numbers } = draft;
    for (let i = from; i < to; i++) {
      const known = this.registry.known(rows[i][0]);
      if (known === null) continue;
      const row = known === undefined ? rows[i] : rowOf(known);
      const name = row[3];
      if (name.startsWith(HIDDEN_PREFIX)) continue;
      const kind = row[1];
      const stored = row[8] === 0 ? 0 : row[7];
      const blocks = known !== undefined && kind === KIND_VOLUME ? this.views.mapped(known) : stored;
      const at = draft.count * PAGE_NUMBERS;
      numbers[at] = row[0];
      numbers[at + 1] = kind;
      numbers[at + 2] = row[4];
      numbers[at + 3] = blocks === 0 ? 0 : blocks * 2 ** (this.views.host.poolRow(row[5])?.block_shift ?? 0);
      numbers[at + 4] = row[6];
      numbers[at + 5] = known !== undefined ? this.#changes(known) : 0;
      numbers[at + 6] = row[9];
      draft.names += `${name}\0`;
      draft.count++;
    }
  }

  #rows(folder: NodeFolder, after: number): ListRow[] {
    const s = this.#statements;
    if (folder === 'volumes') return s.volumes.all(after, LIST_MAX) as ListRow[];
    if (folder !== 'owners') return s.snapshots.all(folder, after, LIST_MAX) as ListRow[];
    const rows: ListRow[] = [];
    for (const id of s.owners.all(after, LIST_MAX) as number[]) {
      const known = this.registry.known(id);
      const row = known ? rowOf(known) : (s.one.get(id) as ListRow | undefined);
      if (row !== undefined) rows.push(row);
    }
    return rows;
  }

  #node(r: Resource): FileNode {
    return {
      id: r.id,
      kind: r.row.kind === KIND_SNAPSHOT ? 'snapshot' : 'volume',
      name: r.row.name,
      fullName: this.registry.fullName(r),
      volume: r.row.volume,
      pool: this.views.host.poolRow(r.row.pool)?.name ?? '?',
      size: r.row.size,
      mappedBytes: (r.row.kind === KIND_VOLUME ? this.views.mapped(r) : r.row.mapped) * this.views.blockSize(r),
      createdMs: r.row.created_at,
      changes: this.#changes(r),
      openCount: r.openCount,
      attached: r.row.attached !== null,
    };
  }

  #changes(r: Resource): number {
    if (r.handle < 0) return 0;
    return Number(this.frames.longs[this.recordAt(r.handle) / 2 + VolumeRecord.changes / 8]);
  }
}

function rowOf({ row }: Resource): ListRow {
  const attached = row.attached === null ? 0 : 1;
  return [row.id, row.kind, row.volume, row.name, row.size, row.pool, row.created_at, row.mapped, row.root, attached];
}
