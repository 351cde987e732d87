/**
 * The limit probe: what the client and its socket allow (bench/limit-probe.cc), compiled when it is first needed.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import type { Children } from '../children.ts';
import { CHECKOUT } from '../daemon.ts';
import { PeerServer } from './server.ts';

const COMPILER = 'g++';
const SOURCE = path.join(CHECKOUT, 'bench/limit-probe.cc');
/** The constants of the protocol are the core's: bench/limit-probe.cc takes nothing else from there. */
const FLAGS = ['-std=c++20', '-O2', '-Wall', '-Wextra', '-Werror', '-pthread', `-I${path.join(CHECKOUT, 'native')}`];

export function hasCompiler(): boolean {
  return spawnSync(COMPILER, ['--version'], { stdio: 'ignore' }).status === 0;
}

/**
 * Compiles the probe into `dir`.
 *
 * @returns the program
 * @throws with what the compiler said
 */
export async function compileLimitProbe(children: Children, dir: string): Promise<string> {
  const program = path.join(dir, 'limit-probe');
  await children.run(COMPILER, [...FLAGS, '-o', program, SOURCE]);
  return program;
}

/**
 * Starts it.
 *
 * @param file where its data is, made when it is missing; null: it stores nothing, and reads give anything
 */
export async function limitProbe(
  children: Children,
  program: string,
  dir: string,
  bytes: number,
  file: string | null,
): Promise<PeerServer> {
  const socket = path.join(dir, `limit-probe-${file ? path.basename(file) : 'no-storage'}.sock`);
  const argv = [socket, String(bytes), ...(file ? [file] : [])];
  const child = await children.server(program, argv, socket, path.join(dir, 'limit-probe.log'));
  return new PeerServer(child, socket);
}
