/**
 * Ingests that clients of the control socket have under way: bytes come in requests of their own, and what is not committed
 * goes with the connection that began it. The engine removes what a daemon that was killed left.
 */
import { randomBytes } from 'node:crypto';
import type { Engine, Ingest, IngestSpec, SnapshotInfo } from '../xseg/types.ts';
import { ControlError } from './errors.ts';
import { IngestFile, type NamedFile } from './ingest-file.ts';

export interface IngestInfo {
  id: string;
  volume: string;
  snapshot: string;
  pool: string;
  blockSize: number;
  /** bytes that came, holes too */
  position: number;
  /** the daemon reads the file that was named */
  reads: boolean;
}

interface Running {
  stream: Ingest;
  spec: IngestSpec;
  file: IngestFile | null;
  /** one request at a time */
  busy: boolean;
  onEnd: (outcome: 'committed' | 'aborted') => void;
}

export class Ingests {
  private readonly running = new Map<string, Running>();

  /** @param reads files that clients name are read for them: nobody reaches the socket who may not read what the daemon may */
  constructor(
    private readonly engine: Engine,
    private readonly reads: boolean,
  ) {}

  get count(): number {
    return this.running.size;
  }

  /**
   * @param named what the bytes are of, if that is a file; where the daemon does not read it, they are sent
   * @param onEnd called once
   */
  async begin(spec: IngestSpec, named: NamedFile | undefined, onEnd: Running['onEnd']): Promise<IngestInfo> {
    const stream = await this.engine.ingest(spec);
    const file = this.reads && named !== undefined ? await IngestFile.open(named) : null;
    const id = randomBytes(8).toString('hex');
    const running: Running = { stream, spec, file, busy: false, onEnd };
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
      await skipTo(stream, offset);
      for await (const piece of bytes) await stream.write(piece);
      return infoOf(id, running);
    });
  }

  /**
   * What the named file has at `offset`, `length` bytes at most.
   * @throws INVALID for an offset before what came, and where the daemon reads no file; any failure ends the ingest
   */
  async read(id: string, offset: number, length: number): Promise<IngestInfo> {
    return this.alone(id, async (running) => {
      const { stream, file } = running;
      if (file === null) throw new ControlError('INVALID', 'the daemon reads no file for this ingest; send its bytes');
      await skipTo(stream, offset);
      await stream.read(file.descriptor, offset, file.has(offset, length));
      return infoOf(id, running);
    });
  }

  /** @param size bytes, when more than came: the rest is zeroes */
  async commit(id: string, size?: number): Promise<SnapshotInfo> {
    return this.alone(id, async ({ stream, file, onEnd }) => {
      if (size !== undefined && size < stream.position)
        throw new ControlError('INVALID', `${stream.position} bytes came, more than ${size}`);
      if (size !== undefined) await stream.skip(size - stream.position);
      const snapshot = await stream.finish();
      this.running.delete(id);
      await file?.close();
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
    await running.file?.close();
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

/** What lies between is zeroes. @throws INVALID */
async function skipTo(stream: Ingest, offset: number): Promise<void> {
  if (offset < stream.position)
    throw new ControlError('INVALID', `${stream.position} bytes came already: offset ${offset} is behind that`);
  await stream.skip(offset - stream.position);
}

function infoOf(id: string, { stream, spec, file }: Running): IngestInfo {
  const { pool, blockSize, position } = stream;
  return { id, volume: spec.volume, snapshot: spec.snapshot, pool, blockSize, position, reads: file !== null };
}
