/** The engine as the catalog needs it: which roots are there, and that they go (docs/catalog.md, "Catalog and engine"). */
import type { Engine } from '../../xseg/types.ts';
import type { EngineSide } from '../catalog/pins.ts';
import { describeError } from '../errors.ts';
import type { Log } from '../log.ts';

export function engineSide(engine: Engine, log: Log): EngineSide {
  const missing = (error: unknown): boolean => describeError(error).code === 'NOT_FOUND';
  const isSnapshot = (name: string): boolean => name.includes('@');
  return {
    has: async (name) => {
      try {
        await (isSnapshot(name) ? engine.showSnapshot(name) : engine.showVolume(name));
        return true;
      } catch (error) {
        if (missing(error)) return false;
        throw error;
      }
    },
    remove: async (name) => {
      try {
        // Snapshots of it that are not known here are somebody's: it stays then.
        await (isSnapshot(name)
          ? engine.deleteSnapshot(name, { force: true })
          : engine.deleteVolume(name, { force: true }));
      } catch (error) {
        if (!missing(error)) throw error;
      }
    },
    failed: (name, error) => log('warn', 'catalog.pin', { name, ...describeError(error) }),
  };
}
