/** A resource as the mapper holds it: its record, what it has open, and what it has changed since the last batch. */
import type { CommitBatch, ReleaseRow, ResourceRow } from '../store/batch.ts';
import type { Group } from './slots.ts';

/** What goes into a resource's next batch. */
export class Changes {
  /** frames of pages to put */
  frames: number[] = [];
  /** the record itself changed */
  row = false;
  deleted = false;
  /** other records of the same batch (a snapshot that is born with it) */
  rows: ResourceRow[] = [];
  rowsDeleted: number[] = [];
  taken: number[] = [];
  freed: number[] = [];
  releases: ReleaseRow[] = [];
  releasesDone: number[] = [];
  pageRefs: number[] = [];
  slotRefs: number[] = [];
  pagesDeleted: number[] = [];
  /** called when durable (error 0) or failed */
  waiters: ((error: number) => void)[] = [];
  /** data must be durable too, whatever the map says */
  syncData = false;

  /** What is freed, released and counted. */
  giveBackIn(batch: CommitBatch): void {
    batch.freed = this.freed;
    batch.releases = this.releases;
    batch.releasesDone = this.releasesDone;
    batch.pageRefs = this.pageRefs;
    batch.slotRefs = this.slotRefs;
    batch.pagesDeleted = this.pagesDeleted;
  }

  get empty(): boolean {
    return (
      this.frames.length === 0 &&
      !this.row &&
      !this.deleted &&
      !this.syncData &&
      this.rows.length === 0 &&
      this.rowsDeleted.length === 0 &&
      this.taken.length === 0 &&
      this.freed.length === 0 &&
      this.releases.length === 0 &&
      this.releasesDone.length === 0 &&
      this.pageRefs.length === 0 &&
      this.slotRefs.length === 0 &&
      this.pagesDeleted.length === 0
    );
  }
}

/** A fault that waits for something inside the mapper; run again when it may go on. */
export type Parked = () => void;

export class Resource {
  /** segment handle, −1 when closed */
  handle = -1;
  openCount = 0;
  /** of these, who may write */
  writers = 0;
  /** nobody opens it by its attachment any more */
  barred = false;
  /** while it shrinks: the size a crash leaves, since what lies beyond the new end is not gone yet */
  sizeInStore: number | null = null;
  changes = new Changes();
  /** monotonic ms of the oldest change not yet in a batch, 0 none */
  dirtySince = 0;
  /** batches made but not durable, in order; the first may be on its way */
  flights: { start(): void }[] = [];
  flying = false;
  /** the one that was on its way is durable, and those who waited for it are told */
  landing = false;
  /** handles closed while batches that need them are on their way */
  closing: number[] = [];
  mapDirty = 0;
  /** grants that reactors hold */
  outstanding = 0;
  /** while > 0 new map changes of this resource wait in `parked` */
  barriers = 0;
  parked: Parked[] = [];
  /** run when outstanding comes to 0 */
  drained: (() => void)[] = [];
  group: Group | null = null;
  /** errno that writes and flushes get; 0 when well */
  failed = 0;
  /** the record is gone or going */
  dead = false;

  constructor(readonly row: ResourceRow) {}

  get id(): number {
    return this.row.id;
  }

  get clean(): boolean {
    return this.changes.empty && this.flights.length === 0 && !this.flying;
  }

  /** Nothing of it is to be committed; also for those who are told that the last of it is durable. */
  get settled(): boolean {
    return this.changes.empty && this.flights.length === 0 && (!this.flying || this.landing);
  }
}
