/** What guests do to volumes that are open: requests of all sizes, many at once; every answer is compared with the model. */
import { EXTENT_HOLE } from '../../../src/xseg/layout.gen.ts';
import { EIO, ENOSPC } from '../../../src/xseg/mapper/errors.ts';
import { SECTOR } from '../disk.ts';
import { Mismatch, type Write, writtenBy } from '../model.ts';
import { type ClientRequest, ENOTSUP, newRequest, type Op } from '../reactor/request.ts';
import type { World } from '../world.ts';
import type { Ledger } from './ledger.ts';
import type { Range, Volume } from './volume.ts';

/** of ten places: some whole blocks */
const WHOLE = 5;

export class Guests {
  readonly world: World;
  /** share of the writes that write what others wrote */
  equal = 0;
  /** share of the writes that a flush follows at once */
  flushed = 0;

  constructor(readonly ledger: Ledger) {
    this.world = ledger.world;
  }

  #blockSectors(volume: Volume): number {
    return 2 ** this.world.disks[volume.pool].row.block_shift / SECTOR;
  }

  /** A place for a request: mostly near where others are. */
  #place(volume: Volume): Range | null {
    const { rng, profile } = this.world;
    const window = rng.pick(volume.windows);
    const end = Math.min(window.to, volume.sectors, volume.limit);
    if (end <= window.from) return null;
    const room = end - window.from;
    const near = rng.chance(0.6) ? Math.min(room, 128) : room;
    const from = window.from + rng.int(near);
    const block = this.#blockSectors(volume);
    const what = profile.whole > 0 && rng.chance(profile.whole) ? WHOLE : rng.int(10);
    if (what < 5) return { from, to: Math.min(end, from + 1 + rng.int(block)) };
    const aligned = Math.max(window.from, from - (from % block));
    if (what < 8) return { from: aligned, to: Math.min(end, aligned + block * (1 + rng.int(4))) };
    if (what < 9) return { from, to: Math.min(end, from + 1 + rng.int(block * 40)) };
    return { from: aligned, to: Math.min(end, aligned + block * (1 + rng.int(600))) };
  }

  /** @param wanted where; anywhere else */
  change(volume: Volume, op: 'write' | 'trim' | 'zeroes', wanted?: Range): void {
    if (!volume.usable) return;
    const { world } = this;
    const { rng } = world;
    let place = wanted ?? this.#place(volume);
    if (place === null || place.to > Math.min(volume.sectors, volume.limit)) return;
    if (op !== 'write' && rng.chance(0.1) && volume.limit === Number.POSITIVE_INFINITY)
      place = { from: rng.chance(0.5) ? 0 : place.from, to: volume.sectors };
    const range = place;
    for (const other of volume.writes) if (other.from < range.to && range.from < other.from + other.count) return;
    const count = range.to - range.from;
    const request = newRequest(op, volume.handle, range.from, count);
    request.fua = rng.chance(0.1);
    request.noHole = op === 'zeroes' && count < 4096 && rng.chance(world.profile.noHole);
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
    if (op === 'write') this.#fill(write, request.sectors, this.#blockSectors(volume));
    this.#send(volume, op, write, request);
  }

  #send(volume: Volume, op: Op, write: Write, request: ClientRequest): void {
    const { world } = this;
    const { content, resizes } = volume;
    content.issue(write);
    volume.writes.add(write);
    volume.window?.push(write);
    volume.requests++;
    const { from, count, base } = write;
    world.say(() => `${op} ${volume.name} sectors ${from}–${from + count} base ${base}${request.fua ? ' FUA' : ''}`);
    request.done = () => {
      volume.requests--;
      volume.writes.delete(write);
      write.answered = world.steps;
      world.say(() => `${op} ${volume.name} ${from} base ${base} answered ${request.error}`);
      if (request.error === 0) {
        if (world.rng.chance(this.flushed)) this.flush(volume);
        if (!request.fua) return;
        content.durable(write);
        world.promises++;
        return;
      }
      write.failed = true;
      if (request.error === ENOTSUP && request.fastZero) return;
      if (request.error === ENOSPC && (this.#mayBeFull(volume) || volume.resizes !== resizes)) return;
      this.ledger.expectErrno(request, `${op} on ${volume.name}`);
    };
    world.submit(world.rng.int(8), request);
  }

  /** What is written: something new, or what others write too, or zeroes. */
  #fill(write: Write, sectors: Uint32Array, block: number): void {
    const { rng } = this.world;
    if (rng.chance(this.equal)) {
      if (rng.chance(0.1)) return;
      write.cycle = block;
      write.base = this.ledger.values.pattern(write.from % block);
    } else {
      write.base = this.ledger.values.fresh(write.count);
    }
    for (let i = 0; i < sectors.length; i++) sectors[i] = writtenBy(write, i);
  }

  #mayBeFull(volume: Volume): boolean {
    return this.world.disks[volume.pool].row.size > 0;
  }

  read(volume: Volume): void {
    const { content } = volume;
    this.#observe(volume, 'read', (request, from, issued) => content.checkRead(request.sectors, from, issued));
  }

  /** What is called a hole reads as zeroes. */
  status(volume: Volume): void {
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
    if (!volume.usable) return;
    const range = this.#place(volume);
    if (range === null) return;
    const { world } = this;
    const request = newRequest(op, volume.handle, range.from, range.to - range.from);
    const issued = world.steps;
    const { content, resizes } = volume;
    content.observers++;
    volume.requests++;
    request.done = () => {
      volume.requests--;
      content.observers--;
      if (volume.resizes !== resizes) return;
      if (request.error !== 0) {
        this.ledger.expectErrno(request, `${op} of ${volume.name}`);
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

  /** @param again after one that failed: clients ask once more, and must not be told that all is well */
  flush(volume: Volume, again = false): void {
    if (!volume.usable) return;
    const { world } = this;
    const request = newRequest('flush', volume.handle, 0, 0);
    const issued = world.steps;
    const { content } = volume;
    volume.requests++;
    world.say(() => `flush ${volume.name}`);
    request.done = () => {
      volume.requests--;
      world.say(() => `flush ${volume.name} of ${issued} answered ${request.error}`);
      if (request.error === 0) {
        if (volume.flushFailed <= issued) world.fail(`a flush of ${volume.name} is answered 0 after one that failed`);
        content.flushed(issued);
        world.promises++;
        return;
      }
      this.ledger.expectErrno(request, `flush of ${volume.name}`);
      if (request.error === EIO) volume.flushFailed = Math.min(volume.flushFailed, world.steps);
      if (!again) this.flush(volume, true);
    };
    world.submit(world.rng.int(8), request);
  }
}
