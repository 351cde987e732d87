/**
 * A reactor with its volume peer, simulated: what native/volume/*.cc does, function by function and under the same names, with
 * every block operation inline or asynchronous as chance has it. An asynchronous one has two steps: the bytes move, and
 * the reactor hears of it.
 */
import {
  FLAG_ALLOCATE,
  FLAG_CHANGED_SINCE,
  FLAG_FULL,
  GRANT_IN_PLACE,
  OP_DONE,
  OP_FLUSH,
  OP_LOAD,
  OP_MAP_WRITE,
  OP_STATUS,
  OP_UNMAP,
  PAGE_ENTRIES,
  Reply,
  SCRATCH_EXTENTS,
  SCRATCH_SLOTS,
  SLOT_NONE,
  VOLUME_OPEN,
  VOLUME_READ_ONLY,
  VolumeRecord,
} from '../../src/xseg/layout.gen.ts';
import { EINVAL, EIO, ENOSPC, EROFS, ESHUTDOWN } from '../../src/xseg/mapper/errors.ts';
import type { Bugs } from './bugs.ts';
import { SECTOR, type SimDisk } from './disk.ts';
import type { RequestRecord, SimNative } from './native.ts';
import type { Rng } from './rng.ts';

const TWO32 = 2 ** 32;
const VALUE_HI_MASK = 0xffff;
const EXCLUSIVE_BIT = 0x80000000;
const BAD_BIT = 0x20000000;
/** what a reactor publishes that holds nothing */
const EPOCH_IDLE = Number.POSITIVE_INFINITY;
/** as in volume_peer.h */
const IO_BYTES_MAX = 1 << 20;
const LOAD_LEAVES_MAX = 64;
const RETRIES_MAX = 1000;
const ECANCELED = 125;
/** Some I/O takes long enough for what it looked up to be given up, freed and used again meanwhile. */
const SLOW_MS = [200, 2000, 10_000];
export const ENOTSUP = 95;

export type Op = 'read' | 'write' | 'flush' | 'trim' | 'zeroes' | 'status';

/** volume/request.h: what a frontend asks. */
export interface ClientRequest {
  op: Op;
  fua: boolean;
  noHole: boolean;
  fastZero: boolean;
  volume: number;
  /** bytes, multiples of SECTOR */
  offset: number;
  length: number;
  /** read: filled; write: source; one number per sector */
  sectors: Uint32Array;
  /** status: extents as [bytes, flags] pairs, and the handle to compare with or −1 */
  extents: number[];
  context: number;
  done(request: ClientRequest): void;
  error: number;
  // ---- the volume peer's own
  cursor: number;
  pending: number;
  retries: number;
  stage: 'data' | 'checked' | 'durable';
  /** 'parked': until one of its works ends */
  wait: 'no' | 'parked' | 'queued';
}

type Step =
  | 'read'
  | 'in place'
  | 'load'
  | 'map write'
  | 'copy read'
  | 'move'
  | 'answered'
  | 'unmap'
  | 'flush'
  | 'status'
  | 'sync';

/** volume/work.h: one thing that a request waits for. */
interface Work {
  ticket: number;
  request: ClientRequest;
  volume: number;
  step: Step;
  generation: number;
  retries: number;
  cursor: number;
  end: number;
  pieceEnd: number;
  grant: number;
  slotNew: number;
  slotOld: number;
  granted: number;
  moved: number;
  /** bytes of the block I/O that is on its way */
  moving: number;
  buffer: Uint32Array | null;
  scratch: number;
}

/** Asynchronous block I/O. */
interface Io {
  work: Work;
  epoch: number;
  /** what moves the bytes; null when they have moved */
  run: (() => number) | null;
  error: number;
  address: number;
  length: number;
  /** nothing of it happens before: some disks are slow now and then */
  due: number;
}

interface Target {
  volume: number;
  disk: SimDisk;
  shift: number;
  blockBytes: number;
  record: number;
}

interface Span {
  place: 'missing' | 'zero' | 'data' | 'bad' | 'in place' | 'fault';
  length: number;
  address: number;
}

type Progress = 'finished' | 'waiting';

