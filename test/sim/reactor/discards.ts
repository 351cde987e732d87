/** Trim and write zeroes (native/volume/discard.cc): whole blocks by the mapper, edges as writes of zeroes. */
import { FLAG_ALLOCATE, OP_UNMAP, Reply } from '../../../src/xseg/layout.gen.ts';
import { SECTOR } from '../disk.ts';
import { type ClientRequest, ENOTSUP, failRequest } from './request.ts';
import type { Target } from './spans.ts';
import type { Progress, Turn, Work } from './work.ts';
import type { Writes } from './writes.ts';

export class Discards {
  constructor(
    readonly turn: Turn,
    readonly writes: Writes,
  ) {}

  drive(request: ClientRequest): Progress {
    const { turn } = this;
    const target = turn.spans.targetOf(request.volume);
    const { blockBytes } = target;
    const end = request.offset + request.length;
    const keepSlots = request.op === 'zeroes' && request.noHole;
    if (request.fastZero && request.op === 'zeroes' && request.stage === 'data') {
      const progress = this.#checkFastZero(request, target);
      if (progress !== null) return progress;
      request.stage = 'checked';
    }
    const toTheEnd = end === turn.spans.sizeOf(target.record);
    const wholeEnd = toTheEnd ? Math.ceil(end / blockBytes) * blockBytes : end - (end % blockBytes);
    while (request.cursor < end) {
      const inside = request.cursor % blockBytes;
      if (inside === 0 && request.cursor < wholeEnd) {
        const work = turn.takeWork(request, 'unmap');
        work.cursor = end - ((end - SECTOR) % blockBytes) - SECTOR;
        turn.send(work, 'unmap', {
          op: OP_UNMAP,
          flags: keepSlots ? FLAG_ALLOCATE : 0,
          block: request.cursor / blockBytes,
          count: (wholeEnd - request.cursor) / blockBytes,
          length: wholeEnd > end ? end % blockBytes : 0,
        });
        request.cursor = Math.min(end, wholeEnd);
        continue;
      }
      // an edge; what is not mapped reads as zeroes already
      const edgeEnd = Math.min(end, request.cursor - inside + blockBytes);
      const span = turn.spans.read(target, request.cursor, edgeEnd);
      if (span.place === 'missing') return turn.loadAndPark(request, target, request.cursor, edgeEnd);
      if (span.place !== 'zero' || keepSlots) {
        const work = turn.takeWork(request, 'map write');
        work.cursor = request.cursor;
        work.end = edgeEnd;
        request.cursor = edgeEnd;
        this.writes.driveWork(work);
      }
      request.cursor = edgeEnd;
      request.retries = 0;
    }
    return 'finished';
  }

  /** When the volume has grown since, the last block was left: what lies behind the end that was may be in use by now. */
  unmapped(work: Work, reply: Uint32Array): void {
    const { request } = work;
    const error = reply[Reply.error / 4];
    if (error !== 0) failRequest(request, error);
    else if (reply[Reply.count / 4] !== 0) {
      request.cursor = work.cursor;
      request.pending++;
      this.turn.putOff(request);
    }
    this.turn.releaseWork(work);
  }

  /** null when it passed */
  #checkFastZero(request: ClientRequest, target: Target): Progress | null {
    const { turn } = this;
    const end = request.offset + request.length;
    const head = request.offset % target.blockBytes !== 0;
    const tail = end % target.blockBytes !== 0 && end !== turn.spans.sizeOf(target.record);
    if ((head || tail) && request.noHole) {
      failRequest(request, ENOTSUP);
      return 'finished';
    }
    for (const [edge, at] of [
      [head, request.offset],
      [tail, end - SECTOR],
    ] as const) {
      if (!edge) continue;
      const span = turn.spans.read(target, at, at + SECTOR);
      if (span.place === 'missing') return turn.loadAndPark(request, target, at, at + SECTOR);
      if (span.place !== 'zero') {
        failRequest(request, ENOTSUP);
        return 'finished';
      }
    }
    return null;
  }
}
