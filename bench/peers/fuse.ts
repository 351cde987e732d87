/**
 * What reads a file through FUSE beside Atoll's mount: a minimal server in C++ (bench/fuse-file.cc), nbdfuse, and one with the
 * npm package fuse-native (bench/peers/fuse-native), which is installed for the run and is no part of Atoll.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Child, Children } from '../children.ts';
import { CHECKOUT } from '../daemon.ts';

const START_MS_MAX = 20_000;
const POLL_MS = 50;

export interface FuseFile {
  file: string;
  pid: number;
  end(): Promise<void>;
}

/** Why there is no FUSE here, or null. */
export function fuseObstacle(): string | null {
  if (process.getuid?.() !== 0) return 'only root may mount';
  if (!fs.existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  if (spawnSync('fusermount3', ['--version'], { stdio: 'ignore' }).status !== 0) return 'fusermount3 is missing';
  return null;
}

export function hasNbdfuse(): boolean {
  return spawnSync('nbdfuse', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** Compiles it into `dir`. @throws with what the compiler said */
export async function compileFuseFile(children: Children, dir: string): Promise<string> {
  const program = path.join(dir, 'fuse-file');
  const { stdout } = spawnSync('pkg-config', ['--cflags', '--libs', 'fuse3'], { encoding: 'utf8' });
  const source = path.join(CHECKOUT, 'bench/fuse-file.cc');
  const flags = ['-std=c++20', '-O2', '-Wall', '-Wextra', '-Werror'];
  await children.run('g++', [...flags, '-o', program, source, ...stdout.trim().split(/\s+/)]);
  return program;
}

export function fuseFile(children: Children, program: string, file: string, dir: string): Promise<FuseFile> {
  return mounted(children.spawn(program, [file, dir]), dir, 'file');
}

export function nbdfuse(children: Children, uri: string, dir: string): Promise<FuseFile> {
  return mounted(children.spawn('nbdfuse', ['--readonly', path.join(dir, 'nbd'), uri]), dir, 'nbd');
}

/**
 * Installs fuse-native below `dir`; no script of it runs, for it brings what it needs built, but for libfuse.so.2 (Debian: libfuse2).
 * @returns its folder, or why there is none
 */
export async function installFuseNative(
  children: Children,
  dir: string,
): Promise<{ dir: string } | { missing: string }> {
  const to = path.join(dir, 'fuse-native');
  fs.cpSync(path.join(CHECKOUT, 'bench/peers/fuse-native'), to, { recursive: true });
  try {
    await children.run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], { cwd: to });
    await children.run(process.execPath, ['-e', "require('fuse-native')"], { cwd: to });
    return { dir: to };
  } catch (error) {
    const { message } = error as Error;
    return { missing: /^\w*Error: (.*)$/m.exec(message)?.[1] ?? message.split('\n')[0] };
  }
}

/** @param installed where `installFuseNative` has put it */
export function fuseNative(children: Children, installed: string, file: string, dir: string): Promise<FuseFile> {
  return mounted(children.spawn(process.execPath, [path.join(installed, 'server.cjs'), file, dir]), dir, 'file');
}

async function mounted(child: Child, dir: string, name: string): Promise<FuseFile> {
  const file = path.join(dir, name);
  const deadline = Date.now() + START_MS_MAX;
  // who asks a server of its own process group for a file could wait forever: another process does
  while (spawnSync('timeout', ['5', 'test', '-f', file]).status !== 0) {
    if (child.finished || Date.now() > deadline) throw new Error(`there is no ${file}`);
    await sleep(POLL_MS);
  }
  const end = async (): Promise<void> => {
    spawnSync('fusermount3', ['-u', '-z', dir], { stdio: 'ignore' });
    await child.stop();
  };
  return { file, pid: child.process.pid as number, end };
}
