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
  /** where the hunt begins: one that found it */
  seed?: number;
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
    seed: 18,
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
    seed: 4,
    file: 'mapper/operations.ts',
    find: 'r.changes.syncData = true;\n          r.changes.rows.push(row);',
    replace: 'r.changes.rows.push(row);',
  },
  {
    name: 'a snapshot does not advance the generation of the record',
    invariant: 5,
    file: 'mapper/steps.ts',
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
    file: 'mapper/burials.ts',
    find: 'if (r.row.root !== 0) changes.releases.push(this.steps.release(r));',
    replace: '',
  },
  {
    name: 'blocks that get a slot are not counted',
    invariant: 6,
    file: 'mapper/entries.ts',
    find: 'this.frames.delta[frame] += fresh;',
    replace: '',
  },
  {
    name: 'ids of resources are not remembered across a crash',
    invariant: 3,
    file: 'mapper/mapper.ts',
    find: '          next_resource: this.#nextResource,',
    replace: '          next_resource: 1,',
  },
  {
    name: 'ids of the queue of releases are not remembered across a crash',
    invariant: 3,
    file: 'mapper/mapper.ts',
    find: "Math.max(Number(this.reader.meta('next_release') ?? 1), this.reader.releaseMax() + 1)",
    replace: 'Number(1)',
  },
  {
    name: 'a batch goes while the one before it is on its way',
    invariant: 3,
    file: 'mapper/commits.ts',
    find: 'if (resource.flying) resource.flights.push(flight);\n    else this.#launch(resource, flight);',
    replace: 'this.#launch(resource, flight);',
  },
  {
    name: 'a page that changes while its batch is on its way is called clean',
    invariant: 3,
    file: 'mapper/commits.ts',
    find: 'this.frames.markClean(frame);\n      this.frames.flying[frame]++;',
    replace: 'this.frames.flying[frame]++;\n      queueMicrotask(() => this.frames.markClean(frame));',
  },
  {
    name: 'a snapshot takes no reference on its root',
    invariant: 5,
    file: 'mapper/operations.ts',
    find: '          r.changes.rows.push(row);\n          if (row.root !== 0) this.steps.addPageRef(r, row.root);',
    replace: '          r.changes.rows.push(row);',
  },
  {
    name: 'what a page borrows is freed with it',
    invariant: 5,
    file: 'mapper/freeing.ts',
    find: 'const high = entries[i * 2 + 1];\n      if ((high & OWNED) === 0) continue;',
    replace: 'const high = entries[i * 2 + 1];\n      if (entries[i * 2] === 0 && high === 0) continue;',
  },
  {
    name: 'a slot that several have loses one reference too few',
    invariant: 6,
    seed: 12,
    file: 'mapper/freeing.ts',
    find: 'if (leaf) this.#addSlotRef(pool, value - 1, 1, changes);',
    replace: 'if (leaf) this.#addSlotRef(pool, value - 1, 2, changes);',
  },
  {
    name: 'a shared slot is freed by the first who drops it',
    invariant: 6,
    file: 'mapper/freeing.ts',
    find: 'if ((extraOf.get(slot) ?? 0) + (delta?.get(slot) ?? 0) > 0) this',
    replace: 'if ((extraOf.get(slot) ?? 0) + (delta?.get(slot) ?? 0) > 1) this',
  },
  {
    name: 'a ghost is forgotten with its second last child',
    invariant: 6,
    seed: 12,
    file: 'mapper/freeing.ts',
    find: 'const last = children.length === 1;',
    replace: 'const last = children.length <= 2;',
  },
  {
    name: 'what a dying inner page holds is not released',
    invariant: 6,
    file: 'mapper/freeing.ts',
    find: 'if ((high & OWNED) !== 0) owned.push(id);',
    replace: 'if ((high & OWNED) !== 0 && owned.length === 0) owned.push(id);',
  },
  {
    name: 'counts are not carried to the pages above',
    invariant: 6,
    file: 'mapper/tree.ts',
    find: 'this.addMapped(resource, frames.position[frame], 1, delta);',
    replace: '',
  },
  {
    name: 'a slot that is overwritten after a snapshot went is not dropped',
    invariant: 6,
    file: 'mapper/entries.ts',
    find: 'else this.drop(resource, old - 1, this.frames.high(frame, index + i));',
    replace: '',
  },
  {
    name: 'a commit does not look whether the store was taken over',
    invariant: 7,
    seed: 6,
    file: 'store/committer.ts',
    find: 'if (epoch !== this.epoch)',
    replace: 'if (false)',
  },
  {
    name: 'taking the store over does not end the epoch of who had it',
    invariant: 7,
    seed: 6,
    file: 'store/committer.ts',
    find: 'value = value + 1 RETURNING',
    replace: 'value = value RETURNING',
  },
  {
    name: 'a commit looks at the epoch only when it begins to write',
    invariant: 7,
    seed: 6,
    file: 'store/committer.ts',
    find: "this.db.exec('BEGIN IMMEDIATE');\n      this.#stillOurs();",
    replace: "if (this.syncMs === 0) this.#stillOurs();\n      this.db.exec('BEGIN IMMEDIATE');",
  },
  {
    name: 'rows of slots that are freed stay in the index',
    invariant: 8,
    file: 'store/seal-writer.ts',
    find: 'const gone = this.#statements.drop.run(pool, runs[i + 1], runs[i + 1] + runs[i + 2]).changes;',
    replace: 'const gone = 0;',
  },
  {
    name: 'a slot of the index becomes writable in place',
    invariant: 8,
    file: 'mapper/freeing.ts',
    find: '          !this.host.indexed(pool, value - 1) &&\n',
    replace: '',
  },
  {
    name: 'an entry folds whatever it names by now',
    invariant: 5,
    file: 'mapper/folding.ts',
    find: 'if (frames.value(frame, index) !== move.from + 1 || !this.#isGood(move)) continue;',
    replace: 'if (frames.value(frame, index) === 0 || !this.#isGood(move)) continue;',
  },
  {
    name: 'a leaf folds before those that borrow from it',
    invariant: 5,
    file: 'mapper/folding.ts',
    find: '} else if (this.#borrows(frame, fold)) {',
    replace: '} else if (false) {',
  },
  {
    name: 'folding forgets the reference that it takes',
    invariant: 6,
    file: 'mapper/folding.ts',
    find: 'into.slotRefs.push(this.#pool, move.to, 1);',
    replace: '',
  },
  {
    name: 'folding forgets the reference that it gives up',
    invariant: 6,
    file: 'mapper/folding.ts',
    find: '      if (owned)\n        into.releases',
    replace: '      if (false)\n        into.releases',
  },
  {
    name: 'a slot folds that the page only borrowed, and is released all the same',
    invariant: 6,
    file: 'mapper/folding.ts',
    find: '      if (owned)\n        into.releases',
    replace: '      if (true)\n        into.releases',
  },
  {
    name: 'blocks of zeroes have a hash of their own in the tree',
    invariant: 8,
    file: 'mapper/sealer.ts',
    find: 'hash.equals(zero) ? ZERO_HASH : hash',
    replace: 'hash',
  },
  {
    name: 'the hash of a whole is of the root, whatever the size',
    invariant: 8,
    file: 'mapper/seal-walk.ts',
    find: 'for (let at = this.level; at > this.height && id !== 0; at--) {',
    replace: 'for (let at = this.level; false; at--) {',
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
  const made = (await import(/* @vite-ignore */ path.join(folder, 'mapper/mapper.js'))) as Pick<
    EngineUnderTest,
    'Mapper'
  >;
  const { Committer } = (await import(/* @vite-ignore */ path.join(folder, 'store/committer.js'))) as Pick<
    EngineUnderTest,
    'Committer'
  >;
  const { HashRun } = (await import(/* @vite-ignore */ path.join(folder, 'seal/hash-run.js'))) as Pick<
    EngineUnderTest,
    'HashRun'
  >;
  return { Mapper: made.Mapper, Committer, HashRun };
}
