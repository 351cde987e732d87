/**
 * The simulated machine: one daemon's engine on a simulated core, disk and store, in one thread. One seed decides whose turn it is,
 * how time passes, what fails, and when it all crashes. What happens in it is the same for the same seed.
 */

import { Check } from '../../src/xseg/check.ts';
import { Pieces } from '../../src/xseg/ingest/pieces.ts';
import type { Channel } from '../../src/xseg/mapper/channel.ts';
import type { Clock } from '../../src/xseg/mapper/clock.ts';
import { type ControlReply, type ControlRequest, Mapper } from '../../src/xseg/mapper/mapper.ts';
import { loadNative, type Native } from '../../src/xseg/native.ts';
import type { HashRequest } from '../../src/xseg/seal/job.ts';
import { blockHash } from '../../src/xseg/seal/tree-hash.ts';
import { GROUP_SEALED, KIND_INGEST, type PoolRow } from '../../src/xseg/store/batch.ts';
import { bitGet } from '../../src/xseg/store/bitmap.ts';
import type { Bugs } from './bugs.ts';
import { Costs } from './costs.ts';
import { bytesOf, type CutMode, ROT_MIN, SECTOR, SimDisk } from './disk.ts';
import { SimHashing } from './hashing.ts';
import { isWild, UNREADABLE } from './model.ts';
import { type Place, SimNative } from './native.ts';
import type { Part, Profile } from './profiles.ts';
import type { SimReactor } from './reactor/reactor.ts';
import type { ClientRequest } from './reactor/request.ts';
import { Rng } from './rng.ts';
import { Space } from './space.ts';
import { SimStore } from './store.ts';
import { SimThreads } from './threads.ts';

/** Steps without an answer after which somebody is forgotten: minutes of simulated time. */
const STUCK_STEPS_MAX = 60_000;
/** Steps from one walk of all maps to the next, a power of two. */
const WALK_STEPS = 1024;
/** Lines kept of what happened last. */
const TRACE_LINES_MAX = 4000;

/** Logged as an error when sealed blocks have rotted. */
const CONDEMNED = 'a sealed block does not hold what it should; reads of it answer EIO';

export interface WorldOptions {
  seed: number;
  profile: Profile;
  bugs?: Bugs;
  /** keep what happened, for people */
  trace?: boolean;
}

/** A seed that failed. The message says how to see it again. */
export class SimulationFailure extends Error {
  constructor(
    readonly seed: number,
    readonly reason: string,
    readonly trace: readonly string[],
    cause?: unknown,
  ) {
    super(`simulation seed ${seed}: ${reason}`, { cause });
  }
}

export type Resume = (value: never) => void;
/** A flow waits by yielding what starts the wait. */
export type Wait = (resume: Resume) => void;
export type Flow = Generator<Wait, void, never>;

/** The daemon died of what the simulation did to it; no failure. */
class Died extends Error {}

/** A sector of a sealed block that the medium changed. */
export interface Rot extends Place {
  /** step, and on the clock */
  at: number;
  when: number;
  /** step at which scrubbing found it */
  condemned: number;
  /** batches that the store had got by the end of that turn: with the last of them it is durable */
  told: number;
}

interface Call {
  op: string;
  step: number;
  resume: (reply: ControlReply) => void;
}

/** How often what gets its turn, in this life of the daemon. */
interface Pace extends Record<Part, number> {
  /** how fast the clock runs */
  time: number;
}

/** Shares of its turns that a part has, and steps by which a reactor may be woken late. */
const SPEEDS = [0.2, 1, 1, 4];
const STALLS = [100, 1000, 3000];

