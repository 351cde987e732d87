/** Slots that the mapper grants (native/volume/grant.cc): bytes go there, with a copy around them if need be, and it hears of it. */
import { GRANT_IN_PLACE, OP_DONE, Reply, SLOT_NONE } from '../../../src/xseg/layout.gen.ts';
import { EIO } from '../../../src/xseg/mapper/errors.ts';
import { SECTOR } from '../disk.ts';
import type { Io } from './block-io.ts';
import type { Checks } from './checks.ts';
import { failRequest } from './request.ts';
import { IO_BYTES_MAX, type Target } from './spans.ts';
import { RETRIES_MAX, type Turn, type Work } from './work.ts';
import { sourceOf, type Writes } from './writes.ts';

const TWO32 = 2 ** 32;
const ECANCELED = 125;

export class Grants {
  constructor(
    readonly turn: Turn,
    readonly writes: Writes,
    readonly checks: Checks,
  ) {
    checks.copier = {
      unchecked: (work) => this.#copy(work),
      checked: (work, block) => {
        work.buffer = block;
        this.#overlayAndWrite(work, turn.spans.targetOf(work.volume));
      },
      failed: (work, error) => this.#answer(work, error),
    };
  }

  given(work: Work, reply: Uint32Array): void {
    const { request } = work;
    const error = reply[Reply.error / 4];
    if (error !== 0) {
      failRequest(request, error);
      this.turn.releaseWork(work);
      return;
    }
    if ((reply[Reply.flags / 4] & GRANT_IN_PLACE) !== 0) {
      if (++work.retries > RETRIES_MAX) failRequest(request, EIO);
      this.writes.driveWork(work);
      return;
    }
    const target = this.turn.spans.targetOf(work.volume);
    const asked = work.pieceEnd - work.cursor;
    work.grant = reply[Reply.grant / 4];
    work.slotNew = reply[Reply.slotNew / 4] + reply[Reply.slotNew / 4 + 1] * TWO32;
    work.slotOld = reply[Reply.slotOld / 4] + reply[Reply.slotOld / 4 + 1] * TWO32;
    work.granted = Math.min(asked, reply[Reply.count / 4] * target.blockBytes);
    work.moved = 0;
    if (request.error !== 0) this.#answer(work, ECANCELED);
    else this.#move(work, target);
  }

  #move(work: Work, target: Target): void {
    const partial = work.granted < target.blockBytes;
    if (!partial || work.slotOld === SLOT_NONE) {
      this.#moveRun(work, target);
      return;
    }
    work.grantedAt = this.turn.native.clock.now();
    if (!this.checks.verifies(target) || this.turn.bugs.has('verify-copies-ignored')) {
      this.#copy(work);
      return;
    }
    // else what is wrong would be copied to where no hash tells
    work.copying = true;
    this.checks.begin(work, work.slotOld);
  }

  /** Reads what a copied block has around the write. */
  #copy(work: Work): void {
    const { rng, bugs, spans } = this.turn;
    const target = spans.targetOf(work.volume);
    work.buffer = new Uint32Array(target.blockBytes / SECTOR);
    // what the write does not cover, in one piece, around it if need be
    const from = work.cursor % target.blockBytes;
    const to = from + work.granted;
    const readFrom = from === 0 ? to : 0;
    const readTo = to === target.blockBytes ? from : target.blockBytes;
    const address = work.slotOld * target.blockBytes + readFrom;
    const buffer = work.buffer;
    let sectors = (readTo - readFrom) / SECTOR;
    if (bugs.has('copy-short')) sectors--;
    const run = () => target.disk.read(address, buffer, readFrom / SECTOR, sectors);
    if (rng.chance(0.4)) {
      this.turn.startIo(work, 'copy read', address, sectors * SECTOR, run);
      return;
    }
    this.#copied(work, target, run());
  }

  /** What a copied block had around the write has been read. */
  copyEnded(work: Work, io: Io): void {
    this.#copied(work, this.turn.spans.targetOf(work.volume), io.error);
  }

  #copied(work: Work, target: Target, error: number): void {
    if (error !== 0) this.#answer(work, error);
    else this.#overlayAndWrite(work, target);
  }

  #markWritten(target: Target, address: number): void {
    const { native, bugs } = this.turn;
    if (!bugs.has('grant-not-marked')) native.markFile(0, target.volume, target.disk.fileOf(address));
  }

  #moveRun(work: Work, target: Target): void {
    while (work.moved < work.granted) {
      const cursor = work.cursor + work.moved;
      const address = work.slotNew * target.blockBytes + (work.cursor % target.blockBytes) + work.moved;
      const length = Math.min(work.granted - work.moved, IO_BYTES_MAX, target.disk.room(address));
      const { from, at, sectors } = sourceOf(work.request, cursor, length);
      const run = () => target.disk.write(address, from, at, sectors);
      if (this.turn.rng.chance(0.5)) {
        work.moving = length;
        this.turn.startIo(work, 'move', address, length, run);
        return;
      }
      const error = run();
      if (error !== 0) {
        this.#answer(work, error);
        return;
      }
      this.#markWritten(target, address);
      work.moved += length;
    }
    this.#answer(work, 0);
  }

  #overlayAndWrite(work: Work, target: Target): void {
    const buffer = work.buffer as Uint32Array;
    const { from, at, sectors } = sourceOf(work.request, work.cursor, work.granted);
    const inside = (work.cursor % target.blockBytes) / SECTOR;
    buffer.set(from.subarray(at, at + sectors), inside);
    this.turn.native.copied(buffer, { pool: target.disk.row.id, slot: work.slotOld }, work.grantedAt);
    const address = work.slotNew * target.blockBytes;
    const run = () => target.disk.write(address, buffer, 0, buffer.length);
    if (this.turn.rng.chance(0.5)) {
      this.turn.startIo(work, 'move', address, target.blockBytes, run);
      return;
    }
    const error = run();
    if (error === 0) this.#markWritten(target, address);
    this.#answer(work, error);
  }

  moveEnded(work: Work, io: Io): void {
    const target = this.turn.spans.targetOf(work.volume);
    if (io.error !== 0) {
      this.#answer(work, io.error);
      return;
    }
    this.#markWritten(target, io.address);
    if (work.buffer !== null) {
      this.#answer(work, 0);
      return;
    }
    work.moved += work.moving;
    this.#moveRun(work, target);
  }

  #answer(work: Work, error: number): void {
    const { blockBytes } = this.turn.spans.targetOf(work.volume);
    work.buffer = null;
    if (error !== 0 && error !== ECANCELED) failRequest(work.request, error);
    this.turn.send(work, 'answered', {
      op: OP_DONE,
      grant: work.grant,
      block: Math.floor(work.cursor / blockBytes),
      count: Math.max(Math.floor(work.granted / blockBytes), 1),
      error,
    });
  }

  /** The mapper has published what was granted. */
  published(work: Work, error: number): void {
    if (error !== 0) failRequest(work.request, error);
    work.cursor += work.granted;
    this.writes.driveWork(work);
  }
}
