/**
 * Preloaded into a daemon (NODE_OPTIONS=--import): at SIGUSR2 the thread ends whose file ATOLL_END_WORKER names.
 * Nothing in the daemon knows of it.
 */
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { isMainThread } from 'node:worker_threads';

if (isMainThread) {
  const threads = createRequire(import.meta.url)('node:worker_threads');
  const workers = [];
  threads.Worker = class extends threads.Worker {
    constructor(file, options) {
      super(file, options);
      if (String(file).includes(process.env.ATOLL_END_WORKER)) workers.push(this);
    }
  };
  syncBuiltinESMExports();
  process.on('SIGUSR2', () => {
    for (const worker of workers) void worker.terminate();
  });
}
