/** Where bytes of a volume lie, as a reactor finds out (native/volume/spans.cc). */
import { PAGE_ENTRIES, VOLUME_OPEN, VOLUME_READ_ONLY, VolumeRecord } from '../../../src/xseg/layout.gen.ts';
import { EINVAL, ENOSPC, EROFS, ESHUTDOWN } from '../../../src/xseg/mapper/errors.ts';
import { ZEROES } from '../../../src/xseg/page-table.ts';
import type { Bugs } from '../bugs.ts';
import type { SimDisk } from '../disk.ts';
import type { SimNative } from '../native.ts';
import type { ClientRequest } from './request.ts';

const TWO32 = 2 ** 32;
const VALUE_HI_MASK = 0xffff;
const EXCLUSIVE_BIT = 0x80000000;
const BAD_BIT = 0x20000000;
/** as in volume_peer.h */
export const IO_BYTES_MAX = 1 << 20;

export interface Target {
  volume: number;
  disk: SimDisk;
  shift: number;
  blockBytes: number;
  record: number;
}

export interface Span {
  place: 'missing' | 'zero' | 'data' | 'bad' | 'in place' | 'fault';
  length: number;
  address: number;
}

export class Spans {
  constructor(
    readonly native: SimNative,
    readonly bugs: Bugs,
  ) {}

  targetOf(volume: number): Target {
    const record = this.native.recordAt(volume);
    const shift = this.native.words[record + VolumeRecord.blockShift / 4];
    return { volume, record, disk: this.native.diskOf(volume), shift, blockBytes: 2 ** shift };
  }

  sizeOf(record: number): number {
    const at = record + VolumeRecord.size / 4;
    return this.native.words[at] + this.native.words[at + 1] * TWO32;
  }

  generationOf(volume: number): number {
    return this.native.words[this.native.recordAt(volume) + VolumeRecord.generation / 4];
  }

  beyondEnd(target: Target, end: number): boolean {
    return end > this.sizeOf(target.record);
  }

  mapIsDurable(target: Target): boolean {
    const { words } = this.native;
    const dirty = words[target.record + VolumeRecord.mapDirty / 4];
    return words[target.record + VolumeRecord.mapDurable / 4] === dirty || this.bugs.has('flush-without-map');
  }

  /** errno of a request that must not begin; 0 when it may */
  refusal(request: ClientRequest): number {
    const { words } = this.native;
    const at = this.native.recordAt(request.volume);
    if (words[at + VolumeRecord.state / 4] !== VOLUME_OPEN) return ESHUTDOWN;
    const size = this.sizeOf(at);
    const changes = request.op === 'write' || request.op === 'trim' || request.op === 'zeroes';
    if (request.offset > size || request.length > size - request.offset) return changes ? ENOSPC : EINVAL;
    if (changes && (words[at + VolumeRecord.flags / 4] & VOLUME_READ_ONLY) !== 0) return EROFS;
    if (changes || request.op === 'flush') return words[at + VolumeRecord.failed / 4];
    return 0;
  }

  #entry(frame: number, index: number): number {
    const at = this.native.frameAt(frame) + index * 2;
    const value = this.native.words[at] + (this.native.words[at + 1] & VALUE_HI_MASK) * TWO32;
    return value === ZEROES ? 0 : value;
  }

  #isBad(frame: number, index: number): boolean {
    return (this.native.words[this.native.frameAt(frame) + index * 2 + 1] & BAD_BIT) !== 0;
  }

  read(target: Target, cursor: number, end: number): Span {
    const block = Math.floor(cursor / target.blockBytes);
    const frame = this.native.find(target.volume, Math.floor(block / PAGE_ENTRIES));
    if (frame < 0) return { place: 'missing', length: 0, address: 0 };
    this.native.touch(frame);
    const inside = cursor % target.blockBytes;
    const most = Math.min(end - cursor, IO_BYTES_MAX);
    let index = block % PAGE_ENTRIES;
    let length = target.blockBytes - inside;
    const first = this.#entry(frame, index);
    if (this.#isBad(frame, index) && !this.bugs.has('quarantine-ignored'))
      return { place: 'bad', length: Math.min(length, most), address: 0 };
    let expected = first;
    while (length < most && ++index < PAGE_ENTRIES) {
      if (first !== 0) expected++;
      if (this.#entry(frame, index) !== expected || this.#isBad(frame, index)) break;
      length += target.blockBytes;
    }
    length = Math.min(length, most);
    if (first === 0) return { place: 'zero', length, address: 0 };
    const address = (first - 1) * target.blockBytes + inside;
    return { place: 'data', length: Math.min(length, target.disk.room(address)), address };
  }

  write(target: Target, cursor: number, end: number, generation: number): Span {
    const { blockBytes } = target;
    const block = Math.floor(cursor / blockBytes);
    const inside = cursor % blockBytes;
    const toBlockEnd = blockBytes - inside;
    const leaf = Math.floor(block / PAGE_ENTRIES);
    const found = this.native.find(target.volume, leaf);
    if (found >= 0) this.native.touch(found);
    const ours = found >= 0 && this.native.stampedFor(found, target.volume, generation);
    let index = block % PAGE_ENTRIES;
    const writable = (i: number): number => {
      if (!ours) return 0;
      const high = this.native.words[this.native.frameAt(found) + i * 2 + 1];
      return (high & EXCLUSIVE_BIT) !== 0 ? this.#entry(found, i) : 0;
    };
    const first = writable(index);
    if (first !== 0) {
      const most = Math.min(end - cursor, IO_BYTES_MAX);
      let length = toBlockEnd;
      for (let value = first + 1; length < most && ++index < PAGE_ENTRIES && writable(index) === value; value++)
        length += blockBytes;
      const address = (first - 1) * blockBytes + inside;
      return { place: 'in place', length: Math.min(length, most, target.disk.room(address)), address };
    }
    if (toBlockEnd > end - cursor || inside !== 0)
      return { place: 'fault', length: Math.min(toBlockEnd, end - cursor), address: 0 };
    const wholeEnd = Math.min(end - (end % blockBytes), (leaf + 1) * PAGE_ENTRIES * blockBytes);
    let length = blockBytes;
    while (cursor + length < wholeEnd && writable(++index) === 0) length += blockBytes;
    return { place: 'fault', length, address: 0 };
  }
}
