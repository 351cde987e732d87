/** Runs qemu-img: it knows the formats and copies well. What it opens is decided here, not guessed by it. */
import { spawn } from 'node:child_process';
import { ControlError, type ErrorCode, oneLine } from '../errors.ts';

export interface QemuImgOptions {
  /** what comes behind the subcommand */
  args: string[];
  /** becomes descriptor SOURCE_FD of qemu-img */
  sourceFd?: number;
  /** how the source is called in messages, instead of our descriptor */
  sourceName?: string;
  /** @param share 0..1 */
  onProgress?: (share: number) => void;
  signal: AbortSignal;
}

const SOURCE_FD = 3;
/** the opened file itself, whatever its name means to qemu-img and whoever renames it meanwhile */
export const SOURCE_PATH = `/proc/self/fd/${SOURCE_FD}`;

/** requests that qemu-img keeps on their way (its own limit) */
const COROUTINES = 16;
/** of its messages we keep the end */
const STDERR_BYTES_MAX = 16 * 1024;

/** arguments that all conversions have: progress, out of order and parallel, runs of 4 KiB of zeroes stay holes */
export const CONVERT_ARGS = ['-p', '-W', '-m', String(COROUTINES), '-S', '4k'];

/**
 * @throws {ControlError} TOOL_MISSING, INTERRUPTED, NO_SPACE, …
 */
export async function convert(options: QemuImgOptions): Promise<void> {
  const { status, stderr } = await run('convert', options);
  if (status !== 0) throw failure(stderr, options.sourceName);
}

/** exit codes of `qemu-img check` that mean that all data can be reached */
const CHECK_SOUND = 0;
const CHECK_LEAKS = 3;
const CHECK_CORRUPT = 2;

/**
 * Proves that an image's tables lead to data that is there: `convert` reads what lies beyond the end of a file that was cut off
 * as zeroes, and calls it a success.
 * @throws {ControlError} DAMAGED, …
 */
export async function check(options: QemuImgOptions): Promise<void> {
  const { status, stderr } = await run('check', options);
  if (status === CHECK_SOUND || status === CHECK_LEAKS) return;
  if (status !== CHECK_CORRUPT) throw failure(stderr, options.sourceName);
  const name = options.sourceName ?? 'the source';
  const text = `${name}: the qcow2 image is damaged or cut off (qemu-img check lists how); get it again, or repair it`;
  throw new ControlError('DAMAGED', text);
}

async function run(subcommand: string, options: QemuImgOptions): Promise<{ status: number | null; stderr: string }> {
  const { signal, onProgress } = options;
  if (signal.aborted) throw interrupted();
  const child = spawn('qemu-img', [subcommand, ...options.args], {
    stdio: ['ignore', 'pipe', 'pipe', options.sourceFd ?? 'ignore'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  const kill = () => child.kill('SIGTERM');
  signal.addEventListener('abort', kill, { once: true });
  let stderr = '';
  child.stdout!.on('data', (chunk: Buffer) => {
    if (onProgress) progressOf(chunk.toString('latin1'), onProgress);
  });
  child.stderr!.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString('utf8')).slice(-STDERR_BYTES_MAX);
  });
  try {
    const status = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (signal.aborted && status !== 0) throw interrupted();
    return { status, stderr };
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== 'ENOENT') throw error;
    throw new ControlError('TOOL_MISSING', 'qemu-img is not installed; on Debian: apt-get install qemu-utils');
  } finally {
    signal.removeEventListener('abort', kill);
  }
}

/** `    (12.34/100%)\r`, several at once */
function progressOf(text: string, onProgress: (share: number) => void): void {
  const matches = [...text.matchAll(/\((\d+(?:\.\d+)?)\/100%\)/g)];
  const last = matches.at(-1)?.[1];
  if (last !== undefined) onProgress(Number(last) / 100);
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

function failure(stderr: string, sourceName: string | undefined): ControlError {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '');
  const last = lines.findLast((line) => line.startsWith('qemu-img:')) ?? lines.at(-1) ?? 'it gave no reason';
  const text = oneLine(last.replace(/^qemu-img:\s*/, '')).replaceAll(SOURCE_PATH, sourceName ?? 'the source');
  const code = CODES.find(([pattern]) => pattern.test(stderr))?.[1] ?? 'INTERNAL';
  return new ControlError(code, `qemu-img: ${text}`);
}

export function interrupted(): ControlError {
  return new ControlError('INTERRUPTED', 'interrupted; nothing was kept');
}
