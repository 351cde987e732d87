/** The addon through its N-API layer: that each call reaches what it names, and that wrong arguments are refused. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { constants, PerformanceObserver } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { DURATION_BUCKETS } from '../../src/xseg/histogram.ts';
import * as L from '../../src/xseg/layout.gen.ts';
import { loadNative, type PoolSpec } from '../../src/xseg/native.ts';
import { ZEROES } from '../../src/xseg/page-table.ts';
import { blockHash } from '../../src/xseg/seal/tree-hash.ts';

const native = loadNative();
const ADDON = fileURLToPath(new URL('../../build/Release/atoll.node', import.meta.url));
const OPTIONS = { reactors: 2, frames: 64, spinUs: 0, ioThreads: 4, ioUring: true };
const OWNED = 0x4000_0000;
const EXCLUSIVE = 0x8000_0000;
/** Longer than anything here takes; a lost wake-up would wait so long. */
const LONG_MS = 20_000;

let core: number;
beforeEach(() => {
  core = native.createCore(OPTIONS);
});
afterEach(() => {
  native.destroyCore(core);
});

/** Expects `call` to throw an Error with this errno name. */
function refuses(code: string, call: () => unknown): void {
  expect(call).toThrow(expect.objectContaining({ code, errno: expect.any(Number), message: expect.any(String) }));
}

/** 32-bit words of the segment, by section. */
function words(at: number, count: number): Uint32Array {
  return new Uint32Array(native.segment(core), at, count);
}

function header(field: number): number {
  const [lo = 0, hi = 0] = words(field, 2);
  return hi * 2 ** 32 + lo;
}

/** Entry `index` of a frame as [lo, hi]. */
function entry(frame: number, index: number): number[] {
  return [...words(header(L.SegmentHeader.framesOffset) + frame * L.FRAME_BYTES + index * 8, 2)];
}

/** Opens or frees a volume record, as the mapper does. */
function setVolume(handle: number, state: number, pool: number): void {
  const record = words(header(L.SegmentHeader.volumesOffset) + handle * L.VolumeRecord.BYTES, L.VolumeRecord.BYTES / 4);
  record[L.VolumeRecord.pool / 4] = pool;
  record[L.VolumeRecord.state / 4] = state;
}

/** Takes what there is, waiting for the first; as objects. */
function take(timeoutMs = LONG_MS): { op: number; ticket: number; error: number }[] {
  const staging = new Uint8Array(16 * L.RECORD_BYTES);
  const count = native.take(core, staging, 16, timeoutMs);
  const view = new DataView(staging.buffer);
  return Array.from({ length: count }, (_, i) => {
    const at = i * L.RECORD_BYTES;
    return {
      op: view.getUint32(at + L.Request.op, true),
      ticket: view.getUint32(at + L.Request.ticket, true),
      error: view.getUint32(at + L.Request.error, true),
    };
  });
}

function memoryPool(faults: PoolSpec['faults'] = []): number {
  return native.openPool(core, { driver: 'memory', fileSpan: 1 << 20, capacityBytes: 16 << 20, faults });
}

