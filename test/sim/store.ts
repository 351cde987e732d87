/**
 * The store at its commit-batch interface: the engine's own committer on an SQLite database in memory, which is what is
 * durable. A batch is in it whole or not at all; what still waits is lost in a crash. The answer comes some time after that.
 */
import Database from 'better-sqlite3';
import type { Channel } from '../../src/xseg/mapper/channel.ts';
import type { Native } from '../../src/xseg/native.ts';
import type { CommitBatch, CommitResult, PoolRow } from '../../src/xseg/store/batch.ts';
import { Committer } from '../../src/xseg/store/committer.ts';
import { StoreReader } from '../../src/xseg/store/reader.ts';
import { createTables } from '../../src/xseg/store/schema.ts';
import type { Bugs } from './bugs.ts';
import type { Rng } from './rng.ts';

/** As in the committer's thread. */
const BATCHES_PER_TRANSACTION_MAX = 64;

export class SimStore {
  readonly db = new Database(':memory:');
  readonly reader: StoreReader;
  #committer: Committer;
  /** from the mapper, not taken yet */
  #queue: CommitBatch[] = [];
  /** applied, and not answered yet */
  #answers: CommitResult[] = [];
  /** to the mapper */
  #inbox: CommitResult[] = [];
  /** number of a commit that is going to fail, −1 none */
  failsAfter = -1;
  commits = 0;
  batches = 0;
  /** batches that came, and of these, in their order, those that are durable or refused */
  came = 0;
  settled = 0;
  /** the committer of an earlier life that does not know that it is over, and its batches */
  #former: { committer: Committer; queue: CommitBatch[] } | null = null;
  #lostOne = false;
  #leaked = 0;
  /** hears of batches that the mapper sends */
  sent: (batch: CommitBatch) => void = () => undefined;
  /** hears of batches that are durable */
  applied: (batches: readonly CommitBatch[]) => void = () => undefined;

  constructor(
    readonly rng: Rng,
    readonly bugs: Bugs,
    readonly native: Pick<Native, 'ensureFile'>,
  ) {
    createTables(this.db);
    this.reader = new StoreReader(this.db);
    this.#committer = new Committer(this.db);
  }

  addPool(row: PoolRow): void {
    this.db
      .prepare(`INSERT INTO pool (id, uuid, name, driver, kind, path, block_shift, group_slots, size, direct, preallocate, created_at)
        VALUES (@id, @uuid, @name, @driver, @kind, @path, @block_shift, @group_slots, @size, @direct, @preallocate, @created_at)`)
      .run(row);
  }

  readonly channel: Channel = {
    receive: () => this.#inbox.shift(),
    send: (message) => {
      if (message === 'close') while (this.busy) this.step();
      else {
        const batch = structuredClone(message as CommitBatch);
        this.sent(batch);
        this.#queue.push(batch);
        this.came++;
      }
    },
  };

  /** What the committer's thread has to do. */
  get busy(): boolean {
    return this.#queue.length > 0 || this.#answers.length > 0;
  }

  /** Commits wait. */
  get waiting(): boolean {
    return this.#queue.length > 0;
  }

  /** True when the mapper has mail. */
  get mail(): boolean {
    return this.#inbox.length > 0;
  }

