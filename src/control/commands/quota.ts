/** atoll quota … */
import type { Command } from 'commander';
import { readOperatorKey } from '../catalog/operator-files.ts';
import type { Holding, Limits } from '../catalog/quotas.ts';
import { isResource, RESOURCE_NAMES, RESOURCES, type ResourceName } from '../catalog/resources.ts';
import { OPERATOR_HEADER, route, withQuery } from '../client.ts';
import { ControlError } from '../errors.ts';
import { resolveHome } from '../home.ts';
import { type Column, table } from '../output.ts';
import { formatSize, parseSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { group, leaf } from './context.ts';

interface WhoOptions extends CommonOptions {
  user?: string;
  domain?: string;
}

interface QuotaAnswer {
  project: { id: string; name: string; domain: string };
  user: { id: string; name: string } | null;
  resources: Holding[];
}

type DefaultsAnswer = { limits: Record<ResourceName, number | null> };

const COLUMNS: readonly Column<Holding>[] = [
  { title: 'RESOURCE', value: ({ resource }) => resource },
  { title: 'LIMIT', value: ({ resource, limit }) => amount(resource, limit), right: true },
  { title: 'FROM', value: ({ from }) => from ?? '-' },
  { title: 'USED', value: ({ resource, used }) => amount(resource, used), right: true },
  { title: 'RESERVED', value: ({ resource, reserved }) => amount(resource, reserved), right: true },
];

const LIMITS = 'RESOURCE=LIMIT, such as volumes=20 or volume_bytes=2T; none: no limit';

export function quotaCommands(program: Command, world: World): void {
  const quota = group(program, 'quota', 'what projects may have, and have');

  who(leaf(quota, 'show <project>', 'limits of a project, or of a user in it, and what is used'), world);

  who(leaf(quota, 'set <project> <limits...>', `set limits: ${LIMITS}; default: what all have`), world);

  leaf(
    quota,
    'defaults [limits...]',
    `show, or set, what projects may have that were given no limit: ${LIMITS}`,
  ).action(async (words: string[], options: CommonOptions) => {
    const client = clientOf(options, world);
    const answer =
      words.length === 0
        ? await client.get<DefaultsAnswer>(route('quotas'))
        : await client.post<DefaultsAnswer>(
            route('quotas'),
            { limits: parseLimits(words, false) },
            operatorHeader(options, world),
          );
    const rows = RESOURCE_NAMES.map((resource) => ({ resource, limit: answer.limits[resource] }));
    const columns = [
      { title: 'RESOURCE', value: (row: (typeof rows)[number]) => row.resource },
      { title: 'LIMIT', value: (row: (typeof rows)[number]) => amount(row.resource, row.limit), right: true },
    ];
    print(world, options, answer, () => table(rows, columns));
  });
}

/** The two commands that are about a project. */
function who(command: Command, world: World): void {
  command
    .option('--user <user>', 'a user in the project: name or id')
    .option('--domain <id>', 'the domain in which the names are (default: default)');
  command.action(async (project: string, ...rest: [string[], WhoOptions] | [WhoOptions]) => {
    const [words, options] = Array.isArray(rest[0]) ? [rest[0], rest[1] as WhoOptions] : [null, rest[0]];
    const { user, domain } = options;
    const client = clientOf(options, world);
    const at = route('quotas', project);
    const answer =
      words === null
        ? await client.get<QuotaAnswer>(withQuery(at, { user, domain }))
        : await client.post<QuotaAnswer>(
            at,
            { limits: parseLimits(words, true), user, domain },
            operatorHeader(options, world),
          );
    print(world, options, answer, () => table(answer.resources, COLUMNS));
  });
}

function operatorHeader(options: CommonOptions, world: World): Record<string, string> {
  return { [OPERATOR_HEADER]: readOperatorKey(resolveHome(options.home, world.env)) };
}

/** @throws {ControlError} USAGE, INVALID, TOO_LARGE */
export function parseLimits(words: readonly string[], mayBeDefault: boolean): Limits {
  const limits: Limits = {};
  for (const word of words) {
    const [name = '', text = ''] = word.split(/=(.*)/s);
    if (!isResource(name))
      throw new ControlError('USAGE', `${word} is no limit; write RESOURCE=LIMIT of ${RESOURCE_NAMES.join(', ')}`);
    if (Object.hasOwn(limits, name)) throw new ControlError('USAGE', `${name} is given twice`);
    limits[name] = parseLimit(name, text, mayBeDefault);
  }
  return limits;
}

function parseLimit(name: ResourceName, text: string, mayBeDefault: boolean): number | null | 'default' {
  if (text === 'none') return null;
  if (text === 'default' && mayBeDefault) return 'default';
  if (text === '0') return 0;
  if (RESOURCES[name].unit === 'bytes') return parseSize(text);
  if (!/^\d{1,15}$/.test(text)) throw new ControlError('USAGE', `${name}=${text}: write a number, or none`);
  return Number(text);
}

function amount(resource: ResourceName, value: number | null): string {
  if (value === null) return 'none';
  return RESOURCES[resource].unit === 'bytes' ? formatSize(value) : String(value);
}
