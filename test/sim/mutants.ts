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
/** What the mapper is made of: no file of these loads anything outside. */
const FILES = ['types.ts', 'layout.gen.ts', 'store/batch.ts', 'store/bitmap.ts'];

export interface Mutant {
  name: string;
  /** of DESIGN.md */
  invariant: number;
  file: string;
  find: string;
  replace: string;
  /** how often `find` stands there; default 1 */
  times?: number;
  /** another place of the same file */
  also?: [find: string, replace: string];
}

export const MUTANTS: Mutant[] = [
  {
    name: 'a commit does not sync data',
    invariant: 1,
    file: 'mapper/commits.ts',
    find: 'if (needSync) this.native.syncVolume',
    replace: 'if (needSync && false) this.native.syncVolume',
  },
  {
    name: 'a commit is sent before its data sync has ended',
    invariant: 2,
    file: 'mapper/commits.ts',
    find: 'if (needSync) this.native.syncVolume(this.core, handle, this.host.ticket(commit));\n        else commit(0);',
    replace:
      'if (needSync) this.native.syncVolume(this.core, handle, this.host.ticket(() => undefined));\n        commit(0);',
  },
  {
    name: 'a commit whose sync failed is sent all the same',
    invariant: 1,
    file: 'mapper/commits.ts',
    find: 'if (error !== 0 || resource.failed !== 0) {',
    replace: 'if (false) {',
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
    file: 'mapper/faults.ts',
    find: 'resource.mapDirty = (resource.mapDirty + 1) >>> 0;',
    replace: '',
  },
  {
    name: 'slots are reused before the commit that freed them is durable',
    invariant: 2,
    file: 'mapper/commits.ts',
    find: 'if (batch.freed.length > 0) this.host.freed(batch.freed);',
    replace: '',
    also: [
      'const commit = (error: number) => {',
      'this.host.freed(batch.freed);\n    const commit = (error: number) => {',
    ],
  },
  {
    name: 'ids of pages are not remembered across a crash',
    invariant: 3,
    file: 'mapper/mapper.ts',
    find: 'meta: () => ({ next_page: this.#nextPage, next_resource',
    replace: 'meta: () => ({ next_page: 1, next_resource',
  },
  {
    name: 'a snapshot does not wait for writers of the old generation',
    invariant: 5,
    file: 'mapper/operations.ts',
    find: 'if (r.handle >= 0 && !this.native.writersDrained(this.core, r.handle)) {',
    replace: 'if (false) {',
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
    name: 'a clone takes no reference on its root',
    invariant: 6,
    file: 'mapper/operations.ts',
    find: 'if (source.row.root !== 0) this.#addPageRef(r, source.row.root);',
    replace: '',
  },
  {
    name: 'a deleted resource does not release its root',
    invariant: 6,
    file: 'mapper/operations.ts',
    find: '    if (r.row.root !== 0)\n      changes.releases.push({ seq: this.host.nextRelease(), kind: RELEASE_PAGE, id: r.row.root, pool: r.row.pool });\n    this.registry.unname(r.row);',
    replace: '    this.registry.unname(r.row);',
  },
  {
    name: 'a page dies although a page that is not durable yet has it as base',
    invariant: 6,
    file: 'mapper/freeing.ts',
    find: "if (this.host.hasNewChildren(id)) return 'later';",
    replace: '',
    times: 2,
  },
  {
    name: 'references on their way are not counted',
    invariant: 6,
    file: 'mapper/freeing.ts',
    find: ' + this.host.pendingPageRefs(id)',
    replace: '',
  },
  {
    name: 'a child that borrows takes no reference',
    invariant: 6,
    file: 'mapper/freeing.ts',
    find: 'if (leaf) this.#addSlotRef(pool, value - 1, changes);',
    replace: 'if (leaf) void 0;',
  },
  {
    name: 'a slot with one reference too few is freed',
    invariant: 6,
    file: 'mapper/freeing.ts',
    find: 'const extra = this.reader.slotExtra(pool, slot) + (this.#slotDelta.get(key) ?? 0);',
    replace: 'const extra = this.reader.slotExtra(pool, slot) + (this.#slotDelta.get(key) ?? 0) - 1;',
  },
  {
    name: 'an entry becomes writable while a grant copies from it',
    invariant: 5,
    file: 'mapper/freeing.ts',
    find: '          !granted &&\n',
    replace: '',
  },
  {
    name: 'blocks that get a slot are not counted',
    invariant: 6,
    file: 'mapper/faults.ts',
    find: 'this.frames.delta[frame] += fresh;',
    replace: '',
  },
  {
    name: 'faults on one block do not queue',
    invariant: 1,
    file: 'mapper/faults.ts',
    find: '    if (waiting !== undefined) {\n      waiting.push(f);',
    replace: '    if (false) {\n      waiting.push(f);',
  },
  {
    name: 'a page that is not durable is dropped from the cache',
    invariant: 2,
    file: 'mapper/frames.ts',
    find: ' || this.flying[frame] !== 0)',
    replace: ')',
  },
  {
    name: 'frames are used again while reactors may have found them',
    invariant: 12,
    file: 'mapper/frames.ts',
    find: 'while (this.#limbo.length > 0 && this.#limbo[0].epoch <= safe) {',
    replace: 'while (this.#limbo.length > 0) {',
  },
  {
    name: 'freed slots are zeroed while reactors may still hold them',
    invariant: 12,
    file: 'mapper/zeroing.ts',
    find: 'if (item.epoch > safe) break;',
    replace: '',
  },
  {
    name: 'a group is handed out after a crash as if it were clean',
    invariant: 12,
    file: 'mapper/slots.ts',
    find: 'row.state === GROUP_ACTIVE ? 0xff : (row.dirty?.[i] ?? 0xff)',
    replace: 'row.state === GROUP_ACTIVE ? 0 : (row.dirty?.[i] ?? 0xff)',
  },
  {
    name: 'a clean stop calls slots clean that are not',
    invariant: 12,
    file: 'mapper/slots.ts',
    find: 'dirty: Uint8Array.from(group.unavailable)',
    replace: 'dirty: new Uint8Array(group.unavailable.length)',
  },
  {
    name: 'a clean stop does not sync what was zeroed',
    invariant: 12,
    file: 'mapper/slots.ts',
    find: 'if (group.zeroed) files.push',
    replace: 'if (false) files.push',
  },
  {
    name: 'slots that were granted and not used are not zeroed',
    invariant: 12,
    file: 'mapper/slots.ts',
    find: '    this.#unuse(slot, count);\n    this.#queue([slot, count]);',
    replace: '    this.#unuse(slot, count);\n    this.#zeroed(slot, count);',
  },
  {
    name: 'a shrink leaves the tail of its last block',
    invariant: 12,
    file: 'mapper/operations.ts',
    find: 'else if (tail === 0) finish(null);',
    replace: 'else if (tail >= 0) finish(null);',
  },
  {
    name: 'a shrink commits its new size before what lies beyond is gone',
    invariant: 12,
    file: 'mapper/operations.ts',
    find: '      r.sizeInStore = before;\n',
    replace: '',
  },
  {
    name: 'a write that waited is not checked against the new size',
    invariant: 12,
    file: 'mapper/faults.ts',
    find: '    if (end > resource.row.size) {',
    replace: '    if (false) {',
  },
];

