/** The committer's thread: takes batches from the mapper, creates pool files they need, applies them, answers and wakes the mapper. */
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { giveBackRegularly } from '../giving-back.ts';
import { loadNative } from '../native.ts';
import { EngineError } from '../types.ts';
import { type CommitBatch, type CommitResult, emptyBatch } from './batch.ts';
import { Committer } from './committer.ts';

/** Batches in one transaction at most. */
const BATCHES_PER_TRANSACTION_MAX = 64;
/** A store on a full disk is tried again this often, this long: deleting may make room. */
const FULL_RETRY_MS = 500;
const FULL_RETRIES_MAX = 60;

interface CommitterData {
  storePath: string;
  core: number;
  port: MessagePort;
}

const { storePath, core, port } = workerData as CommitterData;
const native = loadNative();
const committer = new Committer(storePath);
const sleep = new Int32Array(new SharedArrayBuffer(4));
// The home is in use. It makes the log too, which the last stop took away: nobody's first commit waits for that.
committer.apply([{ ...emptyBatch(0), meta: { clean: 0 } }]);

function answer(result: CommitResult): void {
  port.postMessage(result);
}

function applyWithRetry(batches: CommitBatch[]): void {
  for (let tries = 0; ; tries++) {
    try {
      committer.apply(batches);
      return;
    } catch (error) {
      if ((error as { code?: string }).code !== 'SQLITE_FULL' || tries >= FULL_RETRIES_MAX) throw error;
      Atomics.wait(sleep, 0, 0, FULL_RETRY_MS);
    }
  }
}

/** Files first: a group is never active in the store before its file exists. */
function makeFiles(batch: CommitBatch): CommitResult['error'] {
  for (let i = 0; i < batch.ensureFiles.length; i += 2) {
    try {
      native.ensureFile(core, batch.ensureFiles[i], batch.ensureFiles[i + 1]);
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      return { code: code === 'ENOSPC' || code === 'EDQUOT' ? 'NO_SPACE' : 'IO', message, fatal: false };
    }
  }
  return null;
}

function handle(first: CommitBatch): void {
  const batches = [first];
  while (batches.length < BATCHES_PER_TRANSACTION_MAX) {
    const more = receiveMessageOnPort(port) as { message: CommitBatch | 'close' } | undefined;
    if (more === undefined) break;
    if (more.message === 'close') {
      closing = true;
      break;
    }
    batches.push(more.message);
  }
  const started = performance.now();
  const good: CommitBatch[] = [];
  for (const batch of batches) {
    const error = makeFiles(batch);
    if (error === null) good.push(batch);
    else answer({ seq: batch.seq, error, ms: 0, logBytes: 0 });
  }
  try {
    if (good.length > 0) applyWithRetry(good);
    const ms = performance.now() - started;
    const logBytes = committer.logBytes();
    const transaction = { batches: good.length, syncMs: committer.syncMs };
    for (const batch of good)
      answer({ seq: batch.seq, error: null, ms, logBytes, ...(batch === good[0] ? { transaction } : {}) });
  } catch (error) {
    const code = error instanceof EngineError ? error.code : ((error as { code?: string }).code ?? 'IO');
    for (const batch of good)
      answer({ seq: batch.seq, error: { code, message: (error as Error).message, fatal: true }, ms: 0, logBytes: 0 });
  }
  native.wake(core);
  committer.checkpoint();
}

const endGivingBack = giveBackRegularly(() => committer.shrink());
let closing = false;
port.on('message', (message: CommitBatch | 'close') => {
  if (message !== 'close') handle(message);
  if (message === 'close' || closing) {
    endGivingBack();
    try {
      committer.checkpoint(true);
    } catch {
      // a checkpoint that cannot run now leaves the log, which is as durable; the next start replays it
    }
    committer.close();
    port.close();
  }
});
