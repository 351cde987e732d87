/** Reads all that volumes and snapshots hold, and compares it with the model. */
import { EXTENT_HOLE } from '../../../src/xseg/layout.gen.ts';
import type { ControlReply } from '../../../src/xseg/mapper/mapper.ts';
import type { SnapshotInfo } from '../../../src/xseg/types.ts';
import { ROT_MIN, SECTOR } from '../disk.ts';
import { expectedHash } from '../expected-hash.ts';
import { type Content, isWild, Mismatch, UNREADABLE } from '../model.ts';
import { type ClientRequest, newRequest } from '../reactor/request.ts';
import type { Flow, Wait, World } from '../world.ts';
import type { Ledger } from './ledger.ts';
import type { Range, Snap, Volume } from './volume.ts';

/** Sectors of one request. */
const READ_SECTORS = 512;
/** A block that a window shares with what is beside it, at most. */
const SLACK_SECTORS = (4 * 1024 * 1024) / SECTOR;

export class Audit {
  readonly world: World;
  /** the last life ended with a power cut */
  powerCut = true;

  constructor(readonly ledger: Ledger) {
    this.world = ledger.world;
  }

  /** Reads all of a volume and its snapshots after a crash. */
  *compare(volume: Volume): Flow {
    const found = new Map<number, number>();
    // what cannot be read now, the next life reads
    if (!(yield* this.#readAll(volume.name, volume, volume.content.size, found))) return;
    this.#decide(volume, found);
    for (const snap of volume.snaps.values()) {
      yield* this.verify(volume, snap);
      snap.busy = false;
    }
    volume.busy = false;
  }

  /** Which of the contents it may have is what was found. Several can be, where blocks cannot be read. */
  #decide(volume: Volume, found: Map<number, number>): void {
    const wrong = volume.contents.map((content) => differs(content, found));
    const [content, ...others] = volume.contents.filter((_, i) => wrong[i] === null);
    if (content === undefined) this.world.fail(`${volume.name} after a crash: ${wrong[0]}`);
    for (const other of others) content.orAs(other, found);
    content.survived(found, this.powerCut, this.world.now);
    volume.contents = [content];
  }

  /** A look at one snapshot. */
  *look(volume: Volume, snap: Snap): Generator<Wait, void, never> {
    snap.busy = true;
    yield* this.verify(volume, snap);
    snap.busy = false;
  }

  *verify(volume: Volume, snap: Snap): Generator<Wait, void, never> {
    const found = new Map<number, number>();
    const name = `${volume.name}@${snap.name}`;
    const good = yield* this.#readAll(name, volume, snap.frozen.size, found, (sectors, asked) =>
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

  /** What scrubbing found of a snapshot that was sealed when it rotted is never read again; verified, none is (invariant 8). */
  #unrotten(name: string, snap: Snap, sectors: Uint32Array, asked: number): void {
    for (const value of sectors) {
      if (!isWild(value) || value === UNREADABLE) continue;
      const rot = this.world.rots[value - ROT_MIN];
      if (snap.sealedAt >= rot.at) continue;
      if (rot.condemned < asked) this.world.fail(`${name} shows rot that was found before`);
      if (rot.at < asked && this.world.verified(rot))
        this.world.fail(`${name} shows rot, and reads of it are verified`);
    }
  }

  /** The hash of the whole, once there is one, is that of what the snapshot holds, and stays. */
  *#sealed(volume: Volume, snap: Snap): Generator<Wait, void, never> {
    const name = `${volume.name}@${snap.name}`;
    const reply = (yield this.world.call('showSnapshot', name)) as ControlReply;
    if (!this.ledger.expect(reply)) return;
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

  /** Reads the windows of a volume in one of its resources; `found` gets what is not zero, `seen` what there was and when it was asked. */
  *#readAll(
    name: string,
    { pool, windows }: Volume,
    size: number,
    found: Map<number, number>,
    seen?: (sectors: Uint32Array, asked: number) => void,
  ): Generator<Wait, boolean, never> {
    const { world, ledger } = this;
    const reply = (yield world.call('open', name)) as ControlReply;
    if (!ledger.expect(reply)) return false;
    const { handle } = reply.value as { handle: number };
    let good = true;
    for (const window of windows) {
      for (let at = window.from; at < Math.min(window.to, size / SECTOR); at += READ_SECTORS) {
        const count = Math.min(READ_SECTORS, window.to - at, size / SECTOR - at);
        const read = newRequest('read', handle, at, count);
        const asked = world.steps;
        yield ledger.answered(world.rng.int(8), read);
        if (read.error !== 0) {
          ledger.expectErrno(read, 'read of everything');
          // a block in quarantine stays unreadable; what else cannot be read now, the next life reads
          if (world.rotten && !world.faulty)
            yield* this.#readBlocks(read, 2 ** world.disks[pool].row.block_shift / SECTOR);
          else good = false;
        }
        for (let i = 0; i < count; i++) if (read.sectors[i] !== 0) found.set(at + i, read.sectors[i]);
        if (world.rotten) seen?.(read.sectors, asked);
      }
    }
    if (good && windows.length > 1) yield* this.#nothingElse(name, handle, windows, size);
    yield world.call('release', handle);
    return good;
  }

  /** What one block kept from being read, a block at a time. */
  *#readBlocks(whole: ClientRequest, blockSectors: number): Generator<Wait, void, never> {
    const first = whole.offset / SECTOR;
    for (let i = 0; i < whole.sectors.length; ) {
      const count = Math.min(blockSectors - ((first + i) % blockSectors), whole.sectors.length - i);
      const read = newRequest('read', whole.volume, first + i, count);
      yield this.ledger.answered(this.world.rng.int(8), read);
      if (read.error !== 0) read.sectors.fill(UNREADABLE);
      whole.sectors.set(read.sectors, i);
      i += count;
    }
  }

  /** Outside of its windows nothing is mapped. */
  *#nothingElse(name: string, handle: number, windows: Range[], size: number): Generator<Wait, void, never> {
    for (let at = 0; at < size / SECTOR; ) {
      const status = newRequest('status', handle, at, size / SECTOR - at);
      yield this.ledger.answered(0, status);
      if (status.error !== 0) {
        this.ledger.expectErrno(status, 'status of everything');
        return;
      }
      for (let i = 0; i < status.extents.length; i += 2) {
        const to = at + status.extents[i] / SECTOR;
        if ((status.extents[i + 1] & EXTENT_HOLE) === 0) {
          const inside = windows.some((w) => at >= w.from - SLACK_SECTORS && to <= w.to + SLACK_SECTORS);
          if (!inside) this.world.fail(`${name} has data at sectors ${at}–${to}, where nobody wrote`);
        }
        at = to;
      }
      if (status.extents.length === 0) this.world.fail(`${name}: a status without extents`);
    }
  }
}

/** What of `found` the content cannot have after a crash; null: nothing. */
function differs(content: Content, found: ReadonlyMap<number, number>): string | null {
  const wrong = (sector: number, value: number): boolean =>
    !isWild(value) && !content.afterCrash(sector).includes(value);
  for (const [sector, value] of found)
    if (wrong(sector, value)) return `sector ${sector} reads ${value}, may be ${content.afterCrash(sector)}`;
  for (const sector of content.sectors()) {
    const value = found.get(sector) ?? 0;
    if (wrong(sector, value)) return `sector ${sector} reads ${value}, may be ${content.afterCrash(sector)}`;
  }
  return null;
}
