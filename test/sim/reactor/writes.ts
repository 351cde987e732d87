/** Writing (native/volume/write.cc): in place where the entry is the volume's own, else by a fault. */
import { FLAG_FULL, OP_MAP_WRITE } from '../../../src/xseg/layout.gen.ts';
import { EIO, ENOSPC } from '../../../src/xseg/mapper/errors.ts';
import { SECTOR } from '../disk.ts';
import type { Io } from './block-io.ts';
import { type ClientRequest, failRequest } from './request.ts';
import type { Span, Target } from './spans.ts';
import type { Progress, Turn, Work } from './work.ts';

/** What is written at `cursor`: the client's sectors, or zeroes for the edges of trim and zeroes. */
export function sourceOf(
  request: ClientRequest,
  cursor: number,
  bytes: number,
): { from: Uint32Array; at: number; sectors: number } {
  const sectors = bytes / SECTOR;
  if (request.op !== 'write') return { from: new Uint32Array(sectors), at: 0, sectors };
  return { from: request.sectors, at: (cursor - request.offset) / SECTOR, sectors };
}

export class Writes {
  constructor(readonly turn: Turn) {}

  drive(request: ClientRequest): Progress {
    const { native, spans, id } = this.turn;
    const generation = spans.generationOf(request.volume);
    native.admit(request.volume, id, generation, 1);
    const progress = this.#driveAdmitted(request, generation);
    native.admit(request.volume, id, generation, -1);
    return progress;
  }

  #driveAdmitted(request: ClientRequest, generation: number): Progress {
    const { turn } = this;
    const { rng, spans } = turn;
    const target = spans.targetOf(request.volume);
    const end = request.offset + request.length;
    while (request.cursor < end) {
      if (rng.chance(0.05)) return turn.putOff(request);
      const span = spans.write(target, request.cursor, end, generation);
      if (span.place === 'fault') {
        if (target.disk.failed) {
          failRequest(request, EIO);
          return 'finished';
        }
        const work = turn.takeWork(request, 'map write');
        work.cursor = request.cursor;
        work.end = request.cursor + span.length;
        this.#sendMapWrite(work, target, span.length);
      } else if (spans.beyondEnd(target, request.cursor + span.length)) {
        failRequest(request, ENOSPC);
        return 'finished';
      } else if (this.#writeDurable(request, target, span, generation)) {
        return 'finished';
      } else if (rng.chance(0.5)) {
        const work = turn.takeWork(request, 'in place');
        work.cursor = request.cursor;
        work.end = request.cursor + span.length;
        this.#startInPlace(work, target, span, generation, false);
      } else {
        const { from, at, sectors } = sourceOf(request, request.cursor, span.length);
        const error = target.disk.write(span.address, from, at, sectors);
        if (error !== 0) {
          failRequest(request, error);
          return 'finished';
        }
        this.#markWritten(target, span.address);
      }
      request.cursor += span.length;
    }
    return 'finished';
  }

  #markWritten(target: Target, address: number): void {
    this.turn.native.markFile(0, target.volume, target.disk.fileOf(address));
  }

  /** FUA of one run in place whose map is durable: one durable write. True when it was taken care of. */
  #writeDurable(request: ClientRequest, target: Target, span: Span, generation: number): boolean {
    const { turn } = this;
    if (!request.fua || turn.bugs.has('fua-ignored') || span.length !== request.length) return false;
    if (turn.connections <= 1 || !turn.spans.mapIsDurable(target)) return false;
    const work = turn.takeWork(request, 'in place');
    work.cursor = request.cursor;
    work.end = request.cursor + span.length;
    request.stage = 'durable';
    request.cursor = work.end;
    this.#startInPlace(work, target, span, generation, true);
    return true;
  }

  /** Stays admitted until it has ended. */
  #startInPlace(work: Work, target: Target, span: Span, generation: number, durable: boolean): void {
    const { turn } = this;
    work.generation = generation;
    work.pieceEnd = work.cursor + span.length;
    if (!turn.bugs.has('write-not-admitted')) turn.native.admit(work.volume, turn.id, generation, 1);
    const { from, at, sectors } = sourceOf(work.request, work.cursor, span.length);
    turn.startIo(work, 'in place', span.address, span.length, () =>
      durable
        ? target.disk.writeDurable(span.address, from, at, sectors)
        : target.disk.write(span.address, from, at, sectors),
    );
  }

  inPlaceEnded(work: Work, io: Io): void {
    const { turn } = this;
    // also after an error: some of it may have been written
    if (!turn.bugs.has('write-not-marked')) this.#markWritten(turn.spans.targetOf(work.volume), io.address);
    if (!turn.bugs.has('write-not-admitted')) turn.native.admit(work.volume, turn.id, work.generation, -1);
    if (io.error !== 0) failRequest(work.request, io.error);
    work.cursor = work.pieceEnd;
    this.driveWork(work);
  }

  /** Goes on with what is left of a work's bytes: in place where that is possible by now, else by another fault. */
  driveWork(work: Work): void {
    const { turn } = this;
    const { request } = work;
    const target = turn.spans.targetOf(work.volume);
    while (work.cursor < work.end && request.error === 0) {
      const generation = turn.spans.generationOf(work.volume);
      const span = turn.spans.write(target, work.cursor, work.end, generation);
      if (span.place === 'fault') {
        this.#sendMapWrite(work, target, span.length);
        return;
      }
      if (turn.spans.beyondEnd(target, work.cursor + span.length)) {
        failRequest(request, ENOSPC);
        break;
      }
      if (turn.rng.chance(0.3)) {
        this.#startInPlace(work, target, span, generation, false);
        return;
      }
      const { from, at, sectors } = sourceOf(request, work.cursor, span.length);
      const error = target.disk.write(span.address, from, at, sectors);
      if (error !== 0) failRequest(request, error);
      else this.#markWritten(target, span.address);
      work.cursor += span.length;
    }
    turn.releaseWork(work);
  }

  #sendMapWrite(work: Work, target: Target, length: number): void {
    const inside = work.cursor % target.blockBytes;
    work.pieceEnd = work.cursor + length;
    const block = Math.floor(work.cursor / target.blockBytes);
    const whole = inside === 0 && length >= target.blockBytes;
    this.turn.send(
      work,
      'map write',
      whole
        ? { op: OP_MAP_WRITE, block, flags: FLAG_FULL, count: length / target.blockBytes }
        : { op: OP_MAP_WRITE, block, count: 1, offset: inside, length },
    );
  }
}
