/** Bugs in what surrounds the engine that the simulation must find (docs/simulation.md); for those of the engine, see mutants.test.ts. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BUG_PROFILES, SIMULATED_BUGS, type SimulatedBug } from './bugs.ts';
import { compiled } from './compiled.ts';
import { HUNT_TIMEOUT_MS, Hunt, STEPS } from './hunt.ts';
import type { Simulation } from './simulation.ts';

const FOLDER = path.join(import.meta.dirname, '../../build/sim-compiled', `planted-${process.pid}`);
const hunt = new Hunt('bugs');
let Run: typeof Simulation;

beforeAll(async () => {
  ({ Simulation: Run } = await compiled(null, FOLDER));
});
afterAll(() => fs.rmSync(FOLDER, { recursive: true, force: true }));

describe('a bug in what surrounds the engine is found', () => {
  for (const bug of Object.keys(SIMULATED_BUGS) as SimulatedBug[])
    it(`${bug}: ${SIMULATED_BUGS[bug]}`, { timeout: HUNT_TIMEOUT_MS }, () => {
      expect(hunt.run(bug, Run, BUG_PROFILES[bug], new Set([bug]))).not.toBeNull();
    });
});

describe('without one the same seed passes', () => {
  for (const { profile, seed } of hunt.seeds())
    it(`seed ${seed} (${profile})`, { timeout: HUNT_TIMEOUT_MS }, () => {
      expect(new Run(seed, { steps: STEPS, profile }).run().crashes).toBeGreaterThan(0);
    });
});
