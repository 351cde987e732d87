/** What an import takes and what it refuses: qcow2 headers made by qemu-img and by an enemy, and files of other kinds. */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlError } from '../../src/control/errors.ts';
import type { SourceFormat } from '../../src/control/transfer/formats.ts';
import { imageOptions } from '../../src/control/transfer/images.ts';
import { inspectQcow2 } from '../../src/control/transfer/qcow2.ts';
import { CONVERT_ARGS, check, convert } from '../../src/control/transfer/qemu-img.ts';
import { openSource } from '../../src/control/transfer/source.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'atoll-source-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MIB = 1 << 20;

function file(name: string, content: Buffer | string): string {
  const at = path.join(folder, name);
  writeFileSync(at, content);
  return at;
}

async function open(at: string, format?: SourceFormat) {
  const source = await openSource(at, format);
  await source.file.close();
  return { format: source.format, size: source.size, notes: source.notes };
}

async function refusal(at: string, format?: SourceFormat): Promise<{ code: string; message: string }> {
  try {
    await open(at, format);
  } catch (error) {
    if (error instanceof ControlError) return { code: error.code, message: error.message };
    throw error;
  }
  return { code: 'none', message: '' };
}

describe('raw', () => {
  it('is what nothing else is; its size is rounded up, with a note', async () => {
    expect(await open(file('a', Buffer.alloc(1024)))).toEqual({ format: 'raw', size: 1024, notes: [] });
    const odd = await open(file('b', Buffer.alloc(1025)));
    expect(odd.size).toBe(1536);
    expect(odd.notes[0]).toMatch(/1025 bytes .* 1536/);
  });

  it.each([
    ['VMDK', 'KDMV\x01\0\0\0'],
    ['VMDK', '# Disk DescriptorFile\nversion=1\n'],
    ['VHDX', 'vhdxfile'],
    ['QED', 'QED\0'],
    ['LUKS', 'LUKS\xba\xbe\0\x01'],
    ['gzip', '\x1f\x8b\x08\0'],
    ['xz', '\xfd7zXZ\0'],
    ['zstd', '\x28\xb5\x2f\xfd'],
    ['VDI', `${'<<< Oracle VM VirtualBox Disk Image >>>'.padEnd(64, '\0')}\x7f\x10\xda\xbe`],
  ])('%s is not taken for raw, unless told', async (name, start) => {
    const at = file('other', Buffer.concat([Buffer.from(start, 'latin1'), Buffer.alloc(4096)]));
    const { code, message } = await refusal(at);
    expect(code).toBe('UNSUPPORTED');
    expect(message).toContain(name);
    expect((await open(at, 'raw')).format).toBe('raw');
  });

  it('empty files, folders, FIFOs and nothing at all are refused, and nobody waits for a FIFO', async () => {
    expect((await refusal(file('empty', ''))).code).toBe('INVALID');
    mkdirSync(path.join(folder, 'dir'));
    expect((await refusal(path.join(folder, 'dir'))).code).toBe('INVALID');
    execFileSync('mkfifo', [path.join(folder, 'fifo')]);
    expect((await refusal(path.join(folder, 'fifo'))).code).toBe('INVALID');
    expect((await refusal('/dev/null')).code).toBe('INVALID');
    expect(await refusal(path.join(folder, 'none'))).toMatchObject({ code: 'NOT_FOUND' });
  });
});

