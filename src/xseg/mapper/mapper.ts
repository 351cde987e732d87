/**
 * The mapper peer: one turn after another it takes a batch of map faults, decides, answers, and lets commits, freeing and
 * control messages go on. Runs in a worker thread (`mapper-worker.ts`) that blocks in the addon, never in the event loop.
 */
import { FIRST_LINE } from '../copies/lines.ts';
import type { CopyPlace } from '../copies/place.ts';
import type { CopierAnswer, CopierRequest } from '../copies/requests.ts';
import {
  OP_SYNC_DONE,
  OP_WAKE,
  OP_ZERO_DONE,
  RECORD_BYTES,
  Request,
  SegmentHeader,
  VolumeRecord,
} from '../layout.gen.ts';
import type { Native } from '../native.ts';
import type { HashRequest, HashResult } from '../seal/job.ts';
import type { CommitBatch, CommitResult, PoolRow } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import type { NodeChange } from '../types.ts';
import { Accounting } from './accounting.ts';
import { Burials } from './burials.ts';
import type { Channel } from './channel.ts';
import type { Clock } from './clock.ts';
import { Commits } from './commits.ts';
import { Copies, type Generation } from './copies.ts';
import { Faults } from './faults.ts';
import { Fills } from './fills.ts';
import { Frames } from './frames.ts';
import { Freeing } from './freeing.ts';
import { Guests } from './guests.ts';
import { Handles } from './handles.ts';
import { Ingests } from './ingests.ts';
import { Leftovers } from './leftovers.ts';
import { Meters } from './meters.ts';
import { NewPages } from './new-pages.ts';
import { Nodes } from './nodes.ts';
import { Numbers } from './numbers.ts';
import { Operations } from './operations.ts';
import { PoolChanges } from './pool-changes.ts';
import { Quarantine } from './quarantine.ts';
import { Registry } from './registry.ts';
import { Reports, type ReportsHost } from './reports.ts';
import { type ControlRequest, Requests, type RequestsHost } from './requests.ts';
import type { Resource } from './resource.ts';
import { Scrubber } from './scrubber.ts';
import { Sealer, type SealerHost } from './sealer.ts';
import { type PoolHost, SlotPool } from './slots.ts';
import { Steps } from './steps.ts';
import { Tree } from './tree.ts';

/** Requests taken in one turn. */
const TAKE_MAX = 256;
/** Longest sleep of a mapper with changes to commit: their age is looked at this often. */
const SLEEP_DIRTY_MS_MAX = 200;
/** Longest sleep of a mapper that has nothing to do: what comes wakes it. */
const SLEEP_MS_MAX = 5000;
/** Time to sleep while something goes on in the background. */
const SLEEP_BACKGROUND_MS = 1;
/** A change that nobody flushes is committed after this. */
const COMMIT_DELAY_MS_MAX = 2000;
/** Dirty pages at most: share of the cache, and in all (memory of a batch, gap of a snapshot). */
const DIRTY_SHARE_MAX = 0.4;
const DIRTY_PAGES_MAX = 8192;
/** Dirty pages at which a commit starts although nobody asked. */
const DIRTY_START_SHARE = 0.5;

export type { ControlReply, ControlRequest } from './requests.ts';

/** What a mapper stands on besides the native core. */
export interface MapperParts {
  core: number;
  reader: StoreReader;
  clock: Clock;
  /** false: the last stop was none, so that what was written may not be durable */
  clean: boolean;
  /** to the engine's face: control requests come, replies go */
  face: Channel;
  /** to the committer: batches go, results come */
  committer: Channel;
  /** pools that are open: id → native handle, and the copies of the store that they carry */
  pools: { row: PoolRow; handle: number; place?: CopyPlace | null; copies?: Generation[] }[];
  /** to the copier; without it pools carry no copies */
  copier?: Channel;
  /** see `Copies` */
  copyIntervalMs?: number;
  home?: { uuid: string; line: string };
  /** percent at which a pool is called full; default 80 and 95 */
  levels?: { warnPercent: number; criticalPercent: number };
  /** slots that sealing has hashed as one group; default: see `Sealer` */
  sealGroupSlots?: number;
}

