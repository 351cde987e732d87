/** Runs `qemu-img convert`: it knows the formats and copies well. What it opens is decided here, not guessed by it. */
import { spawn } from 'node:child_process';
import { ControlError, type ErrorCode, oneLine } from '../errors.ts';

export interface ConvertOptions {
  /** arguments from `-p` on */
  args: string[];
  /** becomes descriptor SOURCE_FD of qemu-img */
  sourceFd?: number;
  /** how the source is called in messages, instead of our descriptor */
  sourceName?: string;
  /** @param share 0..1 */
  onProgress: (share: number) => void;
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
export async function convert(options: ConvertOptions): Promise<void> {
  const { signal } = options;
  if (signal.aborted) throw interrupted();
  const stdin = 'ignore';
  const child = spawn('qemu-img', ['convert', ...options.args], {
    stdio: [stdin, 'pipe', 'pipe', options.sourceFd ?? 'ignore'],
    env: { ...process.env, LC_ALL: 'C' },
  });
  const kill = () => child.kill('SIGTERM');
  signal.addEventListener('abort', kill, { once: true });
  let stderr = '';
  child.stdout!.on('data', (chunk: Buffer) => progressOf(chunk.toString('latin1'), options.onProgress));
  child.stderr!.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk.toString('utf8')).slice(-STDERR_BYTES_MAX);
  });
  try {
    const status = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', resolve);
    });
    if (status === 0) return;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code !== 'ENOENT') throw error;
    throw new ControlError('TOOL_MISSING', 'qemu-img is not installed; on Debian: apt-get install qemu-utils');
  } finally {
    signal.removeEventListener('abort', kill);
  }
  if (signal.aborted) throw interrupted();
  throw failure(stderr, options.sourceName);
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
