/** atoll top */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError } from 'commander';
import type { Activity } from '../../xseg/activity.ts';
import type { EngineStatus } from '../../xseg/types.ts';
import { type ControlClient, route } from '../client.ts';
import { ControlError } from '../errors.ts';
import { fitScreen, topLines } from '../top/draw.ts';
import { type Sample, type TopView, viewOf } from '../top/view.ts';
import { type CommonOptions, clientOf, print, type Screen, type World } from '../world.ts';
import { leaf } from './context.ts';

const INTERVAL_SECONDS_DEFAULT = 1;
/** more often, and looking would be much of what there is to see */
const INTERVAL_SECONDS_MIN = 0.1;
const INTERVAL_SECONDS_MAX = 3600;

interface TopOptions extends CommonOptions {
  once?: boolean;
  interval: number;
}

export function topCommand(program: Command, world: World): void {
  leaf(program, 'top', 'a live look at the daemon; q ends it')
    .option('--once', 'look once, over one interval, and end')
    .option('--interval <seconds>', 'how long a look takes (default: 1)', parseInterval, INTERVAL_SECONDS_DEFAULT)
    .action(async (options: TopOptions) => {
      const client = clientOf(options, world);
      if (options.once) {
        const first = await look(client);
        const view = await next(client, first, options.interval, world.signal);
        if (view !== null) print(world, options, view.view, () => `${topLines(view.view).join('\n')}\n`);
        else throw new ControlError('INTERRUPTED', 'stopped by a signal');
        return;
      }
      if (options.json) throw new ControlError('USAGE', 'a live look is not for programs; say --once --json');
      if (!world.screen) throw new ControlError('USAGE', 'this is no terminal; say --once');
      await live(client, world.screen, options.interval, world.signal);
    });
}

async function live(client: ControlClient, screen: Screen, interval: number, signal: AbortSignal): Promise<void> {
  const quit = new AbortController();
  const until = AbortSignal.any([signal, quit.signal]);
  let before = await look(client);
  const unhear = screen.keys((key) => {
    // q, Q, and what ^C is while the terminal is raw
    if (key === 'q' || key === 'Q' || key === CONTROL_C) quit.abort();
  });
  screen.write(ENTER);
  try {
    for (;;) {
      const found = await next(client, before, interval, until);
      if (found === null) return;
      before = found.sample;
      const { columns, rows } = screen.size();
      // The last line stays free: a full one would make the terminal scroll.
      const lines = fitScreen(topLines(found.view), columns, rows - 1);
      screen.write(`${HOME}${lines.map((line) => `${line}${CLEAR_LINE}\r\n`).join('')}${CLEAR_BELOW}`);
    }
  } finally {
    screen.write(LEAVE);
    unhear();
  }
}

async function look(client: ControlClient): Promise<Sample> {
  const [status, activity] = await Promise.all([
    client.get<EngineStatus>(route('status')),
    client.get<Activity>(route('activity')),
  ]);
  return { status, activity };
}

/** The next look. @returns null when it was not waited for */
async function next(
  client: ControlClient,
  before: Sample,
  interval: number,
  signal: AbortSignal,
): Promise<{ sample: Sample; view: TopView } | null> {
  for (let first = before; ; ) {
    try {
      await sleep(interval * 1000, undefined, { signal });
    } catch (error) {
      if (signal.aborted) return null;
      throw error;
    }
    const sample = await look(client);
    // A daemon that was started again meanwhile counts from nothing: this look is the first one of it.
    const same = sample.status.pid === first.status.pid;
    if (same && sample.activity.uptimeSeconds > first.activity.uptimeSeconds)
      return { sample, view: viewOf(first, sample) };
    first = sample;
  }
}

function parseInterval(text: string): number {
  const seconds = /^\d{1,4}(\.\d{1,3})?$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds >= INTERVAL_SECONDS_MIN && seconds <= INTERVAL_SECONDS_MAX)) {
    throw new InvalidArgumentError(`It has to be seconds, ${INTERVAL_SECONDS_MIN} to ${INTERVAL_SECONDS_MAX}.`);
  }
  return seconds;
}

/** the other screen of the terminal, without its cursor; and back */
const ENTER = '\x1b[?1049h\x1b[?25l';
const LEAVE = '\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const CLEAR_LINE = '\x1b[K';
const CLEAR_BELOW = '\x1b[J';
const CONTROL_C = '\x03';
