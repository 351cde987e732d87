/**
 * Hunting for planted bugs: seeds of one profile are run one after the other until one fails. Where a bug was found before is kept
 * in `found/`, and the hunt begins there. `ATOLL_SIM_HUNT=1` looks for quick seeds anew and writes them down.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { Bugs } from './bugs.ts';
import type { ProfileName } from './profiles.ts';
import type { Simulation } from './simulation.ts';
import type { SimulationFailure } from './world.ts';

/** Seeds are fixed: a bug is found or it is not. */
const SEEDS = 200;
export const STEPS = 6000;
/** Looking for quick seeds ends with one that takes no longer, or after so many that find it. */
const QUICK_STEPS = 5000;
const FINDS_MAX = 3;
/** A hunt that begins at the right seed takes a second; one over all of them, minutes. */
export const HUNT_TIMEOUT_MS = 900_000;

interface Find {
  seed: number;
  steps: number;
  reason: string;
}

export class Hunt {
  readonly #file: string;
  /** profile → bug → seed */
  readonly #seeds: Partial<Record<ProfileName, Record<string, number>>>;
  readonly #anew = process.env.ATOLL_SIM_HUNT !== undefined;

  /** @param name of the file in `found/` */
  constructor(name: string) {
    this.#file = path.join(import.meta.dirname, 'found', `${name}.json`);
    this.#seeds = fs.existsSync(this.#file) ? JSON.parse(fs.readFileSync(this.#file, 'utf8')) : {};
  }

  /** What the first seed that fails says, from the one that did before on; null when none does. */
  run(bug: string, Run: typeof Simulation, profile: ProfileName = 'general', bugs?: Bugs): string | null {
    if (this.#anew) return this.#look(bug, Run, profile, bugs);
    const first = this.#seeds[profile]?.[bug] ?? 1;
    for (let i = 0; i < SEEDS; i++) {
      const find = tried(1 + ((first - 1 + i) % SEEDS), Run, profile, bugs);
      if (find !== null) return find.reason;
    }
    return null;
  }

  /** The quickest of a few seeds that find it. */
  #look(bug: string, Run: typeof Simulation, profile: ProfileName, bugs?: Bugs): string | null {
    const finds: Find[] = [];
    for (let seed = 1; seed <= SEEDS && finds.length < FINDS_MAX; seed++) {
      const find = tried(seed, Run, profile, bugs);
      if (find === null) continue;
      finds.push(find);
      if (find.steps <= QUICK_STEPS) break;
    }
    finds.sort((a, b) => a.steps - b.steps);
    console.log(
      `${bug} (${profile}): ${finds.map(({ seed, steps, reason }) => `seed ${seed} in ${steps} steps: ${reason.slice(0, 120)}`)[0]}`,
    );
    for (const known of Object.values(this.#seeds)) delete known[bug];
    this.#seeds[profile] ??= {};
    if (finds.length > 0) this.#seeds[profile][bug] = finds[0].seed;
    fs.mkdirSync(path.dirname(this.#file), { recursive: true });
    fs.writeFileSync(this.#file, `${JSON.stringify(this.#seeds, null, 2)}\n`);
    return finds[0]?.reason ?? null;
  }

  /** Seeds that hunts begin with, ascending, by profile. */
  seeds(): { profile: ProfileName; seed: number }[] {
    return Object.entries(this.#seeds).flatMap(([profile, known]) =>
      [...new Set(Object.values(known))]
        .sort((a, b) => a - b)
        .map((seed) => ({ profile: profile as ProfileName, seed })),
    );
  }
}

/** null: the seed passed */
function tried(seed: number, Run: typeof Simulation, profile: ProfileName, bugs?: Bugs): Find | null {
  const simulation = new Run(seed, { steps: STEPS, profile, bugs });
  try {
    simulation.run();
    return null;
  } catch (error) {
    // its class is of another copy of the simulation
    const { reason } = error as SimulationFailure;
    if (reason === undefined) throw error;
    return { seed, steps: simulation.world.steps, reason };
  }
}
