/** Runs a check in its own thread, beside the serving daemon or without one; or a repair, and a check of what it left. */
import { parentPort, workerData } from 'node:worker_threads';
import { checkStore } from './check.ts';
import { loadNative } from './native.ts';
import { repairStore } from './repair.ts';
import type { RepairReport } from './types.ts';

const { storePath, repair } = workerData as { storePath: string; repair?: boolean };
const progress = (done: number, total: number) => parentPort?.postMessage({ done, total });
try {
  const native = loadNative();
  const repaired: RepairReport | null = repair ? repairStore(storePath, native, progress) : null;
  if (repaired !== null) parentPort?.postMessage({ repaired });
  const report = checkStore(storePath, native, progress);
  parentPort?.postMessage({ report, repaired });
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  parentPort?.postMessage({ error: message, code });
}
