/**
 * The simulated machine: one daemon's engine on a simulated core, disk and store, in one thread. One seed decides whose turn it is,
 * how time passes, what fails, and when it all crashes. What happens in it is the same for the same seed.
 */

import { accountErrors, storeRows } from '../../src/xseg/accounts.ts';
import { Check } from '../../src/xseg/check.ts';
import { Pieces } from '../../src/xseg/ingest/pieces.ts';
import type { Channel } from '../../src/xseg/mapper/channel.ts';
import type { Clock } from '../../src/xseg/mapper/clock.ts';
import { type ControlReply, type ControlRequest, Mapper } from '../../src/xseg/mapper/mapper.ts';
import { loadNative, type Native } from '../../src/xseg/native.ts';
import type { HashRequest } from '../../src/xseg/seal/job.ts';
import { blockHash } from '../../src/xseg/seal/tree-hash.ts';
import { GROUP_SEALED, type PoolRow } from '../../src/xseg/store/batch.ts';
import { bitGet } from '../../src/xseg/store/bitmap.ts';
import type { Bugs } from './bugs.ts';
import { bytesOf, type CutMode, ROT_MIN, SECTOR, SimDisk } from './disk.ts';
import { SimHashing } from './hashing.ts';
import { isWild, UNREADABLE } from './model.ts';
import { SimNative } from './native.ts';
import type { ClientRequest } from './reactor/request.ts';
import { Rng } from './rng.ts';
import { SimStore } from './store.ts';
import { SimThreads } from './threads.ts';

/** Steps without an answer after which somebody is forgotten: minutes of simulated time. */
const STUCK_STEPS_MAX = 60_000;
/** Lines kept of what happened last. */
const TRACE_LINES_MAX = 4000;

/** Crashes after which the equations of space are worked out: it takes its time. */
const ACCOUNT_SHARE = 0.2;
/** Logged as an error when sealed blocks have rotted. */
const CONDEMNED = 'a sealed block does not hold what it should; reads of it answer EIO';

export interface WorldOptions {
  seed: number;
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
export interface Rot {
  pool: number;
  slot: number;
  /** step, and on the clock */
  at: number;
  when: number;
  /** step at which scrubbing found it */
  condemned: number;
}

interface Call {
  op: string;
  step: number;
  resume: (reply: ControlReply) => void;
}

/** How often what gets its turn, in this life of the daemon. */
interface Pace {
  mapper: number;
  reactors: number;
  io: number;
  jobs: number;
  store: number;
  face: number;
  workload: number;
  hashing: number;
  threads: number;
  /** how fast the clock runs */
  time: number;
}

export class World {
  readonly rng: Rng;
  readonly bugs: Bugs;
  readonly disks: SimDisk[] = [];
  readonly store: SimStore;
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
  #memory: ArrayBuffer | undefined;
  #nextCall = 1;
  #calls = new Map<number, Call>();
  #requests: ControlRequest[] = [];
  #replies: ControlReply[] = [];
  #waiting = new Set<{ request: ClientRequest; step: number }>();
  #died: string | null = null;
  /** gives the workload its turn */
  workload: () => void = () => undefined;

  readonly clock: Clock = { now: () => this.now, date: () => 1_700_000_000_000 + Math.floor(this.now) };

  constructor(
    readonly options: WorldOptions,
    pools: PoolRow[],
  ) {
    this.rng = new Rng(options.seed);
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
    this.lives++;
    this.faulty = false;
    const clean = this.store.opened();
    this.native = new SimNative(
      { reactors: 1 + rng.int(3), frames: rng.pick([96, 160, 512, 2048]) },
      this.disks,
      this.codec,
      rng,
      this.bugs,
      this.clock,
      this.#memory,
    );
    this.#memory = this.native.buffer;
    for (const reactor of this.native.reactors) reactor.connections = 1 + rng.int(2);
    const speed = () => rng.pick([0.2, 1, 1, 4]);
    this.#pace = {
      mapper: 2 * speed(),
      reactors: 3 * speed(),
      io: 2 * speed(),
      jobs: speed(),
      store: speed(),
      face: 2 * speed(),
      workload: 1.5 * speed(),
      hashing: speed(),
      threads: speed(),
      time: rng.pick([1, 1, 10, 100]),
    };
    this.native.time = this.#pace.time;
    this.native.slowShare = rng.pick([0.02, 0.1, 0.4]);
    this.native.copied = (block, told) => this.#copied(block, told);
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
    this.store.crash(powerCut);
    this.#forget();
    for (const disk of this.disks) {
      if (powerCut) disk.cut(mode);
      else disk.killed();
    }
    this.check('after a crash');
    this.checkClean();
    this.checkSealed();
    if (this.rng.chance(ACCOUNT_SHARE)) this.account();
  }

  /** The equations of docs/format.md, on what is durable. */
  account(): void {
    const errors = accountErrors(storeRows(this.store.db), (blob, id, entries, header) =>
      this.codec.decodePageTo(blob, id, entries, header),
    );
    if (errors.length > 0) this.fail(`accounts: ${errors.slice(0, 6).join('; ')}`);
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
    this.rots.push({ pool, slot, at: this.steps, when: this.now, condemned: Number.POSITIVE_INFINITY });
    return true;
  }

  /** Reads of the pool have been verified since before this rotted. */
  verified(rot: Rot): boolean {
    return (this.verifiedSince.get(rot.pool) ?? Number.POSITIVE_INFINITY) < rot.at;
  }

  /** Where reads are verified, rot that was there when the copy began is not copied to where no hash tells (invariant 8). */
  #copied(block: Uint32Array, told: number): void {
    for (const value of block) {
      if (!isWild(value) || value === UNREADABLE) continue;
      const rot = this.rots[value - ROT_MIN];
      if (this.verified(rot) && rot.when < told) this.fail(`rot of slot ${rot.slot} is copied`);
    }
  }

  #condemned(fields: Record<string, unknown>): void {
    const pool = this.disks.findIndex((disk) => disk.row.name === fields.pool) + 1;
    const known = this.rots.filter((rot) => rot.pool === pool && rot.slot === fields.slot);
    if (known.length === 0) this.fail(`slot ${fields.slot} of pool ${pool} is called rotten, and is not`);
    for (const rot of known) rot.condemned = Math.min(rot.condemned, this.steps);
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
    let reactorWork = 0;
    let ios = 0;
    for (const reactor of native.reactors) {
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
      else if (event === 1) rng.pick(native.reactors.filter((r) => r.work > 0)).step();
      else if (event === 2) rng.pick(native.reactors.filter((r) => r.ios > 0)).ioStep();
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
    if ((this.steps & 4095) === 0) this.checkSealed();
    return this.#died !== null;
  }

  #mapperTurn(): void {
    if (this.mapper.stopped) return;
    this.mapper.turn();
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
    this.#forget();
    return true;
  }
}
