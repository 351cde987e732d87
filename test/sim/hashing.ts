/**
 * The hashing pool (src/xseg/seal/hash-worker.ts, in piscina's threads), simulated: jobs run beside each other and beside everything else, some slots at a time,
 * and now and then one is lost with its thread for good.
 */
import { HashRun } from '../../src/xseg/seal/hash-run.ts';
import type { HashRequest, HashResult } from '../../src/xseg/seal/job.ts';
import { SLOT_HASHED } from '../../src/xseg/seal/job.ts';
import { HASH_BYTES } from '../../src/xseg/store/seal-batch.ts';
import type { SealReader } from '../../src/xseg/store/seal-reader.ts';
import type { Bugs } from './bugs.ts';
import type { SimNative } from './native.ts';
import type { Rng } from './rng.ts';

/** Share of the jobs that end without a result. */
const LOST_SHARE = 0.01;

interface Job {
  request: HashRequest;
  result: HashResult;
  done: number;
  lost: boolean;
}

export class SimHashing {
  readonly #jobs: Job[] = [];

  constructor(
    readonly native: SimNative,
    readonly index: SealReader,
    readonly rng: Rng,
    readonly bugs: Bugs,
    readonly answer: (ticket: number, result: HashResult | null) => void,
  ) {}

  get busy(): boolean {
    return this.#jobs.length > 0;
  }

  /** `request` is the job's own: nobody else changes it. */
  add(request: HashRequest): void {
    const count = request.job.slots.length;
    const result: HashResult = {
      states: new Uint8Array(count),
      hashes: new Uint8Array(count * HASH_BYTES),
      same: new Float64Array(count).fill(-1),
      bytesRead: 0,
      ms: 0,
    };
    this.#jobs.push({ request, result, done: 0, lost: this.rng.chance(LOST_SHARE) });
  }

  /** Some slots of one job, or its answer. */
  step(): void {
    const { rng } = this;
    const at = rng.int(this.#jobs.length);
    const job = this.#jobs[at];
    const left = job.request.job.slots.length - job.done;
    if (left > 0) {
      this.#run(job, rng.chance(0.5) ? left : 1 + rng.int(left));
      return;
    }
    this.#jobs.splice(at, 1);
    this.answer(job.request.ticket, job.lost ? null : job.result);
  }

  #run(job: Job, count: number): void {
    const { done, result } = job;
    const slots = job.request.job.slots.slice(done, done + count);
    const part = new HashRun({ ...job.request.job, slots, core: 0 }, this.index, this.native).run();
    this.#break(job, part);
    result.states.set(part.states, done);
    result.hashes.set(part.hashes, done * HASH_BYTES);
    result.same.set(part.same, done);
    result.bytesRead += part.bytesRead;
    job.done += count;
  }

  #break(job: Job, part: HashResult): void {
    if (job.request.job.always) return;
    const hashed = part.states.indexOf(SLOT_HASHED);
    if (this.bugs.has('hash-of-another') && hashed >= 0 && hashed + 1 < part.states.length)
      part.hashes.copyWithin((hashed + 1) * HASH_BYTES, hashed * HASH_BYTES, (hashed + 1) * HASH_BYTES);
  }
}