export class SimReactor {
  /** epoch that the mapper must not pass */
  published = EPOCH_IDLE;
  readonly replies: Uint32Array[] = [];
  readonly #submitted: ClientRequest[] = [];
  readonly #runnable: ClientRequest[] = [];
  readonly #ios: Io[] = [];
  readonly #works = new Map<number, Work>();
  #nextTicket = 1;
  #scratchFree = (1 << SCRATCH_SLOTS) - 1;
  #epoch = 1;
  /** connections, for what is only done when there is one */
  connections = 0;
  /** epoch of the last turn, kept up while it busily polls */
  #polls = false;

  constructor(
    readonly native: SimNative,
    readonly id: number,
    readonly rng: Rng,
    readonly bugs: Bugs,
  ) {}

  submit(request: ClientRequest): void {
    this.#submitted.push(request);
  }

  /** Things a turn could do. */
  get work(): number {
    return this.#submitted.length + this.replies.length + this.#runnable.length;
  }

  /** Block I/O that could go on now. */
  get ios(): number {
    const now = this.native.clock.now();
    let count = 0;
    for (const io of this.#ios) if (io.due <= now) count++;
    return count;
  }

  /** True when block I/O that has not moved its bytes yet is for bytes of this range of a pool. */
  holds(disk: SimDisk, address: number, length: number): boolean {
    return this.#ios.some(
      (io) =>
        io.run !== null &&
        this.native.diskOf(io.work.volume) === disk &&
        io.address < address + length &&
        address < io.address + io.length,
    );
  }

  /** Some of the block I/O moves its bytes although the daemon is no more: it was with the kernel. */
  orphan(): void {
    for (const io of this.#ios) if (io.run !== null && this.rng.chance(0.5)) io.run();
  }

  // ---- turns

  #turn(work: () => void): void {
    this.#epoch = this.native.epoch;
    this.published = Math.min(this.#oldest(), this.#epoch);
    work();
    this.#polls = this.rng.chance(0.2);
    if (!this.#polls) this.published = this.#oldest();
  }

  /** Sleeps: what it does not hold, the mapper may have. */
  rest(): void {
    this.published = this.#oldest();
  }

  #oldest(): number {
    let oldest = EPOCH_IDLE;
    for (const io of this.#ios) oldest = Math.min(oldest, io.epoch);
    return oldest;
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
    const now = this.native.clock.now();
    const io = this.rng.pick(this.#ios.filter((one) => one.due <= now));
    if (io.run !== null) {
      io.error = io.run();
      io.run = null;
      return;
    }
    this.#turn(() => {
      // still among those on their way while the turn publishes: it may go on with what it looked up
      this.#ios.splice(this.#ios.indexOf(io), 1);
      this.#ioEnded(io);
    });
  }

  // ---- requests come and go

  #refusal(request: ClientRequest): number {
    const { words } = this.native;
    const at = this.native.recordAt(request.volume);
    if (words[at + VolumeRecord.state / 4] !== VOLUME_OPEN) return ESHUTDOWN;
    const size = this.#sizeOf(at);
    const changes = request.op === 'write' || request.op === 'trim' || request.op === 'zeroes';
    if (request.offset > size || request.length > size - request.offset) return changes ? ENOSPC : EINVAL;
    if (changes && (words[at + VolumeRecord.flags / 4] & VOLUME_READ_ONLY) !== 0) return EROFS;
    if (changes || request.op === 'flush') return words[at + VolumeRecord.failed / 4];
    return 0;
  }

