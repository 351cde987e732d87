/** How full a pool is, told once per crossing: a level is left only when the pool is clearly below it. */
import type { PoolLevel } from '../types.ts';

export const WARN_PERCENT_DEFAULT = 80;
export const CRITICAL_PERCENT_DEFAULT = 95;
/** Below a threshold by so many points, its level is left. */
export const HYSTERESIS_POINTS = 2;

const LEVELS: readonly PoolLevel[] = ['ok', 'warning', 'critical'];

/** 100 · used / capacity; a pool that can hold nothing is full. */
export function fullPercent(usedBytes: number, capacityBytes: number): number {
  return capacityBytes <= 0 ? 100 : (usedBytes / capacityBytes) * 100;
}

export class Fullness {
  level: PoolLevel = 'ok';

  constructor(
    readonly warnPercent: number,
    readonly criticalPercent: number,
  ) {}

  /** @returns the level it left, null when it stays */
  look(percent: number): PoolLevel | null {
    const before = this.level;
    const rank = LEVELS.indexOf(before);
    const up = this.#rank(percent);
    const down = this.#rank(percent + HYSTERESIS_POINTS);
    if (up > rank) this.level = LEVELS[up];
    else if (down < rank) this.level = LEVELS[down];
    return this.level === before ? null : before;
  }

  #rank(percent: number): number {
    if (percent >= this.criticalPercent) return 2;
    return percent >= this.warnPercent ? 1 : 0;
  }
}
