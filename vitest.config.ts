import { defineConfig } from 'vitest/config';

const TEST_TIMEOUT_MS = 120_000;

/** These start daemons, guests and other people's clients, and measure or kill them: one file at a time. */
const ALONE = ['test/e2e/**/*.test.ts', 'test/crash/**/*.test.ts'];

/** What holds for every project. Processes, not threads: the addon and the engine's own workers live in them. */
const common = {
  // Compiled by tests themselves (test/sim/compiled.ts).
  server: { deps: { external: [/\/build\/sim-compiled\//] } },
  pool: 'forks' as const,
  // Daemons of many tests run at once: those that serve HTTP say where.
  env: { ATOLL_HTTP: 'none' },
  testTimeout: TEST_TIMEOUT_MS,
  hookTimeout: TEST_TIMEOUT_MS,
};

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ALONE,
          // on two cores as well: many wait more than they compute
          maxWorkers: '100%',
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...common,
          name: 'alone',
          include: ALONE,
          fileParallelism: false,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
