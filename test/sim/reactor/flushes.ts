/** Durability (native/volume/durable.cc): the map by the mapper, data by a sync of what the volume wrote. */
import { OP_FLUSH, VolumeRecord } from '../../../src/xseg/layout.gen.ts';
import { type ClientRequest, failRequest } from './request.ts';
import type { Progress, Turn } from './work.ts';

export class Flushes {
  constructor(readonly turn: Turn) {}

  drive(request: ClientRequest): Progress {
    const { turn } = this;
    const { native } = turn;
    const target = turn.spans.targetOf(request.volume);
    const failed = native.words[target.record + VolumeRecord.failed / 4];
    if (failed !== 0) {
      failRequest(request, failed);
      return 'finished';
    }
    if (!turn.spans.mapIsDurable(target)) {
      turn.send(turn.takeWork(request, 'flush'), 'flush', { op: OP_FLUSH });
      return 'finished';
    }
    const now = native.trySyncInline(request.volume);
    if (now >= 0) {
      if (now !== 0) failRequest(request, now);
      return 'finished';
    }
    if (native.flushFails >= 0 && native.flushFails-- === 0) target.disk.faults.syncFails = 0;
    const work = turn.takeWork(request, 'sync');
    native.sync(request.volume, (error) => {
      if (error !== 0) failRequest(request, error);
      turn.releaseWork(work);
    });
    return 'finished';
  }
}
