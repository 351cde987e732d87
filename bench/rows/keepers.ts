/** restic and borg, which keep a file's bytes once too: without compression, borg without encryption (restic has none without). */
import fs from 'node:fs';
import path from 'node:path';
import type { Bench } from '../bench.ts';

interface Keeper {
  name: string;
  /** what makes the repository, and what keeps the file in it */
  commands(dir: string, file: string): [string[], string[]];
}

export const KEEPERS: readonly Keeper[] = [
  {
    name: 'restic',
    commands: (dir, file) => [
      ['restic', '-r', dir, 'init', '--repository-version', '2'],
      ['restic', '-r', dir, 'backup', '--compression', 'off', '--no-cache', file],
    ],
  },
  {
    name: 'borg',
    commands: (dir, file) => [
      ['borg', 'init', '--encryption', 'none', dir],
      ['borg', 'create', '--compression', 'none', `${dir}::a`, file],
    ],
  },
];

/** Seconds that keeping the file in an empty repository takes; null when the program is not installed. */
export async function keep(bench: Bench, { name, commands }: Keeper, file: string): Promise<number | null> {
  if (!installed(name)) return null;
  const dir = bench.file(`${name}-repo`);
  const [prepare, work] = commands(dir, file);
  const env = { ...process.env, RESTIC_PASSWORD: 'x', BORG_BASE_DIR: bench.file('borg'), HOME: bench.dir };
  await bench.children.run(prepare[0]!, prepare.slice(1), { env });
  const began = performance.now();
  await bench.children.run(work[0]!, work.slice(1), { env });
  const seconds = (performance.now() - began) / 1000;
  bench.remove(dir);
  return seconds;
}

function installed(command: string): boolean {
  return (process.env.PATH ?? '').split(':').some((dir) => fs.existsSync(path.join(dir, command)));
}
