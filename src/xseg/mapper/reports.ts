/** What the mapper tells of itself: status, activity, and the use and accounts of pools. */
import type { MapperActivity } from '../activity.ts';
import type { PoolRow } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import type { EngineStatus, SealInfo } from '../types.ts';
import type { Accounting } from './accounting.ts';
import type { Commits } from './commits.ts';
import type { Copies, CopiesView } from './copies.ts';
import type { Faults } from './faults.ts';
import type { Frames } from './frames.ts';
import type { Freeing } from './freeing.ts';
import type { Handles } from './handles.ts';
import type { Ingests } from './ingests.ts';
import type { Meters } from './meters.ts';
import type { Registry } from './registry.ts';
import type { Sealer } from './sealer.ts';
import type { SlotPool } from './slots.ts';
import type { Steps } from './steps.ts';
import type { Tree } from './tree.ts';

/** Families of a pool that are accounted at one request. */
const ACCOUNT_FAMILIES_MAX = 64;

/** What the mapper knows of a pool. */
export type PoolUsage = ReturnType<SlotPool['usage']> & {
  id: number;
  failed: boolean;
  seal: SealInfo | null;
  copies: CopiesView | null;
  releasingBytes: number;
  logicalBytes: number;
  mappedBytes: number;
};

/** Of a pool that is not open. */
const UNUSABLE: ReturnType<SlotPool['usage']> = {
  ...{ capacityBytes: 0, usedBytes: 0, freeBytes: 0, physicalBytes: 0, reclaimingBytes: 0 },
  ...{ fullPercent: 0, level: 'ok' },
};

/** The parts of the mapper that are told of. */
export interface ReportsHost {
  readonly pools: ReadonlyMap<number, SlotPool>;
  readonly poolRows: ReadonlyMap<number, PoolRow>;
  readonly reader: StoreReader;
  readonly frames: Frames;
  readonly registry: Registry;
  readonly tree: Tree;
  readonly commits: Commits;
  readonly faults: Faults;
  readonly freeing: Freeing;
  readonly sealer: Sealer;
  readonly handles: Handles;
  readonly steps: Steps;
  readonly ingests: Ingests;
  readonly copies: Copies;
  readonly accounting: Accounting;
  readonly meters: Meters;
  /** resources with changes that no batch has, and what waits for frames and for the next turn */
  waiting(): { dirty: number; frames: number; turns: number };
}

export class Reports {
  constructor(readonly host: ReportsHost) {}

  poolUsage(): PoolUsage[] {
    const sums = this.#resourceSums();
    const none = { logicalBytes: 0, mappedBlocks: 0 };
    return [...this.host.poolRows.values()].map((row) => {
      const blockSize = 2 ** row.block_shift;
      const pool = this.host.pools.get(row.id);
      const { logicalBytes, mappedBlocks } = sums.get(row.id) ?? none;
      return {
        ...(pool?.usage() ?? UNUSABLE),
        id: row.id,
        failed: pool?.failed ?? false,
        seal: pool === undefined ? null : this.host.sealer.info(pool),
        copies: pool === undefined ? null : this.host.copies.view(pool),
        releasingBytes: this.host.freeing.blocksLeft(row.id) * blockSize,
        logicalBytes,
        mappedBytes: mappedBlocks * blockSize,
      };
    });
  }

