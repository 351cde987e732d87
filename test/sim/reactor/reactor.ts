/**
 * A reactor with its volume peer, simulated: what native/volume/*.cc does, file by file and under the same names, with
 * every block operation inline or asynchronous as chance has it. Here: its turns, and how requests come and go.
 */
import { OP_LOAD, PAGE_ENTRIES, Reply } from '../../../src/xseg/layout.gen.ts';
import { EIO } from '../../../src/xseg/mapper/errors.ts';
import type { Bugs } from '../bugs.ts';
import type { SimDisk } from '../disk.ts';
import type { RequestRecord, SimNative } from '../native.ts';
import type { Rng } from '../rng.ts';
import { BlockIo, EPOCH_IDLE, type Io } from './block-io.ts';
import { Checks } from './checks.ts';
import { Discards } from './discards.ts';
import { Flushes } from './flushes.ts';
import { Grants } from './grants.ts';
import { Reads } from './reads.ts';
import { type ClientRequest, failRequest } from './request.ts';
import { Spans, type Target } from './spans.ts';
import { Statuses } from './statuses.ts';
import { newWork, type Progress, RETRIES_MAX, type Step, type Turn, type Work } from './work.ts';
import { Writes } from './writes.ts';

/** as in volume_peer.h */
const LOAD_LEAVES_MAX = 64;

export class SimReactor implements Turn {
  /** epoch that the mapper must not pass */
  published = EPOCH_IDLE;
  readonly replies: Uint32Array[] = [];
  readonly spans: Spans;
  connections = 0;
  readonly #submitted: ClientRequest[] = [];
  readonly #runnable: ClientRequest[] = [];
  readonly #io: BlockIo;
  readonly #works = new Map<number, Work>();
  readonly #checks = new Checks(this);
  readonly #reads = new Reads(this, this.#checks);
  readonly #writes = new Writes(this);
  readonly #grants = new Grants(this, this.#writes, this.#checks);
  readonly #discards = new Discards(this, this.#writes);
  readonly #statuses = new Statuses(this);
  readonly #flushes = new Flushes(this);
  #nextTicket = 1;
  #epoch = 1;
  /** epoch of the last turn, kept up while it busily polls */
  #polls = false;

  constructor(
    readonly native: SimNative,
    readonly id: number,
    readonly rng: Rng,
    readonly bugs: Bugs,
  ) {
    this.spans = new Spans(native, bugs);
    this.#io = new BlockIo(native, rng);
  }

  submit(request: ClientRequest): void {
    this.#submitted.push(request);
  }

  /** Things a turn could do. */
  get work(): number {
    return this.#submitted.length + this.replies.length + this.#runnable.length;
  }

  /** Block I/O that could go on now. */
  get ios(): number {
    return this.#io.ready;
  }

  /** It slept when answers of the mapper came. */
  get woken(): boolean {
    return this.replies.length > 0 && this.published === EPOCH_IDLE;
  }

  /** True when block I/O that has not moved its bytes yet is for bytes of this range of a pool. */
  holds(disk: SimDisk, address: number, length: number): boolean {
    return this.#io.holds(disk, address, length);
  }

  /** Some of the block I/O moves its bytes although the daemon is no more. */
  orphan(): void {
    this.#io.orphan();
  }

  // ---- turns

