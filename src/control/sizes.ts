/**
 * Sizes as people write them: bytes, or binary suffixes (64K is 65536). The one parser and the one printer.
 */
import { ControlError } from './errors.ts';

/** 1 PiB: the largest volume (docs/format.md) */
export const SIZE_MAX = 2 ** 50;
/** every size of a resource is a multiple of this: the smallest sector a guest knows */
export const SECTOR_BYTES = 512;

const SUFFIXES = 'KMGTP';
/** no size that we accept needs more; keeps the arithmetic small, whatever was typed */
const DIGITS_MAX = 24;
const PATTERN = /^(?<whole>\d+)(?:\.(?<fraction>\d+))?(?:(?<suffix>[KMGTP])(?:iB)?|B)?$/i;

/**
 * `512`, `64K`, `1.5G`, `1P`, also `64KiB`. A fraction has to come out as whole bytes.
 * @returns bytes, 1..SIZE_MAX
 * @throws {ControlError} INVALID, with what would do
 */
export function parseSize(text: string): number {
  const shown = JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
  const match = PATTERN.exec(text);
  if (!match?.groups || text.length > DIGITS_MAX) {
    const why = /^-/.test(text) ? 'is negative' : 'is not a size';
    throw new ControlError('INVALID', `${shown} ${why}; write bytes or a binary suffix, such as 512, 64K, 10G, 1P`);
  }
  const { whole = '0', fraction = '', suffix } = match.groups;
  const unit = suffix === undefined ? 1n : 1024n ** BigInt(SUFFIXES.indexOf(suffix.toUpperCase()) + 1);
  const scale = 10n ** BigInt(fraction.length);
  const scaled = (BigInt(whole) * scale + BigInt(fraction || '0')) * unit;
  if (scaled === 0n) throw new ControlError('INVALID', `${shown} is zero; a size is at least one byte`);
  if (scaled > BigInt(SIZE_MAX) * scale)
    throw new ControlError('TOO_LARGE', `${shown} is more than 1P, the largest size`);
  if (scaled % scale !== 0n) throw new ControlError('INVALID', `${shown} is not a whole number of bytes`);
  return Number(scaled / scale);
}

/**
 * The size of a volume: a size that is a multiple of SECTOR_BYTES.
 * @throws {ControlError} INVALID, with the next size that would do
 */
export function parseVolumeSize(text: string): number {
  const bytes = parseSize(text);
  if (bytes % SECTOR_BYTES !== 0) {
    const next = roundUpToSector(bytes);
    throw new ControlError('INVALID', `${bytes} bytes are not a multiple of ${SECTOR_BYTES}; ${next} would do`);
  }
  return bytes;
}

export function roundUpToSector(bytes: number): number {
  return Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
}

/** `10 GiB`, `1.5 TiB`, `512 B`: at most four digits, never rounded up past the truth of its unit */
export function formatSize(bytes: number): string {
  let unit = -1;
  let value = bytes;
  while (value >= 1024 && unit < SUFFIXES.length - 1) {
    value /= 1024;
    unit++;
  }
  if (unit < 0) return `${bytes} B`;
  const digits = Number.isInteger(value) ? 0 : value < 10 ? 2 : 1;
  const factor = 10 ** digits;
  return `${Math.floor(value * factor) / factor} ${SUFFIXES[unit]}iB`;
}
