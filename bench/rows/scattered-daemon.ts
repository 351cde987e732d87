/**
 * A daemon of its own that holds what several rows look at: `small`, 1 GiB fully mapped, and `big`, 1 TiB of scattered
 * map.
 */
import type { Bench } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import { SCATTER_BYTES, SCATTER_PER_LEAF, SCATTER_PER_LEAF_QUICK, scatter } from '../scatter.ts';
import { GIB, MIB } from '../size.ts';

export const SMALL = 'small';
export const BIG = 'big';

const SMALL_BYTES = GIB;
const SMALL_BYTES_QUICK = 128 * MIB;

export function scatteredDaemon(bench: Bench): Promise<Daemon> {
  bench.needsAtoll();
  return bench.once('scattered', async () => {
    const { daemon } = await bench.ownDaemon();
    const bytes = bench.options.quick ? SMALL_BYTES_QUICK : SMALL_BYTES;
    await daemon.createVolume(SMALL, bytes);
    await bench.fill(bench.exportOf(daemon, SMALL), bytes);
    await daemon.createVolume(BIG, SCATTER_BYTES);
    bench.say('  making 1 TiB of scattered map');
    const perLeaf = bench.options.quick ? SCATTER_PER_LEAF_QUICK : SCATTER_PER_LEAF;
    await scatter(bench.exportOf(daemon, BIG), SCATTER_BYTES, perLeaf);
    return daemon;
  });
}
