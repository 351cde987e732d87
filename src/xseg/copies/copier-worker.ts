/** The copier's thread: writes and removes copies of the store, one after another, as the mapper asks. */
import { type MessagePort, workerData } from 'node:worker_threads';
import { loadNative } from '../native.ts';
import { removeCopies } from './files.ts';
import type { CopierAnswer, CopierRequest } from './requests.ts';
import { writeCopy } from './write.ts';

const { storePath, core, port } = workerData as { storePath: string; core: number; port: MessagePort };
const native = loadNative();

type Job = Extract<CopierRequest, { op: 'write' | 'drop' }>;
interface Queued {
  job: Job;
  hurry: boolean;
  cancelled: boolean;
}

const queue: Queued[] = [];
let running = false;
let closing = false;

async function doJob(queued: Queued): Promise<CopierAnswer> {
  const { job } = queued;
  const started = performance.now();
  const { pool, op } = job;
  const answer = { pool, op, error: null, takenAt: 0, bytes: 0, ms: 0, unnamed: false, naming: false } as CopierAnswer;
  try {
    if (job.op === 'drop') removeCopies(job.place, job.names);
    else {
      const control = { paced: () => job.paced && !queued.hurry, cancelled: () => queued.cancelled };
      const steps = {
        unnamed: () => {
          answer.unnamed = true;
        },
        naming: () => {
          answer.naming = true;
        },
      };
      Object.assign(answer, await writeCopy(storePath, job, native, control, steps));
    }
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    answer.error = { code: queued.cancelled ? 'CANCELLED' : (code ?? 'IO'), message };
  }
  answer.ms = performance.now() - started;
  return answer;
}

async function run(): Promise<void> {
  if (running) return;
  running = true;
  for (let next = queue[0]; next !== undefined; next = queue[0]) {
    port.postMessage(await doJob(next));
    queue.shift();
    native.wake(core);
  }
  running = false;
  if (closing) port.close();
}

port.on('message', (request: CopierRequest) => {
  if (request.op === 'write' || request.op === 'drop') {
    queue.push({ job: request, hurry: false, cancelled: false });
    void run();
  } else if (request.op === 'close') {
    closing = true;
    void run();
  } else {
    for (const queued of queue) {
      if (queued.job.pool !== request.pool || queued.job.op !== 'write') continue;
      if (request.op === 'hurry') queued.hurry = true;
      else queued.cancelled = true;
    }
  }
});
