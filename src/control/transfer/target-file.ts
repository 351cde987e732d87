/** A file that appears under its name when it is whole, and not before. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import path from 'node:path';
import { ControlError } from '../errors.ts';

export class TargetFile {
  /** where to write; absolute, so that qemu-img takes it for nothing but a file */
  readonly temporary: string;
  private readonly final: string;

  private constructor(
    final: string,
    private readonly force: boolean,
  ) {
    this.final = path.resolve(final);
    // Short: a name of 255 bytes has to have room for it.
    this.temporary = path.join(path.dirname(this.final), `.atoll-${randomBytes(6).toString('hex')}.part`);
  }

  /** @throws {ControlError} EXISTS, NOT_FOUND, INVALID */
  static prepare(final: string, force: boolean): TargetFile {
    const target = new TargetFile(final, force);
    target.check();
    return target;
  }

  private check(): void {
    const stat = fs.lstatSync(this.final, { throwIfNoEntry: false });
    if (stat && !this.force) throw this.exists();
    if (stat && !stat.isFile())
      throw new ControlError('EXISTS', `${this.final} is not a regular file; choose another name`);
    const folder = path.dirname(this.final);
    if (!fs.statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
      throw new ControlError('NOT_FOUND', `there is no folder ${folder}`);
    }
  }

  create(): Promise<FileHandle> {
    return open(this.temporary, 'wx');
  }

  /** Syncs what was written and gives it its name. */
  publish(): { bytes: number; diskBytes: number } {
    const fd = fs.openSync(this.temporary, 'r+');
    let stat: fs.Stats;
    try {
      fs.fsyncSync(fd);
      stat = fs.fstatSync(fd);
    } finally {
      fs.closeSync(fd);
    }
    if (this.force) fs.renameSync(this.temporary, this.final);
    else this.link();
    syncFolder(path.dirname(this.final));
    return { bytes: stat.size, diskBytes: stat.blocks * 512 };
  }

  discard(): void {
    fs.rmSync(this.temporary, { force: true });
  }

  /** link() refuses an existing name, also one that appeared a moment ago; rename() would replace it. */
  private link(): void {
    try {
      fs.linkSync(this.temporary, this.final);
    } catch (error) {
      const { code } = error as { code?: string };
      if (code === 'EEXIST') throw this.exists();
      if (code !== 'EPERM' && code !== 'ENOTSUP' && code !== 'EOPNOTSUPP') throw error;
      // A file system without links.
      if (fs.existsSync(this.final)) throw this.exists();
      fs.renameSync(this.temporary, this.final);
      return;
    }
    fs.unlinkSync(this.temporary);
  }

  private exists(): ControlError {
    return new ControlError('EXISTS', `${this.final} exists; choose another name, or say --force to replace it`);
  }
}

function syncFolder(folder: string): void {
  const fd = fs.openSync(folder, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
