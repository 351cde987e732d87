/**
 * Turns the power on again: mounts an image, starts a daemon on it, and compares what it has with what is due.
 */
import fs from 'node:fs';
import http from 'node:http';
import { Daemon } from '../../../bench/daemon.ts';
import { verifyDisk } from '../../e2e/lib/writer.ts';
import { mountImage, type Stand, unmount } from './device.ts';
import type { Expected } from './history.ts';

/** More of one image tell nothing new. */
const PROBLEMS_MAX = 5;

/**
 * @param home where it was mounted: a store knows its pools by their paths
 * @returns what is wrong, nothing when all is well
 */
export async function inspect(stand: Stand, image: string, home: string, expected: Expected): Promise<string[]> {
  await mountImage(stand, image, home);
  try {
    let daemon: Daemon;
    try {
      daemon = await Daemon.start(stand.children, { home });
    } catch (error) {
      return [(error as Error).message];
    }
    stand.uses(daemon.pid);
    try {
      return (await compare(daemon, expected)).slice(0, PROBLEMS_MAX);
    } catch (error) {
      return [`${(error as Error).message} ${daemon.crashed ?? ''}`];
    } finally {
      await daemon.kill();
    }
  } finally {
    fs.rmSync(`${home}.log`, { force: true });
    await unmount(stand, home);
  }
}

async function compare(daemon: Daemon, expected: Expected): Promise<string[]> {
  const { volumes } = await daemon.http<{ volumes: { name: string }[] }>('GET', '/v1/volumes');
  const { snapshots } = await daemon.http<{ snapshots: { name: string }[] }>('GET', '/v1/snapshots');
  const due = expected.resources();
  const problems: string[] = [];
  const there = new Set([...volumes, ...snapshots].map(({ name }) => name));
  for (const [name, { must }] of due) if (must && !there.has(name)) problems.push(`${name} is gone`);
  for (const name of there) {
    const known = due.get(name);
    if (known) problems.push(...(await verifyDisk(daemon.nbdSocket, name, known.disk)));
    else problems.push(`${name} is there, and was deleted or never made`);
  }
  problems.push(...(await check(daemon)));
  return problems;
}

/** `atoll check`, without a process of its own. */
async function check(daemon: Daemon): Promise<string[]> {
  const text = await new Promise<string>((resolve, reject) => {
    const options = { socketPath: daemon.controlSocket, method: 'POST', path: '/v1/check' };
    const request = http.request(options, (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        answer += chunk;
      });
      response.once('error', reject).once('end', () => resolve(answer));
    });
    request.once('error', reject).end();
  });
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { report?: { ok: boolean; problems: { code: string; message: string }[] } });
  const report = lines.at(-1)?.report;
  if (!report) return [`check said ${text.trim().slice(-200)}`];
  return report.ok ? [] : report.problems.map(({ code, message }) => `check: ${code} ${message}`);
}
