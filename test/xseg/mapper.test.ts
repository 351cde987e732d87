/** Orders inside the mapper that no client can see from outside: its parts alone, with the rest of it faked. */
import { describe, expect, it } from 'vitest';
import {
  FRAME_BYTES,
  FrameMeta,
  OP_UNMAP,
  PAGE_ENTRIES,
  Reply,
  Request,
  SegmentHeader,
  VolumeRecord,
} from '../../src/xseg/layout.gen.ts';
import { Burials } from '../../src/xseg/mapper/burials.ts';
import { Faults, type FaultsHost } from '../../src/xseg/mapper/faults.ts';
import { EXCLUSIVE, Frames, OWNED } from '../../src/xseg/mapper/frames.ts';
import type { Handles } from '../../src/xseg/mapper/handles.ts';
import { Operations } from '../../src/xseg/mapper/operations.ts';
import { Registry } from '../../src/xseg/mapper/registry.ts';
import { Resizing, type ResizingHost } from '../../src/xseg/mapper/resizing.ts';
import { Changes, Resource } from '../../src/xseg/mapper/resource.ts';
import type { SlotPool } from '../../src/xseg/mapper/slots.ts';
import { Steps, type StepsHost } from '../../src/xseg/mapper/steps.ts';
import { type Tree, WAIT } from '../../src/xseg/mapper/tree.ts';
import type { Native } from '../../src/xseg/native.ts';
import { KIND_VOLUME, NOT_ATTACHED, type ResourceRow } from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';
import type { EngineError } from '../../src/xseg/types.ts';

const FRAME = 1;

function resource(height: number): Resource {
  const row: Partial<ResourceRow> = { id: 1, kind: KIND_VOLUME, pool: 1, size: 2 ** 40, root: 1, height };
  const r = new Resource(row as ResourceRow);
  r.handle = 0;
  return r;
}

/** A mapper's faults on top of what a test gives; the rest of its surroundings does nothing. */
function faultsOn(parts: { native?: Partial<Native>; tree?: Partial<Tree>; host?: Partial<FaultsHost> }) {
  const words = new Uint32Array(VolumeRecord.BYTES / 4);
  const frames: Partial<Frames> = {
    words,
    delta: new Int32Array(FRAME + 1),
    value: () => 0,
    high: () => 0,
    unhashRange: () => undefined,
  };
  const host: Partial<FaultsHost> = {
    poolOf: () => ({ blockSize: 4096 }) as SlotPool,
    changed: () => undefined,
    commitAll: () => undefined,
    tooDirty: () => false,
    ...parts.host,
  };
  const faults = new Faults(
    frames as Frames,
    { touch: () => undefined, settle: () => undefined, ...parts.tree } as unknown as Tree,
    (parts.native ?? {}) as Native,
    0,
    () => 0,
    0,
    host as FaultsHost,
    1,
  );
  return { faults, words };
}

/** Operations on volumes of these names; the rest of their surroundings does nothing but what a test gives. */
function operationsOn(names: string[], given: Partial<StepsHost>) {
  const rows = names.map((name, i) => {
    const row: Partial<ResourceRow> = { id: i + 1, kind: KIND_VOLUME, volume: 0, name, pool: 1, size: 4096 };
    return { ...row, root: 0, height: 0, mapped: 0, protected: 0, created_at: 0, ...NOT_ATTACHED } as ResourceRow;
  });
  const reader = {
    resource: (id: number) => rows.find((row) => row.id === id),
    resourceByName: (kind: number, _volume: number, name: string) =>
      rows.find((row) => row.kind === kind && row.name === name)?.id,
    snapshotIds: () => [],
    seal: { resource: () => undefined },
  };
  const registry = new Registry(reader as unknown as StoreReader);
  let next = names.length + 1;
  const host: Partial<StepsHost> = {
    pools: new Map(),
    poolRow: () => undefined,
    exclusiveBlocks: () => null,
    nextResource: () => next++,
    accountChanged: () => undefined,
    bytesChanged: () => undefined,
    date: () => 0,
    poke: () => undefined,
    ...given,
  };
  const faults = { barrier: (_r: Resource, work: (release: () => void) => void) => work(() => undefined) };
  const handles: Partial<Handles> = { close: () => undefined };
  const frames = { byPage: new Map() } as unknown as Frames;
  const steps = new Steps(
    registry,
    frames,
    faults as unknown as Faults,
    handles as Handles,
    {} as Native,
    0,
    host as StepsHost,
  );
  return { registry, operations: new Operations(steps, new Burials(steps), frames, {} as Tree) };
}

