/** Which batches are on their way, and in which order, with a committer that answers when the test says so. */
import { describe, expect, it } from 'vitest';
import { VolumeRecord } from '../../src/xseg/layout.gen.ts';
import { Commits, type CommitsHost } from '../../src/xseg/mapper/commits.ts';
import type { Frames } from '../../src/xseg/mapper/frames.ts';
import { Resource } from '../../src/xseg/mapper/resource.ts';
import type { Tree } from '../../src/xseg/mapper/tree.ts';
import type { Native } from '../../src/xseg/native.ts';
import type { CommitBatch, ResourceRow } from '../../src/xseg/store/batch.ts';

function bench() {
  const sent: CommitBatch[] = [];
  const landed: Resource[] = [];
  const state = { settled: true };
  const host: Partial<CommitsHost> = {
    send: (batch) => void sent.push(batch),
    meta: () => ({}),
    pagesDurable: () => undefined,
    landed: (r) => void landed.push(r),
    settled: () => state.settled,
  };
  const tree = { settle: () => undefined } as unknown as Tree;
  const words = new Int32Array(new SharedArrayBuffer(4096));
  const commits = new Commits({ words } as unknown as Frames, tree, {} as Native, 0, () => 0, host as CommitsHost);
  const r = new Resource({ id: 1, name: 'v', root: 0, size: 0 } as ResourceRow);
  /** a batch that says `size` in the record */
  const cut = (size: number) => {
    r.row.size = size;
    r.changes.row = true;
    commits.cut(r);
  };
  const answer = (batch: CommitBatch) => commits.result({ seq: batch.seq, error: null, ms: 0, logBytes: 0 });
  const durable = () => words[VolumeRecord.mapDurable / 4];
  return { commits, r, cut, answer, landed, sizes: () => sent.map((b) => b.resources[0].size), sent, state, durable };
}

describe('batches of one resource', () => {
  it('go one at a time in the order they were made, also those that the end of one makes', () => {
    const t = bench();
    t.r.changes.waiters.push(() => {
      t.cut(3);
      t.cut(4);
    });
    t.cut(1);
    t.cut(2);
    expect(t.sizes()).toEqual([1]);
    for (let i = 0; i < 4; i++) {
      expect(t.landed).toEqual([]);
      t.answer(t.sent[i]);
      expect(t.sizes()).toEqual([1, 2, 3, 4].slice(0, i + 2));
    }
    expect(t.landed).toEqual([t.r]);
    expect(t.r.clean).toBe(true);
  });
});

describe('a batch that made no data durable', () => {
  it('says nothing of flushes while what an earlier life wrote may be on its way', () => {
    const t = bench();
    t.r.handle = 0;
    t.r.mapDirty = 5;
    t.state.settled = false;
    t.cut(1);
    t.answer(t.sent[0]);
    expect(t.durable()).toBe(0);
    t.state.settled = true;
    t.cut(2);
    t.answer(t.sent[1]);
    expect(t.durable()).toBe(5);
  });
});
