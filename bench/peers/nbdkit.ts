/**
 * nbdkit with its file and memory plugins, at their defaults.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { Children } from '../children.ts';
import { PeerServer } from './server.ts';

export async function nbdkitFile(children: Children, file: string): Promise<PeerServer> {
  const socket = `${file}.sock`;
  const argv = ['--foreground', '--unix', socket, 'file', file];
  const child = await children.server('nbdkit', argv, socket, path.join(path.dirname(file), 'nbdkit.log'));
  return new PeerServer(child, socket);
}

/** Serves every file of a folder by its name. */
export async function nbdkitFolder(children: Children, dir: string): Promise<PeerServer> {
  const socket = `${dir}.sock`;
  const argv = ['--foreground', '--unix', socket, 'file', `dir=${dir}`];
  const child = await children.server('nbdkit', argv, socket, path.join(path.dirname(dir), 'nbdkit.log'));
  return new PeerServer(child, socket);
}

export async function nbdkitMemory(children: Children, dir: string, bytes: number): Promise<PeerServer> {
  const socket = path.join(dir, 'memory.sock');
  const argv = ['--foreground', '--unix', socket, 'memory', String(bytes)];
  const child = await children.server('nbdkit', argv, socket, path.join(dir, 'nbdkit.log'));
  return new PeerServer(child, socket);
}

/** A file of `bytes` bytes, sparse; it is filled through its server. */
export function createFile(file: string, bytes: number): void {
  fs.writeFileSync(file, '');
  fs.truncateSync(file, bytes);
}
