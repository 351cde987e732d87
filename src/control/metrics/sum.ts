/** Adding up what several reactors count. */
import type { Distribution, ReactorActivity, WaitKind } from '../../xseg/activity.ts';
import { WAIT_KINDS } from '../../xseg/activity.ts';

type ReactorCounter = {
  [K in keyof ReactorActivity]: ReactorActivity[K] extends number ? K : never;
}[keyof ReactorActivity];

export function sumOf(reactors: readonly ReactorActivity[], counter: ReactorCounter): number {
  return reactors.reduce((sum, reactor) => sum + reactor[counter], 0);
}

export function addDistributions(all: readonly Distribution[]): Distribution {
  const counts = Array.from({ length: Math.max(0, ...all.map((one) => one.counts.length)) }, (_, bucket) =>
    all.reduce((sum, one) => sum + (one.counts[bucket] ?? 0), 0),
  );
  return { counts, sum: all.reduce((sum, one) => sum + one.sum, 0) };
}

export function waitsOf(reactors: readonly ReactorActivity[]): Record<WaitKind, Distribution> {
  const waits = WAIT_KINDS.map(
    (kind) => [kind, addDistributions(reactors.map((reactor) => reactor.waits[kind]))] as const,
  );
  return Object.fromEntries(waits) as Record<WaitKind, Distribution>;
}
