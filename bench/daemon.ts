/**
 * An Atoll daemon as a black box: started from the checkout's `bin/atoll`, talked to through its CLI, its control
 * socket and NBD. Benchmarks and end-to-end tests share it.
 */
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Child, Children, Finished } from './children.ts';
import { describe } from './children.ts';

/** The checkout: the folder that has package.json, above this file or above its compiled form in dist/. */
export const CHECKOUT = checkout(path.dirname(fileURLToPath(import.meta.url)));
export const ATOLL = path.join(CHECKOUT, 'bin/atoll');

const READY_MS_MAX = 60_000;

function checkout(from: string): string {
  let dir = from;
  while (!fs.existsSync(path.join(dir, 'package.json'))) {
    const above = path.dirname(dir);
    if (above === dir) throw new Error(`no package.json above ${from}`);
    dir = above;
  }
  return dir;
}

export interface DaemonOptions {
  home: string;
  /** further arguments of `atoll serve` */
  args?: readonly string[];
  env?: NodeJS.ProcessEnv;
}

/** The parts of `atoll status --json` that are used here. */
export interface DaemonStatus {
  map: { faultP50Us: number; faultP99Us: number; faults: number };
  background: Record<string, number>;
}

function snapshotRoute(name: string): string {
  const [volume, snapshot] = name.split('@');
  if (volume === undefined || snapshot === undefined) throw new Error(`${name} is no snapshot`);
  return `/v1/volumes/${encodeURIComponent(volume)}/snapshots/${encodeURIComponent(snapshot)}`;
}

/** A request that the control socket refused. */
export class ControlError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = 'ControlError';
  }
}

export class Daemon {
  readonly nbdSocket: string;
  readonly controlSocket: string;
  /** from the start of the process to its ready line */
  readyMs = 0;
  /** the ready line */
  readyLine = '';
  private child: Child | null = null;
  /** to end */
  private asked = false;
  private readonly agent = new http.Agent({ keepAlive: true, maxSockets: 1 });

  private constructor(
    private readonly children: Children,
    readonly options: DaemonOptions,
  ) {
    this.nbdSocket = path.join(options.home, 'nbd.sock');
    this.controlSocket = path.join(options.home, 'control.sock');
  }

  /** Starts a daemon and waits for its ready line. */
  static async start(children: Children, options: DaemonOptions): Promise<Daemon> {
    const daemon = new Daemon(children, options);
    await daemon.restart();
    return daemon;
  }

  get home(): string {
    return this.options.home;
  }

  get pid(): number {
    if (!this.child) throw new Error('the daemon is not running');
    return this.child.pid;
  }

  get running(): boolean {
    return this.child !== null && this.child.finished === null;
  }

  /** How it ended and what it said last, when it ended without being asked to. */
  get crashed(): string | null {
    const finished = this.child?.finished;
    return finished && !this.asked ? `${describe(finished)}; its log: ${this.tailOfLog()}` : null;
  }

  /** Where the daemon's stderr goes, over all its starts. */
  get log(): string {
    return `${this.home}.log`;
  }

  /** Starts it (again) in the same home. */
  async restart(): Promise<void> {
    if (this.running) throw new Error('the daemon is still running');
    const log = fs.openSync(this.log, 'a');
    const started = process.hrtime.bigint();
    const child = this.children.spawn(ATOLL, ['serve', '--home', this.home, ...(this.options.args ?? [])], {
      stdio: ['ignore', 'pipe', log],
      // Several run at once; who wants HTTP says where.
      env: { ...process.env, ...this.options.env },
    });
    fs.closeSync(log);
    this.child = child;
    this.asked = false;
    this.readyLine = await this.waitReady(child);
    this.readyMs = Number(process.hrtime.bigint() - started) / 1e6;
  }

