/** Bitmaps of slot groups: bit `i` of byte `i >> 3`, 1 = used. */

export function bitGet(bitmap: Uint8Array, index: number): boolean {
  return ((bitmap[index >> 3] >> (index & 7)) & 1) === 1;
}

/** Sets [from, from+count) to `value`; returns how many bits changed. */
export function bitFill(bitmap: Uint8Array, from: number, count: number, value: boolean): number {
  let changed = 0;
  let i = from;
  const end = from + count;
  while (i < end) {
    if ((i & 7) === 0 && end - i >= 8) {
      const old = bitmap[i >> 3];
      const now = value ? 0xff : 0;
      changed += popcount8(old ^ now);
      bitmap[i >> 3] = now;
      i += 8;
      continue;
    }
    const mask = 1 << (i & 7);
    const isSet = (bitmap[i >> 3] & mask) !== 0;
    if (isSet !== value) {
      bitmap[i >> 3] ^= mask;
      changed++;
    }
    i++;
  }
  return changed;
}

function popcount8(byte: number): number {
  let n = byte - ((byte >> 1) & 0x55);
  n = (n & 0x33) + ((n >> 2) & 0x33);
  return (n + (n >> 4)) & 0x0f;
}

export function bitCount(bitmap: Uint8Array): number {
  let n = 0;
  for (const byte of bitmap) n += popcount8(byte);
  return n;
}

/** First run of clear bits at or after `from`, at most `max` long. Returns [start, length]; length 0 when there is none. */
export function findClearRun(bitmap: Uint8Array, bits: number, from: number, max: number): [number, number] {
  let i = from;
  while (i < bits) {
    if ((i & 7) === 0) {
      while (i + 8 <= bits && bitmap[i >> 3] === 0xff) i += 8;
      if (i >= bits) break;
    }
    if (!bitGet(bitmap, i)) {
      const start = i;
      const end = Math.min(bits, start + max);
      while (i < end && !bitGet(bitmap, i)) {
        if ((i & 7) === 0 && i + 8 <= end && bitmap[i >> 3] === 0) i += 8;
        else i++;
      }
      return [start, i - start];
    }
    i++;
  }
  return [0, 0];
}

/** First run of set bits at or after `from`, at most `max` long. Returns [start, length]; length 0 when there is none. */
export function findSetRun(bitmap: Uint8Array, bits: number, from: number, max: number): [number, number] {
  let i = from;
  while (i < bits && !bitGet(bitmap, i)) i += (i & 7) === 0 && bitmap[i >> 3] === 0 ? 8 : 1;
  if (i >= bits) return [0, 0];
  const start = i;
  const end = Math.min(bits, start + max);
  while (i < end && bitGet(bitmap, i)) i += (i & 7) === 0 && i + 8 <= end && bitmap[i >> 3] === 0xff ? 8 : 1;
  return [start, i - start];
}
