/** Volumes and snapshots as a tree of files needs them: by number, in pages, with little about each (docs/fuse.md). */
import { VolumeRecord } from '../layout.gen.ts';
import { isHiddenName } from '../names.ts';
import { KIND_SNAPSHOT, KIND_VOLUME, type ResourceRow } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import { EngineError, type FileNode, type NodeFolder } from '../types.ts';
import type { Frames } from './frames.ts';
import type { Registry } from './registry.ts';
import { Resource } from './resource.ts';
import type { Views } from './views.ts';

/** Nodes of one page. */
export const LIST_MAX = 1024;

export class Nodes {
  readonly #statements;

  constructor(
    readonly registry: Registry,
    readonly frames: Frames,
    readonly views: Views,
    readonly recordAt: (handle: number) => number,
    reader: StoreReader,
  ) {
    const p = (sql: string) => reader.db.prepare(sql);
    this.#statements = {
      volumes: p('SELECT * FROM resource WHERE kind = 1 AND id > ? ORDER BY id LIMIT ?'),
      snapshots: p('SELECT * FROM resource WHERE volume = ? AND volume != 0 AND id > ? ORDER BY id LIMIT ?'),
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

  /** Of a folder, those with numbers above `after`, ascending; none: that was all. */
  list(folder: NodeFolder, after: number): { nodes: FileNode[]; last: number; end: boolean } {
    const rows = this.#rows(folder, after);
    const nodes: FileNode[] = [];
    for (const row of rows) {
      const known = this.registry.known(row.id);
      if (known === null || isHiddenName(row.name)) continue;
      nodes.push(this.#node(known ?? new Resource(row)));
    }
    return { nodes, last: rows.at(-1)?.id ?? after, end: rows.length < LIST_MAX };
  }

  #rows(folder: NodeFolder, after: number): ResourceRow[] {
    const s = this.#statements;
    if (folder === 'volumes') return s.volumes.all(after, LIST_MAX) as ResourceRow[];
    if (folder !== 'owners') return s.snapshots.all(folder, after, LIST_MAX) as ResourceRow[];
    const rows: ResourceRow[] = [];
    for (const id of s.owners.all(after, LIST_MAX) as number[]) {
      const row = this.registry.known(id)?.row ?? this.registry.reader.resource(id);
      if (row !== undefined) rows.push(row);
    }
    return rows;
  }

  #node(r: Resource): FileNode {
    const changesAt = r.handle < 0 ? -1 : this.recordAt(r.handle) / 2 + VolumeRecord.changes / 8;
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
      changes: changesAt < 0 ? 0 : Number(this.frames.longs[changesAt]),
      openCount: r.openCount,
    };
  }
}
