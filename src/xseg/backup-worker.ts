/** Writes a backup of the store in its own thread, beside the serving daemon. */
import { parentPort, workerData } from 'node:worker_threads';
import { backupStore } from './backup.ts';

const { storePath, path } = workerData as { storePath: string; path: string };
try {
  const fixed = () => parentPort?.postMessage({ fixed: true });
  parentPort?.postMessage({ report: await backupStore(storePath, path, fixed) });
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  parentPort?.postMessage({ error: { code: code ?? 'IO', message } });
}
