/**
 * Threads that do what they are told, one job after the other (the ingest pool): each job at once, beside everything else.
 * Now and then one is lost half done with its thread, and is done again.
 */
import type { Rng } from './rng.ts';
import type { Resume, Wait } from './world.ts';

const LOST_SHARE = 0.03;

interface Job {
  run(): unknown;
  resume: Resume;
}

export class SimThreads {
  readonly #jobs: Job[] = [];

  constructor(readonly rng: Rng) {}

  get jobs(): number {
    return this.#jobs.length;
  }

  /** Waits for the result of `run`, which throws nothing and can be done twice. */
  run(run: () => unknown): Wait {
    return (resume) => void this.#jobs.push({ run, resume });
  }

  /** One job, any. */
  step(): void {
    const at = this.rng.int(this.#jobs.length);
    const { run, resume } = this.#jobs[at];
    const result = run();
    if (this.rng.chance(LOST_SHARE)) return;
    this.#jobs.splice(at, 1);
    resume(result as never);
  }

  /** The daemon is no more: some of what its threads did had happened. */
  orphan(): void {
    for (const job of this.#jobs) if (this.rng.chance(0.5)) job.run();
  }
}
