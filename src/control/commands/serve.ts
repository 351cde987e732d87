/** atoll serve: the daemon in the foreground. */
import { type Command, Option } from 'commander';
import { parseCatalogUrl } from '../catalog/place.ts';
import { parseDuration } from '../durations.ts';
import type { LogLevel } from '../log.ts';
import {
  type NbdAddress,
  parseHttpAddress,
  parseMetricsAddress,
  parseNbdAddress,
  parsePublicUrl,
} from '../serve/addresses.ts';
import type { ServeOptions } from '../serve/run.ts';
import { parseSize } from '../sizes.ts';
import type { World } from '../world.ts';
import { countOption, daemonLeaf } from './context.ts';

/** native/segment/layout.json, REACTORS_MAX */
const REACTORS_MAX = 16;
const LOG_LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];
/** longest busy poll that we let anybody ask for */
const SPIN_US_MAX = 10_000;

export function serveCommand(program: Command, world: World): void {
  daemonLeaf(program, 'serve', 'run the daemon in the foreground; SIGTERM ends it cleanly')
    .option('--nbd <address>', 'serve NBD here too: tcp:127.0.0.1:10809, unix:/path (repeatable)', collectAddress)
    .option('--socket-dir <dir>', 'put nbd.sock and control.sock here, not in the home')
    .option('--socket-group <group>', 'let a group use the sockets')
    .option('--cache <size>', 'memory for map pages, 16M to 16G (default 256M)', parseSize)
    .option('--reactors <n>', `native event loops, 1 to ${REACTORS_MAX}`, countOption(1, REACTORS_MAX))
    .option('--spin-us <n>', 'longest busy poll of a socket, microseconds', countOption(0, SPIN_US_MAX))
    .option('--copy-every <time>', 'oldest copy of the store in a pool, 1s to 24h; 0: none (default 5m)', parseDuration)
    .option('--pool-warn <percent>', 'warn when a pool is so full, 1 to 100 (default 80)', countOption(1, 100))
    .option('--pool-critical <percent>', 'and again when it is so full (default 95)', countOption(1, 100))
    .option('--no-io-uring', 'threads instead of io_uring')
    .option('--metrics <address>', 'serve metrics on loopback TCP too, such as 127.0.0.1:9187', parseMetricsAddress)
    .option(
      '--http <address>',
      'serve users here (default: $ATOLL_HTTP, else 127.0.0.1:8780); none: not at all',
      parseHttpAddress,
    )
    .option('--public-url <url>', 'what users reach that by, if it is not the address', parsePublicUrl)
    .option(
      '--catalog <url>',
      'a PostgreSQL database for users (default: $ATOLL_CATALOG, else a file in the home)',
      (url) => parseCatalogUrl(url, false),
    )
    .option('--tls-cert <file>', 'speak TLS there, with this certificate (PEM, with those that sign it)')
    .option('--tls-key <file>', 'and this key (PEM)')
    .option('--log-json', 'log lines as JSON')
    .addOption(new Option('--log-level <level>', 'the least that is logged (default: info)').choices(LOG_LEVELS))
    // The other commands have it; run.ts says what to take instead.
    .addOption(new Option('--socket <path>').hideHelp())
    .action(async (options: ServeOptions) => {
      const { serve } = await import('../serve/run.ts');
      await serve(options, world);
    });
}

function collectAddress(text: string, before: NbdAddress[] = []): NbdAddress[] {
  return [...before, parseNbdAddress(text)];
}
