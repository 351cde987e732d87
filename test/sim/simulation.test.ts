/**
 * The engine in a simulated machine (docs/simulation.md). A seed that fails is in the message; `ATOLL_SEED=n` runs it again and shows
 * how it came to that, `ATOLL_SIM_SECONDS=n` runs others for so long, `ATOLL_SIM_PROFILE=name` has them all about one thing.
 */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { LONG } from '../e2e/lib/long.ts';
import { compiled } from './compiled.ts';
import { PROFILES, type ProfileName } from './profiles.ts';
import type { simulate } from './simulation.ts';
import type { SimulationFailure } from './world.ts';

const SECONDS = Number(process.env.ATOLL_SIM_SECONDS ?? (LONG ? 600 : 50));
/** The clock decides how many seeds run, but never how one runs. As many as it takes for one of each kind. */
const SEEDS_MIN = 10;
/** So many have everything in them that is looked at. */
const SEEDS_ALL = 50;
const FOLDER = path.join(import.meta.dirname, '../../build/sim-compiled', `simulation-${process.pid}`);
const first =
  process.env.ATOLL_SEED === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(process.env.ATOLL_SEED);
const profile = process.env.ATOLL_SIM_PROFILE as ProfileName | undefined;
let run: typeof simulate;

beforeAll(async () => {
  if (profile !== undefined && PROFILES[profile] === undefined) throw new Error(`there is no profile ${profile}`);
  run = (await compiled(null, FOLDER)).simulate;
});
afterAll(() => fs.rmSync(FOLDER, { recursive: true, force: true }));

function withTrace(error: unknown): never {
  // its class is of another copy of the simulation
  const { seed, trace } = error as SimulationFailure;
  if (trace !== undefined) {
    const about = profile === undefined ? '' : `ATOLL_SIM_PROFILE=${profile} `;
    (error as Error).message +=
      `\nagain: ${about}ATOLL_SEED=${seed} npx vitest run --project unit test/sim/simulation.test.ts\n${trace.slice(-80).join('\n')}`;
  }
  throw error;
}

it(`every seed from ${first} on`, { timeout: (SECONDS + 600) * 1000 }, () => {
  const started = Date.now();
  const sum = { seeds: 0, operations: 0, crashes: 0, steps: 0, commits: 0 };
  const looks: Record<string, number> = {};
  try {
    while (sum.seeds < SEEDS_MIN || Date.now() - started < SECONDS * 1000) {
      const result = run(first + sum.seeds, { profile });
      sum.seeds++;
      sum.operations += result.operations;
      sum.crashes += result.crashes;
      sum.steps += result.steps;
      sum.commits += result.commits;
      for (const [what, times] of Object.entries(result.looks)) looks[what] = (looks[what] ?? 0) + times;
    }
  } catch (error) {
    withTrace(error);
  }
  const minutes = (Date.now() - started) / 60_000;
  const rate = (n: number) => Math.round(n / minutes).toLocaleString('en');
  console.log(
    `simulation: seeds ${first}–${first + sum.seeds - 1}, ${sum.operations} operations, ${sum.crashes} crashes, ${sum.commits} commits; ` +
      `${rate(sum.operations)} operations and ${rate(sum.crashes)} crashes a minute; looked at: ${JSON.stringify(looks)}`,
  );
  if (profile !== undefined || sum.seeds < SEEDS_ALL) return;
  for (const [what, times] of Object.entries(looks)) expect(times, what).toBeGreaterThan(0);
});

it('a seed does the same every time', () => {
  const once = run(4711, { steps: 5000 });
  expect(run(4711, { steps: 5000 })).toEqual(once);
  expect(run(4712, { steps: 5000 }).digest).not.toBe(once.digest);
});
