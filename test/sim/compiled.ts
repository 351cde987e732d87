/**
 * The simulation compiled anew, engine and all, with a bug in the engine's source or without: what vitest makes of modules
 * takes twice the time, and bugs must not be seen by each other.
 */
import fs from 'node:fs';
import path from 'node:path';
import { transformSync } from 'rolldown/utils';
import type { Mutant } from './mutants.ts';

const ROOT = path.join(import.meta.dirname, '../..');
const PARTS = ['src/xseg', 'test/sim'];

/** Everything that is compiled: file, from ROOT on → its text. */
const sources = new Map<string, string>();
const outputs = new Map<string, string>();

function load(): void {
  for (const part of PARTS)
    for (const file of fs.readdirSync(path.join(ROOT, part), { recursive: true, encoding: 'utf8' }))
      if (file.endsWith('.ts') && !file.endsWith('.test.ts'))
        sources.set(path.join(part, file), fs.readFileSync(path.join(ROOT, part, file), 'utf8'));
  for (const [file, text] of sources) outputs.set(file, compile(file, text));
}

function compile(file: string, text: string): string {
  const { code, errors } = transformSync(file, text, {
    target: 'es2022',
    typescript: { onlyRemoveTypeImports: true, rewriteImportExtensions: 'rewrite' },
  });
  if (errors.length > 0) throw new Error(`${file} does not compile: ${errors[0].message}`);
  return code;
}

function planted(text: string, mutant: Mutant): string {
  let result = text;
  for (const { find, replace } of [mutant, ...(mutant.also === undefined ? [] : [mutant.also])]) {
    const parts = result.split(find);
    if (parts.length !== 2)
      throw new Error(`${mutant.file} has ${parts.length - 1} × ${JSON.stringify(find)}: plant "${mutant.name}" anew`);
    result = parts.join(replace);
  }
  return result;
}

/** @param folder that gets it, below `build/sim-compiled` (vitest.config.ts leaves that alone) */
export async function compiled(mutant: Mutant | null, folder: string): Promise<typeof import('./simulation.ts')> {
  if (sources.size === 0) load();
  for (const [file, output] of outputs) {
    const to = path.join(folder, file.replace(/\.ts$/, '.js'));
    fs.mkdirSync(path.dirname(to), { recursive: true });
    const bad = mutant !== null && file === path.join('src/xseg', mutant.file);
    fs.writeFileSync(to, bad ? compile(file, planted(sources.get(file) as string, mutant)) : output);
  }
  fs.writeFileSync(path.join(folder, 'package.json'), '{"type":"module"}');
  const addon = path.join(folder, 'build');
  if (!fs.existsSync(addon)) fs.mkdirSync(addon);
  if (!fs.existsSync(path.join(addon, 'Release')))
    fs.symlinkSync(path.join(ROOT, 'build/Release'), path.join(addon, 'Release'));
  return import(/* @vite-ignore */ path.join(folder, 'test/sim/simulation.js'));
}