export class Mapper implements ReportsHost, RequestsHost {
  readonly pools = new Map<number, SlotPool>();
  /** of all pools of the home, open or not */
  readonly poolRows = new Map<number, PoolRow>();
  readonly reader: StoreReader;
  readonly clock: Clock;
  readonly frames: Frames;
  readonly registry: Registry;
  readonly tree: Tree;
  readonly commits: Commits;
  readonly faults: Faults;
  readonly freeing: Freeing;
  readonly sealer: Sealer;
  readonly quarantine: Quarantine;
  readonly scrubber: Scrubber;
  readonly handles: Handles;
  readonly steps: Steps;
  readonly burials: Burials;
  readonly operations: Operations;
  readonly fills: Fills;
  readonly poolChanges: PoolChanges;
  readonly ingests: Ingests;
  readonly nodes: Nodes;
  #hashing = new Map<number, (result: HashResult | null) => void>();
  #leftovers = new Map<number, Leftovers>();
  readonly copies: Copies;
  readonly accounting: Accounting;
  #tickets = new Map<number, (error: number) => void>();
  #nextTicket = 1;
  #dirty = new Set<Resource>();
  #wanted = new Set<Resource>();
  #wantAll = false;
  #framesWaiters: (() => void)[] = [];
  #turnWaiters: (() => void)[] = [];
  readonly #newPages = new NewPages();
  readonly meters = new Meters();
  readonly reports: Reports = new Reports(this);
  readonly #requests: Requests = new Requests(this);
  #volumesAt: number;
  #dirtyMax: number;
  readonly #guests: Guests;
  #stopping = false;
  /** the groups are sealed: nothing is freed any more */
  #sealed = false;
  #stopped = false;

