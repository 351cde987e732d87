/** Accounts families of resources in its own thread, one after another, on what is durable: family-count.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { FamilyCount, type FamilyRequest } from './family-count.ts';
import { loadNative } from './native.ts';
import { openReader } from './store/schema.ts';

/** Between two turns of a walk: it is nobody's hurry. */
const REST_MS = 2;

const { storePath } = workerData as { storePath: string };
const db = openReader(storePath);
const sleep = new Int32Array(new SharedArrayBuffer(4));
const families = new FamilyCount(db, loadNative(), () => void Atomics.wait(sleep, 0, 0, REST_MS));

parentPort?.on('message', (request: FamilyRequest) => {
  db.exec('BEGIN');
  try {
    parentPort?.postMessage(families.count(request));
  } finally {
    db.exec('COMMIT');
  }
});
