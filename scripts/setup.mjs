/**
 * Makes a checkout ready to run, and does nothing, quickly, when it already is.
 *
 *   setup                what running, building, testing and measuring need
 *   setup --for-run      only what building and running need
 *   setup --build-only   no Debian packages, no npm packages: the addon and dist/
 *   setup --native-only  only the addon
 *   setup --force        as if everything had changed
 *
 * Each step leaves a stamp, a hash of what went into it, and is skipped while the stamp still holds.
 * Nothing is downloaded but by apt-get and npm: no install script of a dependency runs, and headers of
 * Node come from beside the `node` that runs this.
 */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const NODE_MIN = [20, 19];
const APT_LOCK_WAIT_S = 300;

const X86 = process.arch === 'x64';
/** qemu-utils is what reads and writes qcow2 in `atoll import` and `atoll export`. */
const PACKAGES_RUN = ['g++', 'make', 'python3', 'liburing-dev', 'qemu-utils', 'pkg-config', 'fuse3', 'libfuse3-dev'];
const PACKAGES_TEST = [
  ...['fio', 'nbdkit', 'libnbd-bin', 'python3-libnbd', 'e2fsprogs'],
  ...['restic', 'borgbackup'],
  ...['busybox-static', 'cpio', 'kmod', 'acpid', 'procps', 'gnuplot-nox'],
  // The clients that the identity API is tested with.
  ...['python3-openstackclient', 'python3-swiftclient'],
  // OpenStack's own tests of it.
  'python3-tempest',
  'openssl',
  // The catalog's other database.
  'postgresql',
  // Copying disks through a mount.
  'rsync',
  // What the npm package fuse-native needs, which the benchmark measures beside a mount.
  'libfuse2',
  // Power loss: qemu-storage-daemon, losetup.
  ...['qemu-system-common', 'mount'],
  ...['clang', 'libclang-rt-14-dev', 'clang-format'],
  ...(X86 ? ['qemu-system-x86', 'linux-image-cloud-amd64'] : ['qemu-system-arm', 'linux-image-cloud-arm64']),
];

/** A failure with a message that says what to do; anything else that is thrown is a bug and keeps its stack. */
class SetupError extends Error {}

const args = new Set(process.argv.slice(2));
for (const arg of args) {
  if (!['--for-run', '--build-only', '--native-only', '--force'].includes(arg)) {
    console.error(`setup: unknown option ${arg}; there are --for-run, --build-only, --native-only and --force`);
    process.exit(2);
  }
}
const force = args.has('--force');

function say(line) {
  console.log(`setup: ${line}`);
}

/** Runs a command in the checkout; its output is shown only when it fails. */
function run(command, argv, { cwd = ROOT, env = {} } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, argv, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const output = [];
    child.stdout.on('data', (chunk) => output.push(chunk));
    child.stderr.on('data', (chunk) => output.push(chunk));
    child.on('error', (error) => reject(new SetupError(`cannot run ${command}: ${error.message}`)));
    child.on('close', (status, signal) => {
      if (status === 0) return resolve();
      process.stderr.write(Buffer.concat(output));
      reject(new SetupError(`${[command, ...argv].join(' ')} failed (${signal ?? `exit ${status}`})`));
    });
  });
}

/** Every file below `dir` that `wanted` takes, sorted; a folder that is not there has none. */
function filesBelow(dir, wanted) {
  const found = [];
  const stack = [path.join(ROOT, dir)];
  while (stack.length > 0) {
    const folder = stack.pop();
    let entries;
    try {
      entries = fs.readdirSync(folder, { withFileTypes: true });
    } catch (error) {
      if (error.code === 'ENOENT') continue;
      throw error;
    }
    for (const entry of entries) {
      const name = path.join(folder, entry.name);
      if (entry.isDirectory()) stack.push(name);
      else if (wanted(name)) found.push(path.relative(ROOT, name));
    }
  }
  return found.sort();
}

function hashOf(files, ...more) {
  const hash = createHash('sha256');
  for (const file of files) {
    hash.update(`${file}\0`);
    hash.update(fs.readFileSync(path.join(ROOT, file)));
    hash.update('\0');
  }
  for (const text of more) hash.update(`${text}\0`);
  return hash.digest('hex');
}

function stampHolds(file, value) {
  if (force) return false;
  try {
    return fs.readFileSync(path.join(ROOT, file), 'utf8') === value;
  } catch {
    return false;
  }
}

function writeStamp(file, value) {
  const name = path.join(ROOT, file);
  fs.mkdirSync(path.dirname(name), { recursive: true });
  fs.writeFileSync(name, value);
}

function exists(file) {
  return fs.existsSync(path.join(ROOT, file));
}

// --- Debian packages -------------------------------------------------------------------------------

