/** The pools of a served home: which there are, how each was opened, and what can be done with them. */
import { type CopyFile, findCopies, lineOf, markServing, removeCopies, unmarkServing } from './copies/files.ts';
import { mayServe } from './copies/lines.ts';
import type { CopyPlace } from './copies/place.ts';
import type { StoreIdentity } from './first-start.ts';
import type { Generation } from './mapper/copies.ts';
import type { PoolUsage } from './mapper/reports.ts';
import { checkName } from './names.ts';
import type { Native } from './native.ts';
import { crcOf, formatPool, openPool, plannedGrowth, planPool } from './pools.ts';
import type { PoolRow } from './store/batch.ts';
import { EngineError, type EngineOptions, type PoolInfo, type PoolSettings, type PoolSpecInput } from './types.ts';

/** How often the store is copied into its pools when nobody says, ms. */
const COPY_INTERVAL_MS_DEFAULT = 5 * 60_000;

export interface PoolOpen {
  row: PoolRow;
  /** native handle, −1 when it could not be opened */
  handle: number;
  reason: string | null;
  /** of its copies of the store; null: it has none */
  place: CopyPlace | null;
  /** those that it had at the start */
  copies: Generation[];
}

export class OpenPools {
  readonly #pools: Map<string, PoolOpen>;
  #changes: Promise<unknown> = Promise.resolve();
  readonly #call: <T>(op: string, ...args: unknown[]) => Promise<T>;

  /** @param call asks the mapper */
  constructor(
    readonly options: EngineOptions,
    readonly identity: StoreIdentity,
    readonly native: Native,
    readonly core: number,
    pools: readonly PoolOpen[],
    call: <T>(op: string, ...args: unknown[]) => Promise<T>,
  ) {
    this.#pools = new Map(pools.map((pool) => [pool.row.name, pool]));
    this.#call = call;
  }

  /** @throws {EngineError} NOT_FOUND */
  row(name: string): PoolRow {
    return this.#named(name).row;
  }

  #named(name: string): PoolOpen {
    const pool = this.#pools.get(name);
    if (pool === undefined) throw new EngineError('NOT_FOUND', `there is no pool named ${name}`);
    return pool;
  }

  /** One after another: each looks at what there is before it makes more of it. */
  #oneChange<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#changes.then(work);
    this.#changes = result.catch(() => undefined);
    return result;
  }

  create(spec: PoolSpecInput): Promise<PoolInfo> {
    return this.#oneChange(() => this.#create(spec));
  }

  async #create(spec: PoolSpecInput): Promise<PoolInfo> {
    checkName('pool', spec.name);
    if (this.#pools.has(spec.name)) throw new EngineError('EXISTS', `a pool named ${spec.name} exists`);
    const id = Math.max(0, ...[...this.#pools.values()].map((p) => p.row.id)) + 1;
    const plan = planPool(spec, id);
    const { row } = plan;
    const unformat = formatPool(plan, this.identity.uuid, this.native);
    let place: CopyPlace | null = null;
    let handle = -1;
    try {
      const opened = openPool(row, this.identity.uuid, this.native, this.core, this.options.poolFaults?.[row.name]);
      handle = opened.handle;
      place = opened.place;
      if (place !== null) forgetCopies(place, this.native);
      prepareCopies(place, row, this.identity, this.native, this.options);
    } catch (error) {
      if (handle >= 0) this.native.closePool(this.core, handle);
      this.#undo(place, unformat);
      throw error;
    }
    try {
      await this.#call('insertPool', row, handle, place);
    } catch (error) {
      this.native.closePool(this.core, handle);
      throw error;
    }
    this.#pools.set(row.name, { row, handle, reason: null, place, copies: [] });
    return this.show(row.name);
  }

  /** What was to become a pool is what it was. Where that fails it says so: why it became none is what its maker hears. */
  #undo(place: CopyPlace | null, unformat: () => void): void {
    for (const undo of [() => place !== null && unmarkServing(place), unformat]) {
      try {
        undo();
      } catch (error) {
        this.options.log('warn', 'what is left of a pool that could not be made', { reason: (error as Error).message });
      }
    }
  }

  async list(): Promise<PoolInfo[]> {
    const usage = await this.#call<PoolUsage[]>('poolUsage');
    const found: PoolInfo[] = [];
    for (const pool of this.#pools.values())
      found.push(
        poolInfo(
          pool,
          usage.find((u) => u.id === pool.row.id),
        ),
      );
    return found.sort((a, b) => a.name.localeCompare(b.name));
  }

  async show(name: string): Promise<PoolInfo> {
    const { row } = this.#named(name);
    return (await this.list()).find((p) => p.name === row.name) as PoolInfo;
  }

  grow(name: string, size?: number): Promise<PoolInfo> {
    return this.#oneChange(() => this.#grow(name, size));
  }

  async #grow(name: string, size?: number): Promise<PoolInfo> {
    const pool = this.#named(name);
    const wanted = plannedGrowth(pool.row, size, pool.place);
    try {
      if (pool.handle >= 0) this.native.growPool(this.core, pool.handle, wanted);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      const full = code === 'ENOSPC' || code === 'EDQUOT';
      throw new EngineError(full ? 'NO_SPACE' : 'IO', `pool ${name} stays as large as it is: ${message}`);
    }
    await this.#call('growPool', pool.row.id, wanted);
    pool.row.size = wanted;
    return this.show(name);
  }

  async set(name: string, settings: PoolSettings): Promise<PoolInfo> {
    const pool = this.#named(name);
    for (const rate of [settings.sealRate, settings.scrubRate])
      if (rate !== undefined && (!Number.isSafeInteger(rate) || rate < 0))
        throw new EngineError('INVALID', 'a rate is a number of bytes per second');
    await this.#call('setPool', pool.row.id, settings);
    return this.show(name);
  }
}

