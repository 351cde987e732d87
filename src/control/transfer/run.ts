/** What `atoll import` and `atoll export` do. In a file of its own: other commands start faster without what this imports. */
import { checkName, splitName } from '../../xseg/names.ts';
import type { VolumeInfo } from '../../xseg/types.ts';
import { ControlError } from '../errors.ts';
import { ProgressBar, sizeFact } from '../output.ts';
import { formatSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import type { SourceFormat } from './formats.ts';
import { exportImage, importImage, type TransferRun } from './images.ts';
import { importSealed } from './sealed.ts';
import { type ImageSource, openSource } from './source.ts';
import { exportStream, importStream, importStreamOnto } from './streams.ts';
import { TargetFile } from './target-file.ts';

export interface ImportOptions extends CommonOptions {
  format?: SourceFormat;
  pool?: string;
  onto?: string;
}

export interface ExportOptions extends CommonOptions {
  format?: SourceFormat;
  since?: string;
  force?: boolean;
}

export async function importFile(
  file: string,
  name: string | undefined,
  options: ImportOptions,
  world: World,
): Promise<void> {
  const { onto, pool, format } = options;
  if ((name === undefined) === (onto === undefined)) {
    throw new ControlError('USAGE', 'say what it becomes: a new volume’s NAME, or --onto VOLUME');
  }
  if (onto !== undefined && pool !== undefined)
    throw new ControlError('USAGE', '--pool is for new volumes, not for --onto');
  const made = splitName(name ?? onto ?? '');
  if (onto !== undefined) checkName('volume', onto);
  const source = await openSource(file, format);
  try {
    if (onto !== undefined && source.format !== 'stream') {
      throw new ControlError(
        'INVALID',
        `${file} is a ${source.format} image, and --onto takes backup streams; import it as a new volume`,
      );
    }
    for (const note of source.notes) if (!options.json) world.err(`atoll: note: ${file}: ${note}\n`);
    if (made.snapshot !== null) {
      const target = { volume: made.volume, snapshot: made.snapshot, ...(pool === undefined ? {} : { pool }) };
      const snapshot = await withRun('import', options, world, (run) => importSealed(run, source, target));
      const facts = `${sizeFact(snapshot.size)}, ${formatSize(snapshot.mappedBytes)} mapped, hash ${snapshot.hash}`;
      const document = { snapshot, format: source.format, notes: source.notes };
      return print(world, options, document, () => `snapshot ${snapshot.name}: ${facts}\n`);
    }
    const volume = await withRun('import', options, world, (run) => importSource(run, source, name, options));
    const document = { volume, format: source.format, notes: source.notes };
    print(
      world,
      options,
      document,
      () => `volume ${volume.name}: ${sizeFact(volume.size)}, ${formatSize(volume.mappedBytes)} mapped\n`,
    );
  } finally {
    await source.file.close();
  }
}

function importSource(
  run: TransferRun,
  source: ImageSource,
  name: string | undefined,
  { onto, pool }: ImportOptions,
): Promise<VolumeInfo> {
  if (onto !== undefined) return importStreamOnto(run, source, onto);
  const make = source.format === 'stream' ? importStream : importImage;
  return make(run, source, name!, pool);
}

export async function exportFile(name: string, file: string, options: ExportOptions, world: World): Promise<void> {
  const { volume, snapshot } = splitName(name);
  const format = formatOf(file, options);
  const since = options.since === undefined ? null : sinceOf(volume, options.since);
  if (format === 'stream' && snapshot === null) {
    throw new ControlError('USAGE', `a backup stream is made of a snapshot; take one and write ${name}@SNAPSHOT`);
  }
  const target = TargetFile.prepare(file, options.force ?? false);
  if (format === 'stream') {
    const made = await withRun('export', options, world, (run) => exportStream(run, name, since, target));
    const text = `${file}: ${made.kind} stream of ${name}, ${sizeFact(made.fileBytes)}\n`;
    print(world, options, { name, file, format, ...made }, () => text);
    return;
  }
  const made = await withRun('export', options, world, (run) => exportImage(run, name, target, format));
  const text = `${file}: ${name} as ${format}, ${formatSize(made.bytes)}, ${formatSize(made.diskBytes)} on disk\n`;
  print(world, options, { name, file, format, ...made }, () => text);
}

function formatOf(file: string, { format, since }: ExportOptions): SourceFormat {
  if (since !== undefined && format !== undefined && format !== 'stream') {
    throw new ControlError('USAGE', `--since makes a stream; leave out --format ${format}`);
  }
  if (since !== undefined) return 'stream';
  return format ?? (file.endsWith('.qcow2') ? 'qcow2' : 'raw');
}

/** `--since A` and `--since VOL@A` say the same. */
function sinceOf(volume: string, text: string): string {
  if (!text.includes('@')) {
    checkName('snapshot', text);
    return text;
  }
  const { volume: other, snapshot } = splitName(text);
  if (other !== volume || snapshot === null) {
    throw new ControlError('USAGE', `--since names a snapshot of ${volume}, and ${text} is none`);
  }
  return snapshot;
}

async function withRun<T>(
  label: string,
  options: CommonOptions,
  world: World,
  work: (run: TransferRun) => Promise<T>,
): Promise<T> {
  const bar = new ProgressBar(label, world.terminal && !options.json ? world.err : null);
  const client = clientOf(options, world);
  try {
    return await work({ client, signal: world.signal, onProgress: (share) => bar.update(share) });
  } finally {
    bar.clear();
  }
}
