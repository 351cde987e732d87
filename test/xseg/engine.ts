/** An engine in a home of its own, in this process, for tests. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { NbdClient } from '../../bench/nbd.ts';
import type { Engine, EngineOptions } from '../../src/xseg/types.ts';

const compiled = '../../dist/src/xseg/engine.js';
export const { openEngine } = (await import(compiled)) as { openEngine: (options: EngineOptions) => Promise<Engine> };

export class Home {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-engine-'));
  readonly home = path.join(this.dir, 'h');
  readonly socket = path.join(this.dir, 's');
  readonly errors: string[] = [];
  engine: Engine | null = null;

  async open(options: Partial<EngineOptions> = {}): Promise<Engine> {
    this.engine = await openEngine({
      home: this.home,
      version: 'test',
      cacheBytes: 16 * 1024 * 1024,
      log: (level, event, fields) => {
        if (level === 'error') this.errors.push(`${event} ${JSON.stringify(fields)}`);
      },
      onFatal: (reason) => {
        throw new Error(reason);
      },
      ...options,
    });
    await this.engine.listenNbd(`unix:${this.socket}`);
    return this.engine;
  }

  connect(name: string): Promise<NbdClient> {
    return NbdClient.connect(this.socket, name);
  }

  async close(): Promise<void> {
    await this.engine?.close();
    this.engine = null;
  }

  async end(): Promise<void> {
    await this.close();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Waits until nobody has the resource open. */
export async function closed(engine: Engine, name: string): Promise<void> {
  for (let i = 0; i < 1000; i++) {
    const info = name.includes('@') ? await engine.showSnapshot(name) : await engine.showVolume(name);
    if (info.openCount === 0) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  throw new Error(`${name} stays open`);
}
