/**
 * The equations of docs/format.md ("Space in numbers"), while the daemon runs: what a commit changed, after every commit; what the
 * engine says against that, after every turn of the mapper that leaves nothing on its way; and now and then all of it, the long
 * way. Looks on: it asks for numbers only, as anybody may (which has a pool look how much room its file system has).
 */
import { account, type StoreRows, storeRows, type Told, toldErrors } from '../../src/xseg/accounts.ts';
import { FamilyCount } from '../../src/xseg/family-count.ts';
import type { Mapper } from '../../src/xseg/mapper/mapper.ts';
import type { Resource } from '../../src/xseg/mapper/resource.ts';
import type { SlotPool } from '../../src/xseg/mapper/slots.ts';
import type { Native } from '../../src/xseg/native.ts';
import {
  type CommitBatch,
  GROUP_ACTIVE,
  KIND_SNAPSHOT,
  KIND_VOLUME,
  type ResourceRow,
} from '../../src/xseg/store/batch.ts';
import { bitCount } from '../../src/xseg/store/bitmap.ts';
import type { SimDisk } from './disk.ts';
import type { SimStore } from './store.ts';

/** Steps, at least, from one comparison of all that the engine says to the next: every map is walked for it. */
const TOLD_STEPS = 256;
/** Steps from one time that somebody asks how much is exclusive to the next. */
const COUNT_STEPS = 32;
/** docs/format.md, "Map page" */
const LEVEL_AT = 3;
const COUNT_AT = 4;
const MAPPED_AT = 36;
const ENTRIES = 512;

/** Of a pool, as the store has it: blocks, and bytes of `logical`. */
interface Sums {
  mapped: number;
  logical: number;
  used: number;
  /** rows of `release` */
  queued: number;
}

export interface SpaceHost {
  readonly mapper: Mapper;
  readonly store: SimStore;
  readonly codec: Native;
  readonly disks: readonly SimDisk[];
  readonly steps: number;
  readonly faulty: boolean;
  fail(reason: string): never;
}

export class Space {
  /** how often what was looked at; `known`: resources whose exclusive bytes were told */
  readonly looks = { commits: 0, sums: 0, walks: 0, told: 0, known: 0 };
  readonly #rows: StoreRows;
  readonly #families: FamilyCount;
  readonly #sums;
  readonly #entries = new Uint32Array(ENTRIES * 2);
  readonly #header = new Float64Array(8);
  /** groups that this life of the daemon has taken into use: what of them is not zero it is zeroing */
  readonly #active = new Set<string>();
  /** batches that were durable when what is told was last compared */
  #heard = -1;
  /** step before which not all that is told is compared */
  #toldAt = 0;
  #countAt = 0;
  /** names were on their way out or in a turn ago */
  #going = false;