describe('1. life', () => {
  test('1.1 the segment is wrapped once per environment and describes itself', () => {
    const segment = native.segment(core);
    expect(native.segment(core)).toBe(segment);
    expect(segment.byteLength).toBe(header(L.SegmentHeader.totalBytes));
    expect(words(0, 5)[0]).toBe(L.SEGMENT_MAGIC);
    expect(words(L.SegmentHeader.reactorCount, 1)[0]).toBe(OPTIONS.reactors);
    expect(words(L.SegmentHeader.frameCount, 1)[0]).toBe(OPTIONS.frames);
  });

  test('1.2 cores are apart from each other', () => {
    const other = native.createCore(OPTIONS);
    expect(other).not.toBe(core);
    expect(native.segment(other)).not.toBe(native.segment(core));
    native.hashInsert(other, 1, 1, 5);
    expect(native.hashFind(core, 1, 1)).toBe(-1);
    expect(native.hashFind(other, 1, 1)).toBe(5);
    native.destroyCore(other);
    expect(native.hashFind(core, 1, 1)).toBe(-1);
  });

  test('1.3 a core that is gone is refused, destroying it twice is not, and its memory stays readable', () => {
    const other = native.createCore(OPTIONS);
    const view = new Uint32Array(native.segment(other), 0, 1);
    native.destroyCore(other);
    native.destroyCore(other);
    refuses('ESHUTDOWN', () => native.segment(other));
    refuses('ESHUTDOWN', () => native.take(other, new Uint8Array(64), 1, 0));
    refuses('ESHUTDOWN', () => native.epochAdvance(12345));
    expect(view[0]).toBe(L.SEGMENT_MAGIC);
  });

  test('1.4 options out of range are refused', () => {
    refuses('EINVAL', () => native.createCore({ ...OPTIONS, reactors: 0 }));
    refuses('EINVAL', () => native.createCore({ ...OPTIONS, reactors: L.REACTORS_MAX + 1 }));
    refuses('EINVAL', () => native.createCore({ ...OPTIONS, frames: 1 }));
  });

  test('1.5 reactors count what they do', () => {
    const stats = native.reactorStats(core);
    expect(stats).toHaveLength(OPTIONS.reactors);
    for (const one of stats) {
      expect(one.requests).toBe(0);
      for (const kind of ['read', 'write', 'flush', 'other'] as const)
        expect(one.waits[kind]).toEqual({ counts: new Array(DURATION_BUCKETS).fill(0), sum: 0 });
    }
    expect(native.syncStats(core)).toEqual({
      times: { counts: new Array(DURATION_BUCKETS).fill(0), sum: 0 },
      errors: 0,
    });
  });

  test('1.6 a process that ends without destroyCore ends well', () => {
    for (const end of ['', 'process.exit(0)', 'setTimeout(() => process.exit(0), 50)']) {
      const script = `const native = require(${JSON.stringify(ADDON)});
        const core = native.createCore(${JSON.stringify(OPTIONS)}); native.segment(core); ${end}`;
      const child = spawnSync(process.execPath, ['-e', script], { timeout: LONG_MS, encoding: 'utf8' });
      expect([child.status, child.signal, child.stderr]).toEqual([0, null, '']);
    }
  });

  test('garbage is looked for when asked', async () => {
    const observed = new Promise<void>((resolve) => {
      const observer = new PerformanceObserver((list) => {
        const kinds = list.getEntries().map((entry) => (entry as unknown as { detail: { kind: number } }).detail.kind);
        if (!kinds.includes(constants.NODE_PERFORMANCE_GC_MAJOR)) return;
        observer.disconnect();
        resolve();
      });
      observer.observe({ entryTypes: ['gc'] });
    });
    const held = (() => new WeakRef(Array.from({ length: 100_000 }, (_, i) => i)))();
    await setImmediate();
    native.collectGarbage();
    await observed;
    expect(held.deref()).toBeUndefined();
  });

  test('heaps are trimmed in their middle too', () => {
    const script = `const native = require(${JSON.stringify(ADDON)});
      const resident = () => process.memoryUsage.rss() / 2 ** 20;
      const kept = [];
      const before = resident();
      // below the size from which the C library maps each by itself; every 64th stays
      for (let i = 0; i < 4096; i++) {
        const one = Buffer.allocUnsafeSlow(16384).fill(i);
        if (i % 64 === 0) kept.push(one);
      }
      // V8 frees what was collected on another thread
      while (process.memoryUsage().arrayBuffers > 2 * kept.length * 16384) gc();
      const freed = resident();
      native.trimHeaps();
      console.log(JSON.stringify([freed - before, freed - resident()]));`;
    const child = spawnSync(process.execPath, ['--expose-gc', '-e', script], { timeout: LONG_MS, encoding: 'utf8' });
    expect([child.status, child.stderr]).toEqual([0, '']);
    const [held, back] = JSON.parse(child.stdout) as number[];
    expect(held).toBeGreaterThan(10);
    expect(back).toBeGreaterThan(held / 2);
  });

  test('1.7 a worker thread attaches by number, sees the same memory, and leaves the core alone when it ends', async () => {
    const script = `const { parentPort, workerData } = require('node:worker_threads');
      const native = require(workerData.addon);
      native.publish(workerData.core, 3, 7, 42, ${OWNED});
      parentPort.postMessage(new Uint32Array(native.segment(workerData.core), 0, 1)[0]);`;
    const worker = new Worker(script, { eval: true, workerData: { addon: ADDON, core } });
    const magic = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await new Promise((resolve) => worker.once('exit', resolve));
    expect(magic).toBe(L.SEGMENT_MAGIC);
    expect(entry(3, 7)).toEqual([42, OWNED]);
    expect(native.reactorStats(core)).toHaveLength(OPTIONS.reactors);
  });

  test('1.8 destroying a core ends a mapper that waits in take()', async () => {
    const other = native.createCore(OPTIONS);
    const script = `const { parentPort, workerData } = require('node:worker_threads');
      const native = require(workerData.addon);
      const staging = new Uint8Array(64);
      native.take(workerData.core, staging, 1, 0);
      parentPort.postMessage('waiting');
      try {
        parentPort.postMessage(native.take(workerData.core, staging, 1, ${LONG_MS}));
      } catch (error) {
        parentPort.postMessage(error.code);
      }`;
    const worker = new Worker(script, { eval: true, workerData: { addon: ADDON, core: other } });
    const messages: unknown[] = [];
    worker.on('message', (message) => messages.push(message));
    await new Promise((resolve) => worker.once('message', resolve));
    const started = Date.now();
    native.destroyCore(other);
    await new Promise((resolve) => worker.once('exit', resolve));
    // Either it was in the call by then, or it came too late.
    expect([
      ['waiting', 0],
      ['waiting', 'ESHUTDOWN'],
    ]).toContainEqual(messages);
    expect(Date.now() - started).toBeLessThan(LONG_MS / 2);
  });
});

