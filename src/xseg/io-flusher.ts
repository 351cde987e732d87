/**
 * Memory and disks of this machine's own: a thread with PR_SET_IO_FLUSHER never waits for memory that is freed by writing to a
 * disk, which may be one that only this process can write (docs/fuse.md, "A machine's own disks"). Threads inherit it, and Node
 * has made some, on which its garbage collection waits, before anything of ours runs: so the process is started again in place.
 */
import { loadNative } from './native.ts';

/** For the entry of a process that serves: returns when all its threads will have it, or when it is not permitted. */
export function becomeIoFlusher(): void {
  const native = loadNative();
  if (native.isIoFlusher() || !native.ioFlusher()) return;
  // Only returns when it cannot: then the threads that are still to come have it.
  native.execute(process.execPath, [process.argv0, ...process.execArgv, ...process.argv.slice(1)]);
}
