/** The index of sealed slots as a thread of jobs looks at it: at one moment of the store for a whole job. */
import { openReader, type StoreDatabase } from '../store/schema.ts';
import { SealReader } from '../store/seal-reader.ts';

export class IndexSnapshot {
  readonly #db: StoreDatabase;
  readonly #reader: SealReader;

  constructor(storePath: string) {
    this.#db = openReader(storePath);
    this.#reader = new SealReader(this.#db);
  }

  /**
   * Runs `work` in one read transaction. Looks by themselves would take locks each, and forget the pages they read whenever
   * somebody commits in between.
   */
  look<T>(work: (reader: SealReader) => T): T {
    this.#db.exec('BEGIN');
    try {
      return work(this.#reader);
    } finally {
      this.#db.exec('COMMIT');
    }
  }
}
