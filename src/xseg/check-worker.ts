/** Runs a check in its own thread, beside the serving daemon. */
import { parentPort, workerData } from 'node:worker_threads';
import { checkStore } from './check.ts';
import { loadNative } from './native.ts';

const { storePath } = workerData as { storePath: string };
try {
  const report = checkStore(storePath, loadNative(), (done, total) => parentPort?.postMessage({ done, total }));
  parentPort?.postMessage({ report });
} catch (error) {
  parentPort?.postMessage({ error: (error as Error).message });
}
