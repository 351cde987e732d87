/** Making folders. */
import fs from 'node:fs';
import path from 'node:path';

/**
 * Makes a folder and those above it that are missing, private to their owner.
 *
 * Not `fs.mkdirSync` with `recursive`: where a file system answers ENOENT for a folder whose parent is there (/proc does), Node tries
 * again for ever.
 */
export function makeFolders(folder: string): void {
  const missing: string[] = [];
  for (let at = path.resolve(folder); !fs.existsSync(at); at = path.dirname(at)) missing.push(at);
  for (const one of missing.reverse()) {
    try {
      fs.mkdirSync(one, { mode: 0o700 });
    } catch (error) {
      if ((error as { code?: string }).code !== 'EEXIST') throw error;
    }
  }
}

/** Makes a file, or the names in a folder, durable. */
export function syncFile(file: string): void {
  const fd = fs.openSync(file, 'r');
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
