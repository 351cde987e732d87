/** atoll import, atoll export */
import { type Command, Option } from 'commander';
import { checkName, splitName } from '../../xseg/names.ts';
import type { VolumeInfo } from '../../xseg/types.ts';
import { ControlError } from '../errors.ts';
import { ProgressBar, sizeFact } from '../output.ts';
import { formatSize } from '../sizes.ts';
import { exportImage, importImage, type TransferRun } from '../transfer/images.ts';
import { type ImageSource, openSource, SOURCE_FORMATS, type SourceFormat } from '../transfer/source.ts';
import { exportStream, importStream, importStreamOnto } from '../transfer/streams.ts';
import { TargetFile } from '../transfer/target-file.ts';
import { type CommonOptions, clientOf, leaf, print, type World } from './context.ts';

interface ImportOptions extends CommonOptions {
  format?: SourceFormat;
  pool?: string;
  onto?: string;
}

interface ExportOptions extends CommonOptions {
  format?: SourceFormat;
  since?: string;
  force?: boolean;
}

export function transferCommands(program: Command, world: World): void {
  leaf(program, 'import <file> [name]', 'make a volume from an image or a backup stream, or bring a volume up to date')
    .addOption(
      new Option('--format <format>', 'what the file is (default: by its first bytes)').choices(SOURCE_FORMATS),
    )
    .option('--pool <pool>', 'where the blocks of a new volume are kept (default: local)')
    .option('--onto <volume>', 'apply a backup stream to this volume, whole or not at all; it has to be closed')
    .action((file: string, name: string | undefined, options: ImportOptions) => importFile(file, name, options, world));

  leaf(program, 'export <name> <file>', 'copy a volume or snapshot to an image, or to a backup stream')
    .addOption(
      new Option('--format <format>', 'raw, qcow2 or stream (default: qcow2 for *.qcow2, else raw)').choices(
        SOURCE_FORMATS,
      ),
    )
    .option('--since <snapshot>', 'a stream of what changed since that older snapshot of the same volume')
    .option('--force', 'replace the file if it exists')
    .action((name: string, file: string, options: ExportOptions) => exportFile(name, file, options, world));
}

async function importFile(file: string, name: string | undefined, options: ImportOptions, world: World): Promise<void> {
  const { onto, pool, format } = options;
  if ((name === undefined) === (onto === undefined)) {
    throw new ControlError('USAGE', 'say what it becomes: a new volume’s NAME, or --onto VOLUME');
  }
  if (onto !== undefined && pool !== undefined)
    throw new ControlError('USAGE', '--pool is for new volumes, not for --onto');
  checkName('volume', name ?? onto ?? '');
  const source = await openSource(file, format);
  try {
    if (onto !== undefined && source.format !== 'stream') {
      throw new ControlError(
        'INVALID',
        `${file} is a ${source.format} image, and --onto takes backup streams; import it as a new volume`,
      );
    }
    for (const note of source.notes) if (!options.json) world.err(`atoll: note: ${file}: ${note}\n`);
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

async function exportFile(name: string, file: string, options: ExportOptions, world: World): Promise<void> {
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