export class World {
  readonly rng: Rng;
  readonly profile: Profile;
  readonly bugs: Bugs;
  readonly disks: SimDisk[] = [];
  readonly store: SimStore;
  readonly costs: Costs = new Costs(this);
  readonly space: Space;
  readonly codec: Native = loadNative();
  native!: SimNative;
  mapper!: Mapper;
  hashing!: SimHashing;
  threads!: SimThreads;
  pieces!: Pieces;
  /** what rotted: the value of the sector is ROT_MIN and the place in here */
  readonly rots: Rot[] = [];
  /** pool → step since which reads of it are verified; none: they are not, or nobody knows */
  readonly verifiedSince = new Map<number, number>();
  /** lives of the daemon so far */
  lives = 0;
  steps = 0;
  operations = 0;
  crashes = 0;
  /** answers that promised that something is durable */
  promises = 0;
  /** hash of all that happened */
  digest = 0;
  /** something in this life was broken on purpose: errors are to be expected */
  faulty = false;
  now = 1;
  readonly trace: string[] = [];
  #pace!: Pace;
  /** a reactor that is not woken, −1 none, and before which step */
  #stalled = -1;
  #stalledUntil = 0;
  #memory: ArrayBuffer | undefined;
  #nextCall = 1;
  #calls = new Map<number, Call>();
  #requests: ControlRequest[] = [];
  #replies: ControlReply[] = [];
  #waiting = new Set<{ request: ClientRequest; step: number }>();
  #died: string | null = null;
  /** rot that was found in this turn */
  #found: Rot[] = [];
  /** gives the workload its turn */
  workload: () => void = () => undefined;

  readonly clock: Clock = { now: () => this.now, date: () => 1_700_000_000_000 + Math.floor(this.now) };

  constructor(
    readonly options: WorldOptions,
    pools: PoolRow[],
  ) {
    this.rng = new Rng(options.seed);
    this.profile = options.profile;
    this.bugs = options.bugs ?? new Set();
    this.store = new SimStore(this.rng, this.bugs, {
      ensureFile: (_core: number, pool: number, file: number) => this.native.ensureFile(0, pool, file),
    });
    for (const row of pools) {
      this.store.addPool(row);
      const disk = new SimDisk(row, this.rng);
      disk.forgives = this.bugs.has('sync-retried');
      this.disks.push(disk);
    }
    this.store.sent = (batch) => this.costs.sent(batch);
    this.space = new Space(this);
    this.store.applied = (batches) => this.space.committed(batches);
  }

  fail(reason: string, cause?: unknown): never {
    throw new SimulationFailure(this.options.seed, reason, this.trace, cause);
  }

  say(line: () => string): void {
    if (!this.options.trace) return;
    this.trace.push(`${this.steps} ${this.now.toFixed(1)}ms ${line()}`);
    if (this.trace.length > TRACE_LINES_MAX) this.trace.shift();
  }

  note(value: number): void {
    this.digest = (Math.imul(this.digest ^ value, 16777619) + 1) | 0;
  }

  // ---- life and death

