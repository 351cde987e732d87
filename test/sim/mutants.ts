/**
 * Bugs planted in the engine itself: one place of its source is changed, the rest is what the daemon runs. A mutant whose place is
 * gone from the source is an error: whoever changes that place says what the bug would be now.
 */
import fs from 'node:fs';
import path from 'node:path';
import ts from 'typescript';
import type { EngineUnderTest } from './world.ts';

const ROOT = path.join(import.meta.dirname, '../..');
const SOURCE = path.join(ROOT, 'src/xseg');
export interface Mutant {
  name: string;
  /** of DESIGN.md */
  invariant: number;
  file: string;
  find: string;
  replace: string;
}

export const MUTANTS: Mutant[] = [
  {
    name: 'a commit does not sync data',
    invariant: 1,
    file: 'mapper/commits.ts',
    find: 'if (error === 0 && needSync) this.native.syncVolume',
    replace: 'if (error === 0 && needSync && false) this.native.syncVolume',
  },
  {
    name: 'a commit is sent before its data sync has ended',
    invariant: 2,
    file: 'mapper/commits.ts',
    find: 'this.native.syncVolume(this.core, handle, this.host.ticket(commit));\n      else commit(error);',
    replace: 'this.native.syncVolume(this.core, handle, this.host.ticket(() => undefined));\n      commit(error);',
  },
  {
    name: 'a map is called durable when its batch is cut',
    invariant: 1,
    file: 'mapper/commits.ts',
    find: 'const mapSeq = resource.mapDirty;\n    const handle = resource.handle;',
    replace:
      'const mapSeq = resource.mapDirty;\n    const handle = resource.handle;\n    if (handle >= 0) Atomics.store(this.frames.words, this.recordAt(handle) + VolumeRecord.mapDurable / 4, mapSeq);',
  },
  {
    name: 'a map that was published is not called dirty',
    invariant: 1,
    file: 'mapper/entries.ts',
    find: 'resource.mapDirty = (resource.mapDirty + 1) >>> 0;',
    replace: '',
  },
  {
    name: 'ids of pages are not remembered across a crash',
    invariant: 3,
    file: 'mapper/mapper.ts',
    find: '          next_page: this.#nextPage,',
    replace: '          next_page: 1,',
  },
  {
    name: 'a snapshot does not wait for grants that are out',
    invariant: 5,
    file: 'mapper/faults.ts',
    find: 'if (resource.outstanding === 0) work(release);',
    replace: 'if (true) work(release);',
  },
  {
    name: 'a snapshot does not sync what was written in place',
    invariant: 5,
    file: 'mapper/operations.ts',
    find: 'r.changes.syncData = true;\n          r.changes.rows.push(row);',
    replace: 'r.changes.rows.push(row);',
  },
  {
    name: 'a snapshot does not advance the generation of the record',
    invariant: 5,
    file: 'mapper/operations.ts',
    find: '          r.row.generation = generation;\n',
    replace: '',
  },
  {
    name: 'a shared page is written in place',
    invariant: 5,
    file: 'mapper/tree.ts',
    find: 'if (frame > 0 && !this.inPlace(resource, frame)) {',
    replace: 'if (frame > 0 && frames.owner[frame] !== resource.id) {',
  },
  {
    name: 'a deleted resource does not release its root',
    invariant: 6,
    file: 'mapper/operations.ts',
    find: 'if (r.row.root !== 0) changes.releases.push(this.#release(r));',
    replace: '',
  },
  {
    name: 'blocks that get a slot are not counted',
    invariant: 6,
    file: 'mapper/entries.ts',
    find: 'this.frames.delta[frame] += fresh;',
    replace: '',
  },
];

function planted(text: string, mutant: Mutant): string {
  const { find, replace } = mutant;
  const parts = text.split(find);
  if (parts.length !== 2)
    throw new Error(`${mutant.file} has ${parts.length - 1} × ${JSON.stringify(find)}: plant "${mutant.name}" anew`);
  return parts.join(replace);
}

const compiled = new Map<string, string>();

function compile(text: string): string {
  let output = compiled.get(text);
  if (output === undefined) {
    output = ts.transpileModule(text, {
      compilerOptions: {
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.ESNext,
        rewriteRelativeImportExtensions: true,
        verbatimModuleSyntax: true,
      },
    }).outputText;
    compiled.set(text, output);
  }
  return output;
}

/** The engine with one mutant in it (null: none). `folder`, somewhere in this project, gets its compiled files. */
export async function mutate(mutant: Mutant | null, folder: string): Promise<EngineUnderTest> {
  for (const file of fs.readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })) {
    if (!file.endsWith('.ts')) continue;
    let text = fs.readFileSync(path.join(SOURCE, file), 'utf8');
    if (file === mutant?.file) {
      text = planted(text, mutant);
    }
    const to = path.join(folder, file.replace(/\.ts$/, '.js'));
    fs.mkdirSync(path.dirname(to), { recursive: true });
    fs.writeFileSync(to, compile(text));
  }
  fs.writeFileSync(path.join(folder, 'package.json'), '{"type":"module"}');
  const made = (await import(/* @vite-ignore */ path.join(folder, 'mapper/mapper.js'))) as EngineUnderTest;
  return { Mapper: made.Mapper };
}
