/** Runs QEMU's tools on the file that is imported: it is opened once, by us, and they get its descriptor. */
import { type ChildProcess, spawn } from 'node:child_process';
import { ControlError, type ErrorCode, oneLine } from '../errors.ts';

export type QemuTool = 'qemu-img' | 'qemu-nbd';

export interface QemuToolOptions {
  args: string[];
  /** becomes descriptor SOURCE_FD of the tool */
  sourceFd?: number | undefined;
  /** ends it */
  signal: AbortSignal;
}

export interface Ended {
  /** null: a signal ended it */
  status: number | null;
  /** the end of what it said */
  stderr: string;
}

export interface RunningTool {
  child: ChildProcess;
  /** @throws TOOL_MISSING */
  ended: Promise<Ended>;
}

const SOURCE_FD = 3;
/** the opened file itself, whatever its name means to QEMU and whoever renames it meanwhile */
export const SOURCE_PATH = `/proc/self/fd/${SOURCE_FD}`;

/** of its messages we keep the end */
const STDERR_BYTES_MAX = 16 * 1024;

/** @throws INTERRUPTED when that was before it began */
export function startTool(tool: QemuTool, { args, sourceFd, signal }: QemuToolOptions): RunningTool {
  if (signal.aborted) throw interrupted();
  const child = spawn(tool, args, {
    stdio: ['ignore', 'pipe', 'pipe', sourceFd ?? 'ignore'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  const ended = endOf(tool, child, signal);
  // Whoever waits hears of it.
  ended.catch(() => undefined);
  return { child, ended };
}

async function endOf(tool: QemuTool, child: ChildProcess, signal: AbortSignal): Promise<Ended> {
  const kill = () => child.kill('SIGTERM');
  signal.addEventListener('abort', kill, { once: true });
  const closed = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  let stderr = '';
  // There are no pipes where there was no descriptor for one.
  child.stderr?.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString('utf8')).slice(-STDERR_BYTES_MAX);
  });
  try {
    const status = await closed;
    return { status, stderr };
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== 'ENOENT') throw error;
    throw new ControlError('TOOL_MISSING', `${tool} is not installed; on Debian: apt-get install qemu-utils`);
  } finally {
    signal.removeEventListener('abort', kill);
  }
}

const CODES: readonly (readonly [RegExp, ErrorCode])[] = [
  [/No space left on device|Disk quota exceeded/i, 'NO_SPACE'],
  [/Is another process using the image|Failed to get .* lock/i, 'BUSY'],
  [/Permission denied/i, 'DENIED'],
  [/Read-only file system/i, 'READ_ONLY'],
  [/Connection refused|Failed to connect/i, 'NO_DAEMON'],
  [/Input\/output error/i, 'IO'],
  [/corrupt|Invalid argument/i, 'DAMAGED'],
];

/** @param sourceName how the source is called in messages, instead of our descriptor */
export function failureOf(tool: QemuTool, stderr: string, sourceName: string | undefined): ControlError {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '');
  const begin = `${tool}: `;
  const last = lines.findLast((line) => line.startsWith(begin)) ?? lines.at(-1) ?? 'it gave no reason';
  const said = last.startsWith(begin) ? last.slice(begin.length) : last;
  const text = oneLine(said).replaceAll(SOURCE_PATH, sourceName ?? 'the source');
  const code = CODES.find(([pattern]) => pattern.test(stderr))?.[1] ?? 'INTERNAL';
  return new ControlError(code, `${tool}: ${text}`);
}

export function interrupted(): ControlError {
  return new ControlError('INTERRUPTED', 'interrupted; nothing was kept');
}