/** A pool that cannot be opened is told of and kept: its volumes cannot be used. */
export function openAtStart(
  row: PoolRow,
  identity: StoreIdentity,
  native: Native,
  core: number,
  options: EngineOptions,
): PoolOpen {
  let handle = -1;
  try {
    const { place, ...opened } = openPool(row, identity.uuid, native, core, options.poolFaults?.[row.name]);
    handle = opened.handle;
    return { row, handle, reason: null, place, copies: prepareCopies(place, row, identity, native, options) };
  } catch (error) {
    if (handle >= 0) native.closePool(core, handle);
    const reason = (error as Error).message;
    options.log('error', 'a pool could not be opened; its volumes cannot be used', { pool: row.name, reason });
    return { row, handle: -1, reason, place: null, copies: [] };
  }
}

/** ms between copies of the store; 0: there are none */
export function copyInterval(options: EngineOptions): number {
  return options.copyIntervalMs ?? COPY_INTERVAL_MS_DEFAULT;
}

/** What somebody left where a new pool is made. */
function forgetCopies(place: CopyPlace, native: Native): void {
  removeFound(place, findCopies(place, crcOf(native)));
  unmarkServing(place);
}

function removeFound(place: CopyPlace, found: readonly CopyFile[]): void {
  if (found.length === 0) return;
  const names = found.map(({ name }) => name);
  removeCopies(place, names);
}

/**
 * Before a pool is written: what copies of the store it has, and the mark that it may become newer than they are. Where copies are
 * switched off those that are there go, since nothing keeps their slots any more.
 * @throws {EngineError} STALE
 */
function prepareCopies(
  place: CopyPlace | null,
  row: PoolRow,
  { uuid, line }: StoreIdentity,
  native: Native,
  options: EngineOptions,
): Generation[] {
  if (place === null) return [];
  const found = findCopies(place, crcOf(native), { homeUuid: uuid, poolUuid: row.uuid });
  if (!mayServe(line, lineOf(place, found)))
    throw new EngineError(
      'STALE',
      `pool ${row.name} was served by a store that was recovered, and this is not that store but one from before: its slots were used again since`,
    );
  markServing(place, line.own);
  if (copyInterval(options) === 0) {
    removeFound(place, found);
    return [];
  }
  return found.map(({ name, footer }) => ({
    name,
    sequence: footer?.sequence ?? -1,
    takenAt: footer?.takenAt ?? 0,
    bytes: footer?.bytes ?? 0,
  }));
}

function poolInfo(pool: PoolOpen, usage: PoolUsage | undefined): PoolInfo {
  const { row } = pool;
  const state = pool.handle < 0 ? 'missing' : usage?.failed ? 'failed' : 'ok';
  return {
    id: row.uuid,
    name: row.name,
    driver: row.driver as PoolInfo['driver'],
    kind: row.kind as PoolInfo['kind'],
    path: row.path,
    blockSize: 2 ** row.block_shift,
    direct: row.direct !== 0,
    capacityBytes: usage?.capacityBytes ?? 0,
    usedBytes: usage?.usedBytes ?? 0,
    freeBytes: usage?.freeBytes ?? 0,
    physicalBytes: usage?.physicalBytes ?? 0,
    reclaimingBytes: usage?.reclaimingBytes ?? 0,
    copies:
      usage?.copies == null
        ? null
        : {
            ...usage.copies,
            takenAt: usage.copies.takenAt === 0 ? null : new Date(usage.copies.takenAt).toISOString(),
          },
    releasingBytes: usage?.releasingBytes ?? 0,
    logicalBytes: usage?.logicalBytes ?? 0,
    mappedBytes: usage?.mappedBytes ?? 0,
    exclusiveBytes: null,
    sharedBytes: null,
    fullPercent: usage?.fullPercent ?? 0,
    level: usage?.level ?? 'ok',
    state,
    reason:
      state === 'failed'
        ? 'a write or sync of its data failed; writes and flushes are refused until it is looked at and the daemon restarted'
        : pool.reason,
    seal: usage?.seal ?? null,
  };
}
