/**
 * A daemon in a home of its own for one test file: `const world = new World()`, `afterAll(() => world.end())`,
 * `const daemon = await world.start()`. All that was started ends with the test, all files go.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Children } from '../../../bench/children.ts';
import { Daemon } from '../../../bench/daemon.ts';

export class World {
  /** short, since names of unix sockets end at 107 bytes */
  readonly dir: string;
  readonly children = new Children();
  private homes = 0;
  private readonly onExit = (): void => this.children.killAll();

  constructor() {
    this.dir = fs.mkdtempSync(path.join(process.env.ATOLL_TEST_DIR ?? os.tmpdir(), 'atoll-e2e-'));
    process.once('exit', this.onExit);
  }

  /** Starts a daemon in a new home (or in `home`). */
  start(args: readonly string[] = [], home?: string): Promise<Daemon> {
    this.homes += 1;
    return Daemon.start(this.children, { home: home ?? path.join(this.dir, `h${this.homes}`), args });
  }

  file(name: string): string {
    return path.join(this.dir, name);
  }

  /** Runs a command. @throws with what it said on stderr when it fails */
  run(command: string, ...argv: string[]): Promise<string> {
    return this.children.run(command, argv, { cwd: this.dir });
  }

  async end(): Promise<void> {
    await this.children.stopAll();
    process.removeListener('exit', this.onExit);
    if (process.env.ATOLL_TEST_KEEP) console.log(`kept ${this.dir}`);
    else fs.rmSync(this.dir, { recursive: true, force: true });
  }
}
