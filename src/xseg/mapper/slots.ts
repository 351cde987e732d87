/**
 * A pool's slots: which are used, which are free and known to be zero, and which group a volume allocates from
 * (docs/format.md, "Which slots are known to be zero"). Owned by the mapper peer.
 *
 * Slots that are handed out always read as zeroes, so a first write copies and zeroes nothing.
 */
import type { Native } from '../native.ts';
import type { GroupChange, PoolRow } from '../store/batch.ts';
import { GROUP_ACTIVE, GROUP_SEALED } from '../store/batch.ts';
import { bitCount, bitFill, bitGet, findClearRun } from '../store/bitmap.ts';
import type { StoreReader } from '../store/reader.ts';
import type { PoolLevel } from '../types.ts';
import { type Clock, systemClock } from './clock.ts';
import { CRITICAL_PERCENT_DEFAULT, Fullness, fullPercent, WARN_PERCENT_DEFAULT } from './fullness.ts';
import { Holding } from './holding.ts';
import { Supply, type SupplyHost } from './supply.ts';
import { Zeroing, type ZeroingHost } from './zeroing.ts';

/** Groups kept ready so that a volume that starts to write finds one. */
const SPARE_GROUPS = 2;
/** A volume whose group has fewer free slots than this share of it makes the pool prepare one more. */
const LOW_SHARE = 0.25;
/**
 * Loaded groups with at least that share free, beyond which none is prepared: volumes that come then share them, and a pool of
 * many small volumes has no file for each.
 */
export const ROOMY_GROUPS_MAX = 48;
/** Thin pools answer NO_SPACE while the file system has less than this, so that metadata can always free something. */
export const THIN_RESERVE_BYTES = 64 * 1024 * 1024;
/** Slots that copies have let go are given to zeroing while it has fewer than this. */
const ZEROING_SLOTS_MAX = 65536;

/** Between two looks at how full the pool is, while it changes and while it does not. */
const WATCH_MS = 1000;
const WATCH_IDLE_MS = 30_000;

export interface Group {
  grp: number;
  /** first slot */
  first: number;
  /** 1 = handed out, or freed and not yet durable */
  used: Uint8Array;
  /** 1 = cannot be handed out: used, not zeroed yet, or beyond the end */
  unavailable: Uint8Array;
  available: number;
  usedCount: number;
  cursor: number;
  ready: boolean;
  /** resource id that allocates from it; 0 nobody */
  owner: number;
  /** slots were zeroed since the last data sync */
  zeroed: boolean;
  /** syncs on their way that volumes left it for */
  syncing: number;
}

export interface SlotRun {
  slot: number;
  count: number;
}

/** What the pool needs from its surroundings. */
export interface PoolHost {
  /** makes a group active in the store (its file first); `done(false)` when it could not be */
  activate(pool: number, change: GroupChange, ensure: number[], done: (ok: boolean) => void): void;
  ticket(done: (error: number) => void): number;
  guestsBusy(now: number): boolean;
  /** what was deleted gives slots back before long */
  comes(): boolean;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

export class SlotPool {
  readonly blockSize: number;
  readonly groupSlots: number;
  /** slots used or freed and not yet durable */
  usedSlots: number;
  /** freed, not durable yet */
  freeingSlots = 0;
  failed = false;
  /** counters that only grow: handed out, freed for good, zeroed again */
  slotsTaken = 0;
  slotsFreed = 0;
  slotsZeroed = 0;
  waiters: (() => void)[] = [];
  #groups = new Map<number, Group>();
  readonly #supply: Supply;
  #preparing = 0;
  /** the daemon ends: what has no owner is told to be zero */
  #sealed = false;
  readonly #zeroing: Zeroing;
  /** freed slots that copies of the store may name */
  readonly holding: Holding;
  /** a copy from before this start is named: free slots that are not known to be zero may be in it */
  oldCopies = false;
  /** somebody waits for slots, and there is nothing but what is held */
  pressed = false;
  /** copies cannot be removed: nobody should wait for what they hold */
  copiesStay = false;
  readonly #fullness: Fullness;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #lookedUsed = -1;
  /** somebody was told to wait since space came back */
  #wanted = false;
  #usageAt = 0;
  #fsFree = Number.MAX_SAFE_INTEGER;