describe('2. pools', () => {
  test('2.1 bytes written past all maps are read again, and zeroed', () => {
    const pool = memoryPool();
    const bytes = new Uint8Array(8192).map((_, i) => i % 251);
    native.writeNow(core, pool, 4096, bytes);
    const read = new Uint8Array(8192);
    native.readNow(core, pool, 4096, read);
    expect(read).toEqual(bytes);
    native.zeroNow(core, pool, 4096, 8192);
    native.readNow(core, pool, 4096, read);
    expect(read).toEqual(new Uint8Array(8192));
    expect(native.poolUsage(core, pool)).toMatchObject({ capacityBytes: 16 << 20, failed: false });
    expect(native.poolCapabilities(core, pool)).toMatchObject({ persistent: false, direct: false });
  });

  test('2.2 a view into a larger buffer is read and written where it lies', () => {
    const pool = memoryPool();
    const whole = new Uint8Array(100).fill(9);
    native.writeNow(core, pool, 0, new Uint8Array(50).fill(1));
    native.readNow(core, pool, 0, whole.subarray(10, 20));
    expect([...whole.subarray(8, 22)]).toEqual([9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 9, 9]);
  });

  test('2.3 an operation across the border of a pool file is refused', () => {
    const pool = memoryPool();
    refuses('EINVAL', () => native.readNow(core, pool, (1 << 20) - 1, new Uint8Array(2)));
    refuses('EINVAL', () => native.writeNow(core, pool, 0, new Uint8Array((1 << 20) + 1)));
    native.readNow(core, pool, (1 << 20) - 2, new Uint8Array(2));
  });

  test('2.4 a local pool keeps its bytes from one opening to the next', () => {
    const path = mkdtempSync(join(tmpdir(), 'atoll-native-'));
    try {
      const spec: PoolSpec = { driver: 'local', kind: 'directory', path, fileSpan: 1 << 20, capacityBytes: 0 };
      const pool = native.openPool(core, spec);
      expect(native.poolCapabilities(core, pool).persistent).toBe(true);
      native.ensureFile(core, pool, 1);
      native.writeNow(core, pool, 1 << 20, new Uint8Array(4096).fill(7));
      refuses('EBUSY', () => native.openPool(core, spec));
      native.closePool(core, pool);
      const again = native.openPool(core, spec);
      const read = new Uint8Array(4096);
      native.readNow(core, again, 1 << 20, read);
      expect(read).toEqual(new Uint8Array(4096).fill(7));
      native.closePool(core, again);
    } finally {
      rmSync(path, { recursive: true });
    }
  });

  test('2.5 errors keep their cause', () => {
    refuses('ENOENT', () =>
      native.openPool(core, { driver: 'local', path: '/nonexistent/pool', fileSpan: 1 << 20, capacityBytes: 0 }),
    );
    const pool = memoryPool([{ kind: 'error', write: true, errno: 28, after: 1, times: 1 }]);
    const bytes = new Uint8Array(512);
    native.writeNow(core, pool, 0, bytes);
    refuses('ENOSPC', () => native.writeNow(core, pool, 0, bytes));
    native.writeNow(core, pool, 0, bytes);
    refuses('ENOENT', () => native.readNow(core, 200, 0, bytes));
  });

  test('2.6 a pool with an open volume does not close', () => {
    const pool = memoryPool();
    setVolume(3, L.VOLUME_OPEN, pool);
    refuses('EBUSY', () => native.closePool(core, pool));
    setVolume(3, L.VOLUME_FREE, pool);
    native.closePool(core, pool);
    refuses('EBADF', () => native.closePool(core, pool));
  });
});

