/** What both languages share is generated from native/segment/layout.json; both results are committed and current. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import * as layout from '../../src/xseg/layout.gen.ts';

const file = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));

test('1. the generated files are current', () => {
  const check = spawnSync(process.execPath, [file('scripts/gen-layout.mjs'), '--check'], { encoding: 'utf8' });
  expect(check.stderr).toBe('');
  expect(check.status).toBe(0);
});

test('2. TypeScript has every constant and every field of the description', () => {
  const description = JSON.parse(readFileSync(file('native/segment/layout.json'), 'utf8'));
  const generated = layout as unknown as Record<string, unknown>;
  for (const [name, { value }] of Object.entries<{ value: number }>(description.constants)) {
    expect(generated[name], name).toBe(value);
  }
  for (const [name, struct] of Object.entries<{ bytes: number; fields: Record<string, [string, number]> }>(
    description.structs,
  )) {
    const offsets = generated[name] as Record<string, number>;
    expect(offsets.BYTES, name).toBe(struct.bytes);
    for (const [field, [, offset]] of Object.entries(struct.fields)) {
      expect(offsets[field], `${name}.${field}`).toBe(offset);
    }
  }
});

test('3. constants that follow from each other agree', () => {
  expect(layout.PAGE_ENTRIES).toBe(1 << layout.PAGE_ENTRIES_SHIFT);
  expect(layout.FRAME_BYTES).toBe(layout.PAGE_ENTRIES * 8);
  expect(layout.SLOT_NONE).toBe(2 ** 48 - 1);
  expect(layout.PAGE_BLOB_MAX).toBe(layout.PAGE_HEADER_BYTES + layout.PAGE_ENTRIES * 12);
  expect(layout.SegmentHeader.reactorEpochStride * layout.REACTORS_MAX + layout.SegmentHeader.reactorEpoch).toBe(
    layout.SegmentHeader.mapperAsleep,
  );
});
