/**
 * Verify on read (native/volume/verify.cc): in pools that ask for it, a block that is in the index is compared with its hash
 * before its bytes are returned, or copied.
 */
import { OP_HASH, OP_ROTTEN, REPLY_HASH, Reply, VOLUME_VERIFY, VolumeRecord } from '../../../src/xseg/layout.gen.ts';
import { EIO } from '../../../src/xseg/mapper/errors.ts';
import { blockHash } from '../../../src/xseg/seal/tree-hash.ts';
import { HASH_BYTES } from '../../../src/xseg/store/seal-batch.ts';
import { bytesOf, SECTOR } from '../disk.ts';
import type { Io } from './block-io.ts';
import { failRequest } from './request.ts';
import type { Span, Target } from './spans.ts';
import { RETRIES_MAX, type Turn, type Work } from './work.ts';

/** as in volume_peer.h */
const MISMATCHES_MAX = 3;

/** How a copy goes on. */
export interface Copier {
  unchecked(work: Work): void;
  checked(work: Work, block: Uint32Array): void;
  failed(work: Work, error: number): void;
}

export class Checks {
  copier!: Copier;

  constructor(readonly turn: Turn) {}

  verifies(target: Target): boolean {
    const flags = this.turn.native.words[target.record + VolumeRecord.flags / 4];
    return (flags & VOLUME_VERIFY) !== 0;
  }

  /** Whether the block's slot is one that this volume writes in place. */
  writtenInPlace(target: Target, cursor: number): boolean {
    const { spans } = this.turn;
    return spans.write(target, cursor, cursor + SECTOR, spans.generationOf(target.volume)).place === 'in place';
  }

  /** @param work [cursor, end) of a read, in one block; or a copy of slot `slotOld` */
  begin(work: Work, slot: number): void {
    work.mismatches = 0;
    this.#ask(work, slot);
  }

  #ask(work: Work, slot: number): void {
    work.slotOld = slot;
    this.turn.send(work, 'hash', { op: OP_HASH, block: slot });
  }

  /** The mapper says what the slot should hash to, if it is in the index. */
  onHash(work: Work, reply: Uint32Array): void {
    const error = reply[Reply.error / 4];
    if (error !== 0) {
      this.#end(work, error);
      return;
    }
    work.hash =
      reply[Reply.count / 4] === 0
        ? null
        : Buffer.from(new Uint8Array(reply.buffer, reply.byteOffset + REPLY_HASH, HASH_BYTES));
    if (!work.copying) this.look(work);
    else if (work.hash !== null) this.#readWhole(work, this.turn.spans.targetOf(work.volume));
    else this.copier.unchecked(work);
  }

  /** Looked up anew, for the I/O to be under this turn's epoch. */
  look(work: Work): void {
    const { spans } = this.turn;
    const target = spans.targetOf(work.volume);
    const span = spans.read(target, work.cursor, work.end);
    if (span.place === 'missing') {
      if (++work.retries > RETRIES_MAX) this.#end(work, EIO);
      else this.turn.sendLoad(work, 'check load', target, work.cursor, work.end);
    } else if (span.place === 'zero') {
      const from = (work.cursor - work.request.offset) / SECTOR;
      work.request.sectors.fill(0, from, from + span.length / SECTOR);
      this.#end(work, 0);
    } else if (span.place !== 'data') {
      this.#end(work, EIO);
    } else if (Math.floor(span.address / target.blockBytes) !== work.slotOld) {
      // it was folded, or written elsewhere, meanwhile
      if (++work.retries > RETRIES_MAX) this.#end(work, EIO);
      else this.#ask(work, Math.floor(span.address / target.blockBytes));
    } else if (work.hash === null) this.#readUnchecked(work, target, span);
    else this.#readWhole(work, target);
  }

  #readUnchecked(work: Work, target: Target, span: Span): void {
    const from = (work.cursor - work.request.offset) / SECTOR;
    const run = () => target.disk.read(span.address, work.request.sectors, from, span.length / SECTOR);
    if (this.turn.rng.chance(0.4)) this.turn.startIo(work, 'read', span.address, span.length, run);
    else this.#end(work, run());
  }

  #readWhole(work: Work, target: Target): void {
    const block = new Uint32Array(target.blockBytes / SECTOR);
    work.buffer = block;
    const address = work.slotOld * target.blockBytes;
    const run = () => target.disk.read(address, block, 0, block.length);
    if (this.turn.rng.chance(0.4)) this.turn.startIo(work, 'check read', address, target.blockBytes, run);
    else this.#wholeRead(work, run());
  }

  readEnded(work: Work, io: Io): void {
    this.#wholeRead(work, io.error);
  }

  #wholeRead(work: Work, error: number): void {
    const { turn } = this;
    if (error !== 0) {
      this.#end(work, error);
      return;
    }
    const block = work.buffer as Uint32Array;
    work.buffer = null;
    if (blockHash(bytesOf(block)).equals(work.hash as Buffer) || turn.bugs.has('mismatch-ignored')) {
      if (work.copying) {
        this.copier.checked(work, block);
        return;
      }
      const { blockBytes } = turn.spans.targetOf(work.volume);
      const from = (work.cursor % blockBytes) / SECTOR;
      const count = (work.end - work.cursor) / SECTOR;
      work.request.sectors.set(block.subarray(from, from + count), (work.cursor - work.request.offset) / SECTOR);
      this.#end(work, 0);
      return;
    }
    work.mismatches++;
    turn.send(work, 'rotten', { op: OP_ROTTEN, block: work.slotOld });
  }

  /** The mapper has looked at slot and index at one moment: 0 when it found nothing wrong. */
  onRotten(work: Work, error: number): void {
    if (error !== 0 || work.mismatches > MISMATCHES_MAX) this.#end(work, error || EIO);
    else this.#ask(work, work.slotOld);
  }

  onLoaded(work: Work, error: number): void {
    if (error !== 0) this.#end(work, error);
    else this.look(work);
  }

  /** Of a read it is the end; of a copy, errors are. */
  #end(work: Work, error: number): void {
    if (work.copying) {
      this.copier.failed(work, error);
      return;
    }
    if (error !== 0) failRequest(work.request, error);
    this.turn.releaseWork(work);
  }
}
