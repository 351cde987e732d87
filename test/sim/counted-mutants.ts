/** Bugs planted in the engine that only counting finds: all bytes are right, and every reference is in the end. */
import type { Mutant } from './mutants.ts';

export const COUNTED: Mutant[] = [
  {
    name: 'a snapshot copies the way to its first leaf at once',
    invariant: 4,
    file: 'mapper/operations.ts',
    find: 'const snapshot = this.steps.registry.add(row);',
    replace: `const snapshot = this.steps.registry.add(row);
          if (row.root !== 0) this.tree.writable(r, 0);`,
  },
  {
    name: 'a snapshot writes the root of its volume again',
    invariant: 4,
    file: 'mapper/operations.ts',
    find: 'const snapshot = this.steps.registry.add(row);',
    replace: `const snapshot = this.steps.registry.add(row);
          const root = this.frames.byPage.get(row.root) ?? 0;
          if (root > 0 && this.frames.owner[root] === r.id) this.tree.touch(r, root);`,
    profile: 'cuts',
  },
  {
    name: 'a clone counts each entry of its root up, and down again',
    invariant: 4,
    file: 'mapper/operations.ts',
    find: '        if (source.row.root !== 0) this.steps.addPageRef(r, source.row.root);',
    replace: `        if (source.row.root !== 0) this.steps.addPageRef(r, source.row.root);
        const root = this.frames.byPage.get(source.row.root) ?? 0;
        for (let i = 0; root > 0 && i < 512; i++) {
          const v = this.frames.value(root, i);
          if (v === 0) continue;
          if (row.height > 0) r.changes.pageRefs.push(v, 1, v, -1);
          else r.changes.slotRefs.push(row.pool, v - 1, 1, row.pool, v - 1, -1);
        }`,
    profile: 'cuts',
  },
  {
    name: 'a page is loaded with all that it was copied from',
    invariant: 4,
    file: 'mapper/tree.ts',
    find: '    frames.mapped[frame] = header[5];\n',
    replace: `    frames.mapped[frame] = header[5];
    frames.pins[frame]++;
    if (frames.base[frame] !== 0) this.load(frames.base[frame], level);
    frames.pins[frame]--;
`,
    profile: 'cuts',
  },
  {
    name: 'one block more is told to be shared',
    invariant: 6,
    file: 'mapper/views.ts',
    find: 'sharedBytes: (blocks - exclusive) * blockSize',
    replace: 'sharedBytes: (blocks - exclusive + (exclusive > 0 ? 1 : 0)) * blockSize',
  },
  {
    name: 'what is exclusive stays as it was counted when the map changes',
    invariant: 6,
    file: 'mapper/accounting.ts',
    find: '    this.#known.delete(key);\n    this.#changedAt.delete(key);\n',
    replace: '    this.#changedAt.delete(key);\n',
  },
  {
    name: 'what is exclusive stays as it was counted while a volume was on its way out',
    invariant: 6,
    file: 'mapper/burials.ts',
    find: '    this.steps.registry.buried(r.id);\n    this.steps.host.accountChanged(r.row);\n',
    replace: '    this.steps.registry.buried(r.id);\n',
    profile: 'cuts',
  },
  {
    name: 'what is exclusive stays as it was counted when shared slots lose references',
    invariant: 6,
    file: 'mapper/accounting.ts',
    find: '    for (const key of this.#foreign) this.#known.delete(key);\n',
    replace: '',
    profile: 'ingest',
  },
  {
    name: 'a block of what is released is never told to be free',
    invariant: 6,
    file: 'mapper/freeing.ts',
    find: 'this.blocksLeft(weight.pool) - weight.blocks);',
    replace: 'this.blocksLeft(weight.pool) - Math.max(1, weight.blocks - 1));',
  },
  {
    name: 'what a pool maps is told without what its snapshots do',
    invariant: 6,
    file: 'store/reader.ts',
    find: 'FROM resource GROUP BY pool',
    replace: 'FROM resource WHERE kind <> 2 GROUP BY pool',
  },
];
