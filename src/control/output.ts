/** How commands write for people: tables, facts, progress. */
import type { PoolInfo } from '../xseg/types.ts';
import { formatSize } from './sizes.ts';

export interface Column<Row> {
  title: string;
  value: (row: Row) => string;
  right?: boolean;
}

/** A table with aligned columns; empty when there are no rows but for its titles. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => columns.map(({ value }) => value(row)))];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => width(line[index]!))));
  const lines = cells.map((line) =>
    line
      .map((cell, index) => {
        const fill = ' '.repeat(widths[index]! - width(cell));
        return columns[index]!.right ? fill + cell : cell + fill;
      })
      .join('  ')
      .trimEnd(),
  );
  return `${lines.join('\n')}\n`;
}

/** `name   value` lines */
export function facts(entries: readonly (readonly [string, string])[]): string {
  const wide = Math.max(...entries.map(([name]) => width(name)));
  return entries.map(([name, value]) => `${name.padEnd(wide)}  ${value}\n`).join('');
}

/** Characters, not UTF-16 units; wide characters count as one, which is near enough for names. */
function width(text: string): number {
  return [...text].length;
}

export function sizeFact(bytes: number): string {
  const short = formatSize(bytes);
  return short === `${bytes} B` ? short : `${short} (${bytes} bytes)`;
}

/** A line for each pool that runs full. */
export function fullPools(pools: readonly PoolInfo[]): string[] {
  return pools
    .filter(({ level }) => level !== 'ok')
    .map(
      ({ name, fullPercent, level, freeBytes }) =>
        `pool ${name}: ${fullPercent} % full (${level}), ${formatSize(freeBytes)} left`,
    );
}

/** `2026-01-31 12:00:00` in UTC */
export function shortTime(iso: string): string {
  return iso.replace('T', ' ').replace(/(\.\d+)?Z$/, '');
}

/** `3d 4h`, `5m 12s`: the two largest units that are not zero */
export function duration(seconds: number): string {
  const units: [string, number][] = [
    ['d', 86400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ];
  let left = Math.floor(seconds);
  const words: string[] = [];
  for (const [unit, length] of units) {
    const count = Math.floor(left / length);
    left -= count * length;
    if (count > 0) words.push(`${count}${unit}`);
  }
  return words.slice(0, 2).join(' ') || '0s';
}

/** A word as a shell would want it typed. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** redrawn at most this often */
const REDRAW_MS = 100;
const BAR_WIDTH = 30;

/** A bar on the last line of a terminal; draws nothing elsewhere. */
export class ProgressBar {
  private last = 0;
  private drawn = false;

  constructor(
    private readonly label: string,
    private readonly write: ((text: string) => void) | null,
  ) {}

  /** @param share 0..1 */
  update(share: number): void {
    const now = Date.now();
    if (!this.write || (now - this.last < REDRAW_MS && share < 1)) return;
    this.last = now;
    this.drawn = true;
    const bounded = Math.min(1, Math.max(0, share));
    const full = Math.floor(bounded * BAR_WIDTH);
    const percent = `${Math.floor(bounded * 100)}`.padStart(3);
    this.write(`\r\x1b[K${this.label} [${'#'.repeat(full)}${' '.repeat(BAR_WIDTH - full)}] ${percent} %`);
  }

  /** Takes the bar away, so that what follows has the line. */
  clear(): void {
    if (this.drawn) this.write?.('\r\x1b[K');
    this.drawn = false;
  }
}