  constructor(
    readonly native: Native,
    readonly parts: MapperParts,
    readonly log: (level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>) => void,
    readonly fatal: (reason: string) => void,
  ) {
    const core = parts.core;
    const view = new DataView(native.segment(core));
    this.#volumesAt = Number(view.getBigUint64(SegmentHeader.volumesOffset, true)) / 4;
    this.reader = parts.reader;
    this.clock = parts.clock;
    this.frames = new Frames(native, core);
    this.registry = new Registry(this.reader);
    const numbers = new Numbers(
      this.reader,
      parts.pools.flatMap(({ copies = [] }) => copies),
    );
    this.#dirtyMax = Math.min(DIRTY_PAGES_MAX, Math.floor(this.frames.count * DIRTY_SHARE_MAX));
    const recordAt = (handle: number) => this.#volumesAt + handle * (VolumeRecord.BYTES / 4);
    const logLine = this.log;
    const ticket = (done: (error: number) => void) => this.#ticket(done);
    const nextRelease = (pool: number, blocks: number) => {
      const id = numbers.release();
      this.freeing.made(id, pool, blocks);
      return id;
    };
    const changed = (r: Resource) => this.#changed(r);
    const commitSoon = (r: Resource) => void this.#wanted.add(r);
    const commitAll = () => {
      this.#wantAll = true;
    };
    const whenFrames = (run: () => void) => void this.#framesWaiters.push(run);
    const nextTurn = (run: () => void) => void this.#turnWaiters.push(run);
    this.accounting = new Accounting({ resources: () => this.registry.all(), commitSoon, nextTurn });
    this.tree = new Tree(this.frames, this.reader, native, core, {
      nextPage: numbers.page,
      nextRelease,
      baseAdded: (page, base) => this.#newPages.added(page, base),
      changed: (r) => {
        this.accounting.changed(r.row);
        this.#changed(r);
      },
      log: logLine,
    });
    this.commits = new Commits(
      this.frames,
      this.tree,
      native,
      core,
      recordAt,
      {
        send: (batch) => this.#send(batch),
        ticket,
        whenSettled: (r, run) => {
          const leftovers = this.#leftovers.get(r.row.pool);
          if (leftovers === undefined) run(0);
          else leftovers.whenDone(run);
        },
        settled: (r) => this.#leftovers.get(r.row.pool)?.done ?? true,
        freed: (runs) => this.#freed(runs),
        pagesDurable: (pages) => {
          for (let i = 0; i < pages.length; i += 4) this.#newPages.durable(pages[i]);
        },
        releasesLost: (rows) => this.freeing.lost(rows),
        freedLost: (runs) => {
          for (let i = 0; i < runs.length; i += 3) {
            const pool = this.pools.get(runs[i]);
            if (pool !== undefined) pool.freeingSlots -= runs[i + 2];
          }
        },
        meta: () => numbers.meta(),
        fatal: (reason) => this.fatal(reason),
        landed: (r) => this.#landed(r),
        log: logLine,
      },
      this.clock,
    );
    this.faults = new Faults(
      this.frames,
      this.tree,
      native,
      core,
      recordAt,
      Number(view.getBigUint64(SegmentHeader.scratchOffset, true)),
      {
        resourceOf: (handle) => this.handles.resourceOf(handle),
        poolOf: (r) => this.pools.get(r.row.pool) as SlotPool,
        nextRelease,
        changed,
        commitSoon,
        commitAll,
        tooDirty: () => this.frames.dirtyCount >= this.#dirtyMax || this.frames.crowded,
        whenFrames,
        nextTurn,
        sampleFault: (op, us) => this.meters.faultServed(op, us),
        faultFailed: (error) => this.meters.faultFailed(error),
        hashOf: (pool, slot) => this.reader.seal.row(pool.id, slot)?.hash ?? null,
        rotten: (pool, slot) => this.scrubber.doubted(pool, slot),
      },
      TAKE_MAX,
      this.clock,
    );
    this.#guests = new Guests(native, core);
    this.freeing = new Freeing(
      this.frames,
      this.tree,
      this.reader,
      this.commits,
      native,
      {
        nextRelease,
        ownerOf: (id, generation) => this.#ownerOf(id, generation),
        pool: (id) => this.pools.get(id),
        changed,
        commitSoon,
        epochAdvance: () => native.epochAdvance(core),
        epochSafe: () => native.epochSafe(core),
        hasNewChildren: (page) => this.#newPages.hasChildren(page),
        held: (page) => this.sealer.held(page),
        pinned: (pool, slot) => this.ingests.pinned(pool, slot),
        pinning: () => this.ingests.pinning,
        freed: (runs) => this.#freed(runs),
        slotsDropped: () => this.accounting.slotsDropped(),
        indexed: (pool, slot) => this.sealer.indexed(pool, slot),
        guestsBusy: (now) => this.#guestsBusy(now),
        pendingPageRefs: (page) => this.#newPages.refs(page),
        log: logLine,
      },
      this.clock,
    );
    const cut = (r: Resource) => {
      this.commits.cut(r);
      if (r.changes.empty) this.#dirty.delete(r);
    };
    this.handles = new Handles(this.registry, this.frames, this.tree, native, core, recordAt, {
      pools: this.pools,
      changed,
      commitSoon,
      cut,
      settled: (pool) => this.#leftovers.get(pool)?.done ?? true,
      verifies: (pool) => this.sealer.settings(pool).verify !== 0,
    });
    this.steps = new Steps(this.registry, this.frames, this.faults, this.handles, native, core, {
      pools: this.pools,
      poolRow: (id) => this.poolRows.get(id),
      nextResource: numbers.resource,
      nextRelease,
      nextPage: numbers.page,
      changed,
      commitSoon,
      commitAll,
      cut,
      nextTurn,
      whenFrames,
      pageRefAdded: (page) => this.#newPages.refAdded(page),
      pageRefDurable: (page) => this.#newPages.refDurable(page),
      newBatch: () => this.commits.newBatch(),
      sendLoose: (batch, done) => this.commits.sendLoose(batch, done),
      forgetPages: (r) => this.#forgetPages(r),
      poke: () => this.freeing.poke(),
      isBad: (id, slot) => {
        if (this.quarantine.has(id, slot)) return true;
        const pool = this.pools.get(id);
        return pool !== undefined && this.sealer.settings(id).verify !== 0 && this.scrubber.doubted(pool, slot) !== 0;
      },
      accountChanged: (row) => this.accounting.changed(row),
      exclusiveBlocks: (row) => this.accounting.exclusiveBlocks(row),
      bytesChanged: (r) => parts.face.send({ change: { id: r.id } satisfies NodeChange }),
      date: () => this.clock.date(),
    });
    this.burials = new Burials(this.steps);
    this.operations = new Operations(this.steps, this.burials, this.frames, this.tree);
    this.fills = new Fills(this.steps, this.burials, this.frames, this.tree);
    this.nodes = new Nodes(this.registry, this.frames, this.steps.views, recordAt, this.reader);
    this.registry.named = ({ id, volume, name }, there) =>
      parts.face.send({ change: { id, name: { volume, name, there } } satisfies NodeChange });
    const hash: SealerHost['hash'] = (job, done) => {
      const ticket = this.#nextTicket++;
      this.#hashing.set(ticket, done);
      parts.face.send({ hash: { ticket, job } satisfies HashRequest });
    };
    this.sealer = new Sealer(
      this.frames,
      this.tree,
      this.reader,
      this.commits,
      native,
      this.clock,
      {
        hash,
        pool: (id) => this.pools.get(id),
        resource: (id) => {
          const r = this.registry.get(id);
          return r === undefined || r.dead ? undefined : r;
        },
        pendingFrom: () => this.registry.pendingFrom(),
        freeing: () => this.freeing.busy,
        ownerOf: (id, generation) => this.#ownerOf(id, generation),
        hasNewChildren: (page) => this.#newPages.hasChildren(page),
        isBad: (pool, slot) => this.quarantine.has(pool, slot),
        quarantined: (pool) => this.quarantine.count(pool),
        nextRelease,
        changed,
        commitSoon,
        commitAll,
        poke: () => {
          this.accounting.allChanged();
          this.freeing.poke();
        },
        log: logLine,
      },
      parts.sealGroupSlots,
    );
    this.quarantine = new Quarantine(this.frames, this.reader, (handle) => this.handles.resourceOf(handle));
    this.tree.shown = (pool, frame) => this.quarantine.mark(pool, frame);
    this.scrubber = new Scrubber(this.sealer, this.quarantine, this.reader, this.commits, native, core, this.clock, {
      hash,
      pools: () => this.pools.values(),
      ticket,
      log: logLine,
    });
    this.ingests = new Ingests(native, core, this.registry, this.commits, {
      pools: this.pools,
      poolNamed: (name) => this.operations.poolNamed(name),
      nextResource: numbers.resource,
      nextPage: numbers.page,
      nextRelease,
      freeing: () => this.freeing.busy,
      poke: () => {
        this.accounting.allChanged();
        this.freeing.poke();
      },
      commitAll,
      isBad: (pool, slot) => this.quarantine.has(pool, slot),
      ticket,
      indexed: (pool, rows) => this.sealer.added(pool, rows),
      snapshotInfo: (r) => this.steps.views.snapshot(r),
      date: () => this.clock.date(),
    });
    const { copier } = parts;
    const copyIntervalMs = copier === undefined ? 0 : (parts.copyIntervalMs ?? 0);
    this.copies = new Copies(copyIntervalMs, parts.home ?? { uuid: '', line: FIRST_LINE }, this.clock, {
      send: (request: CopierRequest) => copier?.send(request),
      nextSequence: numbers.copy,
      commits: () => this.commits.count,
      log: logLine,
    });
    this.poolChanges = new PoolChanges(
      this.pools,
      this.commits,
      this.sealer,
      this.scrubber,
      this.handles,
      (row, handle, place) => this.addPool(row, handle, place),
    );
    for (const row of this.reader.pools()) this.poolRows.set(row.id, row);
    for (const { row, handle, place, copies } of parts.pools) {
      const pool = this.addPool(row, handle, place, copies);
      if (!parts.clean) this.#leftovers.set(row.id, new Leftovers(native, core, handle, pool.files(), ticket));
    }
    this.ingests.sweep();
  }

