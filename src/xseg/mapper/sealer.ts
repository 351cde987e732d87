/**
 * Sealing in the background (docs/format.md, "Sealing"): takes the snapshots of pools that want it, the oldest first, has
 * their blocks hashed off the thread, stores what was found, and folds equal blocks. Two groups of leaves are under way at a
 * time: one whose blocks are hashed, and behind it the one before, whose rows are stored and whose entries fold. Owned by the
 * mapper peer.
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { type HashResult, type HashWish, JOB_BYTES_MAX, SLOT_HASHED, SLOT_UNREADABLE } from '../seal/job.ts';
import { nodeHash, resourceHash, ZERO_HASH, zeroBlockHash } from '../seal/tree-hash.ts';
import type { StoreReader } from '../store/reader.ts';
import { emptySeal, HASH_BYTES, type SealChanges, type SealPoolRow } from '../store/seal-batch.ts';
import type { SealInfo } from '../types.ts';
import { Backlog, type BacklogHost } from './backlog.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import { type Fold, Folding, type FoldingHost, type Move, TO_ZEROES } from './folding.ts';
import type { Frames } from './frames.ts';
import type { Resource } from './resource.ts';
import { type Leaf, SealWalk } from './seal-walk.ts';
import type { SlotPool } from './slots.ts';
import { heightFor, type Tree } from './tree.ts';

/** Slots and bytes of a group, unless one leaf has more: its rows are one transaction, which flushes wait for. */
const GROUP_SLOTS_MAX = 2048;
const GROUP_BYTES_MAX = 128 * 1024 * 1024;
/** The list of snapshots is looked at again after this at the soonest. */
const LOOK_MS = 200;
/** A snapshot that could not be sealed (a slot that cannot be read, a damaged page) is tried again after this. */
const RETRY_MS = 60_000;
/** A row of `sealed` with its part of the index, about. */
export const SEALED_ROW_BYTES = 70;

