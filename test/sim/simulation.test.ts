/**
 * The engine in a simulated machine (docs/simulation.md). A seed that fails is in the message; `ATOLL_SEED=n` runs it again and shows
 * how it came to that, `ATOLL_SIM_SECONDS=n` runs others for so long.
 */
import { expect, it } from 'vitest';
import { LONG } from '../e2e/lib/long.ts';
import { simulate } from './simulation.ts';
import { SimulationFailure } from './world.ts';

const SECONDS = Number(process.env.ATOLL_SIM_SECONDS ?? (LONG ? 600 : 20));
/** The clock decides how many seeds run, but never how one runs. */
const SEEDS_MIN = 5;
const first =
  process.env.ATOLL_SEED === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(process.env.ATOLL_SEED);

function withTrace(error: unknown): never {
  if (error instanceof SimulationFailure) {
    error.message += `\nagain: ATOLL_SEED=${error.seed} npx vitest run --project unit test/sim/simulation.test.ts\n${error.trace.slice(-80).join('\n')}`;
  }
  throw error;
}

it(`every seed from ${first} on`, { timeout: (SECONDS + 600) * 1000 }, () => {
  const started = Date.now();
  const sum = { seeds: 0, operations: 0, crashes: 0, steps: 0, commits: 0 };
  try {
    while (sum.seeds < SEEDS_MIN || Date.now() - started < SECONDS * 1000) {
      const result = simulate(first + sum.seeds);
      sum.seeds++;
      sum.operations += result.operations;
      sum.crashes += result.crashes;
      sum.steps += result.steps;
      sum.commits += result.commits;
    }
  } catch (error) {
    withTrace(error);
  }
  const minutes = (Date.now() - started) / 60_000;
  const rate = (n: number) => Math.round(n / minutes).toLocaleString('en');
  console.log(
    `simulation: seeds ${first}–${first + sum.seeds - 1}, ${sum.operations} operations, ${sum.crashes} crashes, ${sum.commits} commits; ` +
      `${rate(sum.operations)} operations and ${rate(sum.crashes)} crashes a minute`,
  );
});

it('a seed does the same every time', () => {
  const once = simulate(4711, { steps: 5000 });
  expect(simulate(4711, { steps: 5000 })).toEqual(once);
  expect(simulate(4712, { steps: 5000 }).digest).not.toBe(once.digest);
});