/** @returns those of `packages` that dpkg does not know as installed, or null where there is no dpkg */
function packagesMissing(packages) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query's own placeholders
  const query = spawnSync('dpkg-query', ['-W', '-f', '${Package} ${db:Status-Status}\n', ...packages], {
    encoding: 'utf8',
  });
  if (query.error) return null;
  const installed = new Set();
  for (const line of query.stdout.split('\n')) {
    const [name, status] = line.split(' ');
    if (status === 'installed') installed.add(name);
  }
  return packages.filter((name) => !installed.has(name));
}

async function debianPackages() {
  const wanted = args.has('--for-run') ? PACKAGES_RUN : [...PACKAGES_RUN, ...PACKAGES_TEST];
  const missing = packagesMissing(wanted);
  if (missing === null) {
    say(`no dpkg here; what these Debian packages bring must be there: ${wanted.join(' ')}`);
    return;
  }
  if (missing.length === 0) return;
  const needed = missing.filter((name) => PACKAGES_RUN.includes(name));
  const command = `apt-get install --no-install-recommends ${missing.join(' ')}`;
  if (process.getuid() !== 0) {
    if (needed.length > 0) {
      throw new SetupError(`Debian packages are missing and only root may install them; as root, run: ${command}`);
    }
    say(`some tests and benchmarks will not run before root has run: ${command}`);
    return;
  }
  say(`installing Debian packages: ${missing.join(' ')}`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const lock = ['-o', `DPkg::Lock::Timeout=${APT_LOCK_WAIT_S}`];
  try {
    await run('apt-get', [...lock, '-qq', 'update'], { env });
    await run('apt-get', [...lock, '-qq', '-y', 'install', '--no-install-recommends', ...missing], { env });
  } catch (error) {
    if (!(error instanceof SetupError) || needed.length > 0) throw error;
    say(`going on without them, some tests will not run: ${error.message}`);
  }
}

// --- npm packages ----------------------------------------------------------------------------------

const LOCK_STAMP = 'node_modules/.atoll-stamp';

async function npm(argv) {
  const script = process.env.npm_execpath;
  if (script && /npm-cli\.c?js$/.test(script) && fs.existsSync(script)) await run(process.execPath, [script, ...argv]);
  else await run('npm', argv);
}

async function npmPackages() {
  // The lock repeats what package.json wants, and only a change of that is a reason to install again.
  const wanted = JSON.parse(fs.readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  const parts = [wanted.dependencies, wanted.devDependencies, wanted.overrides].map((part) => JSON.stringify(part));
  const value = `${hashOf(['package-lock.json'], ...parts, process.platform, process.arch)}\n`;
  if (!stampHolds(LOCK_STAMP, value)) {
    say('installing npm packages');
    await npm(['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']);
    writeStamp(LOCK_STAMP, value);
  }
}

/** The header's own word on which Node it belongs to; a folder without it is no folder of headers. */
function abiOfHeaders(nodeDir) {
  try {
    const text = fs.readFileSync(path.join(nodeDir, 'include/node/node_version.h'), 'utf8');
    return /#define NODE_MODULE_VERSION (\d+)/.exec(text)?.[1] ?? null;
  } catch {
    return null;
  }
}

/** @returns the prefix whose include/node belongs to the running Node */
function nodeDir() {
  const prefix = path.dirname(path.dirname(fs.realpathSync(process.execPath)));
  const name = `node-${process.platform}-${process.arch}`;
  const candidates = [
    prefix,
    // The npm package `node` keeps the headers in the package of the platform, nested or beside it.
    path.join(prefix, 'node_modules', name),
    path.join(path.dirname(prefix), name),
    process.env.npm_config_nodedir,
    process.env.npm_package_config_node_gyp_nodedir,
    '/usr/local',
    '/usr',
  ];
  for (const candidate of candidates) {
    if (candidate && abiOfHeaders(candidate) === process.versions.modules) return candidate;
  }
  throw new SetupError(
    `the headers of Node ${process.version} are not at ${prefix}/include/node; ` +
      'install them (Debian: libnode-dev) or set npm_config_nodedir to a folder that has include/node',
  );
}

async function nodeGyp(cwd, argv, env = {}) {
  const script = path.join(ROOT, 'node_modules/node-gyp/bin/node-gyp.js');
  await run(process.execPath, [script, ...argv, `--nodedir=${nodeDir()}`, `--jobs=${os.availableParallelism()}`], {
    cwd,
    // Ours wins over a nodedir of another Node in the user's npm settings.
    env: { ...env, npm_config_nodedir: nodeDir() },
  });
}

/**
 * better-sqlite3 is built here and not by its install script, which would try to download a binary first.
 * The result is kept in build/, so that a new `npm ci` or a change of Node and back does not build it again.
 */
async function betterSqlite() {
  const folder = 'node_modules/better-sqlite3';
  const { version } = JSON.parse(fs.readFileSync(path.join(ROOT, folder, 'package.json'), 'utf8'));
  // The last word counts what is changed here about the build.
  const value = `${version} ${process.platform} ${process.arch} ${process.versions.modules} b2\n`;
  const target = `${folder}/build/Release/better_sqlite3.node`;
  const stamp = `${folder}/.atoll-stamp`;
  if (exists(target) && stampHolds(stamp, value)) return;

  const kept = `build/deps/better_sqlite3-${value.trim().replaceAll(' ', '-')}.node`;
  if (force || !exists(kept)) {
    say(`building better-sqlite3 ${version} for Node ${process.versions.node} (a minute or so)`);
    fs.rmSync(path.join(ROOT, folder, 'build'), { recursive: true, force: true });
    // SQLite is meant to be built with -O2; -O3 takes 40 s longer and brings nothing here.
    const flags = path.join(ROOT, folder, 'deps/common.gypi');
    fs.writeFileSync(flags, fs.readFileSync(flags, 'utf8').replace("'-O3'", "'-O2'"));
    const before = path.join(ROOT, 'scripts/better-sqlite3.h');
    await nodeGyp(path.join(ROOT, folder), ['configure', 'build', '--release'], {
      CXXFLAGS: `${process.env.CXXFLAGS ?? ''} -include "${before}"`,
    });
    fs.mkdirSync(path.join(ROOT, 'build/deps'), { recursive: true });
    copyWhole(target, kept);
  } else {
    copyWhole(kept, target);
  }
  writeStamp(stamp, value);
}

/** Copies beside the target and renames, since a running process may have the target mapped. */
function copyWhole(from, to) {
  const target = path.join(ROOT, to);
  fs.mkdirSync(path.dirname(target), { recursive: true });
  fs.copyFileSync(path.join(ROOT, from), `${target}.new`);
  fs.renameSync(`${target}.new`, target);
}

// --- what is built ---------------------------------------------------------------------------------

async function addon() {
  const sources = filesBelow('native', (name) => /\.(cc|h|inc)$/.test(name) && !/\/native\/(test|fuzz)\//.test(name));
  if (!sources.some((name) => name.endsWith('.cc'))) {
    say('no native sources yet, no addon');
    return;
  }
  const value = `${hashOf(['binding.gyp', ...sources], process.arch)}\n`;
  if (exists('build/Release/atoll.node') && stampHolds('build/.native-stamp', value)) return;
  say('building the addon');
  fs.rmSync(path.join(ROOT, 'build/.native-stamp'), { force: true });
  await nodeGyp(ROOT, ['configure', 'build', '--release']);
  writeStamp('build/.native-stamp', value);
}

/** tsc leaves what it once wrote; a file whose source is gone would still be loaded, and tested. */
function pruneDist(sources) {
  const wanted = new Set(sources.map((name) => `dist/${name.replace(/\.ts$/, '')}`));
  for (const name of filesBelow('dist', (file) => /\.js(\.map)?$/.test(file))) {
    if (!name.startsWith('dist/bundle/') && !wanted.has(name.replace(/\.js(\.map)?$/, '')))
      fs.rmSync(path.join(ROOT, name));
  }
}

async function typescript() {
  const isSource = (name) => name.endsWith('.ts') && !name.endsWith('.d.ts');
  const sources = [...filesBelow('src', isSource), ...filesBelow('bench', isSource)];
  if (sources.length === 0) {
    say('no TypeScript sources yet, no dist/');
    return;
  }
  const more = [
    ...filesBelow('src', (name) => /\.(d\.ts|json)$/.test(name)),
    'tsconfig.json',
    'package-lock.json',
    'scripts/bundle.mjs',
  ];
  const value = `${hashOf([...sources, ...more])}\n`;
  if (stampHolds('dist/.stamp', value)) return;
  say('compiling TypeScript');
  fs.rmSync(path.join(ROOT, 'dist/.stamp'), { force: true });
  if (force) fs.rmSync(path.join(ROOT, 'dist'), { recursive: true, force: true });
  pruneDist(sources);
  await run(process.execPath, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.json', '--pretty', 'false']);
  await run(process.execPath, ['scripts/bundle.mjs']);
  writeStamp('dist/.stamp', value);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > NODE_MIN[0] || (major === NODE_MIN[0] && minor >= NODE_MIN[1])) return;
  throw new SetupError(`Node ${NODE_MIN.join('.')} or newer is needed, this is ${process.versions.node}`);
}

async function main() {
  const started = Date.now();
  checkNode();
  const buildOnly = args.has('--build-only') || args.has('--native-only');
  if (!buildOnly) {
    await debianPackages();
    await npmPackages();
  }
  // SQLite is one file and keeps one core busy for a minute; the rest is built beside it.
  const results = await Promise.allSettled([
    buildOnly ? undefined : betterSqlite(),
    addon().then(() => (args.has('--native-only') ? undefined : typescript())),
  ]);
  for (const result of results) if (result.status === 'rejected') throw result.reason;
  say(`ready (${((Date.now() - started) / 1000).toFixed(1)} s)`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(`setup: ${error.message}`);
  process.exitCode = 1;
}
