/**
 * qemu-nbd and qemu-img, as a Debian user would run them.
 */
import path from 'node:path';
import type { Children } from '../children.ts';
import { PeerServer } from './server.ts';

/** More than any row opens at once; qemu-nbd's own default is one. */
const CLIENTS_MAX = 100;

export type QemuFormat = 'qcow2' | 'raw';

export async function createImage(children: Children, format: QemuFormat, file: string, bytes: number): Promise<void> {
  await children.run('qemu-img', ['create', '-q', '-f', format, file, String(bytes)]);
}

/** A new image on top of another: what a clone is with qcow2. */
export async function createOverlay(children: Children, backing: string, backingFormat: QemuFormat, file: string) {
  await children.run('qemu-img', ['create', '-q', '-f', 'qcow2', '-F', backingFormat, '-b', backing, file]);
}

export interface QemuNbdOptions {
  /** qemu-nbd's own default is writeback */
  cache?: 'writeback' | 'none';
  /** needed where two servers have an image in common */
  readOnly?: boolean;
}

export async function qemuNbd(
  children: Children,
  format: QemuFormat,
  file: string,
  options: QemuNbdOptions = {},
): Promise<PeerServer> {
  const socket = `${file}.sock`;
  const argv = ['--persistent', `--shared=${CLIENTS_MAX}`, `--socket=${socket}`, `--format=${format}`];
  argv.push(`--cache=${options.cache ?? 'writeback'}`, '--aio=threads');
  if (options.readOnly) argv.push('--read-only');
  argv.push(file);
  const child = await children.server('qemu-nbd', argv, socket, path.join(path.dirname(file), 'qemu-nbd.log'));
  return new PeerServer(child, socket);
}