describe.skipIf(spawnSync('qemu-img', ['--version']).error !== undefined)('qcow2 as qemu-img makes it', () => {
  function image(name: string, ...args: string[]): string {
    const at = path.join(folder, name);
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', ...args.slice(0, -1), at, ...args.slice(-1)]);
    return at;
  }

  it.each([
    [['10G'], 10 * 2 ** 30],
    [['-o', 'compat=0.10', '1G'], 2 ** 30],
    [['-o', 'cluster_size=512', '100M'], 100 * MIB],
    [['-o', 'cluster_size=2M', '1T'], 2 ** 40],
    [['-o', 'compression_type=zstd', '1G'], 2 ** 30],
    [['-o', 'extended_l2=on,cluster_size=128k', '1G'], 2 ** 30],
    [['-o', 'lazy_refcounts=on', '1G'], 2 ** 30],
  ])('%j is taken', async (args, size) => {
    expect(await open(image('good.qcow2', ...args))).toEqual({ format: 'qcow2', size, notes: [] });
  });

  it('a backing file is refused', async () => {
    const base = image('base.qcow2', '1G');
    const at = image('over.qcow2', '-b', base, '-F', 'qcow2', '1G');
    expect(await refusal(at)).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringContaining('backing file') });
  });

  it('a data file is refused', async () => {
    const at = image('meta.qcow2', '-o', `data_file=${path.join(folder, 'data.raw')}`, '1G');
    expect(await refusal(at)).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringContaining('another file') });
  });

  it.each(['luks', 'aes'])('encryption with %s is refused', async (format) => {
    const options = `encrypt.format=${format},encrypt.key-secret=s${format === 'luks' ? ',encrypt.iter-time=10' : ''}`;
    // LUKS counts how often a passphrase can be hashed in a time that a quick machine cannot tell from none
    const tries = format === 'luks' ? 20 : 1;
    let at = '';
    for (let i = 1; at === ''; i++)
      try {
        at = image(`${format}.qcow2`, '--object', 'secret,id=s,data=x', '-o', options, '10M');
      } catch (error) {
        if (i === tries || !String((error as Error).message).includes('accurate CPU usage')) throw error;
      }
    expect(await refusal(at)).toMatchObject({ code: 'UNSUPPORTED', message: expect.stringContaining('encrypted') });
  });

  it('internal snapshots are noted', async () => {
    const at = image('snaps.qcow2', '1G');
    execFileSync('qemu-img', ['snapshot', '-c', 'one', at]);
    expect((await open(at)).notes).toEqual(['its 1 internal snapshots are left out']);
  });

  it('an enemy’s header is never opened: any change leaves the same size, or is refused', () => {
    const head = readFileSync(image('fuzz.qcow2', '10G')).subarray(0, 65536);
    const edits = fc.array(fc.tuple(fc.integer({ min: 4, max: 160 }), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 6,
    });
    fc.assert(
      fc.property(edits, (list) => {
        const bytes = Buffer.from(head);
        for (const [at, value] of list) bytes[at] = value;
        let facts: ReturnType<typeof inspectQcow2>;
        try {
          facts = inspectQcow2(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(ControlError);
          return;
        }
        // What is taken has no backing file, no data file, no encryption, and a size within bounds.
        expect(bytes.readBigUInt64BE(8)).toBe(0n);
        expect(bytes.readUInt32BE(32)).toBe(0);
        if (bytes.readUInt32BE(4) === 3) expect(bytes.readBigUInt64BE(72) & ~25n).toBe(0n);
        expect(facts.size > 0 && facts.size <= 2 ** 50 && facts.size % 512 === 0).toBe(true);
      }),
      { numRuns: 3000 },
    );
  });

  it('any prefix of an image is taken or refused, never a crash', () => {
    const head = readFileSync(image('cut.qcow2', '10G')).subarray(0, 65536);
    for (let length = 4; length < 300; length++) {
      try {
        inspectQcow2(head.subarray(0, length));
      } catch (error) {
        expect(error, `length ${length}`).toBeInstanceOf(ControlError);
      }
    }
    expect(() => inspectQcow2(head.subarray(0, 100))).toThrow(/cut off/);
  });
});

