/**
 * The daemon's log: pino on stderr, one line per event. For people by default, JSON with `--log-json`.
 * Events have a name and fields; no request bodies, no queries, no file contents, so no secrets. What is logged while a
 * request of the control API is served names the request.
 */
import { type Logger, pino } from 'pino';
import { requestIds } from './request-ids.ts';

export type LogLevel = 'debug' | 'info' | 'warn' | 'error';
export type Log = (level: LogLevel, event: string, fields: Record<string, unknown>) => void;

/** Lines that somebody should have looked at, since the start. */
export class LogCounts {
  warn = 0;
  error = 0;
}

export interface LogOptions {
  json: boolean;
  /** the least that is written; default info */
  level?: LogLevel;
  counts?: LogCounts;
  /** where lines go; default stderr */
  write?: (line: string) => void;
}

const LEVEL_NAMES: Readonly<Record<number, string>> = {
  20: 'debug',
  30: 'info ',
  40: 'warn ',
  50: 'error',
  60: 'fatal',
};

export function openLog(options: LogOptions): Log {
  const write = options.write ?? ((line: string) => void process.stderr.write(line));
  // Synchronous on purpose: the line that says why the daemon exits must not be lost.
  const stream = { write: options.json ? write : (line: string) => write(forPeople(line)) };
  const level = options.level ?? 'info';
  const logger: Logger = pino({ base: null, level, timestamp: pino.stdTimeFunctions.isoTime }, stream);
  return (at, event, fields) => {
    if (options.counts && (at === 'warn' || at === 'error')) options.counts[at]++;
    const request = requestIds.getStore();
    logger[at](request === undefined ? fields : { request, ...fields }, event);
  };
}

/** `2026-01-31T12:00:00.000Z info  event key=value key="a b"` */
function forPeople(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as {
    level: number;
    time: string;
    msg?: string;
    [field: string]: unknown;
  };
  const words = [time, LEVEL_NAMES[level] ?? String(level), msg ?? ''];
  for (const [key, value] of Object.entries(fields)) words.push(`${key}=${shown(value)}`);
  return `${words.join(' ')}\n`;
}

function shown(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return /^[\w./:@%+-]+$/.test(text) ? text : typeof value === 'string' ? JSON.stringify(text) : text;
}
