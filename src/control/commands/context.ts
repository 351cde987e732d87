/** The options that every command has, and how options are parsed. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { describeError } from '../errors.ts';
import { parseSize, parseVolumeSize } from '../sizes.ts';

/** A leaf of the command tree, with the options that all leaves have. */
export function leaf(parent: Command, usage: string, description: string): Command {
  return parent
    .command(usage)
    .description(description)
    .option('--json', 'machine-readable output: one JSON document')
    .addOption(new Option('--home <dir>', 'the daemon’s home (default: $ATOLL_HOME, else ./var/atoll)'))
    .addOption(
      new Option('--socket <path>', 'the daemon’s control socket, when it is not in the home').env('ATOLL_SOCKET'),
    );
}

export function group(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description);
}

/** Option parsers: what commander reports as a wrong argument. */
export const sizeOption = (text: string): number => asArgument(() => parseSize(text));
export const volumeSizeOption = (text: string): number => asArgument(() => parseVolumeSize(text));

export function countOption(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`It has to be a number, ${min} to ${max}.`);
    return value;
  };
}

function asArgument<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new InvalidArgumentError(describeError(error).message);
  }
}