describe('qcow2 headers by hand', () => {
  /** A version 3 header that is right, and what is changed in it. */
  function header(change: (head: Buffer) => void): Buffer {
    const head = Buffer.alloc(65536);
    head.write('QFI\xfb', 0, 'latin1');
    head.writeUInt32BE(3, 4);
    head.writeUInt32BE(16, 20);
    head.writeBigUInt64BE(2n ** 30n, 24);
    head.writeUInt32BE(2, 36);
    head.writeBigUInt64BE(0x30000n, 40);
    head.writeUInt32BE(4, 96);
    head.writeUInt32BE(112, 100);
    change(head);
    return head;
  }

  const codeOf = (head: Buffer) => {
    try {
      inspectQcow2(head);
    } catch (error) {
      if (error instanceof ControlError) return error.code;
      throw error;
    }
    return 'none';
  };

  it('the header itself is right', () => {
    expect(inspectQcow2(header(() => undefined))).toEqual({ size: 2 ** 30, notes: [] });
  });

  it.each<[string, string, (head: Buffer) => void]>([
    ['version 1', 'UNSUPPORTED', (h) => h.writeUInt32BE(1, 4)],
    ['version 4', 'UNSUPPORTED', (h) => h.writeUInt32BE(4, 4)],
    ['a backing file', 'UNSUPPORTED', (h) => h.writeBigUInt64BE(200n, 8)],
    ['a backing file’s length only', 'UNSUPPORTED', (h) => h.writeUInt32BE(5, 16)],
    ['AES', 'UNSUPPORTED', (h) => h.writeUInt32BE(1, 32)],
    ['data file bit', 'UNSUPPORTED', (h) => h.writeBigUInt64BE(4n, 72)],
    ['corrupt bit', 'DAMAGED', (h) => h.writeBigUInt64BE(2n, 72)],
    ['unknown incompatible bit', 'UNSUPPORTED', (h) => h.writeBigUInt64BE(1n << 5n, 72)],
    ['the highest bit', 'UNSUPPORTED', (h) => h.writeBigUInt64BE(1n << 63n, 72)],
    ['clusters of 256 bytes', 'DAMAGED', (h) => h.writeUInt32BE(8, 20)],
    ['clusters of 4 MiB', 'DAMAGED', (h) => h.writeUInt32BE(22, 20)],
    ['clusters of 2^4294967295', 'DAMAGED', (h) => h.writeUInt32BE(0xffffffff, 20)],
    ['size zero', 'DAMAGED', (h) => h.writeBigUInt64BE(0n, 24)],
    [
      '2 PiB',
      'TOO_LARGE',
      (h) => {
        h.writeUInt32BE(21, 20);
        h.writeUInt32BE(0x400000, 36);
        h.writeBigUInt64BE(2n ** 51n, 24);
        h.writeBigUInt64BE(0x200000n, 40);
      },
    ],
    ['a size between two sectors', 'UNSUPPORTED', (h) => h.writeBigUInt64BE(h.readBigUInt64BE(24) - 1n, 24)],
    ['all ones as size', 'DAMAGED', (h) => h.writeBigUInt64BE(2n ** 64n - 1n, 24)],
    ['an L1 table too short', 'DAMAGED', (h) => h.writeUInt32BE(1, 36)],
    ['an L1 table of 32 GiB', 'DAMAGED', (h) => h.writeUInt32BE(0xffffffff, 36)],
    ['an L1 table between clusters', 'DAMAGED', (h) => h.writeBigUInt64BE(0x30001n, 40)],
    ['wide refcounts', 'DAMAGED', (h) => h.writeUInt32BE(7, 96)],
    ['a short header', 'DAMAGED', (h) => h.writeUInt32BE(96, 100)],
    ['an odd header', 'DAMAGED', (h) => h.writeUInt32BE(113, 100)],
    ['a header of 4 GiB', 'DAMAGED', (h) => h.writeUInt32BE(0xfffffff8, 100)],
    ['a data file name extension', 'UNSUPPORTED', (h) => h.writeUInt32BE(0x44415441, 112)],
    ['a backing format extension', 'UNSUPPORTED', (h) => h.writeUInt32BE(0xe2792aca, 112)],
    ['a crypto extension', 'UNSUPPORTED', (h) => h.writeUInt32BE(0x0537be77, 112)],
    [
      'an extension without end',
      'DAMAGED',
      (h) => {
        h.writeUInt32BE(0x6803f857, 112);
        h.writeUInt32BE(0xffffffff, 116);
      },
    ],
    [
      'a hundred extensions',
      'DAMAGED',
      (h) => {
        for (let at = 112; at < 112 + 8 * 100; at += 8) h.writeUInt32BE(0x6803f857, at);
      },
    ],
    [
      'a data file name behind another extension',
      'UNSUPPORTED',
      (h) => {
        h.writeUInt32BE(0x6803f857, 112);
        h.writeUInt32BE(13, 116);
        h.writeUInt32BE(0x44415441, 112 + 8 + 16);
      },
    ],
  ])('%s is %s', (_what, code, change) => {
    expect(codeOf(header(change))).toBe(code);
  });
});

it('a backing file that an image is given after it was looked at is not read', async () => {
  const image = path.join(folder, 'late.qcow2');
  const out = path.join(folder, 'late.raw');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1M']);
  const secret = file('secret.raw', Buffer.alloc(MIB, 0x53));
  const source = await openSource(image, undefined);
  try {
    execFileSync('qemu-img', ['rebase', '-u', '-F', 'raw', '-b', secret, image]);
    const options = { sourceFd: source.file.fd, sourceName: image, signal: new AbortController().signal };
    await check({ ...options, args: [imageOptions(source)] });
    await convert({ ...options, args: [...CONVERT_ARGS, imageOptions(source), '-O', 'raw', out] });
  } finally {
    await source.file.close();
  }
  expect(readFileSync(out).equals(Buffer.alloc(MIB))).toBe(true);
});
