/** What can be done with a home that no daemon serves: checking it, which only reads, and repairing it. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { moduleUrl } from '../module-url.ts';
import type { CheckProgress } from './check.ts';
import { openHome } from './home.ts';
import { type CheckReport, EngineError, type EngineErrorCode, type RepairReport } from './types.ts';

export interface CheckedHome {
  report: CheckReport;
  repaired: RepairReport | null;
}

export interface CheckOptions {
  onProgress?: CheckProgress | undefined;
  /** ends it; a repair that is ended is done whole or not at all */
  signal?: AbortSignal | undefined;
  /** the repair is done, and is checked now */
  onRepaired?: ((report: RepairReport) => void) | undefined;
}

/** Runs the check in a thread of its own, so that signals and progress get through. */
export function runCheckThread(storePath: string, repair: boolean, options: CheckOptions): Promise<CheckedHome> {
  return new Promise((resolve, reject) => {
    const thread = new Worker(moduleUrl(import.meta.url, 'check-worker'), {
      workerData: { storePath, repair },
    });
    const abort = () => void thread.terminate();
    options.signal?.addEventListener('abort', abort, { once: true });
    thread.on('message', (m: Progress | CheckedHome | Repaired | Failure) => {
      if ('report' in m) resolve(m);
      else if ('repaired' in m) options.onRepaired?.(m.repaired);
      else if ('error' in m) reject(new EngineError(engineCode(m.code), m.error));
      else options.onProgress?.(m.done, m.total);
    });
    thread.on('error', (error) => reject(new EngineError('IO', error.message)));
    thread.on('exit', () => {
      options.signal?.removeEventListener('abort', abort);
      reject(new EngineError('IO', 'the check was ended'));
    });
  });
}

interface Progress {
  done: number;
  total: number;
}

interface Repaired {
  repaired: RepairReport;
}

interface Failure {
  error: string;
  code?: string;
}

/** Codes of SQLite's are input and output. */
function engineCode(code: string | undefined): EngineErrorCode {
  if (code === 'CORRUPT' || code === 'NOT_OURS' || code === 'FORMAT_NEWER' || code === 'UNSUPPORTED') return code;
  return code === 'SQLITE_FULL' ? 'NO_SPACE' : 'IO';
}

/** @throws {EngineError} NOT_FOUND */
export function storeOf(home: string): string {
  const storePath = join(home, 'store.db');
  if (!existsSync(storePath)) throw new EngineError('NOT_FOUND', `there is no home at ${home}`);
  return storePath;
}

/** Checks a home whether or not a daemon serves it; changes nothing. @throws {EngineError} */
export async function checkHome(home: string, options: CheckOptions = {}): Promise<CheckReport> {
  const { report } = await runCheckThread(storeOf(home), false, options);
  return report;
}

/** Repairs a home that nobody serves, and checks it. @throws {EngineError} HELD and others */
export async function repairHome(home: string, options: CheckOptions = {}): Promise<CheckedHome> {
  const storePath = storeOf(home);
  const held = openHome(home);
  try {
    return await runCheckThread(storePath, true, options);
  } finally {
    held.unlock();
  }
}
