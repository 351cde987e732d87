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

/** @param cache qemu-nbd's own default is writeback */
export async function qemuNbd(
  children: Children,
  format: QemuFormat,
  file: string,
  cache: 'writeback' | 'none' = 'writeback',
): Promise<PeerServer> {
  const socket = `${file}.sock`;
  const argv = ['--persistent', `--shared=${CLIENTS_MAX}`, `--socket=${socket}`, `--format=${format}`];
  argv.push(`--cache=${cache}`, '--aio=threads', file);
  const child = await children.server('qemu-nbd', argv, socket, path.join(path.dirname(file), 'qemu-nbd.log'));
  return new PeerServer(child, socket);
}
