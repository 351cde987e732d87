/** A load on a logged disk, and then: the power fails at any moment of it. */
import { LoggedDisk, type Stand } from './device.ts';
import { History } from './history.ts';
import { inspect } from './inspect.ts';
import { Load, type LoadOptions, type LoadReport } from './load.ts';
import { type Cut, cutsOf, LOSSES, type Loss, Replay } from './replay.ts';
import { type LogEntry, readWriteLog } from './write-log.ts';

export interface Recording {
  disk: LoggedDisk;
  history: History;
  entries: LogEntry[];
  cuts: Cut[];
  report: LoadReport;
}

/** A failure of power. */
export interface Failure {
  cut: Cut;
  loss: Loss;
}

/** @param bytes of the disk */
export async function record(stand: Stand, bytes: number, options: LoadOptions): Promise<Recording> {
  const disk = await LoggedDisk.make(stand, bytes);
  const history = new History(() => disk.position());
  const report = await new Load(stand, disk, history, options).run();
  await disk.close();
  const entries = readWriteLog(disk.log);
  return { disk, history, entries, cuts: cutsOf(entries), report };
}

/** Failures at `count` cuts all over the log, or at every cut; what is lost is drawn. */
export function drawFailures(cuts: readonly Cut[], count: number, random: () => number): Failure[] {
  const many = Math.min(count, cuts.length);
  return Array.from({ length: many }, (_, i) => ({
    cut: cuts[Math.floor(((i + random()) * cuts.length) / many)]!,
    loss: LOSSES[Math.floor(random() * LOSSES.length)]!,
  }));
}

/**
 * Lets the power fail, in the order of the log.
 *
 * @param found called for each failure with what was wrong after it; true ends the survey
 */
export async function survey(
  stand: Stand,
  recording: Recording,
  failures: readonly Failure[],
  random: () => number,
  found: (failure: Failure, problems: string[]) => boolean,
): Promise<void> {
  const { disk, entries, history } = recording;
  const replay = new Replay(disk.log, entries, disk.pristine);
  const expectedAt = history.walk();
  const image = stand.file('failed.raw');
  try {
    for (const failure of failures) {
      const unflushed = replay.advance(failure.cut);
      await stand.run('cp', '--sparse=auto', disk.pristine, image);
      replay.keep(image, unflushed, failure.loss, random);
      if (found(failure, await inspect(stand, image, disk.mount, expectedAt(failure.cut)))) return;
    }
  } finally {
    replay.close();
  }
}

/** The image that the log says the disk has in the end. */
export async function replayWhole(stand: Stand, { disk, entries, cuts }: Recording): Promise<string> {
  const image = stand.file('whole.raw');
  await stand.run('cp', '--sparse=auto', disk.pristine, image);
  const replay = new Replay(disk.log, entries, image);
  replay.keep(image, replay.advance(cuts.at(-1)!), 'none', () => 1);
  replay.close();
  return image;
}
