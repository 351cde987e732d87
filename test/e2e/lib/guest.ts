/**
 * A guest under QEMU without hardware help, with one virtio disk and guest-init.sh as its only program.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { World } from './daemon.ts';

/** TCG on a busy machine takes its time; a boot takes 5 to 15 s. */
const RUN_MS_MAX = 240_000;
const MEMORY_MIB = 192;

/** The newest kernel of Debian's cloud kernel package, or null when there is none that this user may read. */
export function findKernel(): { image: string; version: string } | null {
  let names: string[];
  try {
    names = fs.readdirSync('/boot');
  } catch {
    return null;
  }
  const found = names.filter((name) => /^vmlinuz-.*-cloud-(amd64|arm64)$/.test(name)).sort();
  const name = found.at(-1);
  if (name === undefined) return null;
  const image = path.join('/boot', name);
  const version = name.slice('vmlinuz-'.length);
  if (!fs.existsSync(path.join('/lib/modules', version))) return null;
  try {
    fs.accessSync(image, fs.constants.R_OK);
  } catch {
    return null;
  }
  return { image, version };
}

/** The lines that a guest said, without their `GUEST: `. */
export class GuestRun {
  constructor(readonly lines: readonly string[]) {}

  /** What `word N SUM` lines said, by N. */
  sums(word: 'found' | 'wrote'): Map<number, string> {
    const sums = new Map<number, string>();
    for (const line of this.lines) {
      const [first, number, sum] = line.split(' ');
      if (first === word && number !== undefined && sum !== undefined) sums.set(Number(number), sum);
    }
    return sums;
  }
}

/**
 * Runs a guest until it powers off.
 *
 * @param uri of its disk
 * @param boots what guest-init.sh boots up to
 */
export async function runGuest(
  world: World,
  kernel: { image: string; version: string },
  initrd: string,
  uri: string,
  boots: number,
): Promise<GuestRun> {
  const qemu = process.arch === 'arm64' ? 'qemu-system-aarch64' : 'qemu-system-x86_64';
  const machine = process.arch === 'arm64' ? ['-machine', 'virt', '-cpu', 'max'] : ['-machine', 'q35', '-cpu', 'max'];
  const tty = process.arch === 'arm64' ? 'ttyAMA0' : 'ttyS0';
  const argv = [
    ...machine,
    '-accel',
    'tcg',
    '-m',
    `${MEMORY_MIB}M`,
    '-nodefaults',
    '-display',
    'none',
    '-serial',
    'stdio',
  ];
  argv.push('-kernel', kernel.image, '-initrd', initrd);
  argv.push('-append', `console=${tty} quiet panic=1 atoll.boots=${boots}`);
  argv.push('-blockdev', JSON.stringify(blockdev(uri)), '-device', 'virtio-blk-pci,drive=disk');
  const text = await world.children.run(qemu, argv, { signal: AbortSignal.timeout(RUN_MS_MAX) });
  const lines = text.split(/\r?\n/).flatMap((line) => {
    const at = line.indexOf('GUEST: ');
    return at < 0 ? [] : [line.slice(at + 'GUEST: '.length).trim()];
  });
  const failed = lines.find((line) => line.startsWith('failed'));
  if (failed !== undefined) throw new Error(`the guest ${failed}`);
  if (lines.at(-1) !== 'powers off') throw new Error(`the guest did not get to its end: ${text.slice(-2000)}`);
  return new GuestRun(lines);
}

function blockdev(uri: string) {
  const { pathname, searchParams } = new URL(uri);
  return {
    driver: 'raw',
    'node-name': 'disk',
    file: {
      driver: 'nbd',
      export: decodeURIComponent(pathname.slice(1)),
      server: { type: 'unix', path: searchParams.get('socket') },
    },
  };
}
