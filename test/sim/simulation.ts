/** One seed from beginning to end: pools, lives, crashes, and at last everything deleted. */
import type { PoolRow } from '../../src/xseg/store/batch.ts';
import type { Bugs } from './bugs.ts';
import type { CutMode, NO_FAULTS } from './disk.ts';
import { type Moment, PROFILES, type Profile, type ProfileName, profileOf } from './profiles.ts';
import { Rng } from './rng.ts';
import { Workload } from './workload/workload.ts';
import { SimulationFailure, World } from './world.ts';

/** Steps of one seed. */
export const STEPS_DEFAULT = 30_000;
const END_STEPS_MAX = 400_000;
/** Steps of a life after something of it broke. */
const BROKEN_STEPS_MIN = 1200;
/** A moment is waited for so long. */
const MOMENT_STEPS_MAX = 400;

export interface SimulationOptions {
  steps?: number;
  /** what it is about; else the seed says it */
  profile?: ProfileName;
  bugs?: Bugs;
  trace?: boolean;
}

export interface SimulationResult {
  seed: number;
  profile: ProfileName;
  steps: number;
  operations: number;
  crashes: number;
  commits: number;
  digest: number;
  /** how often cost and space were looked at */
  looks: World['costs']['looks'] & World['space']['looks'];
}

function poolsOf(rng: Rng, { pools }: Profile): PoolRow[] {
  const rows: PoolRow[] = [];
  const count = rng.chance(pools.second) ? 2 : 1;
  for (let id = 1; id <= count; id++) {
    const kind = rng.pick(pools.kinds);
    const shift = rng.pick(pools.shifts);
    const slots = rng.pick(pools.slots);
    const bounded = kind !== 'directory' || rng.chance(pools.bounded);
    rows.push({
      id,
      uuid: `pool-${id}`,
      name: `p${id}`,
      driver: 'local',
      kind,
      path: `/p${id}`,
      block_shift: shift,
      group_slots: rng.pick(pools.groupSlots),
      size: bounded ? slots * 2 ** shift : 0,
      direct: 0,
      preallocate: 0,
      created_at: 0,
    });
  }
  return rows;
}

/** Breaks something of this life. */
function breakSomething(world: World, workload: Workload): void {
  const { rng } = world;
  world.faulty = true;
  const disk = rng.pick(world.disks);
  const soon = rng.int(rng.pick([5, 40]));
  const what = rng.pick([
    'syncFails',
    'flushFails',
    'flushFails',
    'writeEio',
    'writeEnospc',
    'readEio',
    'zeroFails',
    'ensureFails',
    'store',
    'full',
  ]);
  world.say(() => `fault: ${what} after ${soon}`);
  if (what === 'store') world.store.failsAfter = soon;
  else if (what === 'full') disk.freeBytes = 0;
  else if (what === 'flushFails') {
    world.native.flushFails = 0;
    workload.flushOften();
  } else disk.faults[what as keyof typeof NO_FAULTS] = soon;
}

export class Simulation {
  readonly world: World;
  readonly workload: Workload;
  readonly profile: ProfileName;

  constructor(
    readonly seed: number,
    readonly options: SimulationOptions = {},
  ) {
    this.profile = options.profile ?? profileOf(seed);
    const profile = PROFILES[this.profile];
    this.world = new World(
      { seed, profile, bugs: options.bugs, trace: options.trace },
      poolsOf(new Rng(seed ^ 0x5eed), profile),
    );
    this.workload = new Workload(this.world);
  }

  /** @throws SimulationFailure */
  run(): SimulationResult {
    const { world } = this;
    try {
      this.#lives(this.options.steps ?? STEPS_DEFAULT);
      this.#end();
    } catch (error) {
      if (error instanceof SimulationFailure) throw error;
      throw new SimulationFailure(this.seed, (error as Error).message, world.trace, error);
    } finally {
      world.store.db.close();
    }
    const { steps, operations, crashes, digest, store } = world;
    const looks = { ...world.costs.looks, ...world.space.looks };
    return {
      seed: this.seed,
      profile: this.profile,
      steps,
      operations,
      crashes,
      digest,
      commits: store.commits,
      looks,
    };
  }

