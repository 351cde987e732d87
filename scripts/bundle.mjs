/**
 * Puts what the daemon and its threads load into few files: dist/src → dist/bundle. Node takes half a millisecond for each
 * module that it loads, and there are hundreds of them before the ready line.
 *
 * Entries (the command line, and each `*-worker`) keep their place below dist/, since threads are started, and files of the
 * package found, relative to `import.meta.url`; in a chunk that is still where the module would have been.
 *
 * Not in it: what has native code or starts threads of its own files.
 */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const ROOT = path.join(path.dirname(fileURLToPath(import.meta.url)), '..');
const FROM = path.join(ROOT, 'dist/src');
const TO = path.join(ROOT, 'dist/bundle');
const EXTERNAL = ['better-sqlite3', '@node-rs/argon2', '@napi-rs/blake-hash', 'piscina', 'pg'];
/** stands for `import.meta.url` of the module that it names until the chunk is known that has it */
const ORIGIN = /__atoll_origin__\("([^"]*)"\)/g;

function entries() {
  const found = { 'control/cli': path.join(FROM, 'control/cli.js') };
  for (const name of fs.readdirSync(FROM, { recursive: true }))
    if (name.endsWith('-worker.js')) found[name.slice(0, -3)] = path.join(FROM, name);
  return found;
}

const origins = {
  name: 'origins',
  transform(code, id) {
    if (!id.startsWith(FROM) || !code.includes('import.meta.url')) return null;
    return code.replaceAll('import.meta.url', `__atoll_origin__(${JSON.stringify(path.relative(FROM, id))})`);
  },
  renderChunk(code, chunk) {
    const folder = path.posix.dirname(chunk.fileName);
    return code.replace(ORIGIN, (_, origin) => {
      const relative = JSON.stringify(path.posix.relative(folder, origin));
      return `new URL(${relative}, import.meta.url).href`;
    });
  },
};

export async function bundle() {
  const built = await rolldown({
    input: entries(),
    platform: 'node',
    external: (id) => EXTERNAL.some((name) => id === name || id.startsWith(`${name}/`)),
    plugins: [origins],
  });
  const options = { format: 'esm', entryFileNames: '[name].js', chunkFileNames: 'chunks/[name].js' };
  const { output } = await built.generate(options);
  fs.rmSync(TO, { recursive: true, force: true });
  for (const { fileName, code } of output) {
    const file = path.join(TO, fileName);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, code);
  }
  await built.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await bundle();