export interface SealerHost extends Omit<FoldingHost, 'listed'>, Pick<BacklogHost, 'pendingFrom'> {
  /** damaged blocks of a pool */
  quarantined(pool: number): number;
  /** hashes slots on another thread; null when that failed */
  hash(job: HashWish, done: (result: HashResult | null) => void): void;
  pool(id: number): SlotPool | undefined;
  /** a snapshot that is there and not going */
  resource(id: number): Resource | undefined;
  /** a group of releases is on its way */
  freeing(): boolean;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

/** A group of leaves on its way. */
interface Group {
  leaves: Leaf[];
  /** all their slots, ascending, each once */
  slots: Float64Array;
  /** per slot, as results come */
  states: Uint8Array;
  hashes: Buffer;
  same: Float64Array;
  /** slots asked for so far */
  asked: number;
}

/** Rows of the index that jobs of the group behind may not have seen. */
interface Recent {
  slots: Set<number>;
  /** hash → slot */
  byHash: Map<string, number>;
}

interface Run {
  id: number;
  pool: SlotPool;
  name: string;
  size: number;
  height: number;
  walk: SealWalk;
  /** of the group in front; 'wait': its job is out, 'finish': there is none any more, 'end': it is given up, or put off */
  phase: 'walk' | 'hash' | 'wait' | 'finish' | 'end';
  putOff: boolean;
  group: Group | null;
  /** of the group behind; 'wait': what was found is not durable yet */
  behind: 'none' | 'wait' | 'fold';
  folds: Fold[];
  /** of the group behind, or the last that was */
  recent: Recent;
}

export class Sealer {
  readonly folding: Folding;
  readonly #settings = new Map<number, SealPoolRow>();
  /** leaves of the group in front, and of the one behind */
  #held = new Set<number>();
  #heldBehind = new Set<number>();
  #run: Run | null = null;
  #poked = true;
  #lookAt = 0;
  /** monotonic ms before which nothing more is read */
  #paceAt = 0;
  readonly #backlog: Backlog;

  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly reader: StoreReader,
    readonly commits: Commits,
    readonly native: Native,
    readonly clock: Clock,
    readonly host: SealerHost,
    readonly groupSlots = GROUP_SLOTS_MAX,
  ) {
    this.folding = new Folding(frames, tree, reader, commits, native, {
      ...host,
      listed: (pool) => this.added(pool, 1),
    });
    this.#backlog = new Backlog(reader.seal, {
      pendingFrom: host.pendingFrom,
      there: (id) => host.resource(id) !== undefined,
    });
  }

  // ---- what others ask

  /** The page is being sealed: freeing puts it off. */
  held(page: number): boolean {
    return this.#held.has(page) || this.#heldBehind.has(page);
  }

  /** The slot is in the index: it must not become writable in place. */
  indexed(pool: number, slot: number): boolean {
    return this.settings(pool).entries !== 0 && this.reader.seal.row(pool, slot) !== undefined;
  }

  /** Changes of references are on their way. */
  get locked(): boolean {
    return this.folding.locked;
  }

  /** Milliseconds until it has something to do, as far as it knows; whole, at least 1. */
  dueIn(): number {
    const run = this.#run;
    let at = Number.POSITIVE_INFINITY;
    if (run === null) at = this.#poked && this.#on ? this.#lookAt : at;
    else if (run.behind === 'fold') at = 0;
    else if (run.phase === 'finish' || run.phase === 'end' || this.#hashed(run)) at = run.behind === 'none' ? 0 : at;
    else if (run.phase !== 'wait') at = this.#wanted(run.pool.id) ? this.#paceAt : 0;
    return at === Number.POSITIVE_INFINITY ? at : Math.max(1, Math.ceil(at - this.clock.now()));
  }

  /** Some pool is sealed. */
  get #on(): boolean {
    for (const row of this.#settings.values()) if (row.seal !== 0 && row.paused === 0) return true;
    return false;
  }

  /** Snapshots may have come. */
  poke(): void {
    this.#poked = true;
  }

  settings(pool: number): SealPoolRow {
    let row = this.#settings.get(pool);
    if (row === undefined) {
      row = this.reader.seal.pool(pool);
      this.#settings.set(pool, row);
    }
    return row;
  }

  /** Others put rows into the index. */
  added(pool: number, rows: number): void {
    this.settings(pool).entries += rows;
  }

  /** Settings are durable. */
  changed(row: SealPoolRow): void {
    const { seal, paused, rate, scrub_rate, verify } = row;
    Object.assign(this.settings(row.pool), { seal, paused, rate, scrub_rate, verify });
    this.#paceAt = 0;
    this.#poked = true;
  }

  info(pool: SlotPool): SealInfo {
    const row = this.reader.seal.pool(pool.id);
    const size = pool.blockSize;
    const backlog = row.seal === 0 ? { snapshots: 0, mapped: 0 } : this.#backlog.size(pool.id);
    return {
      on: row.seal !== 0,
      paused: row.paused !== 0,
      rate: row.rate,
      scrubRate: row.scrub_rate,
      verifyOnRead: row.verify !== 0,
      entries: row.entries,
      indexBytes: row.entries * SEALED_ROW_BYTES,
      hashedBytes: row.hashed * size,
      foldedBytes: row.folded * size,
      dedupRatio: row.hashed === 0 ? 1 : row.hashed / Math.max(1, row.hashed - row.folded),
      backlogSnapshots: backlog.snapshots,
      backlogBytes: backlog.mapped * size,
      quarantined: this.host.quarantined(pool.id),
      scrubbedAt: row.scrubbed_at === 0 ? null : new Date(row.scrubbed_at).toISOString(),
    };
  }

  #wanted(pool: number): boolean {
    const row = this.settings(pool);
    return row.seal !== 0 && row.paused === 0;
  }

  // ---- the turn

  turn(now: number): void {
    if (this.#run === null) this.#look(now);
    const run = this.#run;
    if (run === null) return;
    if (run.behind === 'fold') this.#fold(run, now);
    if (run.phase === 'walk') this.#walk(run, now);
    else if (run.phase === 'hash') this.#ask(run, now);
    else if (run.behind !== 'none') return;
    else if (run.phase === 'finish') this.#finish(run);
    else if (run.phase === 'end') this.#end(now);
  }

  /** Nothing of the group in front is left to be hashed. */
  #hashed({ phase, group }: Run): boolean {
    return phase === 'hash' && group?.asked === group?.slots.length;
  }

  /** The next snapshot, if there is one. */
  #look(now: number): void {
    if (!this.#poked || now < this.#lookAt) return;
    this.#lookAt = now + LOOK_MS;
    this.#poked = false;
    const pools = [...this.#settings.keys()].filter((id) => this.#wanted(id) && this.host.pool(id) !== undefined);
    if (pools.length === 0) return;
    const next = this.reader.look(() => this.#backlog.next(pools, now));
    if (next === 'more') this.#lookAt = now;
    if (next === 'more' || (next === null && this.#backlog.waits)) this.#poked = true;
    if (next === 'more' || next === null) return;
    this.#begin(this.host.resource(next.id) as Resource, this.host.pool(next.pool) as SlotPool);
  }

  #begin(resource: Resource, pool: SlotPool): void {
    const { row } = resource;
    const height = heightFor(row.size, pool.blockSize);
    const slotsMax = Math.min(this.groupSlots, Math.max(1, Math.floor(GROUP_BYTES_MAX / pool.blockSize)));
    this.#run = {
      id: row.id,
      pool,
      name: row.name,
      size: row.size,
      height,
      walk: new SealWalk(this.reader, this.native, row.root, row.height, height, slotsMax, (page) =>
        this.#held.add(page),
      ),
      phase: 'walk',
      putOff: false,
      group: null,
      behind: 'none',
      folds: [],
      recent: { slots: new Set(), byHash: new Map() },
    };
  }

  /** Nothing more of this snapshot is hashed. What is behind goes on to its end. */
  #stop(run: Run, putOff: boolean): void {
    run.phase = 'end';
    run.putOff = putOff;
    if (!putOff) this.#backlog.again(run.pool.id);
    run.group = null;
    this.#held.clear();
  }

  /** Ends with this snapshot, when nothing of it is under way; whatever was hashed of it stays known. */
  #end(now: number): void {
    if (this.#run?.putOff) this.#backlog.putOff(this.#run.id, this.#run.pool.id, now + RETRY_MS);
    this.#run = null;
    this.#held.clear();
    this.#poked = true;
    this.host.poke();
  }

  #walk(run: Run, now: number): void {
    // nothing is held while it is paused
    if (this.host.resource(run.id) === undefined || !this.#wanted(run.pool.id)) {
      this.#stop(run, false);
      return;
    }
    // What is read now is held; a group of releases on its way was decided before that.
    if (now < this.#paceAt || this.host.freeing()) return;
    const step = this.reader.look(() => run.walk.step());
    if (step === 'more') return;
    if (step === 'group') {
      this.#gather(run);
      run.phase = 'hash';
      this.#ask(run, now);
    } else if (step === 'done') {
      run.phase = 'finish';
    } else {
      if (step === 'broken')
        this.host.log('warn', 'a snapshot with a damaged page cannot be sealed; `atoll check` names it', {
          snapshot: run.name,
        });
      this.#stop(run, true);
    }
  }

  #gather(run: Run): void {
    const seen = new Set<number>();
    for (const leaf of run.walk.leaves) for (const slot of leaf.slots) if (slot >= 0) seen.add(slot);
    const slots = Float64Array.from(seen).sort();
    run.group = {
      leaves: run.walk.leaves,
      slots,
      states: new Uint8Array(slots.length),
      hashes: Buffer.alloc(slots.length * HASH_BYTES),
      same: new Float64Array(slots.length).fill(-1),
      asked: 0,
    };
    run.walk.leaves = [];
  }

  // ---- hashing

  /** The next job of the group, when none is out. */
  #ask(run: Run, now: number): void {
    const group = run.group as Group;
    if (group.asked === group.slots.length) {
      if (run.behind === 'none') this.#decide(run);
      return;
    }
    if (this.host.resource(run.id) === undefined || !this.#wanted(run.pool.id)) {
      this.#stop(run, false);
      return;
    }
    if (now < this.#paceAt) return;
    const { pool } = run;
    const from = group.asked;
    const to = Math.min(group.slots.length, from + Math.max(1, Math.floor(JOB_BYTES_MAX / pool.blockSize)));
    run.phase = 'wait';
    const started = this.clock.now();
    this.host.hash(
      {
        pool: pool.id,
        handle: pool.handle,
        blockSize: pool.blockSize,
        slots: group.slots.slice(from, to),
        always: false,
      },
      (result) => {
        if (result === null) {
          this.host.log('warn', 'hashing failed; sealing of a snapshot is put off', { snapshot: run.name });
          this.#stop(run, true);
          return;
        }
        group.states.set(result.states, from);
        group.hashes.set(result.hashes, from * HASH_BYTES);
        group.same.set(result.same, from);
        group.asked = to;
        const { rate } = this.settings(pool.id);
        if (rate > 0) this.#paceAt = Math.max(started, this.#paceAt) + (result.bytesRead / rate) * 1000;
        run.phase = 'hash';
      },
    );
  }

  /** All blocks of the group are known: what goes into the index, and what folds. */
  #decide(run: Run): void {
    const group = run.group as Group;
    const { recent } = run;
    const { slots, states, hashes, same } = group;
    const pool = run.pool.id;
    const seal = emptySeal();
    const rows: Buffer[] = [];
    /** positions in `slots` → slot with equal bytes */
    const moves = new Map<number, Move>();
    const first = new Map<string, number>();
    const zero = zeroBlockHash(run.pool.blockSize);
    let hashed = 0;
    for (let k = 0; k < slots.length; k++) {
      if (states[k] === SLOT_UNREADABLE) {
        this.host.log('warn', 'a block of a snapshot cannot be read; its sealing is put off', {
          snapshot: run.name,
          slot: slots[k],
        });
        this.#stop(run, true);
        return;
      }
      if (states[k] !== SLOT_HASHED || recent.slots.has(slots[k])) continue;
      hashed++;
      const hash = hashes.subarray(k * HASH_BYTES, (k + 1) * HASH_BYTES);
      if (hash.equals(zero)) {
        moves.set(k, { from: slots[k], to: TO_ZEROES, hash });
        continue;
      }
      const key = hash.toString('latin1');
      const to = same[k] >= 0 ? same[k] : (first.get(key) ?? recent.byHash.get(key));
      if (to === undefined) {
        first.set(key, slots[k]);
        seal.sealed.push(pool, slots[k]);
        rows.push(hash);
      } else {
        moves.set(k, { from: slots[k], to, hash });
      }
    }
    seal.hashes = Buffer.concat(rows);
    seal.counts.push(pool, hashed, 0);
    this.settings(pool).entries += rows.length;
    const nodes: Buffer[] = run.walk.hashes;
    seal.pages = run.walk.ids;
    run.walk.ids = [];
    run.walk.hashes = [];
    run.folds = [];
    for (const leaf of group.leaves) {
      const fold = this.#leaf(run, group, leaf, moves);
      if (fold.moves.size > 0) {
        run.folds.push(fold);
      } else {
        seal.pages.push(leaf.id);
        nodes.push(fold.hash);
      }
      run.walk.hashed(leaf, fold.hash);
    }
    seal.pageHashes = Buffer.concat(nodes);
    run.recent = { slots: new Set(first.values()), byHash: first };
    run.group = null;
    run.phase = 'walk';
    run.behind = 'wait';
    [this.#held, this.#heldBehind] = [this.#heldBehind, this.#held];
    this.#send(seal, () => {
      run.behind = 'fold';
      this.folding.start(pool, run.folds, this.clock.now());
    });
  }

  /** The node of a leaf, and which of its entries fold. */
  #leaf(run: Run, group: Group, leaf: Leaf, all: Map<number, Move>): Fold {
    const zero = zeroBlockHash(run.pool.blockSize);
    const moves = new Map<number, Move>();
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const slot = leaf.slots[i];
      if (slot < 0) continue;
      const k = positionOf(group.slots, slot);
      const hash = group.hashes.subarray(k * HASH_BYTES, (k + 1) * HASH_BYTES);
      leaf.hashes.set(hash.equals(zero) ? ZERO_HASH : hash, i * HASH_BYTES);
      const move = all.get(k);
      if (move !== undefined) moves.set(i, move);
    }
    return { page: leaf.id, moves, hash: nodeHash(0, leaf.hashes) };
  }

  // ---- folding, storing

  #fold(run: Run, now: number): void {
    if (!this.folding.done) {
      if (!this.folding.locked && !this.host.freeing()) this.reader.look(() => this.folding.step(now));
      return;
    }
    run.behind = 'none';
    for (const slot of this.folding.kept) run.recent.slots.add(slot);
    this.#heldBehind.clear();
    this.host.poke();
  }

  #finish(run: Run): void {
    const hash = resourceHash(run.size, Math.log2(run.pool.blockSize), run.height, run.walk.result);
    const seal = emptySeal();
    seal.pages = run.walk.ids;
    seal.pageHashes = Buffer.concat(run.walk.hashes);
    seal.resources.push(run.id);
    seal.resourceHashes = hash;
    run.phase = 'wait';
    this.#send(seal, () => this.#end(this.clock.now()));
  }

  #send(seal: SealChanges, done: () => void): void {
    const batch = this.commits.newBatch();
    batch.seal = seal;
    // an error of the store is fatal, and does not come back here
    this.commits.sendLoose(batch, () => done());
  }
}

/** Place of `slot` in an ascending list that has it. */
function positionOf(slots: Float64Array, slot: number): number {
  let low = 0;
  let high = slots.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (slots[middle] < slot) low = middle + 1;
    else high = middle;
  }
  return low;
}
