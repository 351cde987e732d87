/**
 * The equations of docs/format.md ("Space in numbers"), worked out the long way: every map walked whole, every slot looked
 * up. For tests and the simulation, beside what the engine says; memory grows with the store.
 */
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
  /** slots that one resource names more than once */
  const sums: PoolAccount = { logicalBytes: 0, mapped: 0, used: 0, exclusive: 0, shared: 0, releasing: 0 };
  for (const r of resources) {
    const mine: ResourceAccount = { mapped: 0, exclusive: 0 };
    into.resources.set(r.id, mine);
    walk(r, rows, decode, into.errors, (slot) => {
      mine.mapped++;
      const holder = holders.get(slot);
      if (holder === undefined) holders.set(slot, r.id);
      else if (holder !== r.id) holders.set(slot, SHARED);
    });
    if (mine.mapped !== r.mapped)
      into.errors.push(`resource ${r.id}: its record says ${r.mapped} blocks, its map has ${mine.mapped}`);
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

function walk(r: ResourceRow, rows: StoreRows, decode: Decode, errors: string[], see: (slot: number) => void): void {
  const header = new Float64Array(8);
  const step = (id: number, level: number): void => {
    const entries = new Uint32Array(ENTRIES * 2);
    const blob = rows.page(id);
    if (blob === undefined || decode(blob, id, entries, header) !== 0 || header[0] !== level) {
      errors.push(`resource ${r.id}: page ${id} of level ${level} cannot be read`);
      return;
    }
    for (let i = 0; i < ENTRIES; i++) {
      const value = entries[i * 2] + (entries[i * 2 + 1] & 0xffff) * 2 ** 32;
      if (value === 0) continue;
      if (level === 0) see(value - 1);
      else step(value, level - 1);
    }
  };
  if (r.root !== 0) step(r.root, r.height);
}

/** What the engine says of itself at a moment when all is durable. */
export interface Told {
  pools: PoolInfo[];
  volumes: VolumeInfo[];
  snapshots: SnapshotInfo[];
}

/**
 * What does not add up in a store, and between it and what the engine says; empty when all does. What the engine does not
 * know yet (null) is left out.
 */
export function accountErrors(rows: StoreRows, decode: Decode, told?: Told): string[] {
  const accounts = account(rows, decode);
  const errors = [...accounts.errors];
  if (told === undefined) return errors;
  const same = (what: string, said: number | null, found: number) => {
    if (said !== null && said !== found) errors.push(`${what}: the engine says ${said}, it is ${found}`);
  };
  const byUuid = new Map([...rows.resources()].map((r) => [r.uuid, r]));
  for (const info of [...told.volumes, ...told.snapshots]) {
    const row = byUuid.get(info.id);
    const found = row === undefined ? undefined : accounts.resources.get(row.id);
    if (found === undefined) {
      errors.push(`${info.name} is not in the store`);
      continue;
    }
    same(`${info.name}, mapped`, info.mappedBytes, found.mapped * info.blockSize);
    same(`${info.name}, exclusive`, info.exclusiveBytes, found.exclusive * info.blockSize);
    same(`${info.name}, shared`, info.sharedBytes, (found.mapped - found.exclusive) * info.blockSize);
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
    if (info.releasingBytes < found.releasing * blockSize)
      errors.push(`pool ${name}: ${info.releasingBytes} bytes to release at most, ${found.releasing * blockSize} are`);
  }
  return errors;
}
