/** The mapper's thread. It blocks in the addon; messages are looked at once per turn. */
import { workerData } from 'node:worker_threads';
import { loadNative } from '../native.ts';
import { Mapper, type MapperData } from './mapper.ts';

const data = workerData as MapperData;
const mapper = new Mapper(
  loadNative(),
  data,
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
