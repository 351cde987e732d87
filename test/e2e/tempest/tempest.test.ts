/**
 * tempest's own tests of the identity API. passes.txt has those that pass, exclusions.txt those that are left out, and why. When Debian's
 * tempest changes, this says what is in neither.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { World } from '../lib/daemon.ts';
import { type Env, hasTempest, listed, type Outcome, prepare, runTempest } from './tempest.ts';

/** half a minute on a machine that does nothing else */
const RUN_MS_MAX = 600_000;

const passes = listed('passes.txt');
const exclusions = listed('exclusions.txt');
const isExcluded = (test: string) => exclusions.some((name) => test.startsWith(name));

describe.skipIf(!hasTempest())('tempest, where Debian’s package is installed', () => {
  const world = new World();
  let outcomes: Outcome[];
  beforeAll(async () => {
    const daemon = await world.start(['--http', '127.0.0.1:0']);
    await prepare(world.dir, await daemon.cli<Env>('openrc'));
    outcomes = await runTempest(world.dir, RUN_MS_MAX);
  }, RUN_MS_MAX);
  afterAll(() => world.end());

  it('passes what it passed', () => {
    const found = new Map(outcomes.map((one) => [one.test, one]));
    const missing = passes.filter((test) => found.get(test)?.outcome !== 'pass');
    expect(missing.map((test) => `${test}: ${found.get(test)?.why ?? 'was not run'}`)).toEqual([]);
  });

  it('has no test that neither passes nor is left out', () => {
    const others = outcomes.filter(({ test, outcome }) => outcome !== 'pass' && !isExcluded(nameOf(test)));
    expect(others).toEqual([]);
    expect(passes.filter(isExcluded)).toEqual([]);
  });
});

/** What fails while a class is set up is called `setUpClass (CLASS)`. */
function nameOf(test: string): string {
  return /^setUpClass \((.+)\)$/.exec(test)?.[1] ?? test;
}
