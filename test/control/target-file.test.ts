/** A file that appears when it is whole. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ControlError } from '../../src/control/errors.ts';
import { TargetFile } from '../../src/control/transfer/target-file.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'atoll-target-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const at = (name: string) => path.join(folder, name);

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof ControlError ? error.code : String(error);
  }
  return 'none';
}

async function written(name: string, force: boolean): Promise<TargetFile> {
  const target = TargetFile.prepare(at(name), force);
  const out = await target.create();
  await out.writeFile('new');
  await out.close();
  return target;
}

describe('TargetFile', () => {
  it('is not there before publish(), and alone there after', async () => {
    const target = await written('f', false);
    expect(existsSync(at('f'))).toBe(false);
    expect(target.publish()).toMatchObject({ bytes: 3 });
    expect(readdirSync(folder)).toEqual(['f']);
    expect(readFileSync(at('f'), 'utf8')).toBe('new');
  });

  it('leaves nothing when discarded', async () => {
    const target = await written('f', false);
    target.discard();
    expect(readdirSync(folder)).toEqual([]);
    target.discard();
  });

  it('takes a name of 255 bytes', async () => {
    (await written('x'.repeat(255), false)).publish();
    expect(readdirSync(folder)).toEqual(['x'.repeat(255)]);
  });

  it('does not replace what is there, unless told', async () => {
    writeFileSync(at('f'), 'old');
    expect(codeOf(() => TargetFile.prepare(at('f'), false))).toBe('EXISTS');
    (await written('f', true)).publish();
    expect(readFileSync(at('f'), 'utf8')).toBe('new');
  });

  it('does not replace what appeared meanwhile', async () => {
    const target = await written('f', false);
    writeFileSync(at('f'), 'old');
    expect(codeOf(() => target.publish())).toBe('EXISTS');
    expect(readFileSync(at('f'), 'utf8')).toBe('old');
  });

  it('never replaces a folder or a link, and does not follow one', () => {
    mkdirSync(at('d'));
    writeFileSync(at('f'), 'old');
    symlinkSync(at('f'), at('l'));
    symlinkSync(at('nothing'), at('dangling'));
    for (const name of ['d', 'l', 'dangling']) {
      expect(
        codeOf(() => TargetFile.prepare(at(name), false)),
        name,
      ).toBe('EXISTS');
      expect(
        codeOf(() => TargetFile.prepare(at(name), true)),
        name,
      ).toBe('EXISTS');
    }
  });

  it('says when there is no such folder', () => {
    expect(codeOf(() => TargetFile.prepare(at('no/f'), false))).toBe('NOT_FOUND');
  });
});
