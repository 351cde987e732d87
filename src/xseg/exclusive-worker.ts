/** Accounts families of resources in its own thread, one after another, on what is durable: exclusive.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { type FamilyResult, type FamilyStore, FamilyWalk, type Member } from './exclusive.ts';
import { loadNative } from './native.ts';
import { ENTRIES } from './page-table.ts';
import { openReader } from './store/schema.ts';

/** Between two turns of a walk: it is nobody's hurry. */
const REST_MS = 2;

export interface FamilyRequest {
  id: number;
  pool: number;
  family: number;
}

export interface FamilyAnswer {
  id: number;
  /** [resource id, blocks] */
  blocks: [number, number][] | null;
  /** it has slots that others than its members have too */
  foreign: boolean;
  /** it may change while the queue of releases is worked on */
  transient: boolean;
}

const { storePath } = workerData as { storePath: string };
const native = loadNative();
const db = openReader(storePath);
const page = db.prepare('SELECT data FROM page WHERE id = ?').pluck();
const extras = db.prepare('SELECT slot, extra FROM slot_ref WHERE pool = ? AND slot >= ? AND slot < ?');
const anyExtra = db.prepare('SELECT 1 FROM slot_ref WHERE pool = ? LIMIT 1').pluck();
const members = db.prepare('SELECT id, root, height FROM resource WHERE pool = ? AND grp = ?');
const queued = db.prepare('SELECT 1 FROM release LIMIT 1').pluck();
const header = new Float64Array(8);
const scratch = new Uint32Array(ENTRIES * 2);
const sleep = new Int32Array(new SharedArrayBuffer(4));

function storeOf(pool: number): FamilyStore {
  const entries = (id: number, into: Uint32Array): boolean => {
    const blob = page.get(id) as Buffer | undefined;
    return blob !== undefined && native.decodePageTo(blob, id, into, header) === 0;
  };
  return {
    entries,
    mapped: (id) => (entries(id, scratch) ? header[5] : -1),
    noExtras: anyExtra.get(pool) === undefined,
    slotExtras: (first, count) => extras.all(pool, first, first + count) as { slot: number; extra: number }[],
  };
}

function account({ id, pool, family }: FamilyRequest): FamilyAnswer {
  db.exec('BEGIN');
  try {
    const walk = new FamilyWalk(storeOf(pool), () => void Atomics.wait(sleep, 0, 0, REST_MS));
    const result: FamilyResult = walk.run(members.all(pool, family) as Member[]);
    return {
      id,
      blocks: result.blocks && [...result.blocks],
      foreign: result.foreign,
      transient: result.foreign && queued.get() !== undefined,
    };
  } finally {
    db.exec('COMMIT');
  }
}

parentPort?.on('message', (request: FamilyRequest) => parentPort?.postMessage(account(request)));