describe('publishing', () => {
  it('says that the map is dirty before anybody can find the entry', () => {
    const seen: number[] = [];
    const { faults, words } = faultsOn({
      native: { publishRun: () => void seen.push(Atomics.load(words, VolumeRecord.mapDirty / 4)) },
    });
    faults.entries.publish({ resource: resource(0), frame: FRAME, block: 7, count: 1, slot: 1 });
    expect(seen).toEqual([1]);
  });
});

describe('an unmapping', () => {
  it('that had to wait settles again what others unmapped meanwhile, before it unlinks', () => {
    const calls: string[] = [];
    let again: () => void = () => undefined;
    const { faults } = faultsOn({
      tree: {
        find: () => FRAME,
        writable: () => FRAME,
        settle: () => void calls.push('settle'),
        unlink: () => {
          calls.push('unlink');
          return calls.length > 2 ? 0 : WAIT;
        },
      },
      host: {
        whenFrames: (run) => {
          again = run;
        },
      },
    });
    let ended = -1;
    faults.unmapping.range(
      resource(1),
      0,
      () => PAGE_ENTRIES,
      false,
      (error) => {
        ended = error;
      },
    );
    again();
    expect(ended).toBe(0);
    expect(calls).toEqual(['settle', 'unlink', 'settle', 'unlink']);
  });
});

describe('a discard to the end that the volume had', () => {
  /** [from, to) that are cleared, and what the reply says, of blocks 0 to 3 with `cut` bytes of the last. */
  function discarded(size: number, cut: number): { cleared: number[]; left: number } {
    const cleared: number[] = [];
    const r = resource(0);
    r.row.size = size;
    const { faults } = faultsOn({
      native: { reply: () => 0 },
      tree: {
        find: () => FRAME,
        writable: () => FRAME,
        clear: (_r, _frame, from, to) => {
          cleared.push(from, to);
          return 0;
        },
      },
      host: { resourceOf: () => r, sampleFault: () => undefined },
    });
    const record = new DataView(faults.staging.buffer);
    record.setUint32(Request.op, OP_UNMAP, true);
    record.setUint32(Request.count, 4, true);
    record.setUint32(Request.length, cut, true);
    faults.serve(0, 0);
    expect(faults.replyCount).toBe(1);
    return { cleared, left: new DataView(faults.replies.buffer).getUint32(Reply.count, true) };
  }

  it('takes the block that the end cuts', () =>
    expect(discarded(3 * 4096 + 512, 512)).toEqual({ cleared: [0, 4], left: 0 }));
  it('leaves it to who asked when the volume has grown by a sector meanwhile', () =>
    expect(discarded(3 * 4096 + 1024, 512)).toEqual({ cleared: [0, 3], left: 1 }));
  it('leaves nothing to anybody when the volume has become smaller', () =>
    expect(discarded(2 * 4096, 512)).toEqual({ cleared: [0, 2], left: 0 }));
  it('takes whole blocks of a volume that has grown', () =>
    expect(discarded(9 * 4096, 0)).toEqual({ cleared: [0, 4], left: 0 }));
});