  #sizeOf(record: number): number {
    const at = record + VolumeRecord.size / 4;
    return this.native.words[at] + this.native.words[at + 1] * TWO32;
  }

  #targetOf(volume: number): Target {
    const record = this.native.recordAt(volume);
    const shift = this.native.words[record + VolumeRecord.blockShift / 4];
    return { volume, record, disk: this.native.diskOf(volume), shift, blockBytes: 2 ** shift };
  }

  #start(request: ClientRequest): void {
    request.cursor = request.offset;
    request.pending = 1;
    request.retries = 0;
    request.stage = 'data';
    request.wait = 'no';
    request.error = this.#refusal(request);
    this.#drive(request);
  }

  #drive(request: ClientRequest): void {
    let progress: Progress = 'finished';
    if (request.error === 0) {
      if (request.stage === 'durable') progress = this.#driveFlush(request);
      else if (request.op === 'read') progress = this.#driveRead(request);
      else if (request.op === 'write') progress = this.#driveWrite(request);
      else if (request.op === 'flush') progress = this.#driveFlush(request);
      else if (request.op === 'status') progress = this.#driveStatus(request);
      else progress = this.#driveDiscard(request);
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

  static #fail(request: ClientRequest, error: number): void {
    if (request.error === 0) request.error = error;
  }

  #park(request: ClientRequest): Progress {
    request.wait = 'parked';
    return 'waiting';
  }

  #putOff(request: ClientRequest): Progress {
    request.wait = 'queued';
    this.#runnable.push(request);
    return 'waiting';
  }

  #takeWork(request: ClientRequest, step: Step): Work {
    const work: Work = {
      ticket: this.#nextTicket++,
      request,
      volume: request.volume,
      step,
      generation: 0,
      retries: 0,
      cursor: 0,
      end: 0,
      pieceEnd: 0,
      grant: 0,
      slotNew: 0,
      slotOld: 0,
      granted: 0,
      moved: 0,
      moving: 0,
      buffer: null,
      scratch: 0,
    };
    this.#works.set(work.ticket, work);
    request.pending++;
    return work;
  }

  #releaseWork(work: Work): void {
    this.#works.delete(work.ticket);
    if (work.request.wait === 'parked') this.#putOff(work.request);
    this.#unpend(work.request);
  }

  #startIo(work: Work, step: Step, address: number, length: number, run: () => number): void {
    work.step = step;
    const due =
      this.native.clock.now() +
      (this.rng.chance(this.native.slowShare) ? this.rng.int(this.rng.pick(SLOW_MS)) * this.native.time : 0);
    this.#ios.push({ work, epoch: this.#epoch, run, error: 0, address, length, due });
  }

  #ioEnded(io: Io): void {
    const { work } = io;
    const target = this.#targetOf(work.volume);
    if (work.step === 'read') {
      if (io.error !== 0) SimReactor.#fail(work.request, io.error);
      this.#releaseWork(work);
    } else if (work.step === 'in place') {
      // also after an error: some of it may have been written
      if (!this.bugs.has('write-not-marked')) this.#markWritten(target, io.address);
      if (!this.bugs.has('write-not-admitted')) this.native.admit(work.volume, this.id, work.generation, -1);
      if (io.error !== 0) SimReactor.#fail(work.request, io.error);
      work.cursor = work.pieceEnd;
      this.#driveWork(work);
    } else if (work.step === 'copy read') {
      if (io.error !== 0) this.#answerGrant(work, io.error);
      else this.#overlayAndWrite(work, target);
    } else {
      this.#moveEnded(work, target, io);
    }
  }

  #send(work: Work, step: Step, record: Omit<RequestRecord, 'ticket'>): void {
    work.step = step;
    this.native.send(this.id, { ...record, volume: work.volume, reactor: this.id, ticket: work.ticket });
  }

  #onReply(reply: Uint32Array): void {
    const work = this.#works.get(reply[Reply.ticket / 4]);
    if (work === undefined) throw new Error('a reply to no ticket');
    const error = reply[Reply.error / 4];
    if (work.step === 'map write') this.#onGrant(work, reply);
    else if (work.step === 'answered') this.#grantPublished(work, error);
    else if (work.step === 'status') this.#onStatus(work, reply);
    else if (work.step === 'load' || work.step === 'unmap' || work.step === 'flush') {
      if (error !== 0) SimReactor.#fail(work.request, error);
      this.#releaseWork(work);
    } else throw new Error(`a reply that nothing waits for (${work.step})`);
  }

  // ---- spans

  #entry(frame: number, index: number): number {
    const at = this.native.frameAt(frame) + index * 2;
    return this.native.words[at] + (this.native.words[at + 1] & VALUE_HI_MASK) * TWO32;
  }

  #isBad(frame: number, index: number): boolean {
    return (this.native.words[this.native.frameAt(frame) + index * 2 + 1] & BAD_BIT) !== 0;
  }

  #readSpan(target: Target, cursor: number, end: number): Span {
    const block = Math.floor(cursor / target.blockBytes);
    const frame = this.native.find(target.volume, Math.floor(block / PAGE_ENTRIES));
    if (frame < 0) return { place: 'missing', length: 0, address: 0 };
    this.native.touch(frame);
    const inside = cursor % target.blockBytes;
    const most = Math.min(end - cursor, IO_BYTES_MAX);
    let index = block % PAGE_ENTRIES;
    let length = target.blockBytes - inside;
    const first = this.#entry(frame, index);
    if (this.#isBad(frame, index) && !this.bugs.has('quarantine-ignored'))
      return { place: 'bad', length: Math.min(length, most), address: 0 };
    let expected = first;
    while (length < most && ++index < PAGE_ENTRIES) {
      if (first !== 0) expected++;
      if (this.#entry(frame, index) !== expected || this.#isBad(frame, index)) break;
      length += target.blockBytes;
    }
    length = Math.min(length, most);
    if (first === 0) return { place: 'zero', length, address: 0 };
    const address = (first - 1) * target.blockBytes + inside;
    return { place: 'data', length: Math.min(length, target.disk.room(address)), address };
  }

  #writeSpan(target: Target, cursor: number, end: number, generation: number): Span {
    const { blockBytes } = target;
    const block = Math.floor(cursor / blockBytes);
    const inside = cursor % blockBytes;
    const toBlockEnd = blockBytes - inside;
    const leaf = Math.floor(block / PAGE_ENTRIES);
    const found = this.native.find(target.volume, leaf);
    if (found >= 0) this.native.touch(found);
    const ours = found >= 0 && this.native.stampedFor(found, target.volume, generation);
    let index = block % PAGE_ENTRIES;
    const writable = (i: number): number => {
      if (!ours) return 0;
      const high = this.native.words[this.native.frameAt(found) + i * 2 + 1];
      return (high & EXCLUSIVE_BIT) !== 0 ? this.#entry(found, i) : 0;
    };
    const first = writable(index);
    if (first !== 0) {
      const most = Math.min(end - cursor, IO_BYTES_MAX);
      let length = toBlockEnd;
      for (let value = first + 1; length < most && ++index < PAGE_ENTRIES && writable(index) === value; value++)
        length += blockBytes;
      const address = (first - 1) * blockBytes + inside;
      return { place: 'in place', length: Math.min(length, most, target.disk.room(address)), address };
    }
    if (toBlockEnd > end - cursor || inside !== 0)
      return { place: 'fault', length: Math.min(toBlockEnd, end - cursor), address: 0 };
    const wholeEnd = Math.min(end - (end % blockBytes), (leaf + 1) * PAGE_ENTRIES * blockBytes);
    let length = blockBytes;
    while (cursor + length < wholeEnd && writable(++index) === 0) length += blockBytes;
    return { place: 'fault', length, address: 0 };
  }

  #markWritten(target: Target, address: number): void {
    this.native.markFile(0, target.volume, target.disk.fileOf(address));
  }

  #loadAndPark(request: ClientRequest, target: Target, cursor: number, end: number): Progress {
    if (++request.retries > RETRIES_MAX) {
      SimReactor.#fail(request, EIO);
      return 'finished';
    }
    const work = this.#takeWork(request, 'load');
    const block = Math.floor(cursor / target.blockBytes);
    let leaf = Math.floor(block / PAGE_ENTRIES) + 1;
    const last = Math.floor(Math.floor((end - 1) / target.blockBytes) / PAGE_ENTRIES);
    for (let n = 1; n < LOAD_LEAVES_MAX && leaf <= last && this.native.find(target.volume, leaf) < 0; n++) leaf++;
    const loadedEnd = Math.min(end, leaf * PAGE_ENTRIES * target.blockBytes);
    const count = Math.floor((loadedEnd - 1) / target.blockBytes) - block + 1;
    this.#send(work, 'load', { op: OP_LOAD, block, count });
    return this.#park(request);
  }

  // ---- reading

  #driveRead(request: ClientRequest): Progress {
    const target = this.#targetOf(request.volume);
    const end = request.offset + request.length;
    while (request.cursor < end) {
      if (this.rng.chance(0.05)) return this.#putOff(request);
      const span = this.#readSpan(target, request.cursor, end);
      if (span.place === 'missing') return this.#loadAndPark(request, target, request.cursor, end);
      if (span.place === 'bad') {
        SimReactor.#fail(request, EIO);
        return 'finished';
      }
      const from = (request.cursor - request.offset) / SECTOR;
      const count = span.length / SECTOR;
      if (span.place === 'zero') {
        request.sectors.fill(0, from, from + count);
      } else {
        const run = () => target.disk.read(span.address, request.sectors, from, count);
        if (this.rng.chance(0.4)) {
          this.#startIo(this.#takeWork(request, 'read'), 'read', span.address, span.length, run);
        } else {
          const error = run();
          if (error !== 0) {
            SimReactor.#fail(request, error);
            return 'finished';
          }
        }
      }
      request.cursor += span.length;
      request.retries = 0;
    }
    return 'finished';
  }

  // ---- writing

  #generationOf(volume: number): number {
    return this.native.words[this.native.recordAt(volume) + VolumeRecord.generation / 4];
  }

  /** What is written at `cursor`: the client's sectors, or zeroes for the edges of trim and zeroes. */
  #sourceOf(request: ClientRequest, cursor: number, bytes: number): { from: Uint32Array; at: number; sectors: number } {
    const sectors = bytes / SECTOR;
    if (request.op !== 'write') return { from: new Uint32Array(sectors), at: 0, sectors };
    return { from: request.sectors, at: (cursor - request.offset) / SECTOR, sectors };
  }

  #beyondEnd(target: Target, end: number): boolean {
    return end > this.#sizeOf(target.record);
  }

  #driveWrite(request: ClientRequest): Progress {
    const generation = this.#generationOf(request.volume);
    this.native.admit(request.volume, this.id, generation, 1);
    const progress = this.#driveAdmitted(request, generation);
    this.native.admit(request.volume, this.id, generation, -1);
    return progress;
  }

  #driveAdmitted(request: ClientRequest, generation: number): Progress {
    const target = this.#targetOf(request.volume);
    const end = request.offset + request.length;
    while (request.cursor < end) {
      if (this.rng.chance(0.05)) return this.#putOff(request);
      const span = this.#writeSpan(target, request.cursor, end, generation);
      if (span.place === 'fault') {
        if (target.disk.failed) {
          SimReactor.#fail(request, EIO);
          return 'finished';
        }
        const work = this.#takeWork(request, 'map write');
        work.cursor = request.cursor;
        work.end = request.cursor + span.length;
        this.#sendMapWrite(work, target, span.length);
      } else if (this.#beyondEnd(target, request.cursor + span.length)) {
        SimReactor.#fail(request, ENOSPC);
        return 'finished';
      } else if (this.#writeDurable(request, target, span, generation)) {
        return 'finished';
      } else if (this.rng.chance(0.5)) {
        const work = this.#takeWork(request, 'in place');
        work.cursor = request.cursor;
        work.end = request.cursor + span.length;
        this.#startInPlace(work, target, span, generation, false);
      } else {
        const { from, at, sectors } = this.#sourceOf(request, request.cursor, span.length);
        const error = target.disk.write(span.address, from, at, sectors);
        if (error !== 0) {
          SimReactor.#fail(request, error);
          return 'finished';
        }
        this.#markWritten(target, span.address);
      }
      request.cursor += span.length;
    }
    return 'finished';
  }

  /** FUA of one run in place whose map is durable: one durable write. True when it was taken care of. */
  #writeDurable(request: ClientRequest, target: Target, span: Span, generation: number): boolean {
    if (!request.fua || this.bugs.has('fua-ignored') || span.length !== request.length) return false;
    if (this.connections <= 1 || !this.#mapIsDurable(target)) return false;
    const work = this.#takeWork(request, 'in place');
    work.cursor = request.cursor;
    work.end = request.cursor + span.length;
    request.stage = 'durable';
    request.cursor = work.end;
    this.#startInPlace(work, target, span, generation, true);
    return true;
  }

  /** Stays admitted until it has ended. */
  #startInPlace(work: Work, target: Target, span: Span, generation: number, durable: boolean): void {
    work.generation = generation;
    work.pieceEnd = work.cursor + span.length;
    if (!this.bugs.has('write-not-admitted')) this.native.admit(work.volume, this.id, generation, 1);
    const { from, at, sectors } = this.#sourceOf(work.request, work.cursor, span.length);
    this.#startIo(work, 'in place', span.address, span.length, () =>
      durable
        ? target.disk.writeDurable(span.address, from, at, sectors)
        : target.disk.write(span.address, from, at, sectors),
    );
  }

  /** Goes on with what is left of a work's bytes: in place where that is possible by now, else by another fault. */
  #driveWork(work: Work): void {
    const { request } = work;
    const target = this.#targetOf(work.volume);
    while (work.cursor < work.end && request.error === 0) {
      const generation = this.#generationOf(work.volume);
      const span = this.#writeSpan(target, work.cursor, work.end, generation);
      if (span.place === 'fault') {
        this.#sendMapWrite(work, target, span.length);
        return;
      }
      if (this.#beyondEnd(target, work.cursor + span.length)) {
        SimReactor.#fail(request, ENOSPC);
        break;
      }
      if (this.rng.chance(0.3)) {
        this.#startInPlace(work, target, span, generation, false);
        return;
      }
      const { from, at, sectors } = this.#sourceOf(request, work.cursor, span.length);
      const error = target.disk.write(span.address, from, at, sectors);
      if (error !== 0) SimReactor.#fail(request, error);
      else this.#markWritten(target, span.address);
      work.cursor += span.length;
    }
    this.#releaseWork(work);
  }

  #sendMapWrite(work: Work, target: Target, length: number): void {
    const inside = work.cursor % target.blockBytes;
    work.pieceEnd = work.cursor + length;
    const block = Math.floor(work.cursor / target.blockBytes);
    if (inside !== 0 || length < target.blockBytes)
      this.#send(work, 'map write', { op: OP_MAP_WRITE, block, count: 1, offset: inside, length });
    else
      this.#send(work, 'map write', { op: OP_MAP_WRITE, block, flags: FLAG_FULL, count: length / target.blockBytes });
  }

  // ---- grants

  #onGrant(work: Work, reply: Uint32Array): void {
    const { request } = work;
    const error = reply[Reply.error / 4];
    if (error !== 0) {
      SimReactor.#fail(request, error);
      this.#releaseWork(work);
      return;
    }
    if ((reply[Reply.flags / 4] & GRANT_IN_PLACE) !== 0) {
      if (++work.retries > RETRIES_MAX) SimReactor.#fail(request, EIO);
      this.#driveWork(work);
      return;
    }
    const target = this.#targetOf(work.volume);
    const asked = work.pieceEnd - work.cursor;
    work.grant = reply[Reply.grant / 4];
    work.slotNew = reply[Reply.slotNew / 4] + reply[Reply.slotNew / 4 + 1] * TWO32;
    work.slotOld = reply[Reply.slotOld / 4] + reply[Reply.slotOld / 4 + 1] * TWO32;
    work.granted = Math.min(asked, reply[Reply.count / 4] * target.blockBytes);
    work.moved = 0;
    if (request.error !== 0) this.#answerGrant(work, ECANCELED);
    else this.#move(work, target);
  }

  #move(work: Work, target: Target): void {
    const partial = work.granted < target.blockBytes;
    if (!partial || work.slotOld === SLOT_NONE) {
      this.#moveRun(work, target);
      return;
    }
    work.buffer = new Uint32Array(target.blockBytes / SECTOR);
    // what the write does not cover, in one piece, around it if need be
    const from = work.cursor % target.blockBytes;
    const to = from + work.granted;
    const readFrom = from === 0 ? to : 0;
    const readTo = to === target.blockBytes ? from : target.blockBytes;
    const address = work.slotOld * target.blockBytes + readFrom;
    const buffer = work.buffer;
    let sectors = (readTo - readFrom) / SECTOR;
    if (this.bugs.has('copy-short')) sectors--;
    const run = () => target.disk.read(address, buffer, readFrom / SECTOR, sectors);
    if (this.rng.chance(0.4)) {
      this.#startIo(work, 'copy read', address, sectors * SECTOR, run);
      return;
    }
    const error = run();
    if (error !== 0) this.#answerGrant(work, error);
    else this.#overlayAndWrite(work, target);
  }

  #moveRun(work: Work, target: Target): void {
    while (work.moved < work.granted) {
      const cursor = work.cursor + work.moved;
      const address = work.slotNew * target.blockBytes + (work.cursor % target.blockBytes) + work.moved;
      const length = Math.min(work.granted - work.moved, IO_BYTES_MAX, target.disk.room(address));
      const { from, at, sectors } = this.#sourceOf(work.request, cursor, length);
      const run = () => target.disk.write(address, from, at, sectors);
      if (this.rng.chance(0.5)) {
        work.moving = length;
        this.#startIo(work, 'move', address, length, run);
        return;
      }
      const error = run();
      if (error !== 0) {
        this.#answerGrant(work, error);
        return;
      }
      if (!this.bugs.has('grant-not-marked')) this.#markWritten(target, address);
      work.moved += length;
    }
    this.#answerGrant(work, 0);
  }

  #overlayAndWrite(work: Work, target: Target): void {
    const buffer = work.buffer as Uint32Array;
    const { from, at, sectors } = this.#sourceOf(work.request, work.cursor, work.granted);
    buffer.set(from.subarray(at, at + sectors), (work.cursor % target.blockBytes) / SECTOR);
    const address = work.slotNew * target.blockBytes;
    const run = () => target.disk.write(address, buffer, 0, buffer.length);
    if (this.rng.chance(0.5)) {
      this.#startIo(work, 'move', address, target.blockBytes, run);
      return;
    }
    const error = run();
    if (error === 0 && !this.bugs.has('grant-not-marked')) this.#markWritten(target, address);
    this.#answerGrant(work, error);
  }

  #moveEnded(work: Work, target: Target, io: Io): void {
    if (io.error !== 0) {
      this.#answerGrant(work, io.error);
      return;
    }
    if (!this.bugs.has('grant-not-marked')) this.#markWritten(target, io.address);
    if (work.buffer !== null) {
      this.#answerGrant(work, 0);
      return;
    }
    work.moved += work.moving;
    this.#moveRun(work, target);
  }

  #answerGrant(work: Work, error: number): void {
    const { blockBytes } = this.#targetOf(work.volume);
    work.buffer = null;
    if (error !== 0 && error !== ECANCELED) SimReactor.#fail(work.request, error);
    this.#send(work, 'answered', {
      op: OP_DONE,
      grant: work.grant,
      block: Math.floor(work.cursor / blockBytes),
      count: Math.max(Math.floor(work.granted / blockBytes), 1),
      error,
    });
  }

  #grantPublished(work: Work, error: number): void {
    if (error !== 0) SimReactor.#fail(work.request, error);
    work.cursor += work.granted;
    this.#driveWork(work);
  }

  // ---- durability

  #mapIsDurable(target: Target): boolean {
    const { words } = this.native;
    const dirty = words[target.record + VolumeRecord.mapDirty / 4];
    return words[target.record + VolumeRecord.mapDurable / 4] === dirty || this.bugs.has('flush-without-map');
  }

  #driveFlush(request: ClientRequest): Progress {
    const target = this.#targetOf(request.volume);
    const failed = this.native.words[target.record + VolumeRecord.failed / 4];
    if (failed !== 0) {
      SimReactor.#fail(request, failed);
      return 'finished';
    }
    if (!this.#mapIsDurable(target)) {
      this.#send(this.#takeWork(request, 'flush'), 'flush', { op: OP_FLUSH });
      return 'finished';
    }
    const now = this.native.trySyncInline(request.volume);
    if (now >= 0) {
      if (now !== 0) SimReactor.#fail(request, now);
      return 'finished';
    }
    const work = this.#takeWork(request, 'sync');
    this.native.sync(request.volume, (error) => {
      if (error !== 0) SimReactor.#fail(request, error);
      this.#releaseWork(work);
    });
    return 'finished';
  }

  // ---- discarding

  #driveDiscard(request: ClientRequest): Progress {
    const target = this.#targetOf(request.volume);
    const { blockBytes } = target;
    const end = request.offset + request.length;
    const keepSlots = request.op === 'zeroes' && request.noHole;
    if (request.fastZero && request.op === 'zeroes' && request.stage === 'data') {
      const progress = this.#checkFastZero(request, target);
      if (progress !== null) return progress;
      request.stage = 'checked';
    }
    const toTheEnd = end === this.#sizeOf(target.record);
    const wholeEnd = toTheEnd ? Math.ceil(end / blockBytes) * blockBytes : end - (end % blockBytes);
    while (request.cursor < end) {
      const inside = request.cursor % blockBytes;
      if (inside === 0 && request.cursor < wholeEnd) {
        this.#send(this.#takeWork(request, 'unmap'), 'unmap', {
          op: OP_UNMAP,
          flags: keepSlots ? FLAG_ALLOCATE : 0,
          block: request.cursor / blockBytes,
          count: (wholeEnd - request.cursor) / blockBytes,
        });
        request.cursor = Math.min(end, wholeEnd);
        continue;
      }
      // an edge; what is not mapped reads as zeroes already
      const edgeEnd = Math.min(end, request.cursor - inside + blockBytes);
      const span = this.#readSpan(target, request.cursor, edgeEnd);
      if (span.place === 'missing') return this.#loadAndPark(request, target, request.cursor, edgeEnd);
      if (span.place !== 'zero' || keepSlots) {
        const work = this.#takeWork(request, 'map write');
        work.cursor = request.cursor;
        work.end = edgeEnd;
        request.cursor = edgeEnd;
        this.#driveWork(work);
      }
      request.cursor = edgeEnd;
      request.retries = 0;
    }
    return 'finished';
  }

  /** null when it passed */
  #checkFastZero(request: ClientRequest, target: Target): Progress | null {
    const end = request.offset + request.length;
    const head = request.offset % target.blockBytes !== 0;
    const tail = end % target.blockBytes !== 0 && end !== this.#sizeOf(target.record);
    if ((head || tail) && request.noHole) {
      SimReactor.#fail(request, ENOTSUP);
      return 'finished';
    }
    for (const at of [request.offset, end - SECTOR]) {
      if (at === request.offset ? !head : !tail) continue;
      const span = this.#readSpan(target, at, at + SECTOR);
      if (span.place === 'missing') return this.#loadAndPark(request, target, at, at + SECTOR);
      if (span.place !== 'zero') {
        SimReactor.#fail(request, ENOTSUP);
        return 'finished';
      }
    }
    return null;
  }

  // ---- block status

  #driveStatus(request: ClientRequest): Progress {
    if (this.#scratchFree === 0) return this.#putOff(request);
    const slot = 31 - Math.clz32(this.#scratchFree);
    this.#scratchFree &= ~(1 << slot);
    const work = this.#takeWork(request, 'status');
    work.scratch = slot;
    const room = 1 + this.rng.int(8);
    this.#send(work, 'status', {
      op: OP_STATUS,
      offset: request.offset,
      length: request.length,
      arg: slot | (room << 8),
      flags: request.context >= 0 ? FLAG_CHANGED_SINCE : 0,
      grant: Math.max(0, request.context),
    });
    return 'finished';
  }

  #onStatus(work: Work, reply: Uint32Array): void {
    const { request } = work;
    const error = reply[Reply.error / 4];
    if (error !== 0) SimReactor.#fail(request, error);
    else {
      const at = this.native.scratchAt + (this.id * SCRATCH_SLOTS + work.scratch) * SCRATCH_EXTENTS * 4;
      const { words } = this.native;
      for (let i = 0; i < reply[Reply.count / 4]; i++)
        request.extents.push(words[at + i * 4] + words[at + i * 4 + 1] * TWO32, words[at + i * 4 + 2]);
    }
    this.#scratchFree |= 1 << work.scratch;
    this.#releaseWork(work);
  }
}
