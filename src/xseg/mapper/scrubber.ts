/**
 * Scrubbing: reads what is in the index of sealed blocks again, at a set pace, and compares. What differs goes into
 * quarantine, and comes out when its bytes are right again or an equal block is found to copy from. Owned by the mapper peer.
 */
import type { Native } from '../native.ts';
import { type HashResult, JOB_BYTES_MAX, SLOT_HASHED } from '../seal/job.ts';
import { blockHash, zeroBlockHash } from '../seal/tree-hash.ts';
import type { StoreReader } from '../store/reader.ts';
import { emptySeal } from '../store/seal-batch.ts';
import type { SealedRow } from '../store/seal-reader.ts';
import type { Clock } from './clock.ts';
import type { Commits } from './commits.ts';
import { EIO } from './errors.ts';
import type { Quarantine } from './quarantine.ts';
import type { Sealer, SealerHost } from './sealer.ts';
import type { SlotPool } from './slots.ts';

/** Slots of one job. */
const SLOTS_MAX = 512;
/** Slots that differ are looked at again for so long in one turn: a guest's map fault waits about so long for it. */
export const LOOK_MS_MAX = 2;
/** A whole pass ended: the next begins after this, or when scrubbing is set anew. */
const PASS_PAUSE_MS = 3_600_000;
/** The cursor is stored this often: after a crash so much is read again. */
const CURSOR_MS = 30_000;

interface PoolState {
  /** monotonic ms before which nothing is read */
  paceAt: number;
  /** jobs, repairs and commits on their way */
  waiting: number;
  cursorAt: number;
  /** asked for while a pass goes on: the next follows at once */
  again: boolean;
  /** what a job read, and how much of it has been compared */
  read: { rows: SealedRow[]; result: HashResult; compared: number } | null;
}

export interface ScrubberHost {
  hash: SealerHost['hash'];
  pools(): Iterable<SlotPool>;
  ticket(done: (error: number) => void): number;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

export class Scrubber {
  #states = new Map<number, PoolState>();

  constructor(
    readonly sealer: Sealer,
    readonly quarantine: Quarantine,
    readonly reader: StoreReader,
    readonly commits: Commits,
    readonly native: Native,
    readonly core: number,
    readonly clock: Clock,
    readonly host: ScrubberHost,
  ) {}

  /** Settings of a pool changed: a pass begins, or goes on, now. */
  changed(pool: number): void {
    const state = this.#states.get(pool);
    if (state === undefined) return;
    state.paceAt = 0;
    state.again = this.sealer.settings(pool).scrub_at > 0;
  }

  /** Milliseconds until something is due; whole, at least 1. */
  dueIn(): number {
    let at = Number.POSITIVE_INFINITY;
    for (const pool of this.host.pools()) {
      const state = this.#state(pool.id);
      if (state.waiting > 0 || pool.failed) continue;
      if (state.read !== null) return 1;
      if (this.sealer.settings(pool.id).scrub_rate !== 0) at = Math.min(at, state.paceAt);
    }
    return at === Number.POSITIVE_INFINITY ? at : Math.max(1, Math.ceil(at - this.clock.now()));
  }

  turn(now: number): void {
    for (const pool of this.host.pools()) {
      const state = this.#state(pool.id);
      // what a failed one returns may be in memory alone
      if (state.waiting > 0 || pool.failed) continue;
      if (state.read !== null) this.#compare(pool, state, state.read);
      else if (this.sealer.settings(pool.id).scrub_rate !== 0 && now >= state.paceAt) this.#next(pool, state, now);
    }
  }

  /**
   * A reader found other bytes in a slot than the index says. Puts it into quarantine if that is so.
   * @returns EIO for bad or unreadable bytes; 0 when they are right, or the slot is not in the index any more
   */
  doubted(pool: SlotPool, slot: number): number {
    const row = this.reader.seal.row(pool.id, slot);
    if (row === undefined) return 0;
    const now = this.#look(pool, slot);
    if (now === null) return EIO;
    if (now.well) return 0;
    if (this.quarantine.has(pool.id, slot)) return EIO;
    const batch = this.commits.newBatch();
    batch.seal = emptySeal();
    this.#condemn(pool, slot, batch.seal.bad);
    this.commits.sendLoose(batch, () => undefined);
    return EIO;
  }

