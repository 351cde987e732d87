/** Comparing two resources of one pool by their maps. */
import { EngineError, type ExtentInfo } from '../types.ts';
import { Walk } from './extents.ts';
import type { Frames } from './frames.ts';
import type { Done, Steps } from './steps.ts';
import { BROKEN, type Tree } from './tree.ts';

/** Extents of one answer. */
const DIFF_EXTENTS_MAX = 65536;

/**
 * What differs in `b`, from `offset` (bytes) on.
 * @param done `next`: where to go on, bytes; null: that was all
 */
export function diff(
  steps: Steps,
  tree: Tree,
  frames: Frames,
  aName: string,
  bName: string,
  offset: number,
  max: number,
  done: Done<{ extents: ExtentInfo[]; next: number | null }>,
): void {
  steps.guard(done, () => {
    const a = steps.need(aName);
    const b = steps.need(bName);
    const pool = steps.pool(b);
    if (a.row.pool !== b.row.pool) throw new EngineError('INVALID', 'only resources of one pool can be compared');
    const end = Math.max(a.row.size, b.row.size);
    const limit = Math.max(1, Math.min(max, DIFF_EXTENTS_MAX));
    const extents: ExtentInfo[] = [];
    let from = Math.floor(offset / pool.blockSize);
    const turn = () => {
      const walk = new Walk(
        tree,
        frames,
        b,
        a,
        from,
        Math.ceil(end / pool.blockSize),
        (first, count, changed, data) => {
          from = first + count;
          if (!changed) return true;
          const start = first * pool.blockSize;
          const length = Math.min(end, from * pool.blockSize) - start;
          const last = extents[extents.length - 1];
          if (last !== undefined && last.data === data && last.offset + last.length === start) last.length += length;
          else if (extents.length === limit) {
            from = first;
            return false;
          } else extents.push({ offset: start, length, data });
          return true;
        },
      );
      const result = walk.run();
      if (result.status === BROKEN)
        done(new EngineError('CORRUPT', `a map page of ${aName} or ${bName} is damaged; \`atoll check\` names it`));
      else if (from * pool.blockSize >= end) done(null, { extents, next: null });
      else if (extents.length === limit) done(null, { extents, next: from * pool.blockSize });
      else steps.host.whenFrames(turn);
    };
    turn();
  });
}