  private waitReady(child: Child): Promise<string> {
    return new Promise((resolve, reject) => {
      let text = '';
      let isReady = false;
      const timer = setTimeout(() => {
        child.process.kill('SIGKILL');
        reject(new Error(`the daemon was not ready within ${READY_MS_MAX} ms; its log: ${this.tailOfLog()}`));
      }, READY_MS_MAX);
      child.process.stdout?.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
        const line = /^.*\bready\b.*\n/m.exec(text);
        if (!line) return;
        clearTimeout(timer);
        isReady = true;
        resolve(line[0].trim());
      });
      void child.ended.then((finished) => {
        clearTimeout(timer);
        if (isReady) return;
        reject(new Error(`the daemon ended before it was ready (${describe(finished)}); its log: ${this.tailOfLog()}`));
      });
    });
  }

  private tailOfLog(): string {
    return fs.readFileSync(this.log, 'utf8').trim().split('\n').slice(-8).join('\n');
  }

  /** Ends it cleanly. @throws when it did not end with exit code 0 */
  async stop(): Promise<void> {
    if (!this.child || this.child.finished) return;
    this.agent.destroy();
    this.asked = true;
    const finished = await this.child.stop('SIGTERM');
    if (finished.code !== 0)
      throw new Error(`the daemon stopped with ${describe(finished)}; its log: ${this.tailOfLog()}`);
  }

  /** kill -9, and waits until it is gone. */
  async kill(): Promise<Finished> {
    if (!this.child) throw new Error('the daemon was never started');
    this.agent.destroy();
    this.asked = true;
    return this.child.stop('SIGKILL');
  }

  /** Runs a command of the CLI with --json and returns what it printed. @throws with its message when it fails */
  async cli<T = unknown>(...argv: string[]): Promise<T> {
    const text = await this.children.run(ATOLL, [...argv, '--json'], { env: this.cliEnv() });
    return (text.trim() === '' ? null : JSON.parse(text)) as T;
  }

  /** Environment in which the CLI finds this daemon. */
  cliEnv(): NodeJS.ProcessEnv {
    return { ...process.env, ATOLL_HOME: this.home };
  }

  /** A request on the one kept connection to the control socket. */
  http<T = unknown>(method: string, route: string, body?: unknown): Promise<T> {
    const text = body === undefined ? null : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const request = http.request(
        {
          socketPath: this.controlSocket,
          agent: this.agent,
          method,
          path: route,
          headers:
            text === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) },
        },
        (response) => {
          let answer = '';
          response.setEncoding('utf8').on('data', (chunk: string) => {
            answer += chunk;
          });
          response.once('error', reject);
          response.once('end', () => {
            const status = response.statusCode ?? 0;
            const json: unknown = answer === '' ? null : JSON.parse(answer);
            if (status >= 200 && status < 300) return resolve(json as T);
            const error = (json as { error?: { code?: string; message?: string } } | null)?.error;
            reject(new ControlError(status, error?.code ?? 'UNKNOWN', error?.message ?? answer));
          });
        },
      );
      request.once('error', (error: NodeJS.ErrnoException) => {
        // The daemon closes a connection that was idle for a while; it may do so just when it is used again.
        const stale = request.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
        if (stale) this.http<T>(method, route, body).then(resolve, reject);
        else reject(error);
      });
      request.end(text ?? undefined);
    });
  }

  async createVolume(name: string, bytes: number, pool?: string): Promise<void> {
    await this.http('POST', '/v1/volumes', { name, size: bytes, ...(pool === undefined ? {} : { pool }) });
  }

  /** @returns the name of the snapshot, VOL@SNAP */
  async snapshot(volume: string, name: string): Promise<string> {
    await this.http('POST', `/v1/volumes/${encodeURIComponent(volume)}/snapshots`, { name });
    return `${volume}@${name}`;
  }

  /** @param from VOL@SNAP */
  async clone(from: string, name: string): Promise<void> {
    await this.http('POST', `${snapshotRoute(from)}/clone`, { name });
  }

  /** Deletes a volume, its snapshots too, and cuts off who has it open. */
  async deleteVolume(name: string): Promise<void> {
    await this.http('DELETE', `/v1/volumes/${encodeURIComponent(name)}?force=true&withSnapshots=true`);
  }

  /** @param name VOL@SNAP */
  async deleteSnapshot(name: string): Promise<void> {
    await this.http('DELETE', `${snapshotRoute(name)}?force=true`);
  }

  status(): Promise<DaemonStatus> {
    return this.http('GET', '/v1/status');
  }

  /** NBD URI of a volume, or of VOL@SNAP. */
  uri(name: string): string {
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${this.nbdSocket}`;
  }
}
