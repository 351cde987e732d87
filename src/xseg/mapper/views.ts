/** What the engine's face shows of volumes and snapshots. */
import type { PoolRow, ResourceRow } from '../store/batch.ts';
import type { Attachment, SnapshotInfo, VolumeInfo } from '../types.ts';
import type { Frames } from './frames.ts';
import type { Registry } from './registry.ts';
import type { Resource } from './resource.ts';

export interface ViewsHost {
  /** of any pool, open or not */
  poolRow(id: number): PoolRow | undefined;
  /** blocks that only it has; null: not known now */
  exclusiveBlocks(row: ResourceRow): number | null;
}

export class Views {
  constructor(
    readonly registry: Registry,
    readonly frames: Frames,
    readonly host: ViewsHost,
  ) {}

  volume(r: Resource): VolumeInfo {
    const blockSize = this.blockSize(r);
    const blocks = this.mapped(r);
    return {
      id: r.row.uuid,
      name: r.row.name,
      kind: 'volume',
      size: r.row.size,
      blockSize,
      pool: this.#poolName(r),
      mappedBytes: blocks * blockSize,
      ...this.#shares(r, blocks, blockSize),
      createdAt: new Date(r.row.created_at).toISOString(),
      snapshots: this.registry.snapshotsOf(r).length,
      protected: r.row.protected !== 0,
      openCount: r.openCount,
      attached: attachmentOf(r.row),
      clonedFrom: r.row.cloned_from,
    };
  }

  snapshot(r: Resource): SnapshotInfo {
    const blockSize = this.blockSize(r);
    const volume = this.registry.get(r.row.volume);
    return {
      id: r.row.uuid,
      name: this.registry.fullName(r),
      kind: 'snapshot',
      volume: volume?.row.name ?? '?',
      snapshot: r.row.name,
      size: r.row.size,
      blockSize,
      pool: this.#poolName(r),
      mappedBytes: r.row.mapped * blockSize,
      ...this.#shares(r, r.row.mapped, blockSize),
      createdAt: new Date(r.row.created_at).toISOString(),
      protected: r.row.protected !== 0,
      openCount: r.openCount,
      hash: this.registry.reader.seal.resource(r.id)?.toString('hex') ?? null,
    };
  }

  #shares(r: Resource, blocks: number, blockSize: number): Pick<VolumeInfo, 'exclusiveBytes' | 'sharedBytes'> {
    const exclusive = this.host.exclusiveBlocks(r.row);
    if (exclusive === null) return { exclusiveBytes: null, sharedBytes: null };
    return { exclusiveBytes: exclusive * blockSize, sharedBytes: (blocks - exclusive) * blockSize };
  }

  /** Blocks whose entries are not empty, changes of this moment included. */
  mapped(r: Resource): number {
    let blocks = r.row.mapped;
    const root = r.row.root === 0 ? undefined : this.frames.byPage.get(r.row.root);
    if (root !== undefined) blocks = this.frames.mapped[root];
    else if (r.row.root === 0) blocks = 0;
    for (const frame of r.changes.frames) blocks += this.frames.delta[frame];
    return blocks;
  }

  blockSize(r: Resource): number {
    return 2 ** (this.host.poolRow(r.row.pool)?.block_shift ?? 0);
  }

  #poolName(r: Resource): string {
    return this.host.poolRow(r.row.pool)?.name ?? '?';
  }
}

function attachmentOf({ attached, attached_to, attached_at, name }: ResourceRow): Attachment | null {
  if (attached === null) return null;
  return {
    id: attached,
    to: attached_to as string,
    since: new Date(attached_at as number).toISOString(),
    export: `${name}/${attached}`,
  };
}
