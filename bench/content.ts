/** Files for the rows that keep bytes: random, so that no block is twice there unless it was asked for. */
import { randomFillSync } from 'node:crypto';
import fs from 'node:fs';

export interface Content {
  bytes: number;
  /** drawn at once, and said `times` in a row */
  piece: number;
  times: number;
}

/** Makes the file; it is on the disk then, so that nobody's sync writes it, and in the page cache. */
export function writeContent(file: string, { bytes, piece, times }: Content): void {
  const buffer = Buffer.allocUnsafe(piece);
  const out = fs.openSync(file, 'w');
  for (let at = 0, i = 0; at < bytes; at += piece, i++) {
    if (i % times === 0) randomFillSync(buffer);
    fs.writeSync(out, buffer);
  }
  fs.fsyncSync(out);
  fs.closeSync(out);
}