describe('3. the mapper', () => {
  test('3.1 take waits for its time, and a wake ends the wait', () => {
    const started = Date.now();
    expect(take(30)).toEqual([]);
    expect(Date.now() - started).toBeGreaterThanOrEqual(28);
    native.wake(core);
    native.wake(core);
    expect(take()).toEqual([{ op: L.OP_WAKE, ticket: 0, error: 0 }]);
    expect(take(0)).toEqual([]);
  });

  test('3.2 replies to reactors that do not exist, or beyond the buffer, are refused', () => {
    const staging = new Uint8Array(2 * L.RECORD_BYTES);
    new DataView(staging.buffer).setUint32(L.Reply.reactor, 2, true);
    refuses('EINVAL', () => native.reply(core, staging, 1));
    refuses('EINVAL', () => native.reply(core, staging, 3));
    native.reply(core, staging, 0);
  });

  test('3.3 entries, runs, copies and stamps land in the segment', () => {
    native.publish(core, 1, 511, 0xffff_fffe, (OWNED | 0xffff) >>> 0);
    expect(entry(1, 511)).toEqual([0xffff_fffe, OWNED | 0xffff]);
    native.publishRun(core, 2, 10, 3, 0xffff_fffe, (OWNED | EXCLUSIVE) >>> 0);
    expect(entry(2, 9)).toEqual([0, 0]);
    expect(entry(2, 10)).toEqual([0xffff_ffff, (OWNED | EXCLUSIVE) >>> 0]);
    expect(entry(2, 11)).toEqual([0, (OWNED | EXCLUSIVE | 1) >>> 0]);
    expect(entry(2, 12)).toEqual([1, (OWNED | EXCLUSIVE | 1) >>> 0]);
    expect(entry(2, 13)).toEqual([0, 0]);
    native.copyFrameShared(core, 2, 3);
    expect(entry(3, 11)).toEqual([0, 1]);
    native.clearRun(core, 2, 11, 1);
    expect([entry(2, 11), entry(2, 12)[0]]).toEqual([[0, 0], 1]);
    native.clearFrame(core, 3);
    expect(entry(3, 10)).toEqual([0, 0]);
    native.publish(core, 4, 7, 1, 0);
    native.dropFrame(core, 4);
    expect(entry(4, 7)).toEqual([0, 0]);
    native.stamp(core, 3, 77, 0xffff_ffff);
    expect([...words(header(L.SegmentHeader.frameMetaOffset) + 3 * L.FrameMeta.BYTES, 2)]).toEqual([77, 0xffff_ffff]);
  });

  test('3.4 the shared empty page and frames that do not exist are refused', () => {
    for (const frame of [L.FRAME_EMPTY, OPTIONS.frames, 0xffff_ffff]) {
      refuses('EINVAL', () => native.publish(core, frame, 0, 1, 0));
      refuses('EINVAL', () => native.publishRun(core, frame, 0, 1, 1, 0));
      refuses('EINVAL', () => native.clearRun(core, frame, 0, 1));
      refuses('EINVAL', () => native.copyFrameShared(core, 1, frame));
      refuses('EINVAL', () => native.clearFrame(core, frame));
      refuses('EINVAL', () => native.dropFrame(core, frame));
      refuses('EINVAL', () => native.stamp(core, frame, 1, 1));
    }
    refuses('EINVAL', () => native.hashInsert(core, 1, 1, OPTIONS.frames));
    refuses('EINVAL', () => native.publish(core, 1, L.PAGE_ENTRIES, 1, 0));
    refuses('EINVAL', () => native.publishRun(core, 1, 510, 3, 1, 0));
    refuses('EINVAL', () => native.publishRun(core, 1, 0, 1, L.SLOT_NONE, 0));
    // the last value of all is that of zeroes
    native.publishRun(core, 1, 0, 2, ZEROES - 3, 0);
    refuses('EINVAL', () => native.publishRun(core, 1, 0, 2, ZEROES - 2, 0));
    refuses('EINVAL', () => native.publishRun(core, 1, 0, 1, 1, 1));
    refuses('EINVAL', () => native.clearRun(core, 1, 0xffff_ffff, 2));
    expect(entry(L.FRAME_EMPTY, 0)).toEqual([0, 0]);
  });

  test('3.5 the leaf hash holds leaves of a petabyte in 4 KiB blocks', () => {
    const leaf = 2 ** 38 / L.PAGE_ENTRIES - 1;
    native.hashInsert(core, L.VOLUMES_MAX - 1, leaf, 5);
    native.hashInsert(core, 0, 0, L.FRAME_EMPTY);
    expect(native.hashFind(core, L.VOLUMES_MAX - 1, leaf)).toBe(5);
    expect(native.hashFind(core, 0, 0)).toBe(L.FRAME_EMPTY);
    expect(native.hashFind(core, 0, 1)).toBe(-1);
    native.hashRemove(core, L.VOLUMES_MAX - 1, leaf);
    expect(native.hashFind(core, L.VOLUMES_MAX - 1, leaf)).toBe(-1);
    refuses('EINVAL', () => native.hashInsert(core, L.VOLUMES_MAX, 0, 1));
    refuses('EINVAL', () => native.hashInsert(core, 0, 2 ** 30, 1));
    let inserted = 0;
    while (inserted < 1000 && native.hashInsert(core, 9, inserted, 1)) inserted++;
    expect(inserted).toBeLessThan(1000);
    expect(inserted).toBeGreaterThanOrEqual(OPTIONS.frames);
  });

  test('3.6 generations and epochs advance', () => {
    expect(native.writersDrained(core, 5)).toBe(true);
    expect(native.advanceGeneration(core, 5)).toBe(1);
    expect(native.advanceGeneration(core, 5)).toBe(2);
    refuses('EINVAL', () => native.advanceGeneration(core, L.VOLUMES_MAX));
    const epoch = native.epochAdvance(core);
    expect(native.epochAdvance(core)).toBe(epoch + 1);
    expect(native.epochSafe(core)).toBeLessThanOrEqual(epoch + 1);
    const deadline = Date.now() + LONG_MS;
    while (native.epochSafe(core) < epoch + 1) expect(Date.now()).toBeLessThan(deadline);
  });

  test('3.7 background work ends with a message', () => {
    const pool = memoryPool();
    native.writeNow(core, pool, 65536, new Uint8Array(4096).fill(1));
    native.zeroRuns(core, pool, new Float64Array([0, 4096, 65536, 4096]), 2, 11);
    expect(take()).toEqual([{ op: L.OP_ZERO_DONE, ticket: 11, error: 0 }]);
    const read = new Uint8Array(4096);
    native.readNow(core, pool, 65536, read);
    expect(read).toEqual(new Uint8Array(4096));
    native.syncFile(core, pool, 0, 12);
    expect(take()).toEqual([{ op: L.OP_SYNC_DONE, ticket: 12, error: 0 }]);
    setVolume(4, L.VOLUME_OPEN, pool);
    native.markFile(core, 4, 3);
    native.syncVolume(core, 4, 13);
    expect(take()).toEqual([{ op: L.OP_SYNC_DONE, ticket: 13, error: 0 }]);
    refuses('EINVAL', () => native.markFile(core, 4, L.FILES_MAX));
  });

  test('3.8 runs that are no ranges are refused whole', () => {
    const pool = memoryPool();
    for (const bad of [Number.NaN, -1, Number.POSITIVE_INFINITY, 2 ** 53]) {
      refuses('EINVAL', () => native.zeroRuns(core, pool, new Float64Array([0, 4096, bad, 4096]), 2, 1));
      refuses('EINVAL', () => native.zeroRuns(core, pool, new Float64Array([0, 4096, 0, bad]), 2, 1));
    }
    refuses('EINVAL', () => native.zeroRuns(core, pool, new Float64Array(4), 3, 1));
    expect(take(0)).toEqual([]);
  });

  test('3.9 a failed sync of a marked file reaches the mapper as its errno', () => {
    const pool = memoryPool([{ kind: 'error', sync: true, errno: 5, times: 1 }]);
    setVolume(4, L.VOLUME_OPEN, pool);
    native.markFile(core, 4, 0);
    native.syncVolume(core, 4, 1);
    expect(take()).toEqual([{ op: L.OP_SYNC_DONE, ticket: 1, error: 5 }]);
    // For good: the second time the fault layer would let it through.
    native.syncVolume(core, 4, 2);
    expect(take()).toEqual([{ op: L.OP_SYNC_DONE, ticket: 2, error: 5 }]);
  });
});

