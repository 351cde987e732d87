/** Bugs in the engine's own source that the simulation must find (docs/simulation.md). */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { compiled } from './compiled.ts';
import { HUNT_TIMEOUT_MS, Hunt, STEPS } from './hunt.ts';
import { MUTANTS } from './mutants.ts';

const FOLDER = path.join(import.meta.dirname, '../../build/sim-compiled', `mutants-${process.pid}`);
const hunt = new Hunt('mutants');

afterAll(() => fs.rmSync(FOLDER, { recursive: true, force: true }));

describe('a bug in the engine is found', () => {
  for (const [i, mutant] of MUTANTS.entries())
    it(`invariant ${mutant.invariant}: ${mutant.name}`, { timeout: HUNT_TIMEOUT_MS }, async () => {
      const { Simulation } = await compiled(mutant, path.join(FOLDER, String(i)));
      expect(hunt.run(mutant.name, Simulation, mutant.profile)).not.toBeNull();
    });
});

describe('without one the same seed passes', () => {
  for (const { profile, seed } of hunt.seeds())
    it(`seed ${seed} (${profile})`, { timeout: HUNT_TIMEOUT_MS }, async () => {
      const { Simulation } = await compiled(null, path.join(FOLDER, 'none'));
      expect(new Simulation(seed, { steps: STEPS, profile }).run().crashes).toBeGreaterThan(0);
    });
});
