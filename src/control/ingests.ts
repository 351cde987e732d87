/**
 * Ingests that clients of the control socket have under way: bytes come in requests of their own, and what is not committed
 * goes with the connection that began it. The engine removes what a daemon that was killed left.
 */
import { randomBytes } from 'node:crypto';
import type { Engine, Ingest, IngestSpec, SnapshotInfo } from '../xseg/types.ts';
import { ControlError } from './errors.ts';

export interface IngestInfo {
  id: string;
  volume: string;
  snapshot: string;
  pool: string;
  blockSize: number;
  /** bytes that came, holes too */
  position: number;
}

interface Running {
  stream: Ingest;
  spec: IngestSpec;
  /** one request at a time */
  busy: boolean;
  onEnd: (outcome: 'committed' | 'aborted') => void;
}

export class Ingests {
  private readonly running = new Map<string, Running>();

  constructor(private readonly engine: Engine) {}

  get count(): number {
    return this.running.size;
  }

  /** @param onEnd called once */
  async begin(spec: IngestSpec, onEnd: Running['onEnd']): Promise<IngestInfo> {
    const stream = await this.engine.ingest(spec);
    const id = randomBytes(8).toString('hex');
    const running: Running = { stream, spec, busy: false, onEnd };
    this.running.set(id, running);
    return infoOf(id, running);
  }

  /**
   * Bytes at `offset`; what lies between them and those before reads as zeroes.
   * @throws INVALID for an offset before what came; any failure ends the ingest
   */
  async put(id: string, offset: number, bytes: AsyncIterable<Uint8Array>): Promise<IngestInfo> {
    return this.alone(id, async (running) => {
      const { stream } = running;
      if (offset < stream.position)
        throw new ControlError('INVALID', `${stream.position} bytes came already: offset ${offset} is behind that`);
      await stream.skip(offset - stream.position);
      for await (const piece of bytes) await stream.write(piece);
      return infoOf(id, running);
    });
  }

  /** @param size bytes, when more than came: the rest is zeroes */
  async commit(id: string, size?: number): Promise<SnapshotInfo> {
    return this.alone(id, async ({ stream, onEnd }) => {
      if (size !== undefined && size < stream.position)
        throw new ControlError('INVALID', `${stream.position} bytes came, more than ${size}`);
      if (size !== undefined) await stream.skip(size - stream.position);
      const snapshot = await stream.finish();
      this.running.delete(id);
      onEnd('committed');
      return snapshot;
    });
  }

  /** Does nothing when it has ended. */
  async abort(id: string): Promise<void> {
    const running = this.running.get(id);
    if (running === undefined) return;
    this.running.delete(id);
    await running.stream.abort();
    running.onEnd('aborted');
  }

  private async alone<T>(id: string, work: (running: Running) => Promise<T>): Promise<T> {
    const running = this.running.get(id);
    if (running === undefined)
      throw new ControlError('NOT_FOUND', 'there is no such ingest; it ends with the request that began it');
    if (running.busy) throw new ControlError('BUSY', 'another request of this ingest is under way');
    running.busy = true;
    try {
      return await work(running);
    } catch (error) {
      if (!(error instanceof ControlError && error.code === 'INVALID')) await this.abort(id);
      throw error;
    } finally {
      running.busy = false;
    }
  }
}

function infoOf(id: string, { stream, spec }: Running): IngestInfo {
  const { pool, blockSize, position } = stream;
  return { id, volume: spec.volume, snapshot: spec.snapshot, pool, blockSize, position };
}