describe('the block that a new end divides', () => {
  const SLOT = 7;
  const TAIL = 1024;

  /** What is written, [address, bytes], and which slot is published, where the block is the volume's alone or is not. */
  function shrunk(high: number) {
    const written: number[] = [];
    const published: number[] = [];
    const pool = { id: 1, blockSize: 4096, allocate: () => ({ slot: SLOT + 1, count: 1 }), fileOf: () => 0 };
    const r = resource(0);
    r.row.size = 2 * 4096;
    const resizing = new Resizing(
      { value: () => SLOT + 1, high: () => high } as unknown as Frames,
      { writable: () => FRAME } as unknown as Tree,
      {
        barrier: (_r: Resource, work: (release: () => void) => void) => work(() => undefined),
        unmapping: { range: (...args: unknown[]) => (args[4] as (error: number) => void)(0) },
        entries: { publish: ({ slot }: { slot: number }) => void published.push(slot) },
      } as unknown as Faults,
      { open: () => undefined, release: () => undefined, publishSize: () => undefined } as unknown as Handles,
      {
        readNow: (_core, _pool, _address, bytes) => void bytes.fill(1),
        writeNow: (_core, _pool, address, bytes) => {
          written.push(address, bytes.length);
          expect(bytes.subarray(bytes.length - (4096 - TAIL)).every((byte) => byte === 0)).toBe(true);
        },
        markFile: () => undefined,
      } as Partial<Native> as Native,
      0,
      {
        pool: () => pool as unknown as SlotPool,
        freeze: (_r, work) => work(),
        durable: (_r, end) => end(null),
        isBad: () => false,
        sized: () => undefined,
      } as Partial<ResizingHost> as ResizingHost,
    );
    let ended: EngineError | null | undefined;
    resizing.shrink(r, TAIL, (error) => {
      ended = error;
    });
    expect(ended).toBeNull();
    expect(r.changes.syncData).toBe(true);
    return { written, published };
  }

  it('is copied while others may have it', () =>
    expect(shrunk(OWNED)).toEqual({ written: [(SLOT + 1) * 4096, 4096], published: [SLOT + 1] }));
  it("is zeroed where it is once it is the volume's alone: guests write there", () =>
    expect(shrunk(OWNED | EXCLUSIVE)).toEqual({ written: [SLOT * 4096 + TAIL, 4096 - TAIL], published: [] }));
});

describe('a volume that grows', () => {
  it('counts its map as changed before anybody can write up to the new end', () => {
    const r = resource(0);
    r.row.size = 4096;
    const order: string[] = [];
    const resizing = new Resizing(
      {} as Frames,
      {} as Tree,
      {
        barrier: (_r: Resource, work: (release: () => void) => void) => work(() => undefined),
        entries: { mapChanged: () => void order.push(`changed at ${r.row.size}`) },
      } as unknown as Faults,
      { publishSize: () => void order.push(`shown as ${r.row.size}`) } as unknown as Handles,
      {} as Native,
      0,
      {
        blockSize: () => 4096,
        durable: (_r, end) => end(null),
        sized: () => undefined,
      } as Partial<ResizingHost> as ResizingHost,
    );
    for (const lazily of [false, true]) resizing.grow(r, r.row.size + 512, () => undefined, lazily);
    expect(order).toEqual(['changed at 4096', 'shown as 4608', 'changed at 4608', 'shown as 5120']);
  });
});

describe('a volume that gives its map away', () => {
  it('does so when nothing of it is left to be committed, also of what changed while its last batch was on its way', () => {
    const cuts: string[] = [];
    let foldings = 2;
    const cut = (r: Resource): void => {
      cuts.push(`${r.row.name}${r.changes.row ? ' row' : ''}`);
      const { waiters } = r.changes;
      r.changes = new Changes();
      // what folds changes pages while the batch is on its way
      if (r.row.name === 'staged' && foldings-- > 0) r.changes.row = true;
      r.flying = r.landing = true;
      for (const waiter of waiters) waiter(0);
      r.flying = r.landing = false;
    };
    const { operations } = operationsOn(['v', 'staged'], { cut });
    let ended: string | undefined;
    operations.replaceWith('v', 'staged', null, (error, made) => {
      ended = error?.message ?? made?.name;
    });
    expect(ended).toBe('v');
    expect(cuts.lastIndexOf('staged row')).toBe(2);
  });
});

