/**
 * Memory that a thread keeps and may not need again. V8 looks for a thread's garbage when there are some MiB of it, which
 * is a quarter of an hour's where little is made; a connection of SQLite keeps every page that it met, up to its bound; and
 * the C library keeps what was freed in the middle of its heaps.
 */
import { loadNative } from './native.ts';

const GIVE_BACK_MS = 60_000;

/**
 * From now on once a minute, between two pieces of this thread's work; keeps nothing from ending.
 * @param caches gives back what else the thread keeps
 * @returns ends it, before `caches` has nothing to work with any more
 */
export function giveBackRegularly(caches: () => void): () => void {
  const native = loadNative();
  const timer = setInterval(() => {
    caches();
    native.collectGarbage();
    native.trimHeaps();
  }, GIVE_BACK_MS).unref();
  return () => clearInterval(timer);
}
