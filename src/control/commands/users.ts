/** atoll openrc, atoll passwd */
import { type Command, InvalidArgumentError } from 'commander';
import { type OpenrcName, readOpenrc, readOperatorKey } from '../catalog/operator-files.ts';
import { OPERATOR_HEADER, route } from '../client.ts';
import { resolveHome } from '../home.ts';
import { shellWord } from '../output.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { daemonLeaf, leaf } from './context.ts';

interface PasswordAnswer {
  user: string;
  domain: string;
  password: string;
}

function openrcName(text: string): OpenrcName {
  if (text !== 'admin' && text !== 'demo') throw new InvalidArgumentError('It has to be admin or demo.');
  return text;
}

export function userCommands(program: Command, world: World): void {
  daemonLeaf(program, 'openrc', 'what clients of OpenStack need to log in, as a shell reads it: . <(atoll openrc)')
    .argument('[user]', 'admin (default) or demo, whom the first start made', openrcName, 'admin')
    .action((name: OpenrcName, options: CommonOptions) => {
      const openrc = readOpenrc(resolveHome(options.home, world.env), name);
      print(world, options, openrc, () =>
        Object.entries(openrc)
          .map(([key, value]) => `export ${key}=${shellWord(value)}\n`)
          .join(''),
      );
    });

  leaf(program, 'passwd <user>', 'give a user a new password, and enable it; its tokens end')
    .option('--domain <id>', 'the domain of the user (default: default)')
    .action(async (user: string, options: CommonOptions & { domain?: string }) => {
      const key = readOperatorKey(resolveHome(options.home, world.env));
      const body = { user, ...(options.domain === undefined ? {} : { domain: options.domain }) };
      const headers = { [OPERATOR_HEADER]: key };
      const answer = await clientOf(options, world).post<PasswordAnswer>(route('passwords'), body, headers);
      print(world, options, answer, () => `${answer.password}\n`);
    });
}
