/**
 * What clients and operators do to the simulated daemon, and the model that says what they must see: volumes, snapshots, clones,
 * requests of all sizes, many at once; after every crash everything is read and compared.
 */

import { EXTENT_HOLE } from '../../src/xseg/layout.gen.ts';
import { EIO, ENOSPC } from '../../src/xseg/mapper/errors.ts';
import type { ControlReply } from '../../src/xseg/mapper/mapper.ts';
import type { SnapshotInfo, VolumeInfo } from '../../src/xseg/types.ts';
import { ROT_MIN, SECTOR } from './disk.ts';
import { expectedHash } from './expected-hash.ts';
import { Content, Frozen, isWild, Mismatch, UNREADABLE, type Write, writtenBy } from './model.ts';
import { type ClientRequest, ENOTSUP, type Op } from './reactor.ts';
import type { Flow, Wait, World } from './world.ts';

const VOLUMES_MAX = 5;
const SNAPSHOTS_MAX = 4;
const NAMES = ['ant', 'bee', 'cat', 'dog', 'elk', 'fox', 'gnu', 'hen'];
/** Requests on their way at once, of all volumes. */
const REQUESTS_MAX = 20;
/** Sectors of one request when everything is read. */
const READ_SECTORS = 512;
/** Volumes of so many sectors are used everywhere, larger ones in a few windows. */
const WHOLE_SECTORS_MAX = 16384;
const WINDOWS = 4;
const WINDOW_BLOCKS = 32;
/** Values that many writes have: so many blocks of bytes that are all over the place. */
const PATTERN_MIN = 0xc0000000;
const PATTERNS = 6;

/** Sectors [from, to). */
interface Range {
  from: number;
  to: number;
}

interface Snap {
  name: string;
  frozen: Frozen;
  /** false: a crash decides whether it exists */
  certain: boolean;
  busy: boolean;
  /** of the whole, once it is sealed; and the step at which that was seen */
  hash: string | null;
  sealedAt: number;
}

class Volume {
  /** what it may hold: one content but after a crash that came between two */
  contents: Content[];
  readonly snaps = new Map<string, Snap>();
  readonly writes = new Set<Write>();
  /** asked and not answered, writes and others */
  requests = 0;
  handle = -1;
  opens = 0;
  /** a control operation, or the reading after a crash, has it for itself */
  busy = false;
  /** no new requests: it is to be closed */
  closing = false;
  /** false: a crash decides whether it exists */
  certain = true;
  /** a rename that was not answered: the name it may have by now */
  otherName: string | null = null;
  /** where requests may go while its size changes, sectors */
  limit = Number.POSITIVE_INFINITY;
  /** sizes it was given: what was on its way across one of these has no clear outcome */
  resizes = 0;
  /** writes since a snapshot was asked for, while one is being made */
  window: Write[] | null = null;

  constructor(
    public name: string,
    readonly pool: number,
    content: Content,
    public windows: Range[],
  ) {
    this.contents = [content];
  }

  get content(): Content {
    return this.contents[0];
  }

  get sectors(): number {
    return this.content.size / SECTOR;
  }
}

/** How likely what is; each life of the daemon has its own. */
type Wishes = Record<
  | 'write'
  | 'read'
  | 'trim'
  | 'zeroes'
  | 'flush'
  | 'status'
  | 'open'
  | 'close'
  | 'create'
  | 'snapshot'
  | 'clone'
  | 'rollback'
  | 'resize'
  | 'rename'
  | 'dropSnapshot'
  | 'drop'
  | 'verify'
  | 'flushAll'
  | 'setPool'
  | 'rot',
  number
>;

export class Workload {
  readonly volumes: Volume[] = [];
  #nextValue = 1;
  #names = 0;
  #wishes!: Wishes;
  #kinds!: (keyof Wishes)[];
  /** share of the writes that write what others wrote */
  #equal = 0;
  /** no new work: everything is being deleted */
  #draining = false;
  /** nobody has said yet what there is */
  #taking = false;

  /** false: snapshots are sealed at the end only, all at once */
  readonly #sealsEarly: boolean;

  constructor(readonly world: World) {
    this.#sealsEarly = world.rng.chance(0.6);
    world.workload = () => this.#something();
  }

  // ---- a life

  /** The daemon is up: sees what there is, reads it all, and begins. */
  begin(): void {
    const { rng } = this.world;
    const much = () => rng.pick([0, 0.5, 1, 1, 2]);
    this.#wishes = {
      write: 30,
      read: 8 * much(),
      trim: 6 * much(),
      zeroes: 4 * much(),
      flush: 6 * much() + 1,
      status: 2 * much(),
      open: 8,
      close: 1.5 * much(),
      create: 2,
      snapshot: 4 * much(),
      clone: 4 * much(),
      rollback: 1.5 * much(),
      resize: 2 * much(),
      rename: 0.5 * much(),
      dropSnapshot: 4 * much(),
      drop: 1 * much(),
      verify: 1 * much(),
      flushAll: 0.2 * much(),
      setPool: 0.5 * much(),
      rot: rng.chance(0.1) ? 0.3 : 0,
    };
    this.#equal = rng.pick([0, 0.2, 0.7]);
    this.#kinds = Object.keys(this.#wishes) as (keyof Wishes)[];
    for (const volume of this.volumes) {
      volume.handle = -1;
      volume.opens = 0;
      volume.requests = 0;
      volume.writes.clear();
      volume.window = null;
      volume.closing = false;
      volume.limit = Number.POSITIVE_INFINITY;
      volume.busy = true;
    }
    this.#taking = true;
    this.world.spawn(this.#take());
  }