function planted(text: string, find: string, replace: string, mutant: Mutant): string {
  const parts = text.split(find);
  if (parts.length !== (mutant.times ?? 1) + 1)
    throw new Error(`${mutant.file} has ${parts.length - 1} × ${JSON.stringify(find)}: plant "${mutant.name}" anew`);
  return parts.join(replace);
}

/** The engine with one mutant in it (null: none). `folder` gets its compiled files. */
export async function mutate(mutant: Mutant | null, folder: string): Promise<EngineUnderTest> {
  const files = [...FILES, ...fs.readdirSync(path.join(SOURCE, 'mapper')).map((name) => `mapper/${name}`)];
  for (const file of files) {
    let text = fs.readFileSync(path.join(SOURCE, file), 'utf8');
    if (file === mutant?.file) {
      text = planted(text, mutant.find, mutant.replace, mutant);
      if (mutant.also !== undefined) text = planted(text, mutant.also[0], mutant.also[1], { ...mutant, times: 1 });
    }
    const { outputText } = ts.transpileModule(text, {
      compilerOptions: {
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind.ESNext,
        rewriteRelativeImportExtensions: true,
        verbatimModuleSyntax: true,
      },
    });
    const to = path.join(folder, file.replace(/\.ts$/, '.js'));
    fs.mkdirSync(path.dirname(to), { recursive: true });
    fs.writeFileSync(to, outputText);
  }
  fs.writeFileSync(path.join(folder, 'package.json'), '{"type":"module"}');
  const made = (await import(/* @vite-ignore */ path.join(folder, 'mapper/mapper.js'))) as EngineUnderTest;
  return { Mapper: made.Mapper };
}