describe('4. map pages', () => {
  test('4.1 a frame goes to a blob and into another frame', () => {
    native.publishRun(core, 1, 5, 100, 2 ** 40, (OWNED | EXCLUSIVE) >>> 0);
    const blob = new Uint8Array(L.PAGE_BLOB_MAX + 10);
    const id = 2 ** 53 - 1;
    const length = native.encodePage(core, 1, 0, id, 2 ** 45, 3, 0xffff_ffff, 100, blob, 10);
    const numbers = new Float64Array(7);
    expect(native.decodePage(core, blob.subarray(10, 10 + length), id, 2, numbers)).toBe(0);
    expect([...numbers]).toEqual([0, id, 2 ** 45, 3, 0xffff_ffff, 100, 100]);
    for (const index of [4, 5, 104, 105]) expect(entry(2, index)).toEqual(entry(1, index));
    expect(blob.subarray(0, 10)).toEqual(new Uint8Array(10));
  });

  test('4.2 each kind of damage has its number, and changes nothing', () => {
    const entries = new Uint32Array(1024);
    entries[0] = 1;
    const blob = new Uint8Array(L.PAGE_BLOB_MAX);
    const length = native.encodePageFrom(entries, 0, 7, 0, 1, 1, 1, blob, 0);
    const good = blob.slice(0, length);
    const out = new Uint32Array(1024).fill(9);
    const numbers = new Float64Array(7).fill(9);
    const changed = (at: number) => good.map((byte, i) => (i === at ? byte ^ 0xff : byte));
    expect(native.decodePageTo(changed(20), 7, out, numbers)).toBe(1);
    expect(native.decodePageTo(changed(0), 7, out, numbers)).toBe(2);
    expect(native.decodePageTo(changed(2), 7, out, numbers)).toBe(3);
    expect(native.decodePageTo(good, 8, out, numbers)).toBe(4);
    expect(native.decodePageTo(new Uint8Array(0), 7, out, numbers)).toBe(2);
    expect(out).toEqual(new Uint32Array(1024).fill(9));
    expect(numbers).toEqual(new Float64Array(7).fill(9));
    expect(native.decodePageTo(good, 7, out, numbers)).toBe(0);
    expect(out).toEqual(entries);
  });

  test('4.3 any page comes back, from words at any place', () => {
    const value = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 2 ** 48 - 1 }));
    const bits = fc.constantFrom(0, OWNED, EXCLUSIVE, OWNED | EXCLUSIVE);
    fc.assert(
      fc.property(fc.array(fc.tuple(value, bits), { minLength: 512, maxLength: 512 }), (page) => {
        const backing = new Uint32Array(1025);
        const entries = backing.subarray(1);
        for (const [i, [number, flags]] of page.entries()) {
          if (number === 0) continue;
          entries[2 * i] = number % 2 ** 32;
          entries[2 * i + 1] = (Math.floor(number / 2 ** 32) | flags) >>> 0;
        }
        const blob = new Uint8Array(L.PAGE_BLOB_MAX);
        const length = native.encodePageFrom(entries, 1, 1, 0, 1, 1, 0, blob, 0);
        const out = new Uint32Array(1025).subarray(1);
        expect(native.decodePageTo(blob.subarray(0, length), 1, out, new Float64Array(7))).toBe(0);
        expect(out).toEqual(entries);
      }),
      { numRuns: 50 },
    );
  });

  test('4.4 buffers that are too short are refused', () => {
    const entries = new Uint32Array(1024);
    refuses('ENOBUFS', () => native.encodePageFrom(entries, 0, 1, 0, 1, 1, 0, new Uint8Array(L.PAGE_BLOB_MAX), 1));
    refuses('EINVAL', () =>
      native.encodePageFrom(entries.subarray(1), 0, 1, 0, 1, 1, 0, new Uint8Array(L.PAGE_BLOB_MAX), 0),
    );
    const blob = new Uint8Array(L.PAGE_BLOB_MAX);
    const good = blob.subarray(0, native.encodePageFrom(entries, 0, 1, 0, 1, 1, 0, blob, 0));
    refuses('EINVAL', () => native.decodePageTo(good, 1, entries.subarray(1), new Float64Array(7)));
    refuses('EINVAL', () => native.decodePageTo(good, 1, entries, new Float64Array(6)));
    refuses('EINVAL', () => native.encodePage(core, 0, 0, 1, 0, 1, 1, 0, blob, 0));
    refuses('EINVAL', () => native.decodePage(core, good, 1, 0, new Float64Array(7)));
  });

  test('4.5 hashes of blocks are those of the library, and zeroes are told', () => {
    const blocks = randomBytes(5 * 4096);
    blocks.fill(0, 4096, 8192);
    const hashes = new Uint8Array(5 * 32);
    const hashed = new Uint8Array(5);
    native.hashBlocks(blocks, 4096, hashes, hashed);
    expect([...hashed]).toEqual([1, 0, 1, 1, 1]);
    for (let i = 0; i < 5; i++) {
      const wanted = i === 1 ? Buffer.alloc(32) : blockHash(blocks.subarray(i * 4096, (i + 1) * 4096));
      expect(wanted.equals(hashes.subarray(i * 32, (i + 1) * 32))).toBe(true);
    }
    native.hashBlocks(new Uint8Array(0), 4096, new Uint8Array(0), new Uint8Array(0));
  });

  test('4.5 hashes of blocks want room for each, and whole blocks', () => {
    const [blocks, hashes, hashed] = [new Uint8Array(8192), new Uint8Array(64), new Uint8Array(2)];
    native.hashBlocks(blocks, 4096, hashes, hashed);
    refuses('EINVAL', () => native.hashBlocks(blocks.subarray(1), 4096, hashes, hashed));
    refuses('EINVAL', () => native.hashBlocks(blocks, 4097, hashes, hashed));
    refuses('EINVAL', () => native.hashBlocks(blocks, 0, hashes, hashed));
    refuses('EINVAL', () => native.hashBlocks(blocks, 4096, hashes.subarray(1), hashed));
    refuses('EINVAL', () => native.hashBlocks(blocks, 4096, hashes, hashed.subarray(1)));
    refuses('EINVAL', () => native.hashBlocks(blocks, 4096, hashes, new Uint8Array(3)));
  });

  test('4.5 crc32c is the known one and goes on from a seed', () => {
    const bytes = new TextEncoder().encode('123456789');
    expect(native.crc32c(bytes, 0)).toBe(0xe3069283);
    expect(native.crc32c(bytes.subarray(4), native.crc32c(bytes.subarray(0, 4), 0))).toBe(0xe3069283);
  });
});

describe('execute', () => {
  const run = (code: string) =>
    spawnSync(process.execPath, ['-e', `const native = require(${JSON.stringify(ADDON)}); ${code}`], {
      encoding: 'utf8',
    });

  test('puts another program in place of the process', () => {
    const { stdout, status, pid } = run(
      "require('node:fs').writeSync(1, process.pid + '\\n'); native.execute('/bin/sh', ['sh', '-c', 'echo $$; exit 3'])",
    );
    expect(stdout).toBe(`${pid}\n${pid}\n`);
    expect(status).toBe(3);
  });

  test('says why when it cannot', () => {
    expect(run("console.log(native.execute('/nowhere', ['x']))").stdout).toBe('2\n'); // ENOENT
  });
});

test('a thread is an IO flusher when it was allowed to become one', () => {
  const code =
    'const before = native.isIoFlusher(); const may = native.ioFlusher(); console.log(before, may === native.isIoFlusher())';
  const { stdout } = spawnSync(process.execPath, ['-e', `const native = require(${JSON.stringify(ADDON)}); ${code}`], {
    encoding: 'utf8',
  });
  expect(stdout).toMatch(/^(true|false) true\n$/);
});