  /** Starts the daemon on what there is. */
  open(): void {
    const { rng } = this;
    const { lives } = this.profile;
    this.lives++;
    this.faulty = false;
    const clean = this.store.opened();
    this.space.born();
    this.native = new SimNative(
      { reactors: 1 + rng.int(3), frames: rng.pick(lives.frames) },
      this.disks,
      this.codec,
      rng,
      this.bugs,
      this.clock,
      this.#memory,
    );
    this.#memory = this.native.buffer;
    for (const reactor of this.native.reactors) reactor.connections = 1 + rng.int(2);
    const speed = (part: Part) => rng.pick(lives.pace[part] ?? SPEEDS);
    this.#stalled = -1;
    this.#pace = {
      mapper: 2 * speed('mapper'),
      reactors: 3 * speed('reactors'),
      io: 2 * speed('io'),
      jobs: speed('jobs'),
      store: speed('store'),
      face: 2 * speed('face'),
      workload: 1.5 * speed('workload'),
      hashing: speed('hashing'),
      threads: speed('threads'),
      time: rng.pick(lives.times),
    };
    this.native.time = this.#pace.time;
    this.native.slowShare = rng.pick(lives.slow);
    this.native.copied = (block, from, told) => this.#copied(block, from, told);
    this.native.taken = (record) => this.costs.taken(record);
    this.threads = new SimThreads(rng);
    this.pieces = new Pieces(this.native);
    const face: Channel = {
      receive: () => this.#requests.shift(),
      send: (message) => {
        const copy = structuredClone(message) as ControlReply | { hash: HashRequest };
        if ('hash' in copy) this.hashing.add(copy.hash);
        else this.#replies.push(copy);
      },
    };
    this.hashing = new SimHashing(
      this.native,
      this.store.reader.seal,
      rng,
      this.bugs,
      (ticket, result) => void this.#requests.push({ id: 0, op: 'hashed', args: [ticket, result] }),
    );
    this.mapper = new Mapper(
      this.native as unknown as Native,
      {
        core: 0,
        reader: this.store.reader,
        clean,
        clock: this.clock,
        face,
        committer: this.store.channel,
        pools: this.disks.map(({ row }, handle) => ({ row: { ...row }, handle })),
        // in every other life each leaf is a group of its own, so that groups are under way beside each other
        ...(this.lives % 2 === 1 ? { sealGroupSlots: 1 } : {}),
      },
      (level, event, fields) => {
        this.say(() => `log ${level}: ${event} ${JSON.stringify(fields)}`);
        if (event === CONDEMNED) this.#condemned(fields);
        else if (level === 'error' && !this.faulty) this.fail(`the engine logged: ${event} ${JSON.stringify(fields)}`);
      },
      (reason) => {
        this.#died = reason;
        throw new Died(reason);
      },
    );
    this.say(
      () => `life ${this.lives} begins, ${this.native.shape.frames} frames, ${this.native.shape.reactors} reactors`,
    );
  }

  /** The end of a life: all that was in memory is gone. Whether the machine went too. */
  crash(powerCut: boolean, mode: CutMode): void {
    this.crashes++;
    this.say(() => `crash: ${powerCut ? `power cut, ${mode}` : 'killed'}`);
    for (const reactor of this.native.reactors) reactor.orphan();
    this.threads.orphan();
    this.#forgetFound(this.store.crash(powerCut));
    this.#forget();
    for (const disk of this.disks) {
      if (powerCut) disk.cut(mode);
      else disk.killed();
    }
    this.check('after a crash');
    this.checkClean();
    this.checkSealed();
    // drawn and not used: without it no seed of `found/` would be what it was
    this.rng.next();
    this.space.walk();
  }

  // ---- rot

  get rotten(): boolean {
    return this.rots.length > 0;
  }

  /** The medium changes a sector of a sealed block of a pool, with these bytes or any. False: there is none. */
  rot(of: number, hash: Buffer | null): boolean {
    const rows = this.#sealedRows().filter((row) => row.pool === of && (hash === null || row.hash.equals(hash)));
    if (rows.length === 0) return false;
    const { pool, slot } = this.rng.pick(rows);
    const disk = this.disks[pool - 1];
    const blockBytes = 2 ** disk.row.block_shift;
    const sector = this.rng.int(blockBytes / SECTOR);
    this.say(() => `rot: sector ${sector} of slot ${slot} of pool ${pool}`);
    disk.rot(slot * blockBytes + sector * SECTOR, ROT_MIN + this.rots.length);
    this.rots.push({
      pool,
      slot,
      at: this.steps,
      when: this.now,
      condemned: Number.POSITIVE_INFINITY,
      told: Number.POSITIVE_INFINITY,
    });
    return true;
  }

  /** Reads of the pool have been verified since before this rotted. */
  verified(rot: Rot): boolean {
    return (this.verifiedSince.get(rot.pool) ?? Number.POSITIVE_INFINITY) < rot.at;
  }

  /**
   * Where reads are verified, rot that was there when the copy began is not copied to where no hash tells (invariant 8). What came
   * into a copy that had begun is nobody's to find in a copy of that.
   */
  #copied(block: Uint32Array, from: Place, told: number): void {
    for (const value of block) {
      if (!isWild(value) || value === UNREADABLE) continue;
      const rot = this.rots[value - ROT_MIN];
      if (rot.pool !== from.pool || rot.slot !== from.slot) continue;
      if (this.verified(rot) && rot.when < told) this.fail(`rot of slot ${rot.slot} is copied`);
    }
  }

  #condemned(fields: Record<string, unknown>): void {
    const pool = this.disks.findIndex((disk) => disk.row.name === fields.pool) + 1;
    const known = this.rots.filter((rot) => rot.pool === pool && rot.slot === fields.slot);
    if (known.length === 0) this.fail(`slot ${fields.slot} of pool ${pool} is called rotten, and is not`);
    for (const rot of known) {
      if (rot.condemned !== Number.POSITIVE_INFINITY) continue;
      rot.condemned = this.steps;
      this.#found.push(rot);
    }
  }

  /** What was found and may not have become durable, nobody need know any more. */
  #forgetFound(durable: number): void {
    const bad = this.store.db.prepare('SELECT 1 FROM sealed WHERE pool = ? AND slot = ? AND bad IS NOT NULL').pluck();
    for (const rot of this.rots) {
      if (rot.told <= durable || bad.get(rot.pool, rot.slot) !== undefined) continue;
      rot.condemned = Number.POSITIVE_INFINITY;
      rot.told = Number.POSITIVE_INFINITY;
    }
  }

  #sealedRows(): { pool: number; slot: number; hash: Buffer }[] {
    return this.store.db.prepare('SELECT pool, slot, hash FROM sealed WHERE bad IS NULL ORDER BY pool, slot').all() as {
      pool: number;
      slot: number;
      hash: Buffer;
    }[];
  }

  /** What is in the index holds the bytes of its hash, but for what rotted (invariants 2, 8). */
  checkSealed(): void {
    for (const { pool, slot, hash } of this.#sealedRows()) {
      const disk = this.disks[pool - 1];
      const blockBytes = 2 ** disk.row.block_shift;
      const sectors = new Uint32Array(blockBytes / SECTOR);
      disk.peek(slot * blockBytes, sectors, 0, sectors.length);
      if (!blockHash(bytesOf(sectors)).equals(hash) && !sectors.some(isWild))
        this.fail(`slot ${slot} of pool ${pool} is in the index and holds other bytes: ${sectors}`);
    }
  }

  #forget(): void {
    this.#calls.clear();
    this.#requests = [];
    this.#replies = [];
    this.#waiting.clear();
    this.#died = null;
  }

  /** What a failed sync dropped is in the cache and nowhere else: only a power cut tells the truth. */
  get tainted(): boolean {
    return this.disks.some((disk) => disk.tainted);
  }

  /** The invariants of docs/format.md, on what is durable. */
  check(when: string): void {
    const report = new Check(this.store.db, this.codec).run(() => undefined);
    const rot = this.rotten && report.problems.every(({ code }) => code === 'BAD_BLOCK');
    if (!report.ok && !rot)
      this.fail(
        `check ${when}: ${report.problemCount} problems: ${report.problems
          .slice(0, 6)
          .map((p) => `${p.code} ${p.message}`)
          .join('; ')}`,
      );
  }

  /** Free slots that the store calls clean read as zeroes, whatever the crash left of the files (invariant 12). */
  checkClean(): void {
    for (const [handle, disk] of this.disks.entries()) {
      const { row } = disk;
      const blockBytes = 2 ** row.block_shift;
      const sectors = new Uint32Array(blockBytes / SECTOR);
      for (const { grp } of this.store.reader.groups(row.id)) {
        const group = this.store.reader.group(row.id, grp);
        if (group === undefined || group.state !== GROUP_SEALED) continue;
        for (let i = 0; i < row.group_slots; i++) {
          const slot = grp * row.group_slots + i;
          if (row.size > 0 && (slot + 1) * blockBytes > row.size) break;
          if (bitGet(group.bitmap, i) || group.dirty === null || bitGet(group.dirty, i)) continue;
          disk.read(slot * blockBytes, sectors, 0, sectors.length);
          if (sectors.some((s) => s !== 0))
            this.fail(
              `slot ${slot} of pool ${handle} is free and said to be zero, and reads ${sectors.find((s) => s !== 0)}`,
            );
        }
      }
    }
  }

  // ---- talking to the daemon

  /** Starts something that goes on by itself until the daemon's life ends. */
  spawn(flow: Flow): void {
    const life = this.lives;
    const go = (value: never): void => {
      if (this.lives !== life) return;
      const next = flow.next(value);
      if (!next.done) next.value(go as Resume);
    };
    go(undefined as never);
  }

  /** A control request; a flow yields it and gets the reply. */
  call(op: string, ...args: unknown[]): Wait {
    return (resume) => {
      const id = this.#nextCall++;
      this.say(() => `call ${id}: ${op} ${JSON.stringify(args)}`);
      this.#requests.push(structuredClone({ id, op, args }));
      this.#calls.set(id, { op, step: this.steps, resume: resume as unknown as Call['resume'] });
      this.operations++;
    };
  }

  /** A client's request to a reactor. */
  submit(reactor: number, request: ClientRequest): void {
    const entry = { request, step: this.steps };
    this.#waiting.add(entry);
    this.operations++;
    const life = this.lives;
    const done = request.done;
    request.done = (r) => {
      if (this.lives !== life) return;
      this.#waiting.delete(entry);
      this.note(r.error);
      this.note(r.offset);
      done(r);
    };
    this.native.reactors[reactor % this.native.shape.reactors].submit(request);
  }

  get inFlight(): number {
    return this.#calls.size + this.#waiting.size + this.threads.jobs;
  }

  #deliver(): void {
    const reply = this.#replies.shift() as ControlReply;
    if (!('id' in reply)) return;
    const call = this.#calls.get(reply.id);
    this.#calls.delete(reply.id);
    this.say(() => `reply ${reply.id} (${call?.op}): ${JSON.stringify(reply.error ?? reply.value)?.slice(0, 200)}`);
    this.note(reply.id);
    call?.resume(reply);
  }

  // ---- time

  /** One event. True when the daemon died of it. */
  step(): boolean {
    const { rng, native, store } = this;
    const pace = this.#pace;
    this.steps++;
    this.#stall();
    let reactorWork = 0;
    let ios = 0;
    const running = this.#running();
    for (const reactor of running) {
      reactorWork += reactor.work;
      ios += reactor.ios;
    }
    const weights = [
      pace.mapper,
      reactorWork > 0 ? pace.reactors : 0,
      ios > 0 ? pace.io : 0,
      native.jobs > 0 ? pace.jobs : 0,
      store.busy ? pace.store : 0,
      this.#replies.length > 0 ? pace.face : 0,
      pace.workload,
      this.hashing.busy ? pace.hashing : 0,
      this.threads.jobs > 0 ? pace.threads : 0,
    ];
    const event = rng.weighted(weights);
    this.note(event);
    const work = reactorWork + ios + native.jobs + this.#replies.length + this.threads.jobs;
    const quiet = work === 0 && !store.busy && !native.mail && !this.hashing.busy;
    this.now +=
      pace.time * (quiet && rng.chance(0.2) ? rng.int(300) : rng.chance(0.02) ? rng.int(200) : rng.next() * 0.2);
    try {
      if (event === 0) this.#mapperTurn();
      else if (event === 1) rng.pick(running.filter((r) => r.work > 0)).step();
      else if (event === 2) rng.pick(running.filter((r) => r.ios > 0)).ioStep();
      else if (event === 3) native.step();
      else if (event === 4) store.step();
      else if (event === 5) this.#deliver();
      else if (event === 6) this.workload();
      else if (event === 7) this.hashing.step();
      else this.threads.step();
    } catch (error) {
      if (error instanceof Died) return true;
      if (error instanceof SimulationFailure) throw error;
      this.fail((error as Error).message, error);
    }
    if ((this.steps & 1023) === 0) this.#lookForStuck();
    if ((this.steps & (this.profile.sealing.looks - 1)) === 0) this.checkSealed();
    if ((this.steps & (WALK_STEPS - 1)) === 0) this.space.walk();
    return this.#died !== null;
  }

  /** Now and then the thread of a reactor that slept is woken late: it holds nothing, and has answers of the mapper. */
  #stall(): void {
    const { stalls } = this.profile.lives;
    if (this.#stalled >= 0 && this.steps >= this.#stalledUntil) this.#stalled = -1;
    if (stalls === 0 || this.#stalled >= 0) return;
    const woken = this.native.reactors.filter((reactor) => reactor.woken);
    if (woken.length === 0 || !this.rng.chance(stalls)) return;
    this.#stalled = this.rng.pick(woken).id;
    this.#stalledUntil = this.steps + this.rng.int(this.rng.pick(STALLS));
    this.say(() => `reactor ${this.#stalled} is not woken before step ${this.#stalledUntil}`);
  }

  #running(): SimReactor[] {
    const { reactors } = this.native;
    return this.#stalled < 0 ? reactors : reactors.filter(({ id }) => id !== this.#stalled);
  }

  #mapperTurn(): void {
    if (this.mapper.stopped) return;
    this.costs.begins(this.#requests.length > 0);
    this.mapper.turn();
    this.costs.ends();
    this.space.turned();
    for (const rot of this.#found.splice(0)) rot.told = this.store.came;
    // those that hold nothing and do not poll are asleep
    for (const reactor of this.native.reactors) if (reactor.work === 0 && this.rng.chance(0.5)) reactor.rest();
  }

  #lookForStuck(): void {
    for (const call of this.#calls.values())
      if (this.steps - call.step > STUCK_STEPS_MAX) this.fail(`${call.op} was never answered`);
    for (const { request, step } of this.#waiting)
      if (this.steps - step > STUCK_STEPS_MAX)
        this.fail(`a ${request.op} of ${request.length} at ${request.offset} was never answered`);
  }

  /** Time passes as it does on a fast machine, until this life ends. */
  slowClock(): void {
    this.#pace.time = 1;
    this.native.time = 1;
  }

  /** Closes the daemon cleanly; what it wrote meanwhile and did not sync is at the mercy of the next crash. */
  stop(): boolean {
    let closed = false;
    this.spawn(
      (function* (world: World): Flow {
        yield world.call('close');
        closed = true;
      })(this),
    );
    const workload = this.workload;
    this.workload = () => undefined;
    try {
      for (let i = 0; !closed || !this.mapper.stopped; i++) {
        if (i > STUCK_STEPS_MAX) this.fail('close was never answered');
        if (this.step()) return false;
      }
    } finally {
      this.workload = workload;
    }
    while (this.store.busy) this.store.step();
    this.#leftNothing();
    this.space.turned(true);
    this.#forget();
    return true;
  }

  /** A clean stop, with nobody at work before it: no stream is left, and what memory calls used the store does too (6). */
  #leftNothing(): void {
    const { db } = this.store;
    const streams = db.prepare('SELECT count(*) FROM resource WHERE kind = ?').pluck().get(KIND_INGEST);
    if (streams !== 0) this.fail(`${streams} streams are left in the store, and none is under way`);
    for (const pool of this.mapper.pools.values()) {
      const used = db.prepare('SELECT coalesce(sum(used), 0) FROM slot_group WHERE pool = ?').pluck().get(pool.id);
      if (used !== pool.usedSlots)
        this.fail(`pool ${pool.row.name} stops with ${pool.usedSlots} slots in use, and ${used} in the store`);
    }
  }
}