  /** A crash, or a clean stop: what was on its way may or may not have happened. */
  ended(powerCut: boolean, clean: boolean): void {
    this.#powerCut = powerCut;
    for (const volume of this.volumes) if (clean) for (const content of volume.contents) content.stopped();
  }

  #powerCut = true;

  /** What the store has, against what must be, may be, must not be. */
  *#take(): Flow {
    const volumes = this.#value<VolumeInfo[]>(yield this.world.call('listVolumes'));
    const snaps = this.#value<SnapshotInfo[]>(yield this.world.call('listSnapshots'));
    for (const volume of [...this.volumes]) {
      const info = volumes.find((v) => v.name === volume.name) ?? volumes.find((v) => v.name === volume.otherName);
      if (info === undefined) {
        if (volume.certain) this.world.fail(`volume ${volume.name} is gone`);
        if (snaps.some((s) => s.volume === volume.name))
          this.world.fail(`${volume.name} is gone, its snapshots are not`);
        this.volumes.splice(this.volumes.indexOf(volume), 1);
        continue;
      }
      const had = volume.name;
      volume.name = info.name;
      volume.otherName = null;
      volume.certain = true;
      volume.contents = volume.contents.filter((c) => c.size === info.size);
      if (volume.contents.length === 0) this.world.fail(`${had} has ${info.size} bytes`);
      for (const snap of [...volume.snaps.values()]) {
        const there = snaps.find((s) => s.name === `${volume.name}@${snap.name}`);
        if (there === undefined) {
          if (snap.certain) this.world.fail(`snapshot ${volume.name}@${snap.name} is gone`);
          volume.snaps.delete(snap.name);
          continue;
        }
        if (there.size !== snap.frozen.size) this.world.fail(`${there.name} has ${there.size} bytes`);
        snap.certain = true;
        snap.busy = true;
      }
      this.world.spawn(this.#compare(volume));
    }
    for (const info of volumes)
      if (!this.volumes.some((v) => v.name === info.name))
        this.world.fail(`volume ${info.name} is there and was deleted`);
    for (const info of snaps)
      if (!this.volumes.some((v) => v.name === info.volume && v.snaps.has(info.snapshot)))
        this.world.fail(`snapshot ${info.name} is there and was deleted`);
    this.#taking = false;
    if (this.world.rng.chance(0.5)) this.world.spawn(this.#setPool());
  }

  /** Reads all of a volume and its snapshots after a crash. */
  *#compare(volume: Volume): Flow {
    const found = new Map<number, number>();
    // what cannot be read now, the next life reads
    if (!(yield* this.#readAll(volume.name, volume.windows, volume.content.size, found))) return;
    this.#decide(volume, found);
    for (const snap of volume.snaps.values()) {
      yield* this.#verify(volume, snap);
      snap.busy = false;
    }
    volume.busy = false;
  }

  /** Which of the contents it may have is what was found. */
  #decide(volume: Volume, found: Map<number, number>): void {
    let first: string | null = null;
    for (const content of volume.contents) {
      const wrong = this.#differs(content, found);
      if (wrong === null) {
        content.survived(found, this.#powerCut, this.world.now);
        volume.contents = [content];
        return;
      }
      first ??= wrong;
    }
    this.world.fail(`${volume.name} after a crash: ${first}`);
  }

  #differs(content: Content, found: Map<number, number>): string | null {
    for (const [sector, value] of found)
      if (!isWild(value) && !content.afterCrash(sector).includes(value))
        return `sector ${sector} reads ${value}, may be ${content.afterCrash(sector)}`;
    for (const sector of content.sectors()) {
      const value = found.get(sector) ?? 0;
      if (!isWild(value) && !content.afterCrash(sector).includes(value))
        return `sector ${sector} reads ${value}, may be ${content.afterCrash(sector)}`;
    }
    return null;
  }

  /** Reads the windows of a resource; `found` gets what is not zero, `seen` what there was and when it was asked. */
  *#readAll(
    name: string,
    windows: Range[],
    size: number,
    found: Map<number, number>,
    seen?: (sectors: Uint32Array, asked: number) => void,
  ): Generator<Wait, boolean, never> {
    const reply = (yield this.world.call('open', name)) as ControlReply;
    if (reply.error !== undefined) {
      this.#expect(reply, []);
      return false;
    }
    const { handle } = reply.value as { handle: number };
    let good = true;
    for (const window of windows) {
      for (let at = window.from; at < Math.min(window.to, size / SECTOR); at += READ_SECTORS) {
        const count = Math.min(READ_SECTORS, window.to - at, size / SECTOR - at);
        const read = this.#request('read', handle, at, count);
        const asked = this.world.steps;
        yield (resume) => {
          read.done = resume as unknown as ClientRequest['done'];
          this.world.submit(this.world.rng.int(8), read);
        };
        if (read.error !== 0) {
          this.#expectErrno(read, 'read of everything');
          // a block in quarantine stays unreadable; what else cannot be read now, the next life reads
          if (this.world.rotten && !this.world.faulty) read.sectors.fill(UNREADABLE);
          else good = false;
        }
        for (let i = 0; i < count; i++) if (read.sectors[i] !== 0) found.set(at + i, read.sectors[i]);
        if (this.world.rotten) seen?.(read.sectors, asked);
      }
    }
    if (good && windows.length > 1) yield* this.#nothingElse(name, handle, windows, size);
    yield this.world.call('release', handle);
    return good;
  }

