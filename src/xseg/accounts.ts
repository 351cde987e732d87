/**
 * The equations of docs/format.md ("Space in numbers"), worked out the long way: every map walked whole, every slot looked
 * up. For tests and the simulation, beside what the engine says; memory grows with the store.
 */
import { ZEROES } from './page-table.ts';
import type { PoolRow, ReleaseRow, ResourceRow } from './store/batch.ts';
import { bitCount, bitGet } from './store/bitmap.ts';
import type { StoreDatabase } from './store/schema.ts';
import type { PoolInfo, SnapshotInfo, VolumeInfo } from './types.ts';

const ENTRIES = 512;
/** several places name it */
const SHARED = -1;

/** What is read of a store, whatever it is made of. */
export interface StoreRows {
  pools(): Iterable<PoolRow>;
  resources(): Iterable<ResourceRow>;
  releases(): Iterable<ReleaseRow>;
  groups(pool: number): Iterable<{ grp: number; used: number; bitmap: Uint8Array }>;
  /** blob of a map page */
  page(id: number): Uint8Array | undefined;
}

/** As `Native.decodePageTo`. */
export type Decode = (blob: Uint8Array, id: number, entries: Uint32Array, header: Float64Array) => number;

/** Blocks. */
export interface ResourceAccount {
  mapped: number;
  exclusive: number;
}

/** Slots, but for `logicalBytes`. */
export interface PoolAccount {
  logicalBytes: number;
  mapped: number;
  used: number;
  exclusive: number;
  shared: number;
  /** used and named by no map: of what is being deleted */
  releasing: number;
}

export interface Accounts {
  resources: Map<number, ResourceAccount>;
  pools: Map<number, PoolAccount>;
  /** what does not add up, one line each */
  errors: string[];
}

export function storeRows(db: StoreDatabase): StoreRows {
  const page = db.prepare('SELECT data FROM page WHERE id = ?').pluck();
  const groups = db.prepare('SELECT grp, used, bitmap FROM slot_group WHERE pool = ?');
  return {
    pools: () => db.prepare('SELECT * FROM pool').all() as PoolRow[],
    resources: () => db.prepare('SELECT * FROM resource').all() as ResourceRow[],
    releases: () => db.prepare('SELECT * FROM release').all() as ReleaseRow[],
    groups: (pool) => groups.all(pool) as { grp: number; used: number; bitmap: Uint8Array }[],
    page: (id) => page.get(id) as Uint8Array | undefined,
  };
}

/** Works out who has what, and that it adds up. */
export function account(rows: StoreRows, decode: Decode): Accounts {
  const accounts: Accounts = { resources: new Map(), pools: new Map(), errors: [] };
  const resources = [...rows.resources()];
  for (const pool of rows.pools())
    accountPool(
      pool,
      resources.filter((r) => r.pool === pool.id),
      rows,
      decode,
      accounts,
    );
  return accounts;
}

function accountPool(pool: PoolRow, resources: ResourceRow[], rows: StoreRows, decode: Decode, into: Accounts): void {
  /** slot → who alone names it, or SHARED */
  const holders = new Map<number, number>();
  const sums: PoolAccount = { logicalBytes: 0, mapped: 0, used: 0, exclusive: 0, shared: 0, releasing: 0 };
  for (const r of resources) {
    const mine: ResourceAccount = { mapped: 0, exclusive: 0 };
    into.resources.set(r.id, mine);
    mine.mapped = walk(r, rows, decode, into.errors, (slot) => {
      const holder = holders.get(slot);
      if (holder === undefined) holders.set(slot, r.id);
      else if (holder !== r.id) holders.set(slot, SHARED);
    });
    if (mine.mapped !== r.mapped)
      into.errors.push(`resource ${r.id}: its record says ${r.mapped} blocks, its map has ${mine.mapped}`);
    const places = Math.ceil(r.size / 2 ** pool.block_shift);
    if (mine.mapped > places) into.errors.push(`resource ${r.id}: ${mine.mapped} blocks are mapped, it has ${places}`);
    sums.logicalBytes += r.size;
    sums.mapped += mine.mapped;
  }
  const bitmaps = new Map<number, Uint8Array>();
  for (const { grp, used, bitmap } of rows.groups(pool.id)) {
    bitmaps.set(grp, bitmap);
    sums.used += used;
    if (bitCount(bitmap) !== used)
      into.errors.push(`group ${grp} of pool ${pool.id}: ${used} used, ${bitCount(bitmap)} set`);
  }
  for (const [slot, holder] of holders) {
    const bitmap = bitmaps.get(Math.floor(slot / pool.group_slots));
    if (bitmap === undefined || !bitGet(bitmap, slot % pool.group_slots))
      into.errors.push(`slot ${slot} of pool ${pool.id} is named and free`);
    if (holder === SHARED) sums.shared++;
    else {
      sums.exclusive++;
      (into.resources.get(holder) as ResourceAccount).exclusive++;
    }
  }
  sums.releasing = sums.used - sums.exclusive - sums.shared;
  let queued = 0;
  for (const row of rows.releases()) if (row.pool === pool.id) queued++;
  if (sums.releasing < 0 || (queued === 0 && sums.releasing !== 0))
    into.errors.push(
      `pool ${pool.id}: ${sums.used} slots used, ${sums.exclusive} exclusive, ${sums.shared} shared, and ${queued} releases queued`,
    );
  into.pools.set(pool.id, sums);
}

