/** Times as people write them: `30s`, `5m`, `1h`; the one parser. */
import { ControlError } from './errors.ts';

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3600_000, d: 86_400_000 };
const PATTERN = /^(?<count>\d{1,9})(?<unit>ms|s|m|h|d)$/;

/**
 * @returns milliseconds; `0` needs no unit
 * @throws {ControlError} INVALID
 */
export function parseDuration(text: string): number {
  if (text === '0') return 0;
  const { count, unit = '' } = PATTERN.exec(text)?.groups ?? {};
  if (count === undefined) {
    const shown = JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text);
    throw new ControlError('INVALID', `${shown} is not a time; write a number with a unit, such as 30s, 5m, 1h`);
  }
  return Number(count) * (UNIT_MS[unit] ?? 0);
}
