/** The library that takes syncs out of a daemon, or lets them fail (sync-faults.c). */
import fs from 'node:fs';
import type { Children } from '../../../bench/children.ts';

/** The library sees system calls that are made through libc. */
export const SYNC_FAULT_ARGS = ['--no-io-uring'];

/**
 * Compiles it.
 * @returns environment for a daemon with a fault, in the words of sync-faults.c
 */
export async function syncFaults(children: Children, library: string): Promise<(fault: string) => NodeJS.ProcessEnv> {
  const source = new URL('sync-faults.c', import.meta.url).pathname;
  const flags = ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-Werror'];
  if (!fs.existsSync(library)) await children.run('cc', [...flags, '-o', library, source]);
  return (fault) => ({ LD_PRELOAD: library, ATOLL_SYNC_FAULT: fault });
}
