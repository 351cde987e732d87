/**
 * Runs all tests and adds them up.
 *
 *   test [--long] [STAGE...] [-- VITEST ARGUMENTS]
 *
 * Stages, in this order: lint, types, native, asan, tsan, fuzz, vitest. Without names, all. `--long` adds the clang
 * builds of the native tests, fuzzes longer, and sets ATOLL_TEST_LONG=1, which tests may look at.
 *
 * The last line is `N passed, N failed, N skipped`. A native test counts once per build that runs it (a sanitizer's run is
 * a test of its own); lint and types count only when they fail, one for each check.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { checks } from './lint.mjs';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const REPORT = path.join(ROOT, 'build/vitest.json');
const PIPE_DRAIN_MS = 5000;
const FUZZ_SECONDS = 10;
const FUZZ_SECONDS_LONG = 600;

const argv = process.argv.slice(2);
const split = argv.indexOf('--');
const forVitest = split < 0 ? [] : argv.slice(split + 1);
const mine = split < 0 ? argv : argv.slice(0, split);
const long = mine.includes('--long');
const env = { ...process.env, FORCE_COLOR: '0', NO_COLOR: '1', ...(long ? { ATOLL_TEST_LONG: '1' } : {}) };

/** Runs a command, shows its output, and keeps it. */
function run(command, args, extraEnv = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: ROOT,
      env: { ...env, ...extraEnv },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let text = '';
    child.stdout.setEncoding('utf8');
    child.stdout.on('data', (chunk) => {
      text += chunk;
      process.stdout.write(chunk);
    });
    child.on('error', (error) => resolve({ status: 127, text: `${text}${error.message}\n` }));
    child.on('close', (status, signal) => resolve({ status: status ?? signal, text }));
    // What a test left running may hold the pipe open for ever; what is in it by then is all that counts.
    child.on('exit', (status, signal) =>
      setTimeout(() => {
        child.stdout.destroy();
        resolve({ status: status ?? signal, text });
      }, PIPE_DRAIN_MS).unref(),
    );
  });
}

const hasProgram = (name) =>
  (process.env.PATH ?? '').split(':').some((folder) => fs.existsSync(path.join(folder, name)));

const none = { passed: 0, failed: 0, skipped: 0 };

/**
 * One native build: make builds and runs it. A test program counts as one test, however many checks it makes; a build that
 * fails is one failed test.
 */
async function native(...variables) {
  const { status, text } = await run('make', [
    '-s',
    `-j${os.availableParallelism()}`,
    '-C',
    'native',
    'test',
    ...variables,
  ]);
  const programs = text.match(/^== \w+$/gm)?.length ?? 0;
  const failed = text.match(/^\w+_test: exit \d+/gm)?.length ?? 0;
  if (status !== 0)
    return { ...none, passed: Math.max(0, programs - Math.max(failed, 1)), failed: Math.max(failed, 1) };
  return { ...none, passed: programs, failed: programs === 0 ? 1 : 0 };
}

/** Every fuzz target for a while, one test each; they stop at the first finding. */
async function fuzz() {
  const folder = path.join(ROOT, 'native/fuzz');
  const targets = fs.existsSync(folder)
    ? fs
        .readdirSync(folder)
        .filter((name) => name.endsWith('_fuzz.cc'))
        .map((name) => name.slice(0, -'_fuzz.cc'.length))
    : [];
  if (!hasProgram('clang++')) return { ...none, skipped: targets.length };
  const total = { ...none };
  for (const target of targets) {
    const seconds = long ? FUZZ_SECONDS_LONG : FUZZ_SECONDS;
    const { status } = await run('sh', [
      '-c',
      `exec make -s -j${os.availableParallelism()} -C native fuzz-run ONLY=${target} FUZZ_SECONDS=${seconds} 2>&1`,
    ]);
    if (status === 0) total.passed++;
    else total.failed++;
  }
  return total;
}

/**
 * Vitest's own report. A file that could not be loaded has no tests in it, and an error outside of any test is in none:
 * each counts as one failed test.
 */
async function vitest() {
  fs.rmSync(REPORT, { force: true });
  fs.mkdirSync(path.dirname(REPORT), { recursive: true });
  const { status } = await run(process.execPath, [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${REPORT}`,
    ...forVitest,
  ]);
  let report;
  try {
    report = JSON.parse(fs.readFileSync(REPORT, 'utf8'));
  } catch (error) {
    console.error(`vitest left no report: ${error.message}`);
    return { ...none, failed: 1 };
  }
  const total = { ...none };
  for (const file of report.testResults) {
    let failed = 0;
    for (const test of file.assertionResults) {
      if (test.status === 'passed') total.passed++;
      else if (test.status === 'failed') failed++;
      else total.skipped++;
    }
    total.failed += file.status === 'failed' ? Math.max(failed, 1) : failed;
  }
  if (status !== 0 && total.failed === 0) total.failed = 1;
  return total;
}

const failure = (passed) => ({ ...none, failed: passed ? 0 : 1 });
const tsc = ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.test.json', '--noEmit', '--pretty', 'false'];

const STAGES = {
  lint: async () => {
    const failed = Object.keys(checks).filter((name) => {
      if (name === 'clang-format' && !hasProgram(name)) return false;
      return !checks[name]();
    });
    return { ...none, failed: failed.length };
  },
  types: async () => failure((await run(process.execPath, tsc)).status === 0),
  native: () => native(),
  asan: () => native('SAN=asan'),
  tsan: () => native('SAN=tsan'),
  clang: () => native('CXX=clang++'),
  'clang-asan': () => native('CXX=clang++', 'SAN=asan'),
  fuzz,
  vitest,
};
const LONG_ONLY = ['clang', 'clang-asan'];

const named = mine.filter((word) => word !== '--long');
for (const name of named) {
  if (!(name in STAGES)) {
    console.error(`test: no stage is called ${name}; there are ${Object.keys(STAGES).join(', ')}`);
    process.exit(2);
  }
}
const stages = named.length > 0 ? named : Object.keys(STAGES).filter((name) => long || !LONG_ONLY.includes(name));

const results = [];

function finish() {
  const total = { ...none };
  console.log('');
  for (const { name, seconds, passed, failed, skipped } of results) {
    total.passed += passed;
    total.failed += failed;
    total.skipped += skipped;
    const cells = [passed, failed, skipped].map((n) => String(n).padStart(6));
    console.log(`${name.padEnd(12)}${cells.join('')}  ${seconds.toFixed(0).padStart(5)} s`);
  }
  // Nothing run is no success, unless only checks that count no tests were asked for.
  const nothing = total.passed + total.failed === 0 && stages.some((name) => !['lint', 'types'].includes(name));
  if (nothing) console.log('no test was run');
  process.exitCode = total.failed > 0 || nothing ? 1 : 0;
  console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
}

let current = 'setup';
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    results.push({ name: `${current} (${signal})`, seconds: 0, ...none, failed: 1 });
    finish();
    process.exit();
  });
}

for (const name of stages) {
  current = name;
  console.log(`\n==== ${name}`);
  const started = Date.now();
  const result = await STAGES[name]();
  results.push({ name, seconds: (Date.now() - started) / 1000, ...result });
}
console.log(`\n${'stage'.padEnd(12)}passed failed skipped`);
finish();
