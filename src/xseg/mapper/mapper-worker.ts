/** The mapper's thread. It blocks in the addon; messages are looked at once per turn. */
import { type MessagePort, workerData } from 'node:worker_threads';
import type { CopyPlace } from '../copies/place.ts';
import { loadNative } from '../native.ts';
import type { PoolRow } from '../store/batch.ts';
import { StoreReader } from '../store/reader.ts';
import { portChannel } from './channel.ts';
import { systemClock } from './clock.ts';
import type { Generation } from './copies.ts';
import { Mapper } from './mapper.ts';

interface MapperData {
  core: number;
  storePath: string;
  /** the last stop was a clean one */
  clean: boolean;
  /** to the engine's face */
  port: MessagePort;
  /** to the committer */
  committer: MessagePort;
  /** pools that are open: id → native handle */
  pools: { row: PoolRow; handle: number; place: CopyPlace | null; copies: Generation[] }[];
  /** to the copier */
  copier: MessagePort;
  copyIntervalMs: number;
  home: { uuid: string; line: string };
  levels: { warnPercent: number; criticalPercent: number };
}

const data = workerData as MapperData;
const mapper = new Mapper(
  loadNative(),
  {
    core: data.core,
    reader: new StoreReader(data.storePath),
    clean: data.clean,
    clock: systemClock,
    face: portChannel(data.port),
    committer: portChannel(data.committer),
    pools: data.pools,
    copier: portChannel(data.copier),
    copyIntervalMs: data.copyIntervalMs,
    home: data.home,
    levels: data.levels,
  },
  (level, event, fields) => data.port.postMessage({ log: { level, event, fields } }),
  (reason) => {
    data.port.postMessage({ fatal: reason });
    // an error that ends the thread ends the daemon, whether or not the message arrives first
    throw new Error(reason);
  },
);
mapper.run();
data.port.close();
data.committer.close();
data.copier.close();
