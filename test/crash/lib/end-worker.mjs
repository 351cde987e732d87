/**
 * Preloaded into a daemon (NODE_OPTIONS=--import): at SIGUSR2 the thread ends whose file ATOLL_END_WORKER names. A pool's
 * thread, who is told its file when it has started, ends at some moment of the next job that it has, and a line on stderr
 * says that the job went with it. Nothing in the daemon knows of it.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { isMainThread } from 'node:worker_threads';

/** Where piscina counts jobs that a thread was given, and those that it answered. */
const [GIVEN, ANSWERED] = [0, 1];
/** Into a job, at most; most take longer. */
const MOMENT_MS_MAX = 10;
/** That a job is let pass, so that it is not always the first. */
const PASS = 0.5;

if (isMainThread) {
  const threads = createRequire(import.meta.url)('node:worker_threads');
  const named = process.env.ATOLL_END_WORKER;
  const workers = [];
  /** thread of a pool → its counts */
  const pooled = new Map();
  threads.Worker = class extends threads.Worker {
    constructor(file, options) {
      super(file, options);
      if (String(file).includes(named)) workers.push(this);
    }
    postMessage(message, transfer) {
      if (message?.sharedBuffer !== undefined && message.filename.includes(named)) {
        pooled.set(this, message.sharedBuffer);
        this.once('exit', () => pooled.delete(this));
      }
      super.postMessage(message, transfer);
    }
  };
  syncBuiltinESMExports();

  const atWork = (counts) => Atomics.load(counts, GIVEN) !== Atomics.load(counts, ANSWERED);
  /** counts → number of the job that is let pass */
  const passing = new Map();

  function endAtWork() {
    for (const [worker, counts] of pooled) {
      const job = Atomics.load(counts, GIVEN);
      if (!atWork(counts) || passing.get(counts) === job) continue;
      if (Math.random() < PASS) {
        passing.set(counts, job);
        continue;
      }
      setTimeout(() => {
        if (!atWork(counts)) return endAtWork();
        // It may have answered before it came to its end.
        worker.once('exit', () => {
          if (atWork(counts)) process.stderr.write(`lost a job of ${named}\n`);
          else endAtWork();
        });
        void worker.terminate();
      }, Math.random() * MOMENT_MS_MAX);
      return;
    }
    setTimeout(endAtWork, 1);
  }

  process.on('SIGUSR2', () => {
    for (const worker of workers) void worker.terminate();
    if (workers.length === 0) endAtWork();
  });
}