describe('making a snapshot', () => {
  it('that does not become durable leaves its name to the store, and nothing waits for it', () => {
    let error = 5;
    const cut = (r: Resource): void => {
      for (const waiter of r.changes.waiters.splice(0)) waiter(error);
    };
    const { registry, operations } = operationsOn(['v'], { cut });
    const ended: unknown[] = [];
    const snapshot = () => operations.createSnapshot('v', 's', (error, made) => ended.push(error?.code ?? made?.name));
    snapshot();
    expect(registry.byFullName('v@s')).toBeUndefined();
    expect([registry.naming, registry.pendingFrom()]).toEqual([false, Number.POSITIVE_INFINITY]);
    error = 0;
    snapshot();
    expect(ended).toEqual(['POOL_FAILED', 'v@s']);
    expect(registry.naming).toBe(false);
  });
});

describe('the page cache', () => {
  const COUNT = 1024;

  function cache() {
    const metaAt = SegmentHeader.BYTES;
    const framesAt = metaAt + COUNT * FrameMeta.BYTES;
    const segment = new ArrayBuffer(framesAt + COUNT * FRAME_BYTES);
    const header = new DataView(segment);
    header.setUint32(SegmentHeader.frameCount, COUNT, true);
    header.setBigUint64(SegmentHeader.frameMetaOffset, BigInt(metaAt), true);
    header.setBigUint64(SegmentHeader.framesOffset, BigInt(framesAt), true);
    const reactors = { epoch: 0, safe: 0 };
    const dropped: number[] = [];
    const native: Partial<Native> = {
      segment: () => segment,
      dropFrame: (_core, frame) => dropped.push(frame),
      epochAdvance: () => ++reactors.epoch,
      epochSafe: () => reactors.safe,
    };
    return { frames: new Frames(native as Native, 0), reactors, dropped };
  }

  it('gives up one batch of pages while reactors are held up, not all of them, and goes on when they are let go', () => {
    const { frames, reactors } = cache();
    let page = 1;
    while (frames.allocate(page) !== 0) page++;
    for (let i = 0; i < 100; i++) expect(frames.allocate(page)).toBe(0);
    expect(frames.evictions).toBeLessThan(COUNT / 4);
    expect(frames.resident).toBeGreaterThan(COUNT / 2);
    reactors.safe = reactors.epoch;
    expect(frames.allocate(page)).not.toBe(0);
  });

  it('with room for all takes frames that were used, and others only for those that reactors may still see', () => {
    const { frames, reactors } = cache();
    const used = new Set<number>();
    const live: number[] = [];
    for (let page = 1; page <= 20 * COUNT; page++) {
      const frame = frames.allocate(page);
      used.add(frame);
      live.push(frame);
      if (live.length > 10) frames.discard(live.shift() as number);
      reactors.safe = Math.max(0, reactors.epoch - 5);
    }
    expect(used.size).toBeLessThan(20);
  });

  it('gives memory of frames back that nobody needed for a minute, a few in a turn', () => {
    const { frames, reactors, dropped } = cache();
    const MINUTE = 60_000;
    const allocate = (count: number) => Array.from({ length: count }, (_, i) => frames.allocate(1 + i));
    const discard = (those: number[]) => {
      for (const frame of those) frames.discard(frame);
      reactors.safe = reactors.epoch;
    };
    let now = 0;
    frames.turn(now);
    // many once, and from then on a few, each minute
    const first = allocate(200);
    discard(first);
    const few = new Set<number>();
    const minute = () => {
      const those = allocate(20);
      for (const frame of those) few.add(frame);
      discard(those);
      now += MINUTE;
      frames.turn(now);
    };
    minute();
    expect(dropped).toEqual([]);
    minute();
    minute();
    expect(dropped.length).toBeGreaterThan(0);
    expect(dropped.length).toBeLessThanOrEqual(64);
    for (let i = 0; i < 20; i++) frames.turn(now + i);
    for (let i = 0; i < 5; i++) minute();
    // each once, whatever is taken now is not among them, and what nobody ever used neither
    expect(new Set(dropped).size).toBe(dropped.length);
    expect(dropped.every((frame) => first.includes(frame) && !few.has(frame))).toBe(true);
    expect(dropped.length).toBeGreaterThan(150);
    // used again, they have memory to give back again
    discard(allocate(200));
    for (let i = 0; i < 5; i++) minute();
    for (let i = 0; i < 20; i++) frames.turn(now + i);
    expect(dropped.length).toBeGreaterThan(300);
  });
});