  /** Of each pool, as the store has them, and as memory has those that changed. */
  #resourceSums(): Map<number, { logicalBytes: number; mappedBlocks: number }> {
    const sums = new Map<number, { logicalBytes: number; mappedBlocks: number }>();
    const add = (pool: number, size: number, mapped: number) => {
      const sum = sums.get(pool) ?? { logicalBytes: 0, mappedBlocks: 0 };
      sums.set(pool, { logicalBytes: sum.logicalBytes + size, mappedBlocks: sum.mappedBlocks + mapped });
    };
    for (const { pool, size, mapped } of this.host.reader.resourceSums()) add(pool, size, mapped);
    for (const r of this.host.registry.all()) {
      if (r.clean) continue;
      const stored = this.host.reader.resource(r.id);
      if (stored !== undefined) add(stored.pool, -stored.size, -stored.mapped);
      add(r.row.pool, r.row.size, this.host.steps.views.mapped(r));
    }
    return sums;
  }

  /** What resources of a pool have alone, or who is to be accounted first: one of each family, at most so many. */
  poolAccount(id: number): { exclusiveBytes: number; sharedBytes: number } | { missing: string[] } {
    const pool = this.host.pools.get(id);
    if (pool === undefined) return { missing: [] };
    let blocks = 0;
    const missing = new Map<number, string>();
    for (const resourceId of this.host.reader.resourceIdsOf(id)) {
      const r = this.host.registry.get(resourceId);
      if (r === undefined) continue;
      const exclusive = this.host.accounting.exclusiveBlocks(r.row);
      if (exclusive !== null) blocks += exclusive;
      else if (missing.size < ACCOUNT_FAMILIES_MAX) missing.set(r.row.grp, this.host.registry.fullName(r));
    }
    // while something is on its way, what is used is not all somebody's
    const settled =
      this.host.ingests.active === 0 &&
      this.host.freeing.queued === 0 &&
      pool.freeingSlots === 0 &&
      this.host.waiting().dirty === 0;
    if (missing.size > 0 || !settled) return { missing: [...missing.values()] };
    const exclusiveBytes = blocks * pool.blockSize;
    return { exclusiveBytes, sharedBytes: pool.usedSlots * pool.blockSize - exclusiveBytes };
  }

  status(): Pick<EngineStatus, 'volumes' | 'snapshots' | 'map' | 'commits' | 'background'> {
    const samples = this.host.meters.lastFaultTimes();
    const at = (list: ArrayLike<number>, p: number) =>
      list.length === 0 ? 0 : list[Math.min(list.length - 1, Math.floor(list.length * p))];
    const times = this.host.commits.lastTimes();
    let zeroQueue = 0;
    let freeQueue = 0;
    for (const pool of this.host.pools.values()) {
      zeroQueue += pool.reclaimingSlots * pool.blockSize;
      freeQueue += this.host.freeing.blocksLeft(pool.id) * pool.blockSize;
    }
    return {
      volumes: this.host.reader.resourceCount(1),
      snapshots: this.host.reader.resourceCount(2),
      map: {
        cacheBytes: this.host.frames.count * 4096,
        residentPages: this.host.frames.resident,
        dirtyPages: this.host.frames.dirtyCount,
        faults: this.host.faults.count,
        faultP50Us: at(samples, 0.5),
        faultP99Us: at(samples, 0.99),
        loads: this.host.tree.loads,
        evictions: this.host.frames.evictions,
      },
      commits: {
        count: this.host.commits.count,
        pages: this.host.commits.pages,
        p50Ms: at(times, 0.5),
        p99Ms: at(times, 0.99),
        logBytes: this.host.commits.logBytes,
      },
      background: {
        dropQueue: this.host.freeing.queued,
        freeQueueBytes: freeQueue,
        zeroQueueBytes: zeroQueue,
      },
    };
  }

  activity(): MapperActivity {
    const { commits, faults, freeing, handles, meters } = this.host;
    const waiting = this.host.waiting();
    let barriers = 0;
    let volumesFailed = 0;
    for (const r of this.host.registry.all()) {
      barriers += r.parked.length;
      if (r.failed !== 0) volumesFailed++;
    }
    let slots = 0;
    for (const pool of this.host.pools.values()) slots += pool.waiters.length;
    return {
      ...meters.read(),
      queues: {
        grants: faults.grantsOut,
        locks: faults.lockWaiters,
        barriers,
        frames: waiting.frames,
        slots,
        turns: waiting.turns,
        batches: commits.inFlight,
        releases: this.host.freeing.queued,
      },
      commits: { times: commits.times.read(), pages: commits.batchPages.read() },
      store: {
        transactions: commits.transactionTimes.read(),
        syncs: commits.syncTimes.read(),
        batches: commits.transactionBatches.read(),
      },
      freeing: { pages: freeing.pagesFreed },
      pools: [...this.host.pools.values()].map((pool) => ({
        name: pool.row.name,
        slotsTaken: pool.slotsTaken,
        slotsFreed: pool.slotsFreed,
        slotsZeroed: pool.slotsZeroed,
        slotsReclaiming: pool.reclaimingSlots + pool.freeingSlots + pool.lostSlots,
        slotsLost: pool.lostSlots,
      })),
      volumesFailed,
      open: handles.opened(),
    };
  }
}