  #turn(work: () => void): void {
    this.#epoch = this.native.epoch;
    this.published = Math.min(this.#io.oldest, this.#epoch);
    work();
    this.#polls = this.rng.chance(0.2);
    if (!this.#polls) this.published = this.#io.oldest;
  }

  /** Sleeps: what it does not hold, the mapper may have. */
  rest(): void {
    this.published = this.#io.oldest;
  }

  /** One turn that does one thing. */
  step(): void {
    const kind = this.rng.weighted([this.#submitted.length, this.replies.length, this.#runnable.length]);
    this.#turn(() => {
      if (kind === 0) this.#start(this.#submitted.shift() as ClientRequest);
      else if (kind === 1) this.#onReply(this.replies.shift() as Uint32Array);
      else {
        const request = this.#runnable.shift() as ClientRequest;
        request.wait = 'no';
        this.#drive(request);
      }
    });
  }

  /** One step of one asynchronous operation: its bytes move, or the reactor hears that they have. */
  ioStep(): void {
    const io = this.#io.pick();
    if (io.run !== null) {
      io.error = io.run();
      io.run = null;
      return;
    }
    this.#turn(() => {
      // still among those on their way while the turn publishes: it may go on with what it looked up
      this.#io.remove(io);
      this.#ioEnded(io);
    });
  }

  // ---- requests come and go

  #start(request: ClientRequest): void {
    request.cursor = request.offset;
    request.pending = 1;
    request.retries = 0;
    request.stage = 'data';
    request.wait = 'no';
    request.error = this.spans.refusal(request);
    this.#drive(request);
  }

  #drive(request: ClientRequest): void {
    let progress: Progress = 'finished';
    if (request.error === 0) {
      if (request.stage === 'durable') progress = this.#flushes.drive(request);
      else if (request.op === 'read') progress = this.#reads.drive(request);
      else if (request.op === 'write') progress = this.#writes.drive(request);
      else if (request.op === 'flush') progress = this.#flushes.drive(request);
      else if (request.op === 'status') progress = this.#statuses.drive(request);
      else progress = this.#discards.drive(request);
    }
    if (progress === 'finished') this.#unpend(request);
  }

  #unpend(request: ClientRequest): void {
    if (--request.pending === 0) this.#complete(request);
  }

  #complete(request: ClientRequest): void {
    const fua = request.fua && request.op !== 'read' && request.op !== 'flush' && !this.bugs.has('fua-ignored');
    if (request.error === 0 && fua && request.stage !== 'durable') {
      request.stage = 'durable';
      request.pending = 1;
      this.#drive(request);
      return;
    }
    request.done(request);
  }

  putOff(request: ClientRequest): Progress {
    request.wait = 'queued';
    this.#runnable.push(request);
    return 'waiting';
  }

  loadAndPark(request: ClientRequest, target: Target, cursor: number, end: number): Progress {
    if (++request.retries > RETRIES_MAX) {
      failRequest(request, EIO);
      return 'finished';
    }
    this.sendLoad(this.takeWork(request, 'load'), 'load', target, cursor, end);
    request.wait = 'parked';
    return 'waiting';
  }

  sendLoad(work: Work, step: Step, target: Target, cursor: number, end: number): void {
    const block = Math.floor(cursor / target.blockBytes);
    let leaf = Math.floor(block / PAGE_ENTRIES) + 1;
    const last = Math.floor(Math.floor((end - 1) / target.blockBytes) / PAGE_ENTRIES);
    for (let n = 1; n < LOAD_LEAVES_MAX && leaf <= last && this.native.find(target.volume, leaf) < 0; n++) leaf++;
    const loadedEnd = Math.min(end, leaf * PAGE_ENTRIES * target.blockBytes);
    const count = Math.floor((loadedEnd - 1) / target.blockBytes) - block + 1;
    this.send(work, step, { op: OP_LOAD, block, count });
  }

  // ---- work of requests

  takeWork(request: ClientRequest, step: Step): Work {
    const work = newWork(this.#nextTicket++, request, step);
    this.#works.set(work.ticket, work);
    request.pending++;
    return work;
  }

  releaseWork(work: Work): void {
    this.#works.delete(work.ticket);
    if (work.request.wait === 'parked') this.putOff(work.request);
    this.#unpend(work.request);
  }

  startIo(work: Work, step: Step, address: number, length: number, run: () => number): void {
    work.step = step;
    this.#io.start(work, this.#epoch, address, length, run);
  }

  #ioEnded(io: Io): void {
    const { work } = io;
    if (work.step === 'in place') this.#writes.inPlaceEnded(work, io);
    else if (work.step === 'copy read') this.#grants.copyEnded(work, io);
    else if (work.step === 'move') this.#grants.moveEnded(work, io);
    else if (work.step === 'check read') this.#checks.readEnded(work, io);
    else if (work.step === 'read') {
      if (io.error !== 0) failRequest(work.request, io.error);
      this.releaseWork(work);
    } else throw new Error(`block I/O that nothing waits for (${work.step})`);
  }

  send(work: Work, step: Step, record: Omit<RequestRecord, 'ticket'>): void {
    work.step = step;
    this.native.send(this.id, { ...record, volume: work.volume, reactor: this.id, ticket: work.ticket });
  }

  #onReply(reply: Uint32Array): void {
    const work = this.#works.get(reply[Reply.ticket / 4]);
    if (work === undefined) throw new Error('a reply to no ticket');
    const error = reply[Reply.error / 4];
    if (work.step === 'map write') this.#grants.given(work, reply);
    else if (work.step === 'answered') this.#grants.published(work, error);
    else if (work.step === 'status') this.#statuses.answered(work, reply);
    else if (work.step === 'hash') this.#checks.onHash(work, reply);
    else if (work.step === 'rotten') this.#checks.onRotten(work, error);
    else if (work.step === 'check load') this.#checks.onLoaded(work, error);
    else if (work.step === 'unmap') this.#discards.unmapped(work, reply);
    else if (work.step === 'load' || work.step === 'flush') {
      if (error !== 0) failRequest(work.request, error);
      this.releaseWork(work);
    } else throw new Error(`a reply that nothing waits for (${work.step})`);
  }
}
