/** Runs qemu-img: it knows the formats and copies well. What it opens is decided here, not guessed by it. */
import { ControlError } from '../errors.ts';
import { type Ended, failureOf, interrupted, type QemuToolOptions, startTool } from './qemu-tool.ts';

/** `args`: what comes behind the subcommand */
export interface QemuImgOptions extends QemuToolOptions {
  /** how the source is called in messages, instead of our descriptor */
  sourceName?: string;
  /** @param share 0..1 */
  onProgress?: (share: number) => void;
}

/** requests that qemu-img keeps on their way (its own limit) */
const COROUTINES = 16;

/** arguments that all conversions have: progress, out of order and parallel, runs of 4 KiB of zeroes stay holes */
export const CONVERT_ARGS = ['-p', '-W', '-m', String(COROUTINES), '-S', '4k'];

/**
 * @throws {ControlError} TOOL_MISSING, INTERRUPTED, NO_SPACE, …
 */
export async function convert(options: QemuImgOptions): Promise<void> {
  const { status, stderr } = await run('convert', options);
  if (status !== 0) throw failureOf('qemu-img', stderr, options.sourceName);
}

/** exit codes of `qemu-img check` that mean that all data can be reached */
const CHECK_SOUND = 0;
const CHECK_LEAKS = 3;
const CHECK_CORRUPT = 2;

/**
 * Proves that an image's tables lead to data that is there: QEMU reads what lies beyond the end of a file that was cut off
 * as zeroes, and calls it a success.
 * @throws {ControlError} DAMAGED, …
 */
export async function check(options: QemuImgOptions): Promise<void> {
  const { status, stderr } = await run('check', options);
  if (status === CHECK_SOUND || status === CHECK_LEAKS) return;
  if (status !== CHECK_CORRUPT) throw failureOf('qemu-img', stderr, options.sourceName);
  const name = options.sourceName ?? 'the source';
  const text = `${name}: the qcow2 image is damaged or cut off (qemu-img check lists how); get it again, or repair it`;
  throw new ControlError('DAMAGED', text);
}

async function run(subcommand: string, options: QemuImgOptions): Promise<Ended> {
  const { args, signal, onProgress } = options;
  const tool = startTool('qemu-img', { ...options, args: [subcommand, ...args] });
  tool.child.stdout?.on('data', (chunk: Buffer) => {
    if (onProgress) progressOf(chunk.toString('latin1'), onProgress);
  });
  const ended = await tool.ended;
  if (signal.aborted && ended.status !== 0) throw interrupted();
  return ended;
}

/** `    (12.34/100%)\r`, several at once */
function progressOf(text: string, onProgress: (share: number) => void): void {
  const matches = [...text.matchAll(/\((\d+(?:\.\d+)?)\/100%\)/g)];
  const last = matches.at(-1)?.[1];
  if (last !== undefined) onProgress(Number(last) / 100);
}
