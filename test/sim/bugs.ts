/**
 * Bugs that can be planted in the simulated parts, by name: what a broken core, volume peer, disk or committer would do.
 * Each breaks one invariant of the engine's surroundings; `planted.test.ts` holds that each is caught.
 */
import type { ProfileName } from './profiles.ts';

export const SIMULATED_BUGS = {
  // 1: acknowledged is durable
  'sync-skipped': 'a data sync of a volume answers without syncing',
  'sync-forgets-a-file': 'a data sync of a volume leaves out the last of its files',
  'flush-without-map': 'a flush syncs data and does not ask for the map',
  'grant-not-marked': 'a write to a new slot does not mark its file for the next sync',
  'fua-ignored': 'a write with FUA is answered like any other',
  'write-not-marked': 'a write in place does not mark its file for the next sync',
  'sync-retried': 'a sync that failed is tried again, and the kernel says that all is well',
  // 2: a map never points at data that is not there
  'sync-answered-early': 'a data sync is answered before it is done, so that the commit overtakes it',
  'commit-answered-early': 'a commit is answered before it is durable',
  // 3: every commit is atomic, ordered, checksummed
  'commit-torn': 'a crash leaves half of a commit',
  'commit-lost': 'a commit is lost between two others',
  'page-rots': 'a crash flips a bit of a map page in the store',
  // 5: a snapshot is a consistent cut
  'generation-not-advanced': 'a snapshot does not advance the generation',
  'stamp-ignored': 'a reactor writes in place whatever the generation of the page is',
  'write-not-admitted': 'an asynchronous write in place is not counted in',
  // 6: space comes back
  'page-ref-lost': 'a reference on a page is not counted',
  'slot-leaked': 'a slot that is freed stays used in the store',
  'release-lost': 'work that frees is lost',
  'zeroing-lost': 'a zeroing never ends',
  // 8: sealed data is verified
  'hash-of-another': 'a hashing job gives a block the hash of the one before it',
  'quarantine-ignored': 'a reactor reads blocks that are in quarantine',
  'verify-ignored': 'a reactor does not verify what it reads',
  'verify-copies-ignored': 'a reactor does not verify what it copies',
  'mismatch-ignored': 'a reactor takes any hash for the right one',
  // 12: no byte is shown twice
  'zeroing-skipped': 'freed slots are not zeroed',
  'zeroing-short': 'the last block of a zeroing is left out',
  'copy-short': 'the last sector of a block that is copied is left out',
  'group-forgets-active': 'a crash leaves a group in the state it had before it became active',
} as const;

export type SimulatedBug = keyof typeof SIMULATED_BUGS;

export type Bugs = ReadonlySet<SimulatedBug>;

/** What makes what a bug breaks common; else the general profile. */
export const BUG_PROFILES: Partial<Record<SimulatedBug, ProfileName>> = {
  'generation-not-advanced': 'cuts',
  'stamp-ignored': 'cuts',
  'write-not-admitted': 'cuts',
  'quarantine-ignored': 'rot',
  'verify-ignored': 'rot',
  'verify-copies-ignored': 'rot',
  'mismatch-ignored': 'rot',
};
