/** What the mapper counts and times of its own work, for metrics. */
import {
  type Distribution,
  FAULT_ERRORS,
  FAULT_KINDS,
  type FaultError,
  type FaultKind,
  type MapperActivity,
} from '../activity.ts';
import { DURATION_BUCKETS, Histogram } from '../histogram.ts';
import { OP_FLUSH, OP_HASH, OP_LOAD, OP_MAP_WRITE, OP_STATUS, OP_UNMAP } from '../layout.gen.ts';
import { EINVAL, EIO, ENOSPC, EROFS, ESHUTDOWN } from './errors.ts';

/** Records taken in one turn: 1, 2, 4 … 256. */
const TAKE_BUCKETS = 10;

/** Fault times kept for percentiles. */
const FAULT_SAMPLES = 4096;

const OPS: Readonly<Record<FaultKind, number>> = {
  load: OP_LOAD,
  write: OP_MAP_WRITE,
  unmap: OP_UNMAP,
  flush: OP_FLUSH,
  status: OP_STATUS,
  verify: OP_HASH,
};
const ERRNOS: ReadonlyMap<number, FaultError> = new Map([
  [EIO, 'EIO'],
  [ENOSPC, 'ENOSPC'],
  [EROFS, 'EROFS'],
  [EINVAL, 'EINVAL'],
  [ESHUTDOWN, 'ESHUTDOWN'],
]);

export class Meters {
  turns = 0;
  busyMs = 0;
  /** records taken at once */
  readonly batches = new Histogram(TAKE_BUCKETS);
  /** by OP_*, microseconds */
  readonly #faults: Histogram[] = [];
  /** the last times, microseconds */
  readonly #samples = new Float64Array(FAULT_SAMPLES);
  #sampled = 0;
  readonly #errors = new Map<FaultError, number>();

  constructor() {
    for (const op of Object.values(OPS)) this.#faults[op] = new Histogram(DURATION_BUCKETS);
  }

  /** @param op one of OPS */
  faultServed(op: number, us: number): void {
    this.#faults[op].observe(us);
    this.#samples[this.#sampled++ % FAULT_SAMPLES] = us;
  }

  /** Microseconds, of the last faults, ascending. */
  lastFaultTimes(): Float64Array {
    return this.#samples.slice(0, Math.min(this.#sampled, FAULT_SAMPLES)).sort();
  }

  faultFailed(errno: number): void {
    const error = ERRNOS.get(errno) ?? 'other';
    this.#errors.set(error, (this.#errors.get(error) ?? 0) + 1);
  }

  read(): Pick<MapperActivity, 'mapper' | 'faults' | 'faultErrors'> {
    return {
      mapper: { turns: this.turns, busySeconds: this.busyMs / 1000, batches: this.batches.read() },
      faults: Object.fromEntries(FAULT_KINDS.map((kind) => [kind, this.#faults[OPS[kind]].read()])) as Record<
        FaultKind,
        Distribution
      >,
      faultErrors: Object.fromEntries(FAULT_ERRORS.map((error) => [error, this.#errors.get(error) ?? 0])) as Record<
        FaultError,
        number
      >,
    };
  }
}
