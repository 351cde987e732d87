/** What the mapper asks of the copier's thread, and what it answers. Crosses a thread: plain data only. */
import type { CopyPlace } from './place.ts';

export type CopierRequest =
  | {
      op: 'write';
      pool: number;
      place: CopyPlace;
      homeUuid: string;
      poolUuid: string;
      /** of the store */
      line: string;
      sequence: number;
      /** the generation that it replaces, or the free name */
      name: string;
      /** made by a clean stop: the pool is not being served any more */
      clean: boolean;
      paced: boolean;
    }
  | { op: 'drop'; pool: number; place: CopyPlace; names: string[] }
  /** the copy of this pool that is being written, or waits, is not paced any more */
  | { op: 'hurry'; pool: number }
  | { op: 'cancel'; pool: number }
  | { op: 'close' };

export interface CopierAnswer {
  pool: number;
  op: 'write' | 'drop';
  error: { code: string; message: string } | null;
  /** of a copy that was written */
  takenAt: number;
  bytes: number;
  ms: number;
  /** of a copy that failed: the generation that it was to replace is gone */
  unnamed: boolean;
  /** of a copy that failed: it may be there all the same */
  naming: boolean;
}
