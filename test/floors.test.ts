import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { cruise, type IForbiddenRuleType, type IViolation } from 'dependency-cruiser';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..');

/** Who may import whom. The engine is at the bottom, its one face is engine.ts, and nothing imports upwards. */
const RULES: (IForbiddenRuleType & { name: string })[] = [
  {
    name: 'the engine knows nothing above it',
    from: { path: '^src/xseg/' },
    to: { path: '^src/(frontends|control)/' },
  },
  {
    // but for the catalog, by its face
    name: 'frontends do not know the control plane',
    from: { path: '^src/frontends/' },
    to: { path: '^src/control/', pathNot: '^src/control/catalog/(catalog|types)\\.ts$' },
  },
  {
    // engine.ts, and what it speaks: types.ts (with its error class), activity.ts, histogram.ts and names.ts load nothing, so that the CLI
    // stays quick; io-flusher.ts and giving-back.ts are for threads that have no engine
    name: 'the engine is reached through its face only',
    from: { path: '^src/(frontends|control)/' },
    to: {
      path: '^src/xseg/',
      pathNot: '^src/xseg/(engine|types|names|activity|histogram|io-flusher|giving-back)\\.ts$',
    },
  },
  {
    name: 'no two files import each other',
    from: {},
    to: { circular: true },
  },
  {
    name: 'sources import neither tests nor benchmarks',
    from: { path: '^src/' },
    to: { path: '^(test|bench)/' },
  },
  {
    name: 'every import leads somewhere',
    from: {},
    to: { couldNotResolve: true },
  },
];

async function violationsIn(baseDir: string): Promise<Map<string, string[]>> {
  const { output } = await cruise(['src'], {
    baseDir,
    ruleSet: { forbidden: RULES.map((rule) => ({ ...rule, severity: 'error' as const })) },
    validate: true,
    // Imports of types count as imports: they bind a reader just as much.
    tsPreCompilationDeps: true,
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  });
  if (typeof output === 'string') throw new Error(output);
  const found = new Map<string, string[]>(RULES.map((rule) => [rule.name, []]));
  for (const violation of output.summary.violations) found.get(violation.rule.name)?.push(asLine(violation));
  return found;
}

function asLine(violation: IViolation): string {
  const way = violation.cycle?.map((step) => step.name) ?? [violation.to];
  return [violation.from, ...way].join(' → ');
}

describe('floors', () => {
  let found: Map<string, string[]>;
  beforeAll(async () => {
    found = await violationsIn(ROOT);
  });

  test.each(RULES.map((rule) => rule.name))('%s', (name) => {
    expect(found.get(name)).toEqual([]);
  });

  test('native code outside its addon folder knows nothing of Node', () => {
    expect(nodeIncludesBelow(join(ROOT, 'native'))).toEqual([]);
  });

  test('the addon is loaded by the engine only', () => {
    const loads = filesBelow(join(ROOT, 'src'), /\.ts$/).filter(
      (file) => !file.startsWith('xseg/') && /\batoll\.node\b/.test(readFileSync(join(ROOT, 'src', file), 'utf8')),
    );
    expect(loads).toEqual([]);
  });
});

describe('the floors themselves: each rule fires on what breaks it', () => {
  const base = mkdtempSync(join(tmpdir(), 'atoll-floors-'));
  afterAll(() => rmSync(base, { recursive: true }));

  const write = (file: string, text: string) => {
    mkdirSync(dirname(join(base, file)), { recursive: true });
    writeFileSync(join(base, file), text);
  };

  test('imports', async () => {
    write('src/xseg/engine.ts', "import type { Up } from '../control/up.ts';\nexport type E = Up;\n");
    write('src/xseg/types.ts', 'export const value = 1;\nexport type T = 1;\n');
    write('src/xseg/inner.ts', 'export const inner = 1;\n');
    write('src/control/up.ts', 'export type Up = 1;\n');
    write('src/control/fine.ts', "import type { T } from '../xseg/types.ts';\nexport type F = T;\n");
    write('src/control/types.ts', "import { value } from '../xseg/types.js';\nexport const v = value;\n");
    write('src/control/inner.ts', "import { inner } from '../xseg/inner.js';\nexport const i = inner;\n");
    write('src/control/lost.ts', "import { x } from './nowhere.ts';\nexport const y = x;\n");
    write('src/control/test.ts', "import { x } from '../../test/help.ts';\nexport const y = x;\n");
    write('test/help.ts', 'export const x = 1;\n');
    write('src/frontends/nbd.ts', "import type { Up } from '../control/up.js';\nexport type N = Up;\n");
    write('src/frontends/a.ts', "import type { B } from './b.ts';\nexport type A = B;\n");
    write('src/control/catalog/catalog.ts', 'export type Face = 1;\n');
    write('src/control/catalog/writer.ts', 'export type Inside = 1;\n');
    write(
      'src/frontends/fine.ts',
      "import type { Face } from '../control/catalog/catalog.ts';\nexport type F = Face;\n",
    );
    write(
      'src/frontends/in.ts',
      "import type { Inside } from '../control/catalog/writer.ts';\nexport type I = Inside;\n",
    );
    write('src/frontends/b.ts', "import type { A } from './a.ts';\nexport type B = A;\n");
    expect(Object.fromEntries(await violationsIn(base))).toEqual({
      'the engine knows nothing above it': ['src/xseg/engine.ts → src/control/up.ts'],
      'frontends do not know the control plane': [
        'src/frontends/in.ts → src/control/catalog/writer.ts',
        'src/frontends/nbd.ts → src/control/up.ts',
      ],
      'the engine is reached through its face only': ['src/control/inner.ts → src/xseg/inner.ts'],
      'no two files import each other': [expect.stringMatching(/^src\/frontends\/[ab]\.ts → /)],
      'sources import neither tests nor benchmarks': ['src/control/test.ts → test/help.ts'],
      'every import leads somewhere': ['src/control/lost.ts → ./nowhere.ts'],
    });
  });

  test('includes', () => {
    write('native/addon/addon.cc', '#include <napi.h>\n');
    write('native/ring/ring.cc', '#include <unistd.h>\n#include "ring/ring.h"\n');
    write('native/ring/bad.cc', '  #  include <node_api.h>\n');
    write('native/map/bad.h', '#include "addon/addon.h"\n');
    expect(nodeIncludesBelow(join(base, 'native'))).toEqual([
      'map/bad.h: #include "addon/addon.h"',
      'ring/bad.cc: #  include <node_api.h>',
    ]);
  });
});

function filesBelow(folder: string, wanted: RegExp): string[] {
  return (readdirSync(folder, { recursive: true }) as string[]).filter((name) => wanted.test(name)).sort();
}

/** Includes of Node, V8, libuv, N-API or the addon's own headers, in the core, its tests or its fuzz targets. */
function nodeIncludesBelow(folder: string): string[] {
  return filesBelow(folder, /\.(cc|h)$/)
    .filter((name) => !name.startsWith('addon/'))
    .flatMap((name) =>
      readFileSync(join(folder, name), 'utf8')
        .split('\n')
        .filter((line) => /^\s*#\s*include\s*[<"](napi|node|js_native_api|v8|uv\b|libplatform|addon\/)/.test(line))
        .map((line) => `${name}: ${line.trim()}`),
    );
}