  /** Guests work, and none of them waits for what freeing gives back. */
  #guestsBusy(now: number): boolean {
    for (const pool of this.pools.values()) if (pool.wanted) return false;
    return this.#guests.busy(now);
  }

  addPool(row: PoolRow, handle: number, place: CopyPlace | null = null, copies: Generation[] = []): SlotPool {
    const host: PoolHost = {
      activate: (_pool, change, ensure, done) => {
        const batch = this.commits.newBatch();
        batch.groups.push(change);
        batch.ensureFiles.push(...ensure);
        this.commits.sendLoose(batch, (error) => {
          if (error !== null)
            this.log('warn', 'a slot group could not be prepared', {
              pool: row.name,
              group: change.grp,
              reason: error.message,
            });
          done(error === null);
        });
      },
      ticket: (done) => this.#ticket(done),
      guestsBusy: (now) => this.#guests.busy(now),
      comes: () => this.freeing.comes(row.id),
      log: this.log,
    };
    const pool = new SlotPool(
      row,
      handle,
      this.native,
      this.parts.core,
      this.reader,
      host,
      this.clock,
      this.parts.levels,
    );
    this.pools.set(row.id, pool);
    this.sealer.settings(row.id);
    this.quarantine.addPool(row.id);
    this.poolRows.set(row.id, row);
    this.copies.add(pool, place, copies);
    return pool;
  }

  waiting(): { dirty: number; frames: number; turns: number } {
    return { dirty: this.#dirty.size, frames: this.#framesWaiters.length, turns: this.#turnWaiters.length };
  }

  // ---- the loop

  /** Runs until the engine closes. */
  run(): void {
    while (!this.#stopped) this.turn();
    this.reader.close();
  }

  /** The engine has closed: there is no further turn. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Takes what the rings have (or waits for it), lets everything go on that may, and answers. */
  turn(): void {
    const quiet = this.#turnWaiters.length === 0 && this.#wanted.size === 0 && !this.#wantAll;
    const timeout = quiet ? this.#sleepMs() : 0;
    const taken = this.native.take(this.parts.core, this.faults.staging, TAKE_MAX, timeout);
    const now = this.clock.now();
    if (taken > 0) {
      this.meters.batches.observe(taken);
      this.#serve(taken, now);
    }
    this.#messages();
    this.#runAll(this.#turnWaiters, (next) => {
      this.#turnWaiters = next;
    });
    if (this.#framesWaiters.length > 0) {
      this.#runAll(this.#framesWaiters, (next) => {
        this.#framesWaiters = next;
      });
    }
    this.frames.turn(now);
    this.copies.turn(now);
    for (const pool of this.pools.values()) {
      pool.turn();
      pool.watch(now);
    }
    this.ingests.turn(now);
    if (!this.#stopping) {
      this.sealer.turn(now);
      this.scrubber.turn(now);
    }
    if (!this.#sealed && !this.sealer.locked) this.freeing.turn(now);
    this.#commit(now);
    this.faults.flushReplies();
    this.meters.turns++;
    this.meters.busyMs += this.clock.now() - now;
  }

  /** How long nothing is to be done; at least SLEEP_BACKGROUND_MS, as nothing in the background is urgent. */
  #sleepMs(): number {
    if (this.#framesWaiters.length > 0) return 1;
    const now = this.clock.now();
    const idle = this.#dirty.size > 0 || this.copies.waitedFor ? SLEEP_DIRTY_MS_MAX : SLEEP_MS_MAX;
    let ms = Math.min(idle, this.freeing.waitMs(now), this.sealer.dueIn(), this.scrubber.dueIn());
    for (const pool of this.pools.values()) ms = Math.min(ms, pool.waitMs(now));
    return Math.max(SLEEP_BACKGROUND_MS, Math.ceil(ms));
  }

  #runAll(list: (() => void)[], replace: (next: (() => void)[]) => void): void {
    if (list.length === 0) return;
    replace([]);
    for (const run of list) run();
  }

  /** Misc records at once; faults of volumes in turns, so that one volume's cannot starve another's. */
  #serve(taken: number, now: number): void {
    const words = new Uint32Array(this.faults.staging.buffer);
    for (let i = 0; i < taken; i++) {
      const at = (i * RECORD_BYTES) / 4;
      const op = words[at + Request.op / 4];
      if (op === OP_WAKE) continue;
      if (op === OP_SYNC_DONE || op === OP_ZERO_DONE) {
        const ticket = words[at + Request.ticket / 4];
        const done = this.#tickets.get(ticket);
        this.#tickets.delete(ticket);
        done?.(words[at + Request.error / 4]);
      } else {
        this.faults.serve(i, now);
      }
    }
  }

  #ticket(done: (error: number) => void): number {
    const ticket = this.#nextTicket;
    this.#nextTicket = (this.#nextTicket + 1) >>> 0 || 1;
    this.#tickets.set(ticket, done);
    return ticket;
  }

  // ---- commits

  #changed(r: Resource): void {
    if (r.dirtySince === 0) r.dirtySince = this.clock.now();
    this.#dirty.add(r);
  }

  #commit(now: number): void {
    const all = this.#wantAll || this.frames.dirtyCount > this.#dirtyMax * DIRTY_START_SHARE;
    this.#wantAll = false;
    for (const r of this.#dirty) {
      if (r.changes.empty && r.changes.waiters.length === 0) {
        this.#dirty.delete(r);
        r.dirtySince = 0;
      } else if (!r.flying && (all || now - r.dirtySince > COMMIT_DELAY_MS_MAX)) {
        this.#cut(r);
      }
    }
    for (const r of this.#wanted) {
      if (r.flying) continue; // its landing looks again
      this.#wanted.delete(r);
      this.#cut(r);
    }
    // those on their way come back through #landed
    for (const r of this.#wanted) if (r.flying) this.#wanted.delete(r);
  }

  #cut(r: Resource): void {
    this.commits.cut(r);
    this.#dirty.delete(r);
  }

  #landed(r: Resource): void {
    this.handles.landed(r);
    // what it was to free will not come: who waits for it must hear of that
    if (r.failed !== 0) this.pools.get(r.row.pool)?.wake();
    if (r.changes.waiters.length > 0 || r.changes.syncData) this.#wanted.add(r);
    this.freeing.poke();
    this.sealer.poke();
  }

  #ownerOf(id: number, generation: number): Resource | undefined {
    const r = this.registry.get(id);
    return r !== undefined && !r.dead && r.row.generation === generation ? r : undefined;
  }

  #send(batch: CommitBatch): void {
    // What is under way yet is not answered any more: it is as if the stop had come sooner.
    if (this.#sealed && !('clean' in batch.meta)) return;
    this.parts.committer.send(batch, [batch.blob.buffer as ArrayBuffer]);
  }

  #freed(runs: number[]): void {
    const byPool = new Map<number, number[]>();
    for (let i = 0; i < runs.length; i += 3) {
      const list = byPool.get(runs[i]) ?? [];
      list.push(runs[i + 1], runs[i + 2]);
      byPool.set(runs[i], list);
    }
    for (const [pool, list] of byPool) {
      this.quarantine.freed(pool, list);
      this.pools.get(pool)?.freedDurable(list);
    }
  }

  /** The volume has failed and is deleted: what of its pages never became durable is nobody's base and in nobody's way. */
  #forgetPages(r: Resource): void {
    const { frames } = this;
    for (const [page, frame] of [...frames.byPage]) {
      // what flies otherwise is in a batch of freeing's or folding's, which is none of the volume's
      if (frames.owner[frame] !== r.id || (!frames.dirty[frame] && !frames.lost[frame])) continue;
      this.#newPages.durable(page);
      frames.forget(frame);
    }
  }

  // ---- messages

  #messages(): void {
    for (;;) {
      const result = this.parts.committer.receive() as CommitResult | undefined;
      if (result === undefined) break;
      this.commits.result(result);
    }
    for (; this.parts.copier !== undefined; ) {
      const answer = this.parts.copier.receive() as CopierAnswer | undefined;
      if (answer === undefined) break;
      this.copies.result(answer);
    }
    for (;;) {
      const request = this.parts.face.receive() as ControlRequest | undefined;
      if (request === undefined) break;
      this.#requests.serve(request);
    }
  }

  get stopping(): boolean {
    return this.#stopping;
  }

  /** A job of hashing has ended. */
  hashed(ticket: number, result: HashResult | null): void {
    const end = this.#hashing.get(ticket);
    this.#hashing.delete(ticket);
    end?.(result);
  }

  /** Everything acknowledged becomes durable. */
  flushAll(done: () => void): void {
    let left = 1;
    const one = () => {
      if (--left === 0) done();
    };
    for (const r of this.registry.all()) {
      if (r.handle < 0 && r.clean) continue;
      if (r.failed !== 0) continue;
      left++;
      r.changes.syncData = true;
      r.changes.waiters.push(one);
      this.#dirty.add(r);
      this.#wanted.add(r);
    }
    one();
  }

  /** Commits all, seals the groups so that the next start knows what is zero, and ends the loop. */
  close(done: () => void): void {
    this.#stopping = true;
    this.flushAll(() => this.#seal(done));
  }

  #seal(done: () => void): void {
    const waitZero = () => {
      const unsettled = [...this.#leftovers.values()].some((leftovers) => !leftovers.done);
      if (this.commits.inFlight > 0 || unsettled) return this.#turnWaiters.push(waitZero);
      this.#sealed = true;
      const batch = this.commits.newBatch();
      const syncs: [number, number][] = [];
      for (const pool of this.pools.values()) {
        if (pool.hasFailed()) continue;
        const { files, changes } = pool.seal();
        batch.groups.push(...changes);
        for (const file of files) syncs.push([pool.handle, file]);
      }
      // what of a pool is not known to be durable is looked at again
      const all = this.pools.size === this.poolRows.size && ![...this.pools.values()].some((pool) => pool.failed);
      batch.meta.clean = all ? 1 : 0;
      let left = syncs.length + 1;
      let failed = false;
      const one = (error: number) => {
        if (error !== 0) failed = true;
        if (--left > 0) return;
        if (failed) return this.#end(done);
        this.commits.sendLoose(batch, () => this.copies.finish(() => this.#end(done)));
      };
      for (const [pool, file] of syncs) this.native.syncFile(this.parts.core, pool, file, this.#ticket(one));
      one(0);
      return 0;
    };
    waitZero();
  }

  #end(done: () => void): void {
    this.faults.flushReplies();
    this.parts.committer.send('close');
    this.parts.copier?.send({ op: 'close' } satisfies CopierRequest);
    this.#stopped = true;
    done();
  }
}
