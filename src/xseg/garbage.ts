/** Garbage of threads that make little of it: V8 would not look for it before there are 8 MiB, a quarter of an hour's. */
import { loadNative } from './native.ts';

const LOOK_MS = 60_000;

/** From now on this thread's garbage is looked for once a minute; keeps nothing from ending. */
export function collectGarbageRegularly(): void {
  const native = loadNative();
  setInterval(() => native.collectGarbage(), LOOK_MS).unref();
}
