/** The index of sealed slots as a thread of jobs looks at it. */
import { atOneMoment } from '../store/moment.ts';
import { openReader, type StoreDatabase } from '../store/schema.ts';
import { SealReader } from '../store/seal-reader.ts';

export class IndexSnapshot {
  readonly #db: StoreDatabase;
  readonly #reader: SealReader;

  constructor(storePath: string) {
    this.#db = openReader(storePath);
    this.#reader = new SealReader(this.#db);
  }

  /** Runs `work` at one moment of the store. */
  readonly look = <T>(work: (reader: SealReader) => T): T => atOneMoment(this.#db, () => work(this.#reader));
}
