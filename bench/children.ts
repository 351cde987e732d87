/**
 * The processes that a run started, so that none outlives it, whatever ends the run.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** A server that does not answer within this is broken. */
const START_MS_MAX = 20_000;
/** A server that was asked to end and has not by then is killed. */
const STOP_MS_MAX = 30_000;
const POLL_MS = 10;

export interface Finished {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A process and its end. */
export class Child {
  readonly ended: Promise<Finished>;
  finished: Finished | null = null;

  constructor(
    readonly process: ChildProcess,
    readonly name: string,
  ) {
    this.ended = new Promise((resolve) => {
      const end = (finished: Finished): void => {
        this.finished = finished;
        resolve(finished);
      };
      process.once('exit', (code, signal) => end({ code, signal }));
      process.once('error', () => end({ code: 127, signal: null }));
    });
  }

  get pid(): number {
    const { pid } = this.process;
    if (pid === undefined) throw new Error(`${this.name} did not start`);
    return pid;
  }

  /** Asks it to end, and kills it when it does not. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<Finished> {
    if (this.finished) return this.finished;
    this.process.kill(signal);
    const timer = setTimeout(() => this.process.kill('SIGKILL'), STOP_MS_MAX);
    const finished = await this.ended;
    clearTimeout(timer);
    return finished;
  }
}

export class Children {
  private readonly running = new Set<Child>();

  spawn(command: string, argv: readonly string[], options: SpawnOptions = {}): Child {
    const child = new Child(spawn(command, argv, { stdio: ['ignore', 'ignore', 'inherit'], ...options }), command);
    this.running.add(child);
    void child.ended.then(() => this.running.delete(child));
    return child;
  }

  /** Starts an NBD server and waits until it says hello on its unix socket. */
  async server(command: string, argv: readonly string[], socket: string, log: string): Promise<Child> {
    const output = fs.openSync(log, 'a');
    const child = this.spawn(command, argv, { stdio: ['ignore', output, output] });
    fs.closeSync(output);
    const deadline = Date.now() + START_MS_MAX;
    while (!(await greets(socket))) {
      if (child.finished) throw new Error(`${command} ended (${describe(child.finished)}); its log: ${tail(log)}`);
      if (Date.now() > deadline) {
        await child.stop('SIGKILL');
        throw new Error(`${command} did not answer on ${socket} within ${START_MS_MAX} ms; its log: ${tail(log)}`);
      }
      await sleep(POLL_MS);
    }
    return child;
  }

  /** Runs a command to its end. @throws when it fails, with what it said */
  async run(command: string, argv: readonly string[], options: SpawnOptions = {}): Promise<string> {
    const child = this.spawn(command, argv, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    child.process.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const closed = new Promise((resolve) => child.process.once('close', resolve));
    const finished = await child.ended;
    if (finished.code === 127 && child.process.pid === undefined)
      throw new Error(`cannot run ${command}: is it installed?`);
    await closed;
    if (finished.code !== 0) {
      throw new Error(`${[command, ...argv].join(' ')} failed (${describe(finished)}): ${(stderr || stdout).trim()}`);
    }
    return stdout;
  }

  async stopAll(): Promise<void> {
    await Promise.all([...this.running].map((child) => child.stop()));
  }

  /** For the way out that cannot wait. */
  killAll(): void {
    for (const child of this.running) child.process.kill('SIGKILL');
  }
}

export function describe(finished: Finished): string {
  return finished.signal ?? `exit ${finished.code}`;
}

function tail(file: string): string {
  return fs.readFileSync(file, 'utf8').trim().split('\n').slice(-5).join(' | ');
}

/**
 * True when an NBD server on a unix socket says hello. A connection alone tells little: qemu-nbd listens before it has
 * opened its image, and may then end.
 */
export function greets(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = net.connect(socket);
    const answer = (greeted: boolean): void => {
      connection.destroy();
      resolve(greeted);
    };
    connection.once('data', () => answer(true));
    connection.once('end', () => answer(false));
    connection.once('error', () => answer(false));
  });
}
