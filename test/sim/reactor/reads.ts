/** Reading (native/volume/read.cc): what is mapped from the disk, at once or asynchronously, the rest as zeroes. */
import { EIO } from '../../../src/xseg/mapper/errors.ts';
import { SECTOR } from '../disk.ts';
import type { Checks } from './checks.ts';
import { type ClientRequest, failRequest } from './request.ts';
import type { Progress, Turn } from './work.ts';

export class Reads {
  constructor(
    readonly turn: Turn,
    readonly checks: Checks,
  ) {}

  drive(request: ClientRequest): Progress {
    const { turn } = this;
    const target = turn.spans.targetOf(request.volume);
    const end = request.offset + request.length;
    const verifies = this.checks.verifies(target) && !turn.bugs.has('verify-ignored');
    while (request.cursor < end) {
      if (turn.rng.chance(0.05)) return turn.putOff(request);
      const blockEnd = request.cursor - (request.cursor % target.blockBytes) + target.blockBytes;
      const span = turn.spans.read(target, request.cursor, verifies ? Math.min(end, blockEnd) : end);
      if (span.place === 'missing') return turn.loadAndPark(request, target, request.cursor, end);
      if (span.place === 'bad') {
        failRequest(request, EIO);
        return 'finished';
      }
      const from = (request.cursor - request.offset) / SECTOR;
      const count = span.length / SECTOR;
      if (span.place === 'zero') {
        request.sectors.fill(0, from, from + count);
      } else if (verifies && !this.checks.writtenInPlace(target, request.cursor)) {
        const work = turn.takeWork(request, 'hash');
        work.cursor = request.cursor;
        work.end = request.cursor + span.length;
        this.checks.begin(work, Math.floor(span.address / target.blockBytes));
      } else {
        const run = () => target.disk.read(span.address, request.sectors, from, count);
        if (turn.rng.chance(0.4)) {
          turn.startIo(turn.takeWork(request, 'read'), 'read', span.address, span.length, run);
        } else {
          const error = run();
          if (error !== 0) {
            failRequest(request, error);
            return 'finished';
          }
        }
      }
      request.cursor += span.length;
      request.retries = 0;
    }
    return 'finished';
  }
}