  constructor(
    readonly row: PoolRow,
    readonly handle: number,
    readonly native: Native,
    readonly core: number,
    readonly reader: StoreReader,
    readonly host: PoolHost,
    readonly clock: Clock = systemClock,
    levels = { warnPercent: WARN_PERCENT_DEFAULT, criticalPercent: CRITICAL_PERCENT_DEFAULT },
  ) {
    this.#fullness = new Fullness(levels.warnPercent, levels.criticalPercent);
    this.blockSize = 2 ** row.block_shift;
    this.groupSlots = row.group_slots;
    const zeroing: ZeroingHost = {
      ticket: host.ticket,
      busy: (grp) => (this.#groups.get(grp)?.owner ?? 0) !== 0,
      zeroed: (slot, count) => this.#zeroed(slot, count),
      lost: (slots, errno) =>
        host.log('error', 'zeroing freed slots failed; they stay out of use', { pool: row.name, slots, errno }),
      ended: () => this.wake(),
      guestsBusy: host.guestsBusy,
    };
    this.#zeroing = new Zeroing(native, core, handle, this.blockSize, this.groupSlots, zeroing, clock);
    this.holding = new Holding(this.groupSlots);
    this.usedSlots = 0;
    const stored = [...reader.groups(row.id)];
    for (const { used } of stored) this.usedSlots += used;
    const supply: SupplyHost = {
      groupSlots: this.groupSlots,
      isDirectory: row.kind === 'directory',
      slotLimit: () => this.slotLimit,
      isLoaded: (grp) => this.#groups.has(grp),
      preparing: () => this.#preparing,
      hasRoom: () => this.#hasRoom(),
      holdsBack: () => this.oldCopies,
    };
    this.#supply = new Supply(stored, supply, clock);
  }

  get id(): number {
    return this.row.id;
  }

  /** File of the pool that a slot lies in. */
  fileOf(slot: number): number {
    return this.row.kind === 'directory' ? Math.floor(slot / this.groupSlots) : 0;
  }

  /** Files that there were when the daemon started. */
  files(): number[] {
    const { stored } = this.#supply;
    if (this.row.kind === 'directory') return stored;
    return stored.length > 0 ? [0] : [];
  }

  /** freed durable, waiting for readers or zeroing */
  get reclaimingSlots(): number {
    return this.#zeroing.waitingSlots + this.holding.ready;
  }

  /** freed durable, and kept as they are because a copy of the store may name them */
  get heldSlots(): number {
    return this.holding.held;
  }

  /** freed durable, but they could not be zeroed: nobody waits for them */
  get lostSlots(): number {
    return this.#zeroing.lostSlots;
  }

  /** slots the pool can hold as declared; Infinity for thin pools */
  get slotLimit(): number {
    return this.row.size > 0 ? Math.floor(this.row.size / this.blockSize) : Number.POSITIVE_INFINITY;
  }

  usage(): {
    capacityBytes: number;
    usedBytes: number;
    freeBytes: number;
    physicalBytes: number;
    reclaimingBytes: number;
    fullPercent: number;
    level: PoolLevel;
  } {
    const native = this.native.poolUsage(this.core, this.handle);
    this.#takeUsage(native);
    this.#lookedAt = this.clock.now();
    this.#lookedUsed = this.usedSlots;
    const used = (this.usedSlots - this.freeingSlots) * this.blockSize;
    const thinFree = Math.max(0, this.#fsFree - THIN_RESERVE_BYTES);
    const capacity = this.row.size > 0 ? this.slotLimit * this.blockSize : used + thinFree;
    const percent = fullPercent(used, capacity);
    this.#tellLevel(percent, capacity - used);
    return {
      fullPercent: Math.round(percent * 10) / 10,
      level: this.#fullness.level,
      capacityBytes: capacity,
      usedBytes: used,
      freeBytes: Math.max(0, capacity - used),
      physicalBytes: native.physicalBytes,
      reclaimingBytes: (this.reclaimingSlots + this.heldSlots + this.freeingSlots + this.lostSlots) * this.blockSize,
    };
  }

  /** Once per crossing. */
  #tellLevel(percent: number, freeBytes: number): void {
    const before = this.#fullness.look(percent);
    if (before === null) return;
    const { level } = this.#fullness;
    const event = level === 'ok' ? 'a pool has room again' : 'a pool is running full';
    const fields = { pool: this.row.name, level, before, usedPercent: Math.round(percent * 10) / 10, freeBytes };
    this.host.log(level === 'ok' ? 'info' : 'warn', event, fields);
  }

  /** Looks whether it is running full: soon after it was written to, else now and then (others fill file systems too). */
  watch(now: number): void {
    const age = now - this.#lookedAt;
    if (age < WATCH_MS || (age < WATCH_IDLE_MS && this.usedSlots === this.#lookedUsed)) return;
    this.usage();
  }

  #takeUsage(usage: { capacityBytes: number; physicalBytes: number; failed: boolean }): void {
    this.#usageAt = this.clock.now();
    this.#fsFree = this.row.size > 0 ? Number.MAX_SAFE_INTEGER : Math.max(0, usage.capacityBytes - usage.physicalBytes);
    this.failed = usage.failed;
  }

  /** Asks the core, which hears first of a sync that failed. */
  hasFailed(): boolean {
    this.#takeUsage(this.native.poolUsage(this.core, this.handle));
    return this.failed;
  }

  #thinFull(): boolean {
    if (this.row.size > 0) return false;
    if (this.clock.now() - this.#usageAt > 1000) this.#takeUsage(this.native.poolUsage(this.core, this.handle));
    return this.#fsFree < THIN_RESERVE_BYTES;
  }

  /**
   * Takes up to `count` contiguous slots for a resource.
   * @returns the run; 'wait' when some will come (put yourself in `waiters`); 'full' when there are none; 'failed' when
   *   the pool takes no writes any more, since it has failed or the daemon ends
   */
  allocate(owner: { id: number; group: Group | null }, count: number): SlotRun | 'wait' | 'full' | 'failed' {
    const run = this.#allocate(owner, count);
    if (run === 'wait') this.#wanted = true;
    return run;
  }

  #allocate(owner: { id: number; group: Group | null }, count: number): SlotRun | 'wait' | 'full' | 'failed' {
    if (this.failed || this.#sealed) return 'failed';
    if (this.#thinFull()) return this.#outlook();
    for (let tries = 0; tries < 3; tries++) {
      let group = owner.group;
      if (group === null || group.available === 0 || !group.ready) {
        if (group !== null) {
          group.owner = 0;
          owner.group = null;
        }
        group = this.#pick(owner.id);
        if (group === null) return this.#prepare() ? 'wait' : this.#outlook();
        group.owner = owner.id;
        owner.group = group;
      }
      let [start, length] = findClearRun(group.unavailable, this.groupSlots, group.cursor, count);
      if (length === 0) [start, length] = findClearRun(group.unavailable, this.groupSlots, 0, count);
      if (length === 0) {
        group.available = 0;
        continue;
      }
      bitFill(group.used, start, length, true);
      bitFill(group.unavailable, start, length, true);
      group.available -= length;
      group.usedCount += length;
      group.cursor = start + length;
      this.usedSlots += length;
      this.slotsTaken += length;
      if (group.available < this.groupSlots * LOW_SHARE) this.#prepare();
      return { slot: group.first + start, count: length };
    }
    return 'wait';
  }

  /** No group can be made ready: is space on its way back? */
  #outlook(): 'wait' | 'full' {
    if (this.#preparing > 0 || this.reclaimingSlots > 0 || this.freeingSlots > 0 || this.host.comes()) return 'wait';
    return this.#held();
  }

  /** Nothing else is on its way: is anything held that copies could let go? */
  #held(): 'wait' | 'full' {
    if (this.copiesStay || (this.heldSlots === 0 && this.holding.ready === 0)) return 'full';
    this.pressed = true;
    return 'wait';
  }

  #pick(owner: number): Group | null {
    let best: Group | null = null;
    for (const group of this.#groups.values()) {
      if (!group.ready || group.available === 0) continue;
      if (group.owner === owner) return group;
      if (group.owner !== 0) continue;
      if (best === null || comesBefore(group, best)) best = group;
    }
    if (best !== null) {
      this.#prepare();
      return best;
    }
    if (this.#canPrepare()) return null;
    // nothing of its own to be had: share the emptiest
    for (const group of this.#groups.values()) {
      if (group.ready && group.available > 0 && (best === null || group.available > best.available)) best = group;
    }
    return best;
  }

  #canPrepare(): boolean {
    return this.#preparing > 0 || (this.#roomyGroups() < ROOMY_GROUPS_MAX && this.#supply.next() >= 0);
  }

  /** Whoever has them. */
  #roomyGroups(): number {
    let roomy = 0;
    for (const group of this.#groups.values())
      if (group.ready && group.available >= this.groupSlots * LOW_SHARE) roomy++;
    return roomy;
  }

  #hasRoom(): boolean {
    for (const group of this.#groups.values()) if (group.ready && group.available > 0) return true;
    return false;
  }

  /** Makes sure spare groups are ready or on their way; false when there is nothing to prepare. */
  #prepare(): boolean {
    const many = this.groupSlots * LOW_SHARE;
    let roomy = this.#preparing;
    let spare = this.#preparing;
    let coming = 0;
    for (const group of this.#groups.values()) {
      if (!group.ready) continue;
      const hasRoom = group.available >= many;
      if (hasRoom) roomy++;
      if (group.owner !== 0) continue;
      if (hasRoom) spare++;
      else if ((this.#zeroing.pending(group.grp)?.coming ?? 0) >= many) coming++;
    }
    for (; spare < SPARE_GROUPS && roomy < ROOMY_GROUPS_MAX; spare++, roomy++) {
      // Enough is being zeroed: only what is zero from the start is worth having before that.
      const grp = spare + coming < SPARE_GROUPS ? this.#supply.next() : this.#supply.fresh();
      if (grp < 0) break;
      this.#activate(grp);
    }
    return this.#preparing > 0;
  }

  /** Loads or makes a group, makes it active in the store, zeroes what is not known to be zero, and declares it ready. */
  #activate(grp: number): void {
    const row = this.reader.group(this.id, grp);
    const used = row === undefined ? new Uint8Array(this.groupSlots / 8) : Uint8Array.from(row.bitmap);
    const unavailable = Uint8Array.from(used);
    if (row === undefined) {
      // a file of a directory is made with its group; a device, or a file that was there before, may hold anything
      if (this.row.kind !== 'directory') unavailable.fill(0xff);
    } else {
      for (let i = 0; i < unavailable.length; i++)
        unavailable[i] |= row.state === GROUP_ACTIVE ? 0xff : (row.dirty?.[i] ?? 0xff);
    }
    const first = grp * this.groupSlots;
    const beyond = Math.max(0, first + this.groupSlots - this.slotLimit);
    if (beyond > 0) bitFill(unavailable, this.groupSlots - beyond, beyond, true);
    const group: Group = {
      grp,
      first,
      used,
      unavailable,
      available: this.groupSlots - bitCount(unavailable),
      usedCount: row?.used ?? 0,
      cursor: 0,
      ready: false,
      owner: 0,
      zeroed: false,
      syncing: 0,
    };
    this.#groups.set(grp, group);
    this.#supply.taken(grp);
    this.#preparing++;
    const ensure = this.row.kind === 'directory' ? [this.handle, grp] : [this.handle, 0];
    this.host.activate(this.id, { pool: this.id, grp, state: GROUP_ACTIVE, dirty: null }, ensure, (ok) => {
      this.#preparing--;
      if (!ok) {
        this.#groups.delete(grp);
        this.#supply.couldNotBe(grp, row !== undefined);
        this.wake();
        return;
      }
      this.#supply.prepared(grp);
      group.ready = true;
      this.#zeroUnknown(group, beyond);
      this.#wake();
    });
  }

  /** Free slots of a loaded group that are not known to be zero go through the zeroing queue like freed ones. */
  #zeroUnknown(group: Group, beyond: number): void {
    const runs: number[] = [];
    const queued = this.#zeroing.pending(group.grp)?.slots;
    const held = this.holding.pending(group.grp);
    let start = -1;
    for (let i = 0; i <= this.groupSlots - beyond; i++) {
      const unknown =
        i < this.groupSlots - beyond &&
        bitGet(group.unavailable, i) &&
        !bitGet(group.used, i) &&
        (queued === undefined || !bitGet(queued, i)) &&
        (held === undefined || !bitGet(held, i));
      if (unknown && start < 0) start = i;
      if (!unknown && start >= 0) {
        runs.push(group.first + start, i - start);
        start = -1;
      }
    }
    if (this.oldCopies) this.holding.add(runs);
    else this.#zeroing.add(0, runs, true);
  }