  #state(pool: number): PoolState {
    let state = this.#states.get(pool);
    if (state === undefined) {
      state = { paceAt: 0, waiting: 0, cursorAt: 0, again: false, read: null };
      this.#states.set(pool, state);
    }
    return state;
  }

  #next(pool: SlotPool, state: PoolState, now: number): void {
    const row = this.sealer.settings(pool.id);
    const bytes = Math.min(JOB_BYTES_MAX, row.scrub_rate);
    const most = Math.min(SLOTS_MAX, Math.max(1, Math.floor(bytes / pool.blockSize)));
    const rows = this.reader.seal.from(pool.id, row.scrub_at, most);
    if (rows.length === 0) {
      row.scrub_at = 0;
      row.scrubbed_at = this.clock.date();
      this.#store(pool, state, () => {
        state.paceAt = state.again ? 0 : this.clock.now() + PASS_PAUSE_MS;
        state.again = false;
      });
      return;
    }
    state.waiting++;
    const slots = Float64Array.from(rows, ({ slot }) => slot);
    this.host.hash({ pool: pool.id, handle: pool.handle, blockSize: pool.blockSize, slots, always: true }, (result) => {
      state.waiting--;
      state.paceAt = Math.max(now, this.clock.now() - 1000) + ((slots.length * pool.blockSize) / row.scrub_rate) * 1000;
      if (result === null) {
        this.host.log('warn', 'scrubbing: blocks could not be hashed', { pool: pool.row.name, slot: slots[0] });
        state.paceAt = this.clock.now() + 1000;
        return;
      }
      state.read = { rows, result, compared: 0 };
      this.#compare(pool, state, state.read);
    });
  }

  /** A part of what was read; what differs makes the parts short. */
  #compare(pool: SlotPool, state: PoolState, read: NonNullable<PoolState['read']>): void {
    const seal = emptySeal();
    const started = this.clock.now();
    while (read.compared < read.rows.length) {
      const at = read.compared++;
      if (!this.#differs(pool, read.rows[at], read.result, at)) continue;
      this.#settle(pool, read.rows[at], seal.bad);
      if (this.clock.now() - started >= LOOK_MS_MAX) break;
    }
    if (read.compared === read.rows.length) {
      state.read = null;
      this.sealer.settings(pool.id).scrub_at = read.rows[read.rows.length - 1].slot + 1;
    }
    if (seal.bad.length > 0) {
      const batch = this.commits.newBatch();
      batch.seal = seal;
      state.waiting++;
      this.commits.sendLoose(batch, () => {
        state.waiting--;
      });
    }
    const due = state.read === null && state.waiting === 0 && this.clock.now() - state.cursorAt > CURSOR_MS;
    if (due) this.#store(pool, state, () => undefined);
  }
  /** Something has to be done about the slot: as the job read it, or as it was called. */
  #differs(pool: SlotPool, row: SealedRow, result: HashResult, at: number): boolean {
    if (result.states[at] !== SLOT_HASHED) {
      // its readers get the disk's own error
      this.host.log('warn', 'scrubbing: a sealed block cannot be read', { pool: pool.row.name, slot: row.slot });
      return false;
    }
    const same = Buffer.from(result.hashes.buffer, result.hashes.byteOffset + at * 32, 32).equals(row.hash);
    return !same || row.bad !== null;
  }

  #settle(pool: SlotPool, row: SealedRow, bad: number[]): void {
    const now = this.#look(pool, row.slot);
    if (now === null) return; // freed meanwhile
    if (now.well && row.bad !== null) this.#heal(pool, row.slot, bad);
    else if (!now.well && row.bad === null) this.#condemn(pool, row.slot, bad);
    if (!now.well) this.#repair(pool, row.slot, now.hash);
  }

  /**
   * The slot at this moment, which nothing of the mapper can change while it is looked at: the row was read when it was
   * sealed, and may have been freed, and its slot used again, since the job was sent. null: no such row any more.
   */
  #look(pool: SlotPool, slot: number): { well: boolean; hash: Buffer } | null {
    const row = this.reader.seal.row(pool.id, slot);
    if (row === undefined) {
      this.quarantine.remove(pool.id, slot);
      return null;
    }
    const block = this.#read(pool, slot);
    return block === null ? null : { well: blockHash(block).equals(row.hash), hash: row.hash };
  }

  #read(pool: SlotPool, slot: number): Buffer | null {
    const block = Buffer.alloc(pool.blockSize);
    try {
      this.native.readNow(this.core, pool.handle, slot * pool.blockSize, block);
      return block;
    } catch {
      return null;
    }
  }

  #condemn(pool: SlotPool, slot: number, bad: number[]): void {
    this.quarantine.add(pool.id, slot);
    bad.push(pool.id, slot, this.clock.date());
    this.host.log('error', 'a sealed block does not hold what it should; reads of it answer EIO', {
      pool: pool.row.name,
      slot,
    });
  }

  #heal(pool: SlotPool, slot: number, bad: number[]): void {
    this.quarantine.remove(pool.id, slot);
    bad.push(pool.id, slot, 0);
    this.host.log('info', 'a block in quarantine holds what it should again', { pool: pool.row.name, slot });
  }

  /** Writes the right bytes over the wrong ones, where somebody has them. The next look lets it out of quarantine. */
  #repair(pool: SlotPool, slot: number, hash: Buffer): void {
    const block = this.#equal(pool, slot, hash);
    if (block === null) return;
    try {
      this.native.writeNow(this.core, pool.handle, slot * pool.blockSize, block);
    } catch (error) {
      this.host.log('warn', 'a damaged block could not be written', {
        pool: pool.row.name,
        slot,
        reason: (error as Error).message,
      });
      return;
    }
    const file = pool.row.kind === 'directory' ? Math.floor(slot / pool.groupSlots) : 0;
    const state = this.#state(pool.id);
    state.waiting++;
    this.native.syncFile(
      this.core,
      pool.handle,
      file,
      this.host.ticket((error) => {
        state.waiting--;
        if (error === 0) this.#repaired(pool, state, slot);
        else pool.hasFailed();
      }),
    );
  }

  #repaired(pool: SlotPool, state: PoolState, slot: number): void {
    if (this.#look(pool, slot)?.well !== true) return;
    const batch = this.commits.newBatch();
    batch.seal = emptySeal();
    this.#heal(pool, slot, batch.seal.bad);
    state.waiting++;
    this.commits.sendLoose(batch, () => {
      state.waiting--;
    });
  }

  /** The bytes of a hash, from any slot of any pool that has them; null when none does. */
  #equal(pool: SlotPool, slot: number, hash: Buffer): Buffer | null {
    if (hash.equals(zeroBlockHash(pool.blockSize))) return Buffer.alloc(pool.blockSize);
    for (const other of this.host.pools()) {
      if (other.blockSize !== pool.blockSize) continue;
      // that it is bad may not be durable yet
      const at = this.reader.seal.slotOf(other.id, hash, other.id === pool.id ? slot : -1);
      if (at < 0) continue;
      const block = this.#read(other, at);
      if (block !== null && blockHash(block).equals(hash)) return block;
    }
    return null;
  }

  #store(pool: SlotPool, state: PoolState, done: () => void): void {
    const batch = this.commits.newBatch();
    const { scrub_at, scrubbed_at } = this.sealer.settings(pool.id);
    batch.seal = { ...emptySeal(), cursors: [{ pool: pool.id, scrub_at, scrubbed_at }] };
    state.waiting++;
    state.cursorAt = this.clock.now();
    this.commits.sendLoose(batch, () => {
      state.waiting--;
      done();
    });
  }
}
