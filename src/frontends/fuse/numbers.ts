/** Numbers of nodes: a resource's number times 8 plus its kind, so that nothing has to be remembered of what the kernel knows. */

/** Fixed nodes are n · 8 + 1; the root has to be 1. Those of images and objects are theirs already. */
export const ROOT = 1;
export const VOLUMES = 9;
export const SNAPSHOTS = 17;
export const IMAGES = 25;
export const OBJECTS = 33;

const KIND_VOLUME = 2;
const KIND_SNAPSHOT = 3;
const KIND_OWNER = 4;

export const volumeIno = (id: number): number => id * 8 + KIND_VOLUME;
export const snapshotIno = (id: number): number => id * 8 + KIND_SNAPSHOT;
/** the folder of a volume's snapshots */
export const ownerIno = (id: number): number => id * 8 + KIND_OWNER;

export type Place =
  | { kind: 'root' | 'volumes' | 'snapshots' }
  | { kind: 'volume' | 'snapshot' | 'owner'; id: number }
  | null;

export function placeOf(ino: number): Place {
  if (ino === ROOT) return { kind: 'root' };
  if (ino === VOLUMES) return { kind: 'volumes' };
  if (ino === SNAPSHOTS) return { kind: 'snapshots' };
  const id = Math.floor(ino / 8);
  if (id === 0) return null;
  switch (ino % 8) {
    case KIND_VOLUME:
      return { kind: 'volume', id };
    case KIND_SNAPSHOT:
      return { kind: 'snapshot', id };
    case KIND_OWNER:
      return { kind: 'owner', id };
    default:
      return null;
  }
}
