import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Backlog } from '../../src/xseg/mapper/backlog.ts';
import { emptyBatch, KIND_SNAPSHOT, KIND_VOLUME, NOT_ATTACHED, type ResourceRow } from '../../src/xseg/store/batch.ts';
import { Committer } from '../../src/xseg/store/committer.ts';
import { StoreReader } from '../../src/xseg/store/reader.ts';
import { emptySeal, HASH_BYTES } from '../../src/xseg/store/seal-batch.ts';
import { POOL_ROW } from './pool-row.ts';

const LOOK_IDS = 10;

let dir: string;
let committer: Committer;
let reader: StoreReader;
let backlog: Backlog;
let pending: number;
let going: Set<number>;

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-backlog-'));
  committer = new Committer(path.join(dir, 'store.db'));
  reader = new StoreReader(path.join(dir, 'store.db'));
  commit((b) => b.pools.push(POOL_ROW, { ...POOL_ROW, id: 2, uuid: 'other', name: 'other', path: '/other' }));
  pending = Number.POSITIVE_INFINITY;
  going = new Set();
  backlog = new Backlog(
    reader.seal,
    { pendingFrom: () => pending, there: (id) => !going.has(id) && reader.resource(id) !== undefined },
    LOOK_IDS,
  );
});
afterEach(() => {
  reader.close();
  committer.close();
  fs.rmSync(dir, { recursive: true, force: true });
});

function commit(change: (b: ReturnType<typeof emptyBatch>) => void): void {
  const batch = emptyBatch(1);
  change(batch);
  committer.apply([batch]);
}

const row = (id: number, pool: number, kind: number): ResourceRow => ({
  ...{ id, uuid: `u${id}`, name: `n${id}`, kind, volume: kind === KIND_SNAPSHOT ? 1 : 0, pool, size: 4096, root: 0 },
  ...{ height: 0, generation: 1, protected: 0, created_at: 0, cloned_from: null, grp: id, mapped: id, ...NOT_ATTACHED },
});
const snapshots = (...ids: number[]) => commit((b) => b.resources.push(...ids.map((id) => row(id, 1, KIND_SNAPSHOT))));
const seal = (...ids: number[]) =>
  commit((b) => {
    b.seal = emptySeal();
    b.seal.resources.push(...ids);
    b.seal.resourceHashes = Buffer.alloc(ids.length * HASH_BYTES, 1);
  });

/** What is next when nothing is left to look at. */
function next(pools = [1], now = 0) {
  for (let looks = 1; ; looks++) {
    const found = backlog.next(pools, now);
    if (found !== 'more') return { id: found?.id ?? null, looks };
  }
}

describe('the backlog of sealing', () => {
  it('has snapshots without a hash, the oldest first, of the pools that are asked for', () => {
    expect(next()).toEqual({ id: null, looks: 1 });
    commit((b) => b.resources.push(row(1, 1, KIND_VOLUME), row(2, 2, KIND_SNAPSHOT), row(3, 1, KIND_SNAPSHOT)));
    snapshots(4);
    expect(next()).toMatchObject({ id: 3 });
    expect(next([1, 2])).toMatchObject({ id: 2 });
    expect(next([])).toMatchObject({ id: null });
    seal(3);
    expect(next()).toMatchObject({ id: 4 });
    expect(backlog.size(1)).toEqual({ snapshots: 1, mapped: 4 });
    expect(backlog.size(2)).toEqual({ snapshots: 1, mapped: 2 });
    seal(4);
    expect(next()).toMatchObject({ id: null });
    expect(backlog.size(1)).toEqual({ snapshots: 0, mapped: 0 });
  });

  it('goes through few resources in one look, and through none of them twice', () => {
    const ids = Array.from({ length: 3 * LOOK_IDS }, (_, i) => i + 1);
    snapshots(...ids);
    seal(...ids);
    expect(next()).toEqual({ id: null, looks: 3 });
    expect(next()).toEqual({ id: null, looks: 1 });
    snapshots(3 * LOOK_IDS + 5);
    expect(next()).toEqual({ id: 3 * LOOK_IDS + 5, looks: 1 });
  });

  it('finds what comes into the store later than its successors', () => {
    pending = 4;
    snapshots(3, 5, 7);
    seal(3, 5);
    expect(next()).toMatchObject({ id: 7 });
    seal(7);
    expect(next()).toMatchObject({ id: null });
    pending = 6;
    snapshots(4);
    expect(next()).toMatchObject({ id: 4 });
    seal(4);
    expect(next()).toMatchObject({ id: null });
    snapshots(6);
    pending = Number.POSITIVE_INFINITY;
    expect(next()).toMatchObject({ id: 6 });
  });

  it('comes back to what was put off when it is time, and to what was given up at once', () => {
    snapshots(1, 2, 3);
    expect(next()).toMatchObject({ id: 1 });
    backlog.putOff(1, 1, 100);
    expect(next()).toMatchObject({ id: 2 });
    seal(2, 3);
    expect(next([1], 99)).toMatchObject({ id: null });
    expect(backlog.waits).toBe(true);
    expect(backlog.size(1)).toEqual({ snapshots: 1, mapped: 1 });
    expect(next([1], 100)).toMatchObject({ id: 1 });
    expect(backlog.waits).toBe(false);
    backlog.again(1);
    expect(next()).toMatchObject({ id: 1 });
  });

  it('forgets what is going, put off or not', () => {
    snapshots(1, 2, 3);
    backlog.putOff(1, 1, 100);
    going.add(1).add(2);
    expect(next([1], 0)).toMatchObject({ id: 3 });
    expect(next([1], 100)).toMatchObject({ id: 3 });
    expect(backlog.waits).toBe(false);
    commit((b) => b.resourcesDeleted.push(1, 2));
    expect(backlog.size(1)).toEqual({ snapshots: 1, mapped: 3 });
  });
});