  #lives(stepsMax: number): void {
    const { world } = this;
    const { rng } = world;
    world.open();
    this.workload.begin();
    while (world.steps < stepsMax) {
      let length = rng.pick(world.profile.lives.lengths) * (0.5 + rng.next());
      const leave = rng.pick([0.02, 0.02, 0.001]);
      const faultAt = rng.chance(world.profile.lives.faults) ? rng.int(length) : -1;
      // what was broken is used for a while
      if (faultAt >= 0) length = Math.max(length, faultAt + BROKEN_STEPS_MIN);
      let died = false;
      for (let i = 0; i < length && !died; i++) {
        if (i === faultAt) breakSomething(world, this.workload);
        died = world.step();
        if (world.disks.some((disk) => disk.failed) && rng.chance(leave)) break;
      }
      if (!died) died = this.#toMoment();
      if (
        !died &&
        !world.faulty &&
        rng.chance(world.profile.lives.clean) &&
        this.workload.quiesce(END_STEPS_MAX) &&
        world.stop()
      )
        this.#next(true);
      else this.#next(false);
    }
  }

  /**
   * On to a moment that matters, mostly: right after the next answer that promises something or the next commit that is durable,
   * or when commits wait. True: the daemon died.
   */
  #toMoment(): boolean {
    const { world } = this;
    const { promises } = world;
    const { commits } = world.store;
    const moment = world.rng.pick(world.profile.lives.moments);
    const reached: Record<Moment, () => boolean> = {
      promise: () => world.promises > promises,
      waiting: () => world.store.waiting,
      durable: () => world.store.commits > commits,
      any: () => true,
    };
    for (let i = 0; i < MOMENT_STEPS_MAX && !reached[moment](); i++) if (world.step()) return true;
    return false;
  }

  /** The end of a life and the beginning of the next. */
  #next(clean: boolean): void {
    const { world } = this;
    const { rng } = world;
    const powerCut = world.tainted || rng.chance(world.store.waiting ? 0.2 : 0.7);
    const mode: CutMode = rng.pick(['lose', 'keep', 'sectors', 'sectors', 'writes']);
    this.workload.interrupted();
    this.workload.ended(powerCut, clean);
    for (const disk of world.disks) disk.freeBytes = Number.MAX_SAFE_INTEGER / 2;
    world.crash(powerCut, mode);
    world.open();
    this.workload.begin();
  }

  /** Everything is deleted, all space comes back, and a clean stop keeps it so. */
  #end(): void {
    const { world, workload } = this;
    this.#next(false);
    if (world.rng.chance(0.7)) {
      if (!workload.sealAll(END_STEPS_MAX)) world.fail('it died while everything was being sealed');
      if (world.rng.chance(0.5)) this.#next(false);
    }
    if (!workload.drain(END_STEPS_MAX)) world.fail('it died while everything was being deleted');
    if (!workload.quiesce(END_STEPS_MAX) || !world.stop()) world.fail('it died while it was being stopped');
    workload.ended(true, true);
    world.crash(true, 'lose');
  }
}

/** Runs a seed; when it fails, once more, to say how it came to that. */
export function simulate(seed: number, options: SimulationOptions = {}): SimulationResult {
  try {
    return new Simulation(seed, options).run();
  } catch (error) {
    if (!(error instanceof SimulationFailure) || options.trace) throw error;
    try {
      new Simulation(seed, { ...options, trace: true }).run();
    } catch (again) {
      if (again instanceof SimulationFailure && again.reason === error.reason) throw again;
      throw new SimulationFailure(seed, `${error.reason}; the replay ended with: ${(again as Error).message}`, []);
    }
    throw new SimulationFailure(seed, `${error.reason}; the replay passed`, []);
  }
}
