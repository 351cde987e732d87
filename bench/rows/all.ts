/** All rows, in the order of the report. */
import type { Row } from './row.ts';
import { thin } from './thin.ts';
import { throughput } from './throughput.ts';

export const ROWS: readonly Row[] = [throughput, thin];
