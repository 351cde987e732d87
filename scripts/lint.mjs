/**
 * Checks how the sources are written: biome for TypeScript and JavaScript, clang-format for C++.
 *
 *   lint          what is wrong, exit 1 when something is
 *   lint --write  puts right what can be put right by itself
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** @returns every C++ file that people write; generated ones say *.gen.h */
function cppFiles() {
  return fs
    .readdirSync(path.join(ROOT, 'native'), { recursive: true })
    .filter((name) => /\.(cc|h)$/.test(name) && !name.includes('.gen.'))
    .map((name) => path.join('native', name))
    .sort();
}

function passes(command, argv) {
  const result = spawnSync(command, argv, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  if (result.error) console.error(`${command}: ${result.error.message}`);
  return result.status === 0;
}

/** The checks by name; each prints what it finds and answers whether it found nothing. */
export const checks = {
  biome: (write = false) =>
    passes(process.execPath, ['node_modules/@biomejs/biome/bin/biome', 'check', ...(write ? ['--write'] : []), '.']),
  'clang-format': (write = false) => {
    const files = cppFiles();
    return files.length === 0 || passes('clang-format', [...(write ? ['-i'] : ['--dry-run', '-Werror']), ...files]);
  },
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const write = process.argv.includes('--write');
  const failed = Object.keys(checks).filter((name) => !checks[name](write));
  if (failed.length > 0) console.error(`lint: ${failed.join(' and ')} found something`);
  process.exitCode = failed.length > 0 ? 1 : 0;
}
