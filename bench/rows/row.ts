import type { Bench } from '../bench.ts';
import type { RowResult } from '../result.ts';

/** One row of the benchmark, or several that share what they are measured on. */
export interface Row {
  /** of the results it yields; `--only` chooses by them */
  ids: readonly string[];
  /** measures those of `ids` that `wanted` takes */
  run(bench: Bench, wanted: (id: string) => boolean): AsyncIterable<RowResult>;
}