/** @returns blocks that are mapped; `see` hears of those that have a slot */
function walk(r: ResourceRow, rows: StoreRows, decode: Decode, errors: string[], see: (slot: number) => void): number {
  const header = new Float64Array(8);
  const step = (id: number, level: number): number => {
    const entries = new Uint32Array(ENTRIES * 2);
    const blob = rows.page(id);
    if (blob === undefined || decode(blob, id, entries, header) !== 0 || header[0] !== level) {
      errors.push(`resource ${r.id}: page ${id} of level ${level} cannot be read`);
      return 0;
    }
    const mapped = header[5];
    let found = 0;
    for (let i = 0; i < ENTRIES; i++) {
      const value = entries[i * 2] + (entries[i * 2 + 1] & 0xffff) * 2 ** 32;
      if (value === 0) continue;
      if (level === 0 && value !== ZEROES) see(value - 1);
      found += level === 0 ? 1 : step(value, level - 1);
    }
    if (found !== mapped) errors.push(`resource ${r.id}: page ${id} says ${mapped} blocks, has ${found}`);
    return found;
  };
  return r.root === 0 ? 0 : step(r.root, r.height);
}

type ResourceTold = 'id' | 'name' | 'size' | 'blockSize' | 'mappedBytes' | 'exclusiveBytes' | 'sharedBytes';
type PoolSums = 'logicalBytes' | 'mappedBytes' | 'exclusiveBytes' | 'sharedBytes' | 'releasingBytes';
type PoolTold = 'id' | 'name' | 'blockSize' | 'state' | 'capacityBytes' | 'usedBytes' | 'freeBytes';

/** What the engine says of itself at a moment when all is durable. */
export interface Told {
  pools: Pick<PoolInfo, PoolTold | PoolSums>[];
  volumes: Pick<VolumeInfo, ResourceTold>[];
  snapshots: Pick<SnapshotInfo, ResourceTold>[];
}

/**
 * What does not add up in a store, and between it and what the engine says; empty when all does. What the engine does not
 * know yet (null) is left out.
 */
export function accountErrors(rows: StoreRows, decode: Decode, told?: Told): string[] {
  const accounts = account(rows, decode);
  return told === undefined ? accounts.errors : [...accounts.errors, ...toldErrors(accounts, rows, told)];
}

/** What the engine says and is not so. @param accounts of `rows`, and of the moment at which it said it */
export function toldErrors(accounts: Accounts, rows: StoreRows, told: Told): string[] {
  const errors: string[] = [];
  const same = (what: string, said: number | null, found: number) => {
    if (said !== null && said !== found) errors.push(`${what}: the engine says ${said}, it is ${found}`);
  };
  const queued = new Set([...rows.releases()].map(({ pool }) => pool));
  const byUuid = new Map([...rows.resources()].map((r) => [r.uuid, r]));
  for (const info of [...told.volumes, ...told.snapshots]) {
    const row = byUuid.get(info.id);
    const found = row === undefined ? undefined : accounts.resources.get(row.id);
    if (found === undefined) {
      errors.push(`${info.name} is not in the store`);
      continue;
    }
    const { name, blockSize, mappedBytes, exclusiveBytes, sharedBytes } = info;
    same(`${name}, mapped`, mappedBytes, found.mapped * blockSize);
    // what others give up of slots that sealing folded is theirs until it is released
    const late = row !== undefined && queued.has(row.pool) && (exclusiveBytes ?? 0) < found.exclusive * blockSize;
    if (!late) same(`${name}, exclusive`, exclusiveBytes, found.exclusive * blockSize);
    if (exclusiveBytes !== null) same(`${name}, shared`, sharedBytes, mappedBytes - exclusiveBytes);
    if (mappedBytes > Math.ceil(info.size / blockSize) * blockSize)
      errors.push(`${name}: ${mappedBytes} bytes are mapped of ${info.size}`);
  }
  for (const row of rows.pools()) {
    const info = told.pools.find((p) => p.id === row.uuid);
    const found = accounts.pools.get(row.id) as PoolAccount;
    if (info === undefined || info.state === 'missing') continue;
    const { name, blockSize } = info;
    same(`pool ${name}, logical`, info.logicalBytes, found.logicalBytes);
    same(`pool ${name}, mapped`, info.mappedBytes, found.mapped * blockSize);
    same(`pool ${name}, used`, info.usedBytes, found.used * blockSize);
    same(`pool ${name}, exclusive`, info.exclusiveBytes, found.exclusive * blockSize);
    same(`pool ${name}, shared`, info.sharedBytes, found.shared * blockSize);
    same(`pool ${name}, capacity`, info.capacityBytes, info.usedBytes + info.freeBytes);
    // while something is queued the engine has an estimate
    const named = info.usedBytes - found.releasing * blockSize;
    if (info.mappedBytes < named)
      errors.push(`pool ${name}: ${info.mappedBytes} bytes are mapped, to ${named} of slots`);
    if (!queued.has(row.id)) same(`pool ${name}, releasing`, info.releasingBytes, 0);
  }
  return errors;
}
