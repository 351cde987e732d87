/** The command tree, and what becomes of whatever a command throws. */
import { Command, CommanderError } from 'commander';
import { daemonCommands } from './commands/daemon.ts';
import { mountCommands } from './commands/mount.ts';
import { poolCommands } from './commands/pool.ts';
import { quotaCommands } from './commands/quota.ts';
import { recoverCommands } from './commands/recover.ts';
import { sealCommands } from './commands/seal.ts';
import { serveCommand } from './commands/serve.ts';
import { snapshotCommands } from './commands/snapshot.ts';
import { topCommand } from './commands/top.ts';
import { transferCommands } from './commands/transfer.ts';
import { userCommands } from './commands/users.ts';
import { volumeCommands } from './commands/volume.ts';
import { describeError, ERRORS, type ErrorBody, EXIT, oneLine } from './errors.ts';
import { packageVersion } from './version.ts';
import type { World } from './world.ts';

/** Runs one command. @returns the exit code */
export async function runCli(argv: readonly string[], world: Omit<World, 'setExitCode'>): Promise<number> {
  let exitCode: number = EXIT.ok;
  const setExitCode = (code: number) => {
    exitCode = code;
  };
  // no copy: whether a command looks at the signal is seen there
  const program = buildProgram(Object.assign(Object.create(world) as Omit<World, 'setExitCode'>, { setExitCode }));
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    const failure = failureOf(error);
    if (failure === null) return EXIT.ok;
    if (failure.error.message !== '') world.err(errorLine(failure, argv.includes('--json')));
    return ERRORS[failure.error.code].exit;
  }
}

export function buildProgram(world: World): Command {
  const program = new Command('atoll')
    .description('Unified cloud storage in one daemon. `atoll serve` runs it; the other commands talk to it.')
    .version(packageVersion(), '-V, --version', 'the version')
    .helpOption('-h, --help', 'help for a command');
  serveCommand(program, world);
  poolCommands(program, world);
  volumeCommands(program, world);
  snapshotCommands(program, world);
  transferCommands(program, world);
  mountCommands(program, world);
  sealCommands(program, world);
  daemonCommands(program, world);
  topCommand(program, world);
  userCommands(program, world);
  quotaCommands(program, world);
  recoverCommands(program, world);
  harden(program, world);
  return program;
}

/** Nothing that commander finds wrong ends the process or is printed by it; see runCli(). */
function harden(command: Command, world: World): void {
  command.exitOverride();
  command.showSuggestionAfterError(true);
  command.configureOutput({ writeOut: world.out, writeErr: world.err, outputError: () => undefined });
  for (const child of command.commands) harden(child, world);
}

/** @returns null when nothing failed (help was asked for) */
function failureOf(error: unknown): ErrorBody | null {
  if (!(error instanceof CommanderError)) return { error: describeError(error) };
  if (error.exitCode === 0) return null;
  // A group without a command: its help has been printed, and says it all.
  if (error.code === 'commander.help') return { error: { code: 'USAGE', message: '' } };
  const message = oneLine(error.message).replace(/^error: /, '');
  const early = /^unknown option '(?<option>--json|--home)[=']/.exec(message)?.groups?.option;
  if (early) return { error: { code: 'USAGE', message: `write ${early} after the command (see --help)` } };
  return { error: { code: 'USAGE', message: `${message.replace(/[.]$/, '')} (see --help)` } };
}

function errorLine(failure: ErrorBody, json: boolean): string {
  return json ? `${JSON.stringify(failure)}\n` : `atoll: ${failure.error.message}\n`;
}
