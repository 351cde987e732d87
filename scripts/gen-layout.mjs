#!/usr/bin/env node
// Writes what native code and TypeScript share (native/segment/layout.json) as a C++ header and a TypeScript module.
// Both results are committed, so that a build needs no generator and a change of layout shows in review;
// test/xseg/layout.test.ts fails when they are not current.
//
//   node scripts/gen-layout.mjs            write both files
//   node scripts/gen-layout.mjs --check    exit 1 when one of them is not current
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const WIDTHS = { u8: 1, u16: 2, u32: 4, u64: 8, i32: 4 };
const CPP_TYPES = { u8: 'uint8_t', u16: 'uint16_t', u32: 'uint32_t', u64: 'uint64_t', i32: 'int32_t' };

/** One field with its place worked out: `count` values of `width` bytes, `stride` bytes apart. */
function parseField(structName, name, [type, offset, why]) {
  const match = /^(u8|u16|u32|u64|i32)(?:\[(\d+):(\d+)\])?$/.exec(type);
  if (!match) throw new Error(`${structName}.${name}: unknown type ${type}`);
  const width = WIDTHS[match[1]];
  const count = match[2] ? Number(match[2]) : 1;
  const stride = match[3] ? Number(match[3]) : width;
  if (offset % width !== 0 || stride % width !== 0) throw new Error(`${structName}.${name}: not aligned`);
  return {
    name,
    base: match[1],
    width,
    count,
    stride,
    offset,
    why,
    bytes: count * stride,
    array: match[2] !== undefined,
  };
}

function parse(layout) {
  const structs = Object.entries(layout.structs).map(([name, spec]) => {
    const fields = Object.entries(spec.fields).map(([field, value]) => parseField(name, field, value));
    let end = 0;
    for (const field of fields) {
      if (field.offset < end) throw new Error(`${name}.${field.name}: overlaps the field before it`);
      end = field.offset + field.bytes;
    }
    if (end > spec.bytes) throw new Error(`${name}: fields end at ${end}, beyond its ${spec.bytes} bytes`);
    return { name, native: spec.native ?? name, bytes: spec.bytes, fields };
  });
  const constants = Object.entries(layout.constants).map(([name, { value, why }]) => {
    if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name}: not a safe unsigned integer`);
    return { name, value, why };
  });
  return { constants, structs, bits: Object.entries(layout.bits) };
}

const camelConstant = (name) => `k${name.toLowerCase().replace(/(^|_)(\w)/g, (_, __, c) => c.toUpperCase())}`;
const snake = (name) => name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
const GENERATED = 'Written by scripts/gen-layout.mjs from native/segment/layout.json. Do not edit.';

function cppField(field) {
  const type = CPP_TYPES[field.base];
  const why = field.why ? `  // ${field.why}` : '';
  if (!field.array) return `  ${type} ${snake(field.name)} = 0;${why}`;
  return `  Strided<${type}, ${field.stride}> ${snake(field.name)}[${field.count}] = {};${why}`;
}

function cppStruct({ name, native, bytes, fields }) {
  const lines = [native === name ? null : `/// layout.json "${name}"`, `struct alignas(8) ${native} {`];
  let at = 0;
  let gaps = 0;
  const pad = (to) => {
    if (to > at) lines.push(`  uint8_t reserved${gaps++}[${to - at}] = {};`);
  };
  for (const field of fields) {
    pad(field.offset);
    lines.push(cppField(field));
    at = field.offset + field.bytes;
  }
  pad(bytes);
  lines.push('};');
  for (const f of fields) lines.push(`static_assert(offsetof(${native}, ${snake(f.name)}) == ${f.offset});`);
  lines.push(`static_assert(sizeof(${native}) == ${bytes} && std::is_trivially_copyable_v<${native}>);`);
  return lines.filter((line) => line !== null).join('\n');
}

function cppFile({ constants, structs, bits }) {
  const lines = constants.map(({ name, value, why }) => {
    const wide = value > 0xffffffff;
    return `inline constexpr ${wide ? 'uint64_t' : 'uint32_t'} ${camelConstant(name)} = ${value}${wide ? 'ull' : 'u'};  // ${why}`;
  });
  return `// ${GENERATED}
// clang-format off
#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace atoll_native {

${lines.join('\n')}

${bits.map(([, text]) => `// ${text}`).join('\n')}

/// One value that has \`Stride\` bytes to itself, so that threads that write neighbours do not share a cache line.
template <typename T, size_t Stride>
struct Strided {
  T value = 0;
  uint8_t reserved[Stride - sizeof(T)] = {};
};

// Fields that several threads touch are accessed through std::atomic_ref (segment/atomic.h); the structs stay plain,
// because other processes and TypeScript read the same bytes.

${structs.map(cppStruct).join('\n\n')}

}  // namespace atoll_native
`;
}

function tsStruct({ name, bytes, fields }) {
  const lines = [`/** byte offsets of \`${name}\` */`, `export const ${name} = {`, `  BYTES: ${bytes},`];
  for (const field of fields) {
    const what = [field.array ? `${field.base} × ${field.count}` : field.base, field.why].filter(Boolean).join(': ');
    lines.push(`  /** ${what} */`, `  ${field.name}: ${field.offset},`);
    if (field.array) lines.push(`  ${field.name}Stride: ${field.stride},`);
  }
  lines.push('} as const;');
  return lines.join('\n');
}

function tsFile({ constants, structs, bits }) {
  const lines = constants.map(({ name, value, why }) => `/** ${why} */\nexport const ${name} = ${value};`);
  return `// ${GENERATED}

${lines.join('\n')}

${bits.map(([, text]) => `// ${text}`).join('\n')}

${structs.map(tsStruct).join('\n\n')}
`;
}

const parsed = parse(JSON.parse(readFileSync(join(root, 'native/segment/layout.json'), 'utf8')));
const outputs = [
  ['native/segment/layout.gen.h', cppFile(parsed)],
  ['src/xseg/layout.gen.ts', tsFile(parsed)],
];
let stale = 0;
for (const [path, text] of outputs) {
  if (!process.argv.includes('--check')) {
    writeFileSync(join(root, path), text);
  } else if (readFileSync(join(root, path), 'utf8') !== text) {
    console.error(`${path} is not current: run node scripts/gen-layout.mjs`);
    stale++;
  }
}
process.exit(stale === 0 ? 0 : 1);
