/**
 * The `atoll` command, and the control plane's folder: who comes here first should know that
 *
 * - `program.ts` is the command tree, `commands/` one file per group of commands; all but `serve` are clients of the daemon;
 * - `client.ts` and `api/` are the two ends of the control socket (docs/control-api.md);
 * - `serve/` is the daemon's life; `transfers.ts` what it keeps aside until an import is whole;
 * - `transfer/` moves images and streams between files and NBD, `stream/` is the backup stream (docs/stream.md), `nbd/` a client;
 * - `catalog/` is who and what there is above the engine (docs/catalog.md); `src/frontends/http/` serves it;
 * - `metrics/` reads what is counted elsewhere for GET /metrics, `top/` for `atoll top` (docs/watching.md);
 * - `errors.ts` has every code, once (docs/errors.md).
 */
import { becomeIoFlusher } from '../xseg/io-flusher.ts';
import { runCli } from './program.ts';
import { terminalScreen } from './top/screen.ts';

if (process.argv[2] === 'serve') becomeIoFlusher();

const interrupt = new AbortController();
/** a command that never looks at the signal is ended by it, as any program is */
let minded = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => (minded ? interrupt.abort() : process.kill(process.pid, signal)));

// A reader that has seen enough (`atoll volume list | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
// The daemon goes on when nobody reads its log any more.
process.stderr.on('error', () => undefined);

process.exitCode = await runCli(process.argv.slice(2), {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  terminal: process.stderr.isTTY === true,
  screen: terminalScreen(),
  env: process.env,
  get signal() {
    minded = true;
    return interrupt.signal;
  },
});
