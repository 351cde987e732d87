/** All rows, in the order of the report. */
import { chain } from './chain.ts';
import { cloneTimes } from './clone-times.ts';
import { direct } from './direct.ts';
import { freeing } from './freeing.ts';
import { fuse } from './fuse.ts';
import { fuseTree } from './fuse-tree.ts';
import { identity } from './identity.ts';
import { ingest } from './ingest.ts';
import { neighbour } from './neighbour.ts';
import { resident } from './resident.ts';
import type { Row } from './row.ts';
import { sealing } from './sealing.ts';
import { snapshotLoad } from './snapshot-load.ts';
import { startup } from './startup.ts';
import { thin } from './thin.ts';
import { throughput } from './throughput.ts';

export const ROWS: readonly Row[] = [
  throughput,
  thin,
  cloneTimes,
  chain,
  snapshotLoad,
  neighbour,
  freeing,
  direct,
  startup,
  resident,
  sealing,
  ingest,
  fuse,
  fuseTree,
  identity,
];
