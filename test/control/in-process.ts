/** A command in this process, against a daemon elsewhere: for tests of many commands, where starting each would take the time. */
import { runCli } from '../../src/control/program.ts';

export interface Ran {
  exit: number;
  out: string;
  err: string;
}

export async function inProcess(
  at: { home: string },
  argv: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Ran> {
  const ran: Ran = { exit: 0, out: '', err: '' };
  ran.exit = await runCli(argv, {
    out: (text) => {
      ran.out += text;
    },
    err: (text) => {
      ran.err += text;
    },
    terminal: false,
    env: { ...env, ATOLL_HOME: at.home },
    signal: new AbortController().signal,
  });
  return ran;
}
