/** Block status (native/volume/status.cc): the mapper answers in a scratch slot, which there are few of. */
import { FLAG_CHANGED_SINCE, OP_STATUS, Reply, SCRATCH_EXTENTS, SCRATCH_SLOTS } from '../../../src/xseg/layout.gen.ts';
import { type ClientRequest, failRequest } from './request.ts';
import type { Progress, Turn, Work } from './work.ts';

const TWO32 = 2 ** 32;

export class Statuses {
  #free = (1 << SCRATCH_SLOTS) - 1;

  constructor(readonly turn: Turn) {}

  drive(request: ClientRequest): Progress {
    const { turn } = this;
    if (this.#free === 0) return turn.putOff(request);
    const slot = 31 - Math.clz32(this.#free);
    this.#free &= ~(1 << slot);
    const work = turn.takeWork(request, 'status');
    work.scratch = slot;
    const room = 1 + turn.rng.int(8);
    turn.send(work, 'status', {
      op: OP_STATUS,
      offset: request.offset,
      length: request.length,
      arg: slot | (room << 8),
      flags: request.context >= 0 ? FLAG_CHANGED_SINCE : 0,
      grant: Math.max(0, request.context),
    });
    return 'finished';
  }

  answered(work: Work, reply: Uint32Array): void {
    const { native, id } = this.turn;
    const { request } = work;
    const error = reply[Reply.error / 4];
    if (error !== 0) failRequest(request, error);
    else {
      const at = native.scratchAt + (id * SCRATCH_SLOTS + work.scratch) * SCRATCH_EXTENTS * 4;
      const { words } = native;
      for (let i = 0; i < reply[Reply.count / 4]; i++)
        request.extents.push(words[at + i * 4] + words[at + i * 4 + 1] * TWO32, words[at + i * 4 + 2]);
    }
    this.#free |= 1 << work.scratch;
    this.turn.releaseWork(work);
  }
}