  constructor(readonly host: SpaceHost) {
    const { db } = host.store;
    this.#rows = storeRows(db);
    this.#families = new FamilyCount(db, host.codec);
    this.#sums = db.prepare(`SELECT
      (SELECT coalesce(sum(mapped), 0) FROM resource WHERE pool = @pool) AS mapped,
      (SELECT coalesce(sum(size), 0) FROM resource WHERE pool = @pool) AS logical,
      (SELECT coalesce(sum(used), 0) FROM slot_group WHERE pool = @pool) AS used,
      (SELECT count(*) FROM release WHERE pool = @pool) AS queued`);
  }

  /** A life of the daemon begins. */
  born(): void {
    this.#active.clear();
    this.#heard = -1;
    this.#toldAt = 0;
    this.#countAt = 0;
    this.#going = false;
  }

  // ---- after every commit

  /** Batches are durable: what they changed adds up (1, 2, 3), and what the pools map is what they use, or more (7). */
  committed(batches: readonly CommitBatch[]): void {
    this.looks.commits++;
    const groups = new Map<string, [number, number]>();
    for (const batch of batches) {
      for (const row of batch.resources) this.#record(row.id);
      for (let i = 0; i < batch.pages.length; i += 4) this.#page(batch.pages[i]);
      for (const { pool, grp, state } of batch.groups) if (state === GROUP_ACTIVE) this.#active.add(`${pool}/${grp}`);
      for (const runs of [batch.taken, batch.freed])
        for (let i = 0; i < runs.length; i += 3) {
          const grp = Math.floor(runs[i + 1] / this.host.disks[runs[i] - 1].row.group_slots);
          groups.set(`${runs[i]}/${grp}`, [runs[i], grp]);
        }
    }
    for (const [pool, grp] of groups.values()) {
      const row = this.host.store.reader.group(pool, grp);
      if (row !== undefined && row.used !== bitCount(row.bitmap))
        this.#wrong(`group ${grp} of pool ${pool}: ${row.used} used, ${bitCount(row.bitmap)} set`);
    }
    for (const { row } of this.host.disks) {
      const { mapped, used, queued } = this.#sumsOf(row.id);
      if (queued === 0 && mapped < used) this.#wrong(`pool ${row.name}: ${mapped} places for ${used} slots`);
    }
  }

  #record(id: number): void {
    const { reader } = this.host.store;
    const row = reader.resource(id);
    if (row === undefined) return; // gone by a later batch
    const root = row.root === 0 ? undefined : reader.page(row.root);
    const mapped = root === undefined ? 0 : mappedOf(root);
    if (row.mapped !== mapped) this.#wrong(`resource ${id}: its record says ${row.mapped} blocks, its root ${mapped}`);
    const places = Math.ceil(row.size / 2 ** this.host.disks[row.pool - 1].row.block_shift);
    if (row.mapped > places) this.#wrong(`resource ${id}: ${row.mapped} blocks are mapped, it has ${places}`);
  }

  /** What of it cannot be read is for `check` to find. */
  #page(id: number): void {
    const { reader } = this.host.store;
    const blob = reader.page(id);
    if (blob === undefined) return;
    let found = blob.readUInt16LE(COUNT_AT);
    if (blob[LEVEL_AT] > 0) {
      const entries = this.#entries;
      if (this.host.codec.decodePageTo(blob, id, entries, this.#header) !== 0) return;
      found = 0;
      for (let i = 0; i < ENTRIES * 2; i += 2) {
        const value = entries[i] + (entries[i + 1] & 0xffff) * 2 ** 32;
        if (value === 0) continue;
        const child = reader.page(value);
        if (child === undefined) return;
        found += mappedOf(child);
      }
    }
    if (mappedOf(blob) !== found) this.#wrong(`page ${id} says ${mappedOf(blob)} blocks, has ${found}`);
  }

  // ---- after every turn of the mapper

  /** @param last the daemon has stopped: all is compared */
  turned(last = false): void {
    const { mapper, store, steps } = this.host;
    for (const pool of mapper.pools.values()) this.#bounded(pool);
    const going = mapper.registry.naming;
    if ((steps >= this.#countAt || (going && !this.#going)) && !this.host.faulty) this.#countUnknown();
    // what was counted with somebody who goes is compared as soon as it can be
    if (going) this.#toldAt = 0;
    this.#going = going;
    if (!this.#settled()) return;
    if (last || steps >= this.#toldAt) this.#compareAll();
    else if (store.batches !== this.#heard) this.#compareSums();
    this.#heard = store.batches;
  }

  /** What is freed was used, and no slot is both used and on its way back (5). */
  #bounded(pool: SlotPool): void {
    const { usedSlots, freeingSlots, reclaimingSlots, heldSlots, lostSlots, slotLimit } = pool;
    if (freeingSlots < 0 || freeingSlots > usedSlots)
      this.#wrong(`pool ${pool.row.name}: ${freeingSlots} of ${usedSlots} used slots are being freed`);
    const back = reclaimingSlots + heldSlots + lostSlots;
    if (usedSlots + back > slotLimit)
      this.#wrong(`pool ${pool.row.name}: ${usedSlots} slots used and ${back} on their way back, of ${slotLimit}`);
  }

  /**
   * What the engine says is what is durable: no batch, grant or stream is on its way, and nothing waits to be one. Of a
   * life that was broken on purpose nothing is promised but what is durable.
   */
  #settled(): boolean {
    const { mapper, faulty } = this.host;
    if (faulty || mapper.commits.inFlight > 0 || mapper.faults.grantsOut > 0 || mapper.ingests.active > 0) return false;
    // nobody lists what is being deleted: its name is on its way out
    if (mapper.registry.naming) return false;
    const { dirty, frames, turns } = mapper.waiting();
    if (dirty + frames + turns > 0) return false;
    for (const r of mapper.registry.all()) if (!r.clean || r.failed !== 0) return false;
    return true;
  }

  /** Used, mapped and logical bytes, capacity (5), and that nothing is to be released when nothing is queued (4). */
  #compareSums(): void {
    this.looks.sums++;
    const { mapper, disks } = this.host;
    let queued = 0;
    for (const usage of mapper.reports.poolUsage()) {
      const { name, block_shift } = disks[usage.id - 1].row;
      const sums = this.#sumsOf(usage.id);
      const blockSize = 2 ** block_shift;
      queued += sums.queued;
      const same = (what: string, said: number, is: number) => {
        if (said !== is) this.#wrong(`pool ${name}, ${what}: the engine says ${said}, it is ${is}`);
      };
      same('used', usage.usedBytes, sums.used * blockSize);
      same('mapped', usage.mappedBytes, sums.mapped * blockSize);
      same('logical', usage.logicalBytes, sums.logical);
      same('capacity', usage.capacityBytes, usage.usedBytes + usage.freeBytes);
      if (sums.queued === 0) same('releasing', usage.releasingBytes, 0);
    }
    if (mapper.freeing.queued !== queued)
      this.#wrong(`the engine says that ${mapper.freeing.queued} releases are queued, ${queued} are`);
  }

  // ---- now and then

  /** All equations on what is durable, the long way. */
  walk(): void {
    this.looks.walks++;
    this.#none(account(this.#rows, this.#decode).errors);
  }

  /**
   * The same, and all that the engine says: first what it still believes of how much is exclusive since it was last
   * counted, then what it is told now.
   */
  #compareAll(): void {
    const { mapper, store, steps } = this.host;
    const rows = [...store.reader.resourceIds(KIND_VOLUME), ...store.reader.resourceIds(KIND_SNAPSHOT)];
    // who asks for one that memory does not have changes what memory has
    if (rows.some((id) => !mapper.registry.known(id))) return;
    this.looks.told++;
    this.#toldAt = steps + TOLD_STEPS;
    this.#compareSums();
    const accounts = account(this.#rows, this.#decode);
    this.#none([...accounts.errors, ...toldErrors(accounts, this.#rows, this.#told())]);
    for (const family of familiesOf(this.#rows.resources())) this.#count(family);
    const told = this.#told();
    this.#none(toldErrors(accounts, this.#rows, told));
    for (const { exclusiveBytes } of [...told.volumes, ...told.snapshots])
      if (exclusiveBytes !== null) this.looks.known++;
    for (const disk of this.host.disks) this.#physical(disk);
  }

  #told(): Told {
    const { mapper, store, disks } = this.host;
    const { views } = mapper.steps;
    const all = (kind: number) => store.reader.resourceIds(kind).map((id) => mapper.registry.known(id) as Resource);
    const pools = mapper.reports.poolUsage().map((usage) => {
      const { uuid, name, block_shift } = disks[usage.id - 1].row;
      const account = mapper.reports.poolAccount(usage.id);
      const known = 'missing' in account ? { exclusiveBytes: null, sharedBytes: null } : account;
      return { ...usage, ...known, id: uuid, name, blockSize: 2 ** block_shift, state: 'ok' as const };
    });
    return {
      pools,
      volumes: all(KIND_VOLUME).map((r) => views.volume(r)),
      snapshots: all(KIND_SNAPSHOT).map((r) => views.snapshot(r)),
    };
  }

  /** What is not known of how much is exclusive is counted, whatever else is on its way, as when somebody asks. */
  #countUnknown(): void {
    const { mapper, steps } = this.host;
    this.#countAt = steps + COUNT_STEPS;
    for (const family of familiesOf(this.#rows.resources()))
      if (family.some((row) => mapper.accounting.exclusiveBlocks(row) === null)) this.#count(family);
  }

  /** As accountant.ts has it counted. Not where that makes a commit. */
  #count([{ pool, grp }]: ResourceRow[]): void {
    const { accounting, registry } = this.host.mapper;
    for (const r of registry.all()) if (r.row.pool === pool && r.row.grp === grp && !r.clean) return;
    accounting.begin({ pool, grp }, (ticket) => {
      if (ticket === null) return;
      const { blocks, foreign, transient } = this.#families.count({ id: 0, pool, family: grp });
      if (blocks !== null && !transient) accounting.end(ticket, blocks, foreign);
    });
  }

  /** What takes space is used, being zeroed, or free and not known to be zero (6). A device takes what it has. */
  #physical({ row, takenBlocks }: SimDisk): void {
    const pool = this.host.mapper.pools.get(row.id);
    if (pool === undefined || row.kind === 'device') return;
    const { reader } = this.host.store;
    let unknown = 0;
    for (const { grp } of reader.groups(row.id)) {
      const group = reader.group(row.id, grp);
      if (group === undefined || this.#active.has(`${row.id}/${grp}`)) continue;
      const { bitmap, dirty, state } = group;
      for (let i = 0; i < bitmap.length; i++) {
        const maybe = state === GROUP_ACTIVE || dirty === null ? 0xff : dirty[i];
        unknown += bitCount(Uint8Array.of(maybe & ~bitmap[i]));
      }
    }
    const most = pool.usedSlots + pool.reclaimingSlots + pool.heldSlots + pool.lostSlots + unknown;
    if (takenBlocks > most)
      this.#wrong(`pool ${row.name}: ${takenBlocks} blocks take space, ${most} may (${unknown} not known to be zero)`);
  }

  readonly #decode = (blob: Uint8Array, id: number, entries: Uint32Array, header: Float64Array): number =>
    this.host.codec.decodePageTo(blob, id, entries, header);

  #sumsOf(pool: number): Sums {
    return this.#sums.get({ pool }) as Sums;
  }

  #none(errors: string[]): void {
    if (errors.length > 0) this.#wrong(errors.slice(0, 6).join('; '));
  }

  #wrong(what: string): never {
    return this.host.fail(`accounts: ${what}`);
  }
}

function mappedOf(blob: Buffer): number {
  return blob.readUInt32LE(MAPPED_AT) + blob.readUInt32LE(MAPPED_AT + 4) * 2 ** 32;
}

/** Who descends from one volume, each. */
function familiesOf(rows: Iterable<ResourceRow>): ResourceRow[][] {
  const families = new Map<string, ResourceRow[]>();
  for (const row of rows) {
    const family = families.get(`${row.pool}/${row.grp}`);
    if (family === undefined) families.set(`${row.pool}/${row.grp}`, [row]);
    else family.push(row);
  }
  return [...families.values()];
}
