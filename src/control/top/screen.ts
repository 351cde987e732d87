/** The terminal that this process runs in, if any. */
import type { Screen } from '../world.ts';

/** for terminals that do not say how large they are */
const COLUMNS_DEFAULT = 80;
const ROWS_DEFAULT = 24;

export function terminalScreen(): Screen | null {
  const { stdin, stdout } = process;
  if (stdout.isTTY !== true) return null;
  return {
    size: () => ({ columns: stdout.columns || COLUMNS_DEFAULT, rows: stdout.rows || ROWS_DEFAULT }),
    write: (text) => void stdout.write(text),
    keys: (hear) => {
      if (stdin.isTTY !== true) return () => undefined;
      const listener = (key: Buffer) => hear(key.toString());
      stdin.setRawMode(true);
      stdin.on('data', listener);
      return () => {
        stdin.off('data', listener);
        stdin.setRawMode(false);
        stdin.pause();
      };
    },
  };
}