  /** Outside of its windows nothing is mapped. */
  *#nothingElse(name: string, handle: number, windows: Range[], size: number): Generator<Wait, void, never> {
    for (let at = 0; at < size / SECTOR; ) {
      const status = this.#request('status', handle, at, size / SECTOR - at);
      yield (resume) => {
        status.done = resume as unknown as ClientRequest['done'];
        this.world.submit(0, status);
      };
      if (status.error !== 0) {
        this.#expectErrno(status, 'status of everything');
        return;
      }
      for (let i = 0; i < status.extents.length; i += 2) {
        const to = at + status.extents[i] / SECTOR;
        const slack = 4 * 1024 * 1024; // a block that a window shares with what is beside it
        if ((status.extents[i + 1] & EXTENT_HOLE) === 0) {
          const inside = windows.some((w) => at >= w.from - slack / SECTOR && to <= w.to + slack / SECTOR);
          if (!inside) this.world.fail(`${name} has data at sectors ${at}–${to}, where nobody wrote`);
        }
        at = to;
      }
      if (status.extents.length === 0) this.world.fail(`${name}: a status without extents`);
    }
  }

  *#verify(volume: Volume, snap: Snap): Generator<Wait, void, never> {
    const found = new Map<number, number>();
    const name = `${volume.name}@${snap.name}`;
    const good = yield* this.#readAll(name, volume.windows, snap.frozen.size, found, (sectors, asked) =>
      this.#unrotten(name, snap, sectors, asked),
    );
    if (!good) return;
    try {
      snap.frozen.read(found);
    } catch (error) {
      if (!(error instanceof Mismatch)) throw error;
      this.world.fail(`${name}: ${error.message}`, error);
    }
    yield* this.#sealed(volume, snap);
  }

  /** What scrubbing found of a snapshot that was sealed when it rotted is never read again (invariant 8). */
  #unrotten(name: string, snap: Snap, sectors: Uint32Array, asked: number): void {
    for (const value of sectors) {
      if (!isWild(value) || value === UNREADABLE) continue;
      const { at, condemned } = this.world.rots[value - ROT_MIN];
      if (snap.sealedAt < at && condemned < asked) this.world.fail(`${name} shows rot that was found before`);
    }
  }

  /** The hash of the whole, once there is one, is that of what the snapshot holds, and stays. */
  *#sealed(volume: Volume, snap: Snap): Generator<Wait, void, never> {
    const name = `${volume.name}@${snap.name}`;
    const reply = (yield this.world.call('showSnapshot', name)) as ControlReply;
    if (reply.error !== undefined) {
      this.#expect(reply, []);
      return;
    }
    const { hash } = reply.value as SnapshotInfo;
    if (snap.hash !== null && hash !== snap.hash) this.world.fail(`${name} had the hash ${snap.hash}, has ${hash}`);
    if (hash === null || snap.hash !== null || !snap.frozen.known) return;
    // what rotted before it was sealed has a hash of its own
    const shift = this.world.disks[volume.pool].row.block_shift;
    const wanted = expectedHash(snap.frozen.values, snap.frozen.size, shift);
    if (!this.world.rotten && hash !== wanted) this.world.fail(`${name} has the hash ${hash}, holds ${wanted}`);
    snap.hash = hash;
    snap.sealedAt = this.world.steps;
  }

  // ---- errors

  /** Errors are failures, but in a life that was broken on purpose. */
  #expect(reply: ControlReply, allowed: string[]): boolean {
    if (reply.error === undefined) return true;
    if (!this.world.faulty && !allowed.includes(reply.error.code))
      this.world.fail(`${reply.error.code}: ${reply.error.message}`);
    return false;
  }

  #value<T>(reply: ControlReply): T {
    if (reply.error !== undefined) this.world.fail(`${reply.error.code}: ${reply.error.message}`);
    return reply.value as T;
  }

  #expectErrno(request: ClientRequest, what: string): void {
    if (request.error === EIO && this.world.rotten) return;
    if (!this.world.faulty) this.world.fail(`${what} at ${request.offset}+${request.length}: errno ${request.error}`);
  }

  // ---- work

  #request(op: Op, volume: number, from: number, sectors: number): ClientRequest {
    return {
      op,
      fua: false,
      noHole: false,
      fastZero: false,
      volume,
      offset: from * SECTOR,
      length: sectors * SECTOR,
      sectors: new Uint32Array(op === 'read' || op === 'write' ? sectors : 0),
      extents: [],
      context: -1,
      done: () => undefined,
      error: 0,
      cursor: 0,
      pending: 0,
      retries: 0,
      stage: 'data',
      wait: 'no',
    };
  }

  #something(): void {
    const { world } = this;
    if (world.inFlight >= REQUESTS_MAX || this.#draining || this.#taking) return;
    const { rng } = world;
    const kind = this.#kinds[rng.weighted(Object.values(this.#wishes))];
    if (kind === 'create' || this.volumes.length === 0) {
      if (this.volumes.length < VOLUMES_MAX && (kind === 'create' || world.inFlight === 0)) world.spawn(this.#create());
      return;
    }
    if (kind === 'setPool') {
      world.spawn(this.#setPool());
      return;
    }
    if (kind === 'rot') {
      this.#rot();
      return;
    }
    if (kind === 'flushAll') {
      world.spawn(this.#flushAll());
      return;
    }
    const volume = rng.pick(this.volumes);
    if (kind === 'write' || kind === 'trim' || kind === 'zeroes') this.#change(volume, kind);
    else if (kind === 'read') this.#read(volume);
    else if (kind === 'flush') this.#flush(volume);
    else if (kind === 'status') this.#status(volume);
    else if (kind === 'open') this.#open(volume);
    else if (kind === 'close') this.#close(volume);
    else this.#operate(volume, kind);
  }

  #operate(volume: Volume, kind: keyof Wishes): void {
    if (volume.busy) return;
    const { world } = this;
    const { rng } = world;
    const snaps = [...volume.snaps.values()].filter((s) => !s.busy);
    const snap = snaps.length > 0 ? rng.pick(snaps) : undefined;
    if (kind === 'snapshot') {
      if (volume.snaps.size < SNAPSHOTS_MAX) world.spawn(this.#snapshot(volume));
    } else if (kind === 'resize') world.spawn(this.#resize(volume));
    else if (kind === 'rename') world.spawn(this.#rename(volume));
    else if (kind === 'drop') {
      if (this.volumes.length > 1 && snaps.length === volume.snaps.size) world.spawn(this.#drop(volume));
    } else if (snap === undefined) return;
    else if (kind === 'clone') {
      if (this.volumes.length < VOLUMES_MAX && snap.frozen.known) world.spawn(this.#clone(volume, snap));
    } else if (kind === 'rollback') {
      if (snap.frozen.known) world.spawn(this.#rollback(volume, snap));
    } else if (kind === 'dropSnapshot') world.spawn(this.#dropSnapshot(volume, snap));
    else if (kind === 'verify') world.spawn(this.#look(volume, snap));
  }

  #name(): string | null {
    const { rng } = this.world;
    const taken = (name: string) => this.volumes.some((v) => v.name === name || v.otherName === name);
    const free = NAMES.filter((name) => !taken(name));
    return free.length === 0 ? null : rng.pick(free);
  }

  // ---- requests

  #usable(volume: Volume): boolean {
    return volume.opens > 0 && !volume.closing;
  }

  /** A place for a request: mostly near where others are. */
  #place(volume: Volume): Range | null {
    const { rng } = this.world;
    const window = rng.pick(volume.windows);
    const end = Math.min(window.to, volume.sectors, volume.limit);
    if (end <= window.from) return null;
    const room = end - window.from;
    const near = rng.chance(0.6) ? Math.min(room, 128) : room;
    const from = window.from + rng.int(near);
    const block = 2 ** this.world.disks[volume.pool].row.block_shift / SECTOR;
    const what = rng.int(10);
    if (what < 5) return { from, to: Math.min(end, from + 1 + rng.int(block)) };
    const aligned = Math.max(window.from, from - (from % block));
    if (what < 8) return { from: aligned, to: Math.min(end, aligned + block * (1 + rng.int(4))) };
    if (what < 9) return { from, to: Math.min(end, from + 1 + rng.int(block * 40)) };
    return { from: aligned, to: Math.min(end, aligned + block * (1 + rng.int(600))) };
  }

  #change(volume: Volume, op: 'write' | 'trim' | 'zeroes'): void {
    if (!this.#usable(volume)) return;
    const { world } = this;
    const { rng } = world;
    let place = this.#place(volume);
    if (place === null) return;
    if (op !== 'write' && rng.chance(0.1) && volume.limit === Number.POSITIVE_INFINITY)
      place = { from: rng.chance(0.5) ? 0 : place.from, to: volume.sectors };
    const range = place;
    for (const other of volume.writes) if (other.from < range.to && range.from < other.from + other.count) return;
    const count = range.to - range.from;
    const request = this.#request(op, volume.handle, range.from, count);
    request.fua = rng.chance(0.1);
    request.noHole = op === 'zeroes' && count < 4096 && rng.chance(0.4);
    request.fastZero = op === 'zeroes' && rng.chance(0.2);
    const write: Write = {
      from: range.from,
      count,
      base: 0,
      cycle: 0,
      issued: world.steps,
      answered: Number.POSITIVE_INFINITY,
      failed: false,
    };
    if (op === 'write') this.#fill(write, request.sectors, 2 ** world.disks[volume.pool].row.block_shift / SECTOR);
    const { content, resizes } = volume;
    content.issue(write);
    volume.writes.add(write);
    volume.window?.push(write);
    volume.requests++;
    world.say(
      () => `${op} ${volume.name} sectors ${range.from}–${range.to} base ${write.base}${request.fua ? ' FUA' : ''}`,
    );
    request.done = () => {
      volume.requests--;
      volume.writes.delete(write);
      write.answered = world.steps;
      world.say(() => `${op} ${volume.name} ${range.from} base ${write.base} answered ${request.error}`);
      if (request.error === 0) {
        if (request.fua) content.durable(write);
        return;
      }
      write.failed = true;
      if (request.error === ENOTSUP && request.fastZero) return;
      if (request.error === ENOSPC && (this.#mayBeFull(volume) || volume.resizes !== resizes)) return;
      this.#expectErrno(request, `${op} on ${volume.name}`);
    };
    world.submit(rng.int(8), request);
  }

  /** What is written: something new, or what others write too, or zeroes. */
  #fill(write: Write, sectors: Uint32Array, block: number): void {
    const { rng } = this.world;
    if (rng.chance(this.#equal)) {
      if (rng.chance(0.1)) return;
      write.cycle = block;
      // blocks that begin anywhere else hold something else
      write.base = PATTERN_MIN + rng.int(PATTERNS) * 2 ** 20 + (write.from % block) * 2 ** 10;
    } else {
      write.base = this.#nextValue;
      this.#nextValue += write.count;
    }
    for (let i = 0; i < sectors.length; i++) sectors[i] = writtenBy(write, i);
  }

  #mayBeFull(volume: Volume): boolean {
    return this.world.disks[volume.pool].row.size > 0;
  }

  #read(volume: Volume): void {
    const { content } = volume;
    this.#observe(volume, 'read', (request, from, issued) => content.checkRead(request.sectors, from, issued));
  }

  /** What is called a hole reads as zeroes. */
  #status(volume: Volume): void {
    if (volume.limit !== Number.POSITIVE_INFINITY) return;
    const { content } = volume;
    this.#observe(volume, 'status', (request, from, issued) => {
      let at = from;
      for (let i = 0; i < request.extents.length; i += 2) {
        const count = request.extents[i] / SECTOR;
        if ((request.extents[i + 1] & EXTENT_HOLE) !== 0) content.checkRead(new Uint32Array(count), at, issued);
        at += count;
      }
    });
  }

  /** A request that changes nothing: `check` says by a Mismatch that its answer cannot be. */
  #observe(volume: Volume, op: Op, check: (request: ClientRequest, from: number, issued: number) => void): void {
    if (!this.#usable(volume)) return;
    const range = this.#place(volume);
    if (range === null) return;
    const { world } = this;
    const request = this.#request(op, volume.handle, range.from, range.to - range.from);
    const issued = world.steps;
    const { content, resizes } = volume;
    content.observers++;
    volume.requests++;
    request.done = () => {
      volume.requests--;
      content.observers--;
      if (volume.resizes !== resizes) return;
      if (request.error !== 0) {
        this.#expectErrno(request, `${op} of ${volume.name}`);
        return;
      }
      try {
        check(request, range.from, issued);
      } catch (error) {
        if (!(error instanceof Mismatch)) throw error;
        world.fail(`${op} of ${volume.name}: ${error.message}`, error);
      }
    };
    world.submit(world.rng.int(8), request);
  }

  #flush(volume: Volume): void {
    if (!this.#usable(volume)) return;
    const { world } = this;
    const request = this.#request('flush', volume.handle, 0, 0);
    const issued = world.steps;
    const { content } = volume;
    volume.requests++;
    world.say(() => `flush ${volume.name}`);
    request.done = () => {
      volume.requests--;
      world.say(() => `flush ${volume.name} of ${issued} answered ${request.error}`);
      if (request.error === 0) content.flushed(issued);
      else this.#expectErrno(request, `flush of ${volume.name}`);
    };
    world.submit(world.rng.int(8), request);
  }

  #open(volume: Volume): void {
    if (volume.opens > 2 || volume.closing || volume.busy) return;
    this.world.spawn(this.#opening(volume));
  }

  *#opening(volume: Volume): Flow {
    volume.busy = true;
    const reply = (yield this.world.call('open', volume.name)) as ControlReply;
    volume.busy = false;
    if (!this.#expect(reply, [])) return;
    volume.handle = (reply.value as { handle: number }).handle;
    volume.opens++;
  }

  #close(volume: Volume): void {
    if (volume.busy || volume.opens === 0 || volume.closing) return;
    if (volume.opens > 1) {
      volume.opens--;
      this.world.spawn(this.#one(this.world.call('release', volume.handle)));
      return;
    }
    volume.busy = true;
    this.world.spawn(this.#closeThen(volume));
  }

  *#one(wait: Wait): Flow {
    yield wait;
  }

  *#closeThen(volume: Volume): Flow {
    yield* this.#closed(volume);
    volume.busy = false;
  }

  /** Waits until nothing is on its way, then closes. */
  *#closed(volume: Volume): Generator<Wait, void, never> {
    volume.closing = true;
    while (volume.requests > 0) yield this.#later();
    while (volume.opens > 0) {
      volume.opens--;
      yield this.world.call('release', volume.handle);
    }
    volume.handle = -1;
    volume.closing = false;
  }

  /** A later event: any control request that changes nothing. */
  #later(): Wait {
    return this.world.call('handleOf', 'nobody');
  }

  // ---- operations

  *#create(): Flow {
    const { rng, disks } = this.world;
    const name = this.#name();
    if (name === null) return;
    const pool = rng.int(disks.length);
    const blockBytes = 2 ** disks[pool].row.block_shift;
    const leaf = blockBytes * 512;
    const size =
      SECTOR *
      Math.ceil((rng.pick([0.05, 0.3, 1, 2.5, 2.5, 700, 512 * 512 * 1.5]) * leaf * (0.5 + rng.next() / 2)) / SECTOR);
    const volume = new Volume(name, pool, new Content(size), windowsOf(size, blockBytes));
    volume.certain = false;
    volume.busy = true;
    this.volumes.push(volume);
    const reply = (yield this.world.call('createVolume', { name, size, pool: disks[pool].row.name })) as ControlReply;
    if (!this.#expect(reply, [])) return;
    volume.certain = true;
    volume.busy = false;
  }

  *#snapshot(volume: Volume): Flow {
    const { world } = this;
    const name = `s${this.#names++}`;
    volume.busy = true;
    const { content } = volume;
    content.observers++;
    const asked = world.steps;
    volume.window = [...volume.writes];
    // after a crash it may be there, with what it may have by then
    const frozen = new Frozen(content.size, new Map(), []);
    const pending: Snap = { name, frozen, certain: false, busy: true, hash: null, sealedAt: Number.POSITIVE_INFINITY };
    volume.snaps.set(name, pending);
    this.#unfinished.set(pending, () => {
      pending.frozen = new Frozen(content.size, content.snapshot(asked), volume.window ?? []);
    });
    const reply = (yield world.call('createSnapshot', volume.name, name)) as ControlReply;
    if (!this.#expect(reply, [])) return; // a crash decides
    this.#unfinished.delete(pending);
    pending.frozen = new Frozen(content.size, content.snapshot(asked), volume.window ?? []);
    pending.certain = true;
    content.observers--;
    volume.window = null;
    const early = world.rng.chance(0.5);
    if (early) volume.busy = false;
    yield* this.#verify(volume, pending);
    pending.busy = false;
    if (!early) volume.busy = false;
  }

  /** What has to be written down when a crash comes before an answer. */
  readonly #unfinished = new Map<object, () => void>();

  /** A crash: called before anything else. */
  interrupted(): void {
    for (const run of this.#unfinished.values()) run();
    this.#unfinished.clear();
  }

  *#look(volume: Volume, snap: Snap): Flow {
    snap.busy = true;
    yield* this.#verify(volume, snap);
    snap.busy = false;
  }

  *#clone(volume: Volume, snap: Snap): Flow {
    const { rng } = this.world;
    const name = this.#name();
    if (name === null) return;
    snap.busy = true;
    const grown = rng.chance(0.2) ? snap.frozen.size + SECTOR * rng.int(5000) : undefined;
    const size = grown ?? snap.frozen.size;
    const clone = new Volume(name, volume.pool, Content.of(size, snap.frozen.values), volume.windows);
    clone.certain = false;
    clone.busy = true;
    this.volumes.push(clone);
    const from = `${volume.name}@${snap.name}`;
    const reply = (yield this.world.call('createVolume', { name, from, size: grown })) as ControlReply;
    if (!this.#expect(reply, [])) return;
    clone.certain = true;
    clone.busy = false;
    snap.busy = false;
  }

  *#rollback(volume: Volume, snap: Snap): Flow {
    volume.busy = true;
    snap.busy = true;
    yield* this.#closed(volume);
    const before = volume.content;
    const after = Content.of(snap.frozen.size, snap.frozen.values);
    volume.contents = [before, after];
    const reply = (yield this.world.call('rollback', `${volume.name}@${snap.name}`)) as ControlReply;
    if (!this.#expect(reply, [])) return;
    volume.contents = [after];
    volume.busy = false;
    snap.busy = false;
  }

  *#resize(volume: Volume): Flow {
    const { rng } = this.world;
    const before = volume.content.size;
    const least = Math.max(SECTOR, ...[...volume.snaps.values()].map((s) => s.frozen.size));
    const wanted = Math.ceil((before * rng.pick([0.3, 0.7, 0.95, 1.05, 1.5, 3])) / SECTOR) * SECTOR;
    // one that is read whole stays small enough for that
    const most = volume.windows.length === 1 ? WHOLE_SECTORS_MAX * SECTOR : 2 ** 44;
    const size = Math.max(Math.min(wanted, most), least);
    if (size === before) return;
    const small = Math.min(size, before) / SECTOR;
    // what is on its way beyond the end that is to be has no clear outcome when it is let in later
    if (size > before && [...volume.writes].some((w) => w.from + w.count > small)) return;
    volume.busy = true;
    volume.resizes++;
    volume.limit = small;
    const content = volume.content;
    if (size < before) {
      // until it is answered, what goes may be gone or not
      const gone: Write = {
        from: small,
        count: before / SECTOR - small,
        base: 0,
        cycle: 0,
        issued: this.world.steps,
        answered: Number.POSITIVE_INFINITY,
        failed: true,
      };
      content.issue(gone);
    }
    this.#unfinished.set(volume, () => {
      const other = content.copy();
      other.size = size;
      if (size < before) other.cut(small);
      volume.contents = [content, other];
    });
    const reply = (yield this.world.call('resizeVolume', volume.name, size)) as ControlReply;
    if (!this.#expect(reply, ['NO_SPACE'])) {
      if (!this.world.faulty) {
        this.#unfinished.delete(volume);
        volume.limit = Number.POSITIVE_INFINITY;
        volume.busy = false;
      }
      return;
    }
    this.#unfinished.delete(volume);
    content.size = size;
    if (size < before) content.cut(small);
    volume.limit = Number.POSITIVE_INFINITY;
    volume.busy = false;
  }

  *#rename(volume: Volume): Flow {
    const name = this.#name();
    if (name === null) return;
    if ([...volume.snaps.values()].some((s) => s.busy)) return;
    volume.busy = true;
    volume.otherName = name;
    for (const snap of volume.snaps.values()) snap.busy = true;
    const reply = (yield this.world.call('renameVolume', volume.name, name)) as ControlReply;
    if (!this.#expect(reply, [])) return;
    volume.name = name;
    volume.otherName = null;
    volume.busy = false;
    for (const snap of volume.snaps.values()) snap.busy = false;
  }

  *#dropSnapshot(volume: Volume, snap: Snap): Flow {
    snap.busy = true;
    snap.certain = false;
    const reply = (yield this.world.call('deleteSnapshot', `${volume.name}@${snap.name}`)) as ControlReply;
    if (!this.#expect(reply, [])) return;
    volume.snaps.delete(snap.name);
  }

  *#drop(volume: Volume): Flow {
    volume.busy = true;
    for (const snap of volume.snaps.values()) snap.busy = true;
    yield* this.#closed(volume);
    volume.certain = false;
    const reply = (yield this.world.call('deleteVolume', volume.name, { withSnapshots: true })) as ControlReply;
    if (!this.#expect(reply, [])) return;
    this.volumes.splice(this.volumes.indexOf(volume), 1);
  }

  /** Sealing and scrubbing of a pool: on and off, fast and slow. */
  *#setPool(): Flow {
    const { rng, disks } = this.world;
    const reply = (yield this.world.call('setPool', 1 + rng.int(disks.length), {
      seal: this.#sealsEarly && rng.chance(0.9),
      sealPaused: rng.chance(0.15),
      sealRate: rng.pick([0, 0, 0, 2 ** 22]),
      scrubRate: rng.pick([0, 0, 2 ** 20, 2 ** 26]),
    })) as ControlReply;
    this.#expect(reply, []);
  }

  /** A sealed block rots, and mostly somebody scrubs soon. */
  #rot(): void {
    const { world } = this;
    if (!world.rot() || world.rng.chance(0.2)) return;
    const { pool } = world.rots[world.rots.length - 1];
    world.spawn(this.#one(world.call('setPool', pool, { scrubRate: 2 ** 26 })));
  }

  *#flushAll(): Flow {
    const issued = this.world.steps;
    // those that nobody has open may have nothing in the mapper that could be flushed
    const contents = this.volumes.filter((v) => v.opens > 0).map((v) => v.content);
    const reply = (yield this.world.call('flushAll')) as ControlReply;
    if (this.#expect(reply, []) && !this.world.faulty) for (const content of contents) content.flushed(issued);
  }

  // ---- the end

  /** Lets what is on its way come to an end. False: it died meanwhile. */
  quiesce(stepsMax: number): boolean {
    const { world } = this;
    this.#draining = true;
    try {
      for (let i = 0; world.inFlight > 0; i++) {
        if (i > stepsMax) world.fail('what was asked does not end');
        if (world.step()) return false;
      }
      return true;
    } finally {
      this.#draining = false;
    }
  }

  /** With nobody at work every snapshot becomes sealed, and new equal blocks end in one slot. False: it died meanwhile. */
  sealAll(stepsMax: number): boolean {
    const { world } = this;
    const { reader, db } = world.store;
    this.#draining = true;
    const until = (done: () => boolean, what: string): boolean => {
      for (let i = 0; !done(); i++) {
        if (i > stepsMax) world.fail(`${what}, which does not end`);
        if (world.step()) return false;
      }
      return true;
    };
    const busy = () => this.volumes.some((v) => v.busy || [...v.snaps.values()].some((s) => s.busy));
    const queued = () => (db.prepare('SELECT count(*) AS n FROM release').get() as { n: number }).n;
    if (!until(() => !busy() && world.inFlight === 0, 'what was asked is waited for')) return false;
    world.slowClock();
    if (!until(() => queued() === 0, 'space is freed')) return false;
    const before = this.#twice();
    for (const { row } of world.disks)
      world.spawn(this.#one(world.call('setPool', row.id, { seal: true, sealPaused: false, sealRate: 0 })));
    if (!until(() => world.inFlight === 0 && reader.seal.unsealed().length === 0, 'snapshots are sealed')) return false;
    for (const hash of this.#twice())
      if (!before.has(hash) && !world.rotten) world.fail(`two slots of the index have the hash ${hash}`);
    for (const volume of this.volumes) for (const snap of volume.snaps.values()) world.spawn(this.#look(volume, snap));
    if (!until(() => !busy(), 'sealed snapshots are read')) return false;
    for (const volume of this.volumes)
      for (const snap of volume.snaps.values())
        if (snap.hash === null && snap.frozen.known) world.fail(`${volume.name}@${snap.name} has no hash`);
    world.account();
    this.#draining = false;
    return true;
  }

  /** Hashes that more than one slot of a pool has in the index. */
  #twice(): Set<string> {
    const sql = `SELECT pool || ':' || hex(hash) FROM sealed WHERE bad IS NULL GROUP BY pool, hash HAVING count(*) > 1`;
    return new Set(this.world.store.db.prepare(sql).pluck().all() as string[]);
  }

  /** Deletes everything, and waits until all space has come back. False: it died meanwhile. */
  drain(stepsMax: number): boolean {
    const { world } = this;
    this.#draining = true;
    let done = false;
    world.spawn(
      this.#drained(() => {
        done = true;
      }),
    );
    for (let i = 0; !done; i++) {
      if (i > stepsMax) world.fail(`space does not come back: ${this.#leftovers()}`);
      if (world.step()) {
        this.#draining = false;
        return false;
      }
    }
    this.#draining = false;
    const left = this.#leftovers();
    if (left !== '') world.fail(`everything is deleted, and there is left: ${left}`);
    world.check('after everything was deleted');
    return true;
  }

  *#drained(done: () => void): Flow {
    while (this.volumes.some((v) => v.busy || [...v.snaps.values()].some((s) => s.busy))) yield this.#later();
    for (const volume of [...this.volumes]) yield* this.#drop(volume);
    for (;;) {
      const usage = this.#value<{ usedBytes: number; reclaimingBytes: number }[]>(yield this.world.call('poolUsage'));
      if (usage.every((u) => u.usedBytes === 0 && u.reclaimingBytes === 0) && this.#leftovers() === '') break;
    }
    done();
  }

  #leftovers(): string {
    const count = (table: string) =>
      (this.world.store.db.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
    return ['page', 'page_ref', 'slot_ref', 'release', 'resource', 'sealed', 'page_hash', 'resource_hash']
      .map((table) => [table, count(table)] as const)
      .filter(([, n]) => n > 0)
      .map(([table, n]) => `${n} × ${table}`)
      .join(', ');
  }
}

/** Where requests to a volume go: everywhere, or in a few places of a large one. */
function windowsOf(size: number, blockBytes: number): Range[] {
  const sectors = size / SECTOR;
  if (sectors <= WHOLE_SECTORS_MAX) return [{ from: 0, to: 2 ** 45 }];
  const windows: Range[] = [];
  for (let i = 0; i < WINDOWS; i++) {
    const block = blockBytes / SECTOR;
    const at = Math.floor((sectors * i) / WINDOWS / block) * block;
    windows.push({ from: at, to: at + WINDOW_BLOCKS * block });
  }
  return windows;
}
