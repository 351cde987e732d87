/** Waits for servers that other programs are. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const WAIT_MS_MAX = 30_000;
const POLL_MS = 10;
/** as the kernel lists a socket that accepts: number, references, protocol, flags */
const ACCEPTS = /^\S+ \S+ \S+ 00010000 /;

function listening(socket: string): boolean {
  const lines = readFileSync('/proc/net/unix', 'utf8').split('\n');
  return lines.some((line) => line.endsWith(` ${socket}`) && ACCEPTS.test(line));
}

/** Until somebody accepts on a unix socket: its file is there before that, and some servers end with their first client. */
export async function untilListening(socket: string): Promise<void> {
  const deadline = Date.now() + WAIT_MS_MAX;
  while (!listening(socket)) {
    if (Date.now() > deadline) throw new Error(`nobody accepts on ${socket}`);
    await sleep(POLL_MS);
  }
}
