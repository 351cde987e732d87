/** A file that a client of the control socket has, and the daemon reads for it: the same one, or none. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';

/** How a client names a file that it has open; numbers as text, since they have 64 bits. */
export interface NamedFile {
  /** absolute */
  path: string;
  dev: string;
  ino: string;
}

export class IngestFile {
  private constructor(
    private readonly handle: FileHandle,
    /** bytes; null: a device, which has what is asked for */
    private readonly size: number | null,
  ) {}

  /** null when what the path names here cannot be read, or is not that file. */
  static async open({ path, dev, ino }: NamedFile): Promise<IngestFile | null> {
    // A FIFO would hold us for ever; O_NONBLOCK does nothing to files and devices.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(() => null);
    if (handle === null) return null;
    const stat = await handle.stat({ bigint: true }).catch(() => null);
    const same = stat !== null && String(stat.dev) === dev && String(stat.ino) === ino;
    if (same && stat.isFile()) return new IngestFile(handle, Number(stat.size));
    if (same && stat.isBlockDevice()) return new IngestFile(handle, null);
    await handle.close();
    return null;
  }

  get descriptor(): number {
    return this.handle.fd;
  }

  /** How many of `length` bytes from `offset` on it had when it was opened. */
  has(offset: number, length: number): number {
    return this.size === null ? length : Math.max(0, Math.min(length, this.size - offset));
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}
