/** What requests are checked for besides their shape, once, before anything is done. */
import { checkName, HIDDEN_PREFIX, joinName, type NameKind, splitName } from '../../xseg/names.ts';
import type { ShowOptions } from '../../xseg/types.ts';
import { ControlError } from '../errors.ts';
import { roundUpToSector, SECTOR_BYTES, SIZE_MAX } from '../sizes.ts';

/** A name that a user gives to something new: the daemon's own names are not theirs to give. */
export function checkNewName(kind: NameKind, name: string): void {
  checkName(kind, name);
  if (name.startsWith(HIDDEN_PREFIX)) {
    throw new ControlError('INVALID', `names that begin with "${HIDDEN_PREFIX}" are the daemon's own; choose another`);
  }
}

export function checkVolumeName(name: string): string {
  checkName('volume', name);
  return name;
}

/** @returns VOL@SNAP */
export function checkSnapshotName(volume: string, snapshot: string): string {
  checkName('volume', volume);
  checkName('snapshot', snapshot);
  return joinName(volume, snapshot);
}

/** VOL or VOL@SNAP */
export function checkResourceName(name: string): string {
  splitName(name);
  return name;
}

/** VOL@SNAP in one string */
export function checkSnapshotPath(name: string): string {
  if (splitName(name).snapshot === null) {
    throw new ControlError('INVALID', `${JSON.stringify(name.slice(0, 80))} is no snapshot; write VOLUME@SNAPSHOT`);
  }
  return name;
}

/** A request for one thing has what is exclusive counted; `account=true` waits a moment for it. */
export function howToShow(query: { account?: 'true' | 'false' }): ShowOptions {
  return { account: query.account === 'true' ? 'wait' : 'ask' };
}

export function checkVolumeSize(bytes: number): number {
  if (bytes === 0) throw new ControlError('INVALID', 'the size is zero');
  if (bytes > SIZE_MAX) throw new ControlError('TOO_LARGE', `${bytes} bytes are more than 1 PiB, the largest size`);
  if (bytes % SECTOR_BYTES !== 0) {
    const next = roundUpToSector(bytes);
    throw new ControlError('INVALID', `${bytes} bytes are not a multiple of ${SECTOR_BYTES}; ${next} would do`);
  }
  return bytes;
}
