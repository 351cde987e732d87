/** The options that every command has, and how options are parsed. */
import { type Command, InvalidArgumentError } from 'commander';

/** A leaf of the command tree that asks a daemon. */
export function leaf(parent: Command, usage: string, description: string): Command {
  return daemonLeaf(parent, usage, description).option(
    '--socket <path>',
    'the daemon’s control socket, for who cannot read its home (default: $ATOLL_SOCKET)',
  );
}

/** The options that all leaves have, the one that is the daemon too. */
export function daemonLeaf(parent: Command, usage: string, description: string): Command {
  return parent
    .command(usage)
    .description(description)
    .option('--json', 'machine-readable output: one JSON document')
    .option('--home <dir>', 'the daemon’s home (default: $ATOLL_HOME, else ./var/atoll)');
}

export function group(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description);
}

export function countOption(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`It has to be a number, ${min} to ${max}.`);
    return value;
  };
}
