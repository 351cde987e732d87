/**
 * A random walk over everything the engine can do, through its face and NBD, beside a model in memory. One seed decides
 * all of it; after every round the accounting is checked. Used by the short test and by the long suite.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import Database from 'better-sqlite3';
import { NbdClient } from '../../bench/nbd.ts';
import { accountErrors, storeRows } from '../../src/xseg/accounts.ts';
import { loadNative } from '../../src/xseg/native.ts';
import type { Engine, EngineOptions } from '../../src/xseg/types.ts';

const native = loadNative();
const MIB = 1024 * 1024;
const VOLUMES_MAX = 6;
const SNAPSHOTS_MAX = 8;
const SIZE_MAX = 24 * MIB;

/** mulberry32: small, seeded, good enough to choose with. */
export function random(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

interface Volume {
  name: string;
  bytes: Buffer;
  client: NbdClient | null;
  second: NbdClient | null;
  snapshots: Map<string, Buffer>;
}

export interface ModelOptions {
  seed: number;
  rounds: number;
  blockSize: number;
  cacheBytes?: number;
  /** seal the pool, and write data that is often equal */
  seal?: boolean;
  openEngine: (options: EngineOptions) => Promise<Engine>;
}

export class Model {
  readonly home = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-model-'));
  readonly random: () => number;
  readonly volumes: Volume[] = [];
  readonly log: string[] = [];
  engine!: Engine;
  #names = 0;

  constructor(readonly options: ModelOptions) {
    this.random = random(options.seed);
  }

  int(below: number): number {
    return Math.floor(this.random() * below);
  }

  pick<T>(list: T[]): T | undefined {
    return list[this.int(list.length)];
  }

  async run(): Promise<void> {
    await this.#open();
    await this.engine.createPool({ name: 'p', path: path.join(this.home, 'p/'), blockSize: this.options.blockSize });
    if (this.options.seal) await this.engine.setPool('p', { seal: true });
    await this.#create();
    for (let round = 0; round < this.options.rounds; round++) {
      await this.#round(round);
      if (round % (this.options.seal ? 4 : 16) === 3) await this.#check();
    }
    if (this.options.seal) await this.#sealed();
    await this.#compareAll();
    await this.#check();
    await this.#drain();
    await this.#close();
    fs.rmSync(this.home, { recursive: true, force: true });
  }

  async #open(): Promise<void> {
    this.engine = await this.options.openEngine({
      home: path.join(this.home, 'home'),
      // the shortest: copies of the store are made, hold slots and let them go all the time
      copyIntervalMs: 1000,
      cacheBytes: this.options.cacheBytes,
      version: 'test',
      log: (level, event, fields) => {
        if (level === 'error') this.log.push(`${event} ${JSON.stringify(fields)}`);
      },
      onFatal: (reason) => {
        throw new Error(`engine died: ${reason}`);
      },
    });
    await this.engine.listenNbd(`unix:${this.#socket}`);
  }

  get #socket(): string {
    return path.join(this.home, 's');
  }

  async #close(): Promise<void> {
    for (const v of this.volumes) await this.#disconnect(v);
    await this.engine.close();
  }

  async #disconnect(v: Volume): Promise<void> {
    await v.client?.close();
    await v.second?.close();
    v.client = null;
    v.second = null;
    for (let i = 0; (await this.engine.showVolume(v.name)).openCount > 0; i++) {
      if (i > 500) throw new Error(`${v.name} stays open`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  async #connected(v: Volume): Promise<NbdClient> {
    v.client ??= await NbdClient.connect(this.#socket, v.name);
    if (this.int(4) === 0) {
      v.second ??= await NbdClient.connect(this.#socket, v.name);
      return v.second;
    }
    return v.client;
  }

  async #round(round: number): Promise<void> {
    const dice = this.int(100);
    const v = this.pick(this.volumes);
    if (v === undefined || (dice < 4 && this.volumes.length < VOLUMES_MAX)) await this.#create();
    else if (dice < 12) await this.#snapshot(v);
    else if (dice < 17) await this.#deleteSnapshot(v);
    else if (dice < 22) await this.#clone(v);
    else if (dice < 25) await this.#rollback(v);
    else if (dice < 28) await this.#resize(v);
    else if (dice < 31) await this.#deleteVolume(v);
    else if (dice < 34) await this.#snapshotUnderWrites(v, round);
    else if (dice < 36) await this.#restart();
    else if (dice < 40) await this.#diff(v);
    else if (dice < 44) await this.#compareSnapshot(v);
    else await this.#io(v);
  }

  async #create(): Promise<void> {
    const name = `v${this.#names++}`;
    const size = (1 + this.int(SIZE_MAX / 512)) * 512;
    await this.engine.createVolume({ name, size, pool: 'p' });
    this.volumes.push({ name, bytes: Buffer.alloc(size), client: null, second: null, snapshots: new Map() });
  }

  async #snapshot(v: Volume): Promise<void> {
    if (v.snapshots.size >= SNAPSHOTS_MAX) return;
    const name = `s${this.#names++}`;
    await this.engine.createSnapshot(v.name, name);
    v.snapshots.set(name, Buffer.from(v.bytes));
  }

  /** Writes without overlap on their way while the snapshot is taken: each is in whole or not at all, acknowledged ones are in. */
  async #snapshotUnderWrites(v: Volume, round: number): Promise<void> {
    if (v.snapshots.size >= SNAPSHOTS_MAX) return;
    const client = await this.#connected(v);
    const name = `s${this.#names++}`;
    const before = Buffer.from(v.bytes);
    const unit = 4096;
    const units = Math.floor(v.bytes.length / unit);
    const chosen = new Set<number>();
    while (chosen.size < Math.min(48, units)) chosen.add(this.int(units));
    const list = [...chosen];
    const acked: number[] = [];
    const half = Math.floor(list.length / 2);
    const write = async (u: number) => {
      const data = this.#bytes(unit, round + u);
      await client.write(u * unit, data);
      data.copy(v.bytes, u * unit);
      acked.push(u);
    };
    await Promise.all(list.slice(0, half).map(write));
    const ackedBefore = new Set(acked);
    const writes = list.slice(half).map(write);
    const snap = this.engine.createSnapshot(v.name, name);
    await Promise.all([...writes, snap]);
    const bytes = await this.#readAll(`${v.name}@${name}`, v.bytes.length);
    for (const u of list) {
      const at = u * unit;
      const now = bytes.subarray(at, at + unit);
      const isNew = now.equals(v.bytes.subarray(at, at + unit));
      const isOld = now.equals(before.subarray(at, at + unit));
      if (!isNew && !isOld) throw new Error(`${v.name}@${name}: unit ${u} is neither old nor new`);
      if (ackedBefore.has(u) && !isNew) throw new Error(`${v.name}@${name}: an acknowledged write is missing`);
      (isNew ? v.bytes : before).copy(before, at, at, at + unit);
    }
    v.snapshots.set(name, before);
    await this.#same(`${v.name}@${name}`, before);
  }

  async #deleteSnapshot(v: Volume): Promise<void> {
    const name = this.pick([...v.snapshots.keys()]);
    if (name === undefined) return;
    await this.#closed(`${v.name}@${name}`);
    await this.engine.deleteSnapshot(`${v.name}@${name}`);
    v.snapshots.delete(name);
  }

  /** Waits until the daemon has noticed that a snapshot's reader is gone. */
  async #closed(name: string): Promise<void> {
    for (let i = 0; (await this.engine.showSnapshot(name)).openCount > 0; i++) {
      if (i > 500) throw new Error(`${name} stays open`);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  async #clone(v: Volume): Promise<void> {
    const snap = this.pick([...v.snapshots.keys()]);
    if (snap === undefined || this.volumes.length >= VOLUMES_MAX) return;
    const name = `c${this.#names++}`;
    await this.engine.clone(`${v.name}@${snap}`, name);
    this.volumes.push({
      name,
      bytes: Buffer.from(v.snapshots.get(snap) as Buffer),
      client: null,
      second: null,
      snapshots: new Map(),
    });
  }

  async #rollback(v: Volume): Promise<void> {
    const snap = this.pick([...v.snapshots.keys()]);
    if (snap === undefined) return;
    await this.#disconnect(v);
    await this.engine.rollback(`${v.name}@${snap}`);
    v.bytes = Buffer.from(v.snapshots.get(snap) as Buffer);
  }

  async #resize(v: Volume): Promise<void> {
    const largest = Math.max(512, ...[...v.snapshots.values()].map((b) => b.length));
    const size = Math.max(largest, (1 + this.int(SIZE_MAX / 512)) * 512);
    await this.#disconnect(v);
    await this.engine.resizeVolume(v.name, size);
    const bytes = Buffer.alloc(size);
    v.bytes.copy(bytes);
    v.bytes = bytes;
  }

  async #deleteVolume(v: Volume): Promise<void> {
    if (this.volumes.length < 2) return;
    await this.#disconnect(v);
    for (const s of v.snapshots.keys()) await this.#closed(`${v.name}@${s}`);
    await this.engine.deleteVolume(v.name, { withSnapshots: true });
    this.volumes.splice(this.volumes.indexOf(v), 1);
  }

  async #restart(): Promise<void> {
    await this.#close();
    await this.#open();
  }

  #bytes(length: number, salt: number): Buffer {
    const b = Buffer.allocUnsafe(length);
    if (this.options.seal && this.int(4) > 0) return b.fill(this.int(4));
    const next = random(salt * 7919 + this.int(1 << 30));
    for (let i = 0; i + 4 <= length; i += 4) b.writeUInt32LE((next() * 4294967296) >>> 0, i);
    for (let i = length & ~3; i < length; i++) b[i] = 7;
    return b;
  }

  /** A few requests at once over disjoint ranges, then a read of some of it. */
  async #io(v: Volume): Promise<void> {
    const size = v.bytes.length;
    const lanes = 1 + this.int(6);
    const span = Math.floor(size / lanes);
    const work: Promise<void>[] = [];
    for (let lane = 0; lane < lanes; lane++) {
      const client = await this.#connected(v);
      const from = lane * span;
      const what = this.int(10);
      const offset = from + this.int(span);
      const most = [1 + this.int(9000), 1 + this.int(2 * MIB)][this.int(3)] ?? 1 + this.int(what < 6 ? 9000 : SIZE_MAX);
      const length = Math.min(span - (offset - from), most);
      const flags = this.int(8) === 0 ? 1 : 0;
      if (what < 6) {
        const data = this.#bytes(length, lane);
        work.push(client.write(offset, data, flags));
        data.copy(v.bytes, offset);
      } else if (what === 6) {
        work.push(client.trim(offset, length, flags));
        v.bytes.fill(0, offset, offset + length);
      } else if (what === 7) {
        work.push(client.writeZeroes(offset, length, flags | (this.int(2) === 0 ? 2 : 0)));
        v.bytes.fill(0, offset, offset + length);
      } else if (what === 8) {
        work.push(client.flush());
      } else {
        const expected = Buffer.from(v.bytes.subarray(offset, offset + length));
        work.push(
          client.read(offset, length).then((got) => {
            if (!got.equals(expected))
              throw new Error(
                `${v.name}: read of ${length} at ${offset} differs at ${offset + firstDifference(got, expected)}`,
              );
          }),
        );
      }
    }
    await Promise.all(work);
    const offset = this.int(size);
    const length = Math.min(size - offset, 1 + this.int(MIB));
    const got = await (await this.#connected(v)).read(offset, length);
    const expected = v.bytes.subarray(offset, offset + length);
    if (!got.equals(expected))
      throw new Error(
        `${v.name}: read back of ${length} at ${offset} differs at ${offset + firstDifference(got, expected)}`,
      );
  }

  async #readAll(name: string, size: number): Promise<Buffer> {
    const client = await NbdClient.connect(this.#socket, name);
    if (client.size !== size) throw new Error(`${name} has ${client.size} bytes, wanted ${size}`);
    const parts: Buffer[] = [];
    for (let at = 0; at < size; at += 4 * MIB) parts.push(await client.read(at, Math.min(4 * MIB, size - at)));
    await client.close();
    return Buffer.concat(parts);
  }

  async #same(name: string, expected: Buffer): Promise<void> {
    const got = await this.#readAll(name, expected.length);
    if (!got.equals(expected)) throw new Error(`${name} differs at ${firstDifference(got, expected)}`);
  }

  async #compareSnapshot(v: Volume): Promise<void> {
    const snap = this.pick([...v.snapshots.keys()]);
    if (snap !== undefined) await this.#same(`${v.name}@${snap}`, v.snapshots.get(snap) as Buffer);
  }

  /** Outside of what diff names, both sides are equal. */
  async #diff(v: Volume): Promise<void> {
    const names = [...v.snapshots.keys()];
    const a = this.pick(names);
    const b = this.pick([...names, '']);
    if (a === undefined || b === undefined) return;
    const bytesA = v.snapshots.get(a) as Buffer;
    const bytesB = b === '' ? v.bytes : (v.snapshots.get(b) as Buffer);
    const size = Math.max(bytesA.length, bytesB.length);
    const full = (x: Buffer) => Buffer.concat([x, Buffer.alloc(size - x.length)]);
    const [left, right] = [full(bytesA), full(bytesB)];
    let next: number | null = 0;
    while (next !== null) {
      const page = await this.engine.diff(`${v.name}@${a}`, b === '' ? v.name : `${v.name}@${b}`, {
        offset: next,
        max: 1 + this.int(20),
      });
      for (const e of page.extents) {
        if (!e.data && !right.subarray(e.offset, e.offset + e.length).every((x) => x === 0))
          throw new Error('diff calls data a hole');
        right.copy(left, e.offset, e.offset, e.offset + e.length);
      }
      next = page.next;
    }
    if (!left.equals(right)) throw new Error(`diff ${v.name}@${a} ${b} left out byte ${firstDifference(left, right)}`);
  }

  async #compareAll(): Promise<void> {
    for (const v of this.volumes) {
      await this.#same(v.name, v.bytes);
      for (const [name, bytes] of v.snapshots) await this.#same(`${v.name}@${name}`, bytes);
    }
  }

  /** All that is there gets its hash, equal exactly where the bytes are. */
  async #sealed(): Promise<void> {
    const byHash = new Map<string, Buffer>();
    for (const v of this.volumes) {
      for (const [name, bytes] of v.snapshots) {
        let hash: string | null = null;
        for (let i = 0; hash === null; i++) {
          hash = (await this.engine.showSnapshot(`${v.name}@${name}`)).hash;
          if (i > 6000)
            throw new Error(`${v.name}@${name} is not sealed: ${JSON.stringify(await this.engine.status())}`);
          if (hash === null) await new Promise((resolve) => setTimeout(resolve, 10));
        }
        const other = byHash.get(hash);
        if (other !== undefined && !other.equals(bytes)) throw new Error('different bytes have one hash');
        for (const [h, b] of byHash) if (h !== hash && b.equals(bytes)) throw new Error('equal bytes have two hashes');
        byHash.set(hash, bytes);
      }
    }
  }

  async #check(): Promise<void> {
    for (const v of this.volumes) if (v.client) await v.client.flush();
    const report = await this.engine.check();
    if (!report.ok)
      throw new Error(
        `check: ${report.problemCount} problems: ${report.problems
          .slice(0, 8)
          .map((p) => `${p.code} ${p.message}`)
          .join('; ')}`,
      );
    await this.#accounts();
    if (this.log.length > 0) throw new Error(`the engine logged errors: ${this.log.slice(0, 3).join('; ')}`);
  }

  /** The numbers add up: docs/format.md, "Space in numbers". */
  async #accounts(): Promise<void> {
    const show = { account: 'wait' as const };
    const told = async () => ({
      pools: [await this.engine.showPool('p', show), await this.engine.showPool('local', show)],
      volumes: await Promise.all(this.volumes.map((v) => this.engine.showVolume(v.name, show))),
      snapshots: await Promise.all(
        this.volumes.flatMap((v) =>
          [...v.snapshots.keys()].map((s) => this.engine.showSnapshot(`${v.name}@${s}`, show)),
        ),
      ),
    });
    // asking makes all durable that is not yet
    await told();
    // sealing goes on by itself: what is compared has to be of one moment, between two commits
    for (let i = 0; ; i++) {
      if (i > 3000) throw new Error('the store does not come to rest');
      const before = await this.engine.status();
      if (before.background.dropQueue === 0) {
        const db = new Database(path.join(this.home, 'home', 'store.db'), { readonly: true });
        const errors = accountErrors(storeRows(db), native.decodePageTo, await told());
        db.close();
        const after = await this.engine.status();
        if (after.background.dropQueue === 0 && after.commits.count === before.commits.count) {
          if (errors.length === 0) return;
          throw new Error(`accounts: ${errors.slice(0, 8).join('; ')}`);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** All deleted: all space comes back. */
  async #drain(): Promise<void> {
    for (const v of [...this.volumes]) {
      await this.#disconnect(v);
      for (const s of v.snapshots.keys()) await this.#closed(`${v.name}@${s}`);
      await this.engine.deleteVolume(v.name, { withSnapshots: true });
    }
    this.volumes.length = 0;
    for (let i = 0; ; i++) {
      const pool = await this.engine.showPool('p');
      if (pool.usedBytes === 0 && pool.reclaimingBytes === 0) break;
      if (i > 1000)
        throw new Error(
          `space does not come back: ${JSON.stringify(pool)} ${JSON.stringify((await this.engine.status()).background)}`,
        );
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await this.#check();
  }
}

function firstDifference(a: Buffer, b: Buffer): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return i;
  return Math.min(a.length, b.length);
}