  /** One step of the committer's thread: some batches become durable, or some answers go out. */
  step(): void {
    if (this.#former !== null && this.rng.chance(0.15)) {
      this.#formerStep(this.#former);
      return;
    }
    if (this.#answers.length > 0 && (this.#queue.length === 0 || this.rng.chance(0.6))) {
      this.#inbox.push(...this.#answers.splice(0, 1 + this.rng.int(this.#answers.length)));
      return;
    }
    if (this.#queue.length === 0) return;
    const most = Math.min(this.#queue.length, BATCHES_PER_TRANSACTION_MAX);
    const taken = this.#queue.splice(0, 1 + this.rng.int(most));
    if (this.bugs.has('commit-answered-early')) {
      for (const batch of taken) this.#inbox.push({ seq: batch.seq, error: null, ms: 1, logBytes: 0 });
      if (this.rng.chance(0.5)) return; // the crash that makes a difference comes later
    }
    this.#commit(taken);
  }

  #commit(taken: CommitBatch[]): void {
    const good: CommitBatch[] = [];
    for (const batch of taken) {
      const error = this.#makeFiles(batch);
      if (error === null) good.push(batch);
      else this.#answers.push({ seq: batch.seq, error, ms: 0, logBytes: 0 });
    }
    if (good.length === 0) {
      this.settled += taken.length;
      return;
    }
    this.commits++;
    this.batches += good.length;
    if (this.failsAfter === 0) {
      // its fsync failed: it is durable or it is not, and nobody knows
      if (this.rng.chance(0.5)) this.#apply(good);
      for (const batch of good)
        this.#answers.push({
          seq: batch.seq,
          error: { code: 'SQLITE_IOERR_FSYNC', message: 'disk I/O error', fatal: true },
          ms: 0,
          logBytes: 0,
        });
      return;
    }
    if (this.failsAfter > 0) this.failsAfter--;
    this.#apply(good);
    this.settled += taken.length;
    for (const batch of good)
      if (!this.bugs.has('commit-answered-early'))
        this.#answers.push({ seq: batch.seq, error: null, ms: 1, logBytes: 0 });
  }

  #makeFiles(batch: CommitBatch): CommitResult['error'] {
    for (let i = 0; i < batch.ensureFiles.length; i += 2) {
      try {
        this.native.ensureFile(0, batch.ensureFiles[i], batch.ensureFiles[i + 1]);
      } catch (error) {
        return { code: (error as { code: string }).code, message: (error as Error).message, fatal: false };
      }
    }
    return null;
  }

  #apply(batches: CommitBatch[]): void {
    this.#committer.apply(batches.map((batch) => this.#broken(batch)));
    this.applied(batches);
  }

  /** The batch as a committer with a bug would apply it. */
  #broken(batch: CommitBatch): CommitBatch {
    const { bugs, rng } = this;
    if (bugs.size === 0) return batch;
    if (bugs.has('page-ref-lost') && batch.pageRefs.length > 0) batch.pageRefs.splice(0, 2);
    if (bugs.has('release-lost') && batch.releases.length > 0 && rng.chance(0.2)) batch.releases.pop();
    if (bugs.has('slot-leaked') && batch.freed.length > 0 && this.#leaked++ === 3) batch.freed.splice(0, 3);
    if (bugs.has('commit-lost') && !this.#lostOne && batch.pages.length > 0 && rng.chance(0.05)) {
      this.#lostOne = true;
      return { ...batch, pages: [], resources: [], taken: [], freed: [], releases: [], releasesDone: [] };
    }
    return batch;
  }

  /**
   * What waits is lost, but for a start of it that may just have become durable.
   * @returns how many of the batches that came are known to be durable, or refused
   */
  crash(powerCut: boolean): number {
    const { bugs, rng } = this;
    if (this.#queue.length > 0 && this.failsAfter !== 0 && rng.chance(0.3)) {
      const some = this.#queue.splice(0, 1 + rng.int(this.#queue.length));
      try {
        this.#commit(some);
      } catch (error) {
        // pool files that the crash found missing: nothing became durable
        if ((error as { code?: string }).code === undefined) throw error;
      }
    }
    if (bugs.has('commit-torn') && this.#queue.length > 0) {
      const torn = this.#queue[0];
      const half: Partial<CommitBatch> = rng.chance(0.5)
        ? { resources: [], releases: [], freed: [] }
        : { pages: [], pageRefs: [], slotRefs: [] };
      this.#apply([{ ...torn, ...half }]);
    }
    this.#goesOn(powerCut);
    this.#queue = [];
    const { settled } = this;
    this.settled = this.came;
    this.#answers = [];
    this.#inbox = [];
    this.failsAfter = -1;
    this.#committer = new Committer(this.db);
    if (bugs.has('page-rots')) this.#rot();
    if (bugs.has('group-forgets-active'))
      this.db.prepare('UPDATE slot_group SET state = 0, dirty = zeroblob(length(bitmap)) WHERE state = 1').run();
    return settled;
  }

  /** The next daemon takes over from one that was given up and is not dead: what that had to commit it still will try. */
  #goesOn(powerCut: boolean): void {
    this.#former = null;
    if (powerCut || this.#queue.length === 0 || this.failsAfter === 0 || this.rng.chance(0.3)) return;
    this.#former = { committer: this.#committer, queue: this.#queue };
  }

  #formerStep(former: { committer: Committer; queue: CommitBatch[] }): void {
    const some = former.queue.splice(0, 1 + this.rng.int(former.queue.length));
    if (former.queue.length === 0) this.#former = null;
    try {
      former.committer.apply(some);
    } catch (error) {
      // it hears that it is no more the one who writes, and ends
      this.#former = null;
      if ((error as { code?: string }).code !== 'STALE_LEASE') throw error;
    }
  }

  #rot(): void {
    const ids = this.db.prepare('SELECT id FROM page').pluck().all() as number[];
    if (ids.length === 0) return;
    const id = this.rng.pick(ids);
    const data = this.db.prepare('SELECT data FROM page WHERE id = ?').pluck().get(id) as Buffer;
    data[this.rng.int(data.length)] ^= 1 << this.rng.int(8);
    this.db.prepare('UPDATE page SET data = ? WHERE id = ?').run(data, id);
  }

  /** As `engine.ts` does before it opens. @returns whether the last stop was a clean one */
  opened(): boolean {
    const clean = this.reader.meta('clean') === 1;
    this.db.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES ('clean', 0)").run();
    return clean;
  }
}
