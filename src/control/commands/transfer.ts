/** atoll import, atoll export */
import { type Command, Option } from 'commander';
import { SOURCE_FORMATS } from '../transfer/formats.ts';
import type { ExportOptions, ImportOptions } from '../transfer/run.ts';
import type { World } from '../world.ts';
import { leaf } from './context.ts';

export function transferCommands(program: Command, world: World): void {
  leaf(
    program,
    'import <file> [name]',
    'make a volume or a sealed snapshot from an image or a backup stream, or bring a volume up to date',
  )
    .addOption(
      new Option('--format <format>', 'what the file is (default: by its first bytes)').choices(SOURCE_FORMATS),
    )
    .option('--pool <pool>', 'where the blocks of a new volume are kept (default: local)')
    .option('--onto <volume>', 'apply a backup stream to this volume, whole or not at all; it has to be closed')
    .action(async (file: string, name: string | undefined, options: ImportOptions) => {
      const { importFile } = await import('../transfer/run.ts');
      await importFile(file, name, options, world);
    });

  leaf(program, 'export <name> <file>', 'copy a volume or snapshot to an image, or to a backup stream')
    .addOption(
      new Option('--format <format>', 'raw, qcow2 or stream (default: qcow2 for *.qcow2, else raw)').choices(
        SOURCE_FORMATS,
      ),
    )
    .option('--since <snapshot>', 'a stream of what changed since that older snapshot of the same volume')
    .option('--force', 'replace the file if it exists')
    .action(async (name: string, file: string, options: ExportOptions) => {
      const { exportFile } = await import('../transfer/run.ts');
      await exportFile(name, file, options, world);
    });
}
