import { describe, expect, it } from 'vitest';
import type { Engine, EngineOptions } from '../../src/xseg/types.ts';
import { LONG } from '../e2e/lib/long.ts';
import { Model } from './model.ts';

const compiled = '../../dist/src/xseg/engine.js';
const { openEngine } = (await import(compiled)) as { openEngine: (options: EngineOptions) => Promise<Engine> };

/** The long suite runs more seeds and rounds. */
const long = LONG;
const first = Number(process.env.ATOLL_SEED ?? Math.floor(Math.random() * 1e9));

describe('the engine beside a model, sealing', () => {
  for (let i = 0; i < (long ? 40 : 3); i++) {
    const seed = first + 1000 + i;
    const blockSize = [4096, 65536, 16384][i % 3];
    it(`seed ${seed}, blocks of ${blockSize}`, { timeout: long ? 3_600_000 : 180_000 }, async () => {
      const options = { cacheBytes: 16 * 1024 * 1024, seal: true, openEngine };
      const model = new Model({ seed, rounds: long ? 3000 : 200, blockSize, ...options });
      await model.run();
      expect(model.log).toEqual([]);
    });
  }
});

describe('the engine beside a model', () => {
  const runs = long ? 40 : 3;
  for (let i = 0; i < runs; i++) {
    const seed = first + i;
    const blockSize = [4096, 65536, 16384][i % 3];
    it(`seed ${seed}, blocks of ${blockSize}`, { timeout: long ? 3_600_000 : 180_000 }, async () => {
      const model = new Model({ seed, rounds: long ? 3000 : 250, blockSize, cacheBytes: 16 * 1024 * 1024, openEngine });
      await model.run();
      expect(model.log).toEqual([]);
    });
  }
});