  /** Slots handed out that no commit ever named: back, as soon as nobody can hold them. */
  abandon(slot: number, count: number): void {
    this.#unuse(slot, count);
    this.#queue([slot, count]);
  }

  /** Runs [slot, count, …] whose freeing is durable. */
  freedDurable(runs: number[]): void {
    let slots = 0;
    for (let i = 0; i < runs.length; i += 2) {
      this.#unuse(runs[i], runs[i + 1]);
      slots += runs[i + 1];
    }
    this.freeingSlots -= slots;
    if (!this.holding.on) {
      this.#queue(runs);
      return;
    }
    this.holding.add(runs);
    // who waited for them to be durable must say now that copies are what they wait for
    if (this.waiters.length > 0) this.wake();
  }

  #unuse(slot: number, count: number): void {
    const grp = Math.floor(slot / this.groupSlots);
    const group = this.#groups.get(grp);
    if (group !== undefined) {
      // a group that was read after the commit that freed them has them free already
      group.usedCount -= bitFill(group.used, slot - group.first, count, false);
    } else {
      this.#supply.freed(grp, count);
    }
    this.usedSlots -= count;
    this.slotsFreed += count;
  }

  #queue(runs: number[]): void {
    this.#zeroing.add(this.native.epochAdvance(this.core), runs, false);
  }

  /** A run reads as zeroes now. */
  #zeroed(slot: number, count: number): void {
    this.slotsZeroed += count;
    const group = this.#groups.get(Math.floor(slot / this.groupSlots));
    if (group === undefined) return;
    const from = slot - group.first;
    for (let i = from; i < from + count; i++)
      if (!bitGet(group.used, i)) group.available += bitFill(group.unavailable, i, 1, false);
    group.zeroed = true;
  }

  /** Milliseconds until it wants a turn. */
  waitMs(now: number): number {
    if (!this.failed && this.holding.ready > 0) return 0;
    return this.failed ? Number.POSITIVE_INFINITY : this.#zeroing.waitMs(now);
  }

  /** Starts zeroing what is due. Called every turn of the mapper. */
  turn(): void {
    if (this.failed) {
      // nothing comes back to a pool that has failed: who waits is told
      if (this.waiters.length > 0) this.#wake();
      return;
    }
    if (this.holding.ready > 0 && this.#zeroing.waitingSlots < ZEROING_SLOTS_MAX)
      this.#queue(this.holding.take(ZEROING_SLOTS_MAX));
    this.#zeroing.turn(this.#wanted);
    // what they wait for may have come to nothing
    if (this.wanted && this.#outlook() === 'full') this.#wake();
  }

  /** Somebody waits for slots. */
  get wanted(): boolean {
    return this.#wanted && this.waiters.length > 0;
  }

  /** Copies have let slots go, or never will: who waits looks again. */
  letGo(): void {
    this.pressed = false;
    this.wake();
  }

  #wake(): void {
    this.#wanted = false;
    const waiters = this.waiters;
    this.waiters = [];
    for (const run of waiters) run();
  }

  /** Space, or what the pool is able to, may have changed: who waits looks again. */
  wake(): void {
    this.hasFailed();
    this.#wake();
  }

  releaseOwner(owner: { id: number; group: Group | null }): void {
    if (owner.group !== null && owner.group.owner === owner.id) owner.group.owner = 0;
    owner.group = null;
  }

  /**
   * The owner goes on in another group, where there is one: its own is about to be synced, and ext4 holds up writes of
   * new blocks into a file while it finds places for what it writes back. Call what it returns when that is over.
   */
  leave(owner: { id: number; group: Group | null }): () => void {
    const group = owner.group;
    if (group === null) return () => undefined;
    this.releaseOwner(owner);
    group.syncing++;
    return () => void group.syncing--;
  }

  /** Grown: slots beyond the old end become free. */
  resized(size: number): void {
    const oldLimit = this.slotLimit;
    this.row.size = size;
    const limit = this.slotLimit;
    this.#supply.tryAgain();
    for (const group of this.#groups.values()) {
      const from = Math.max(group.first, Number.isFinite(oldLimit) ? oldLimit : 0);
      const to = Math.min(group.first + this.groupSlots, limit);
      if (Number.isFinite(oldLimit) && to > from && from >= oldLimit) {
        // a copy that is newer than the store that was recovered may name them
        if (this.oldCopies) this.holding.add([from, to - from]);
        else this.#zeroing.add(0, [from, to - from], true);
      }
    }
    this.wake();
  }

  /** Files to sync and rows to write so that the next start knows what is zero. From here on no slot is handed out. */
  seal(): { files: number[]; changes: GroupChange[] } {
    this.#sealed = true;
    const files: number[] = [];
    const changes: GroupChange[] = [];
    for (const group of this.#groups.values()) {
      if (!group.ready) continue;
      // slots that were handed out and never committed are free in the store, whatever was written to them
      changes.push({ pool: this.id, grp: group.grp, state: GROUP_SEALED, dirty: Uint8Array.from(group.unavailable) });
      if (group.zeroed) files.push(this.row.kind === 'directory' ? group.grp : 0);
    }
    return { files: [...new Set(files)], changes };
  }
}

/** Which of two groups without an owner is taken: one that is not being synced, then the first, so that few are in use. */
function comesBefore(a: Group, b: Group): boolean {
  if (a.syncing > 0 !== b.syncing > 0) return a.syncing === 0;
  return a.grp < b.grp;
}
