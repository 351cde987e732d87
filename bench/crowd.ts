/** Very many volumes and snapshots, made through the control API as anybody would, many at once. */
import http from 'node:http';
import type { Daemon } from './daemon.ts';
import { MIB } from './size.ts';

/** requests on their way: commits take many together */
const LANES = 64;

export interface Crowd {
  volumes: number;
  snapshotsEach: number;
}

export const volumeName = (i: number): string => `v${String(i).padStart(6, '0')}`;

/** Volumes of 1 MiB, empty. @throws with what the daemon said when it refuses one */
export async function makeCrowd(daemon: Daemon, { volumes, snapshotsEach }: Crowd): Promise<void> {
  const agent = new http.Agent({ keepAlive: true, maxSockets: LANES });
  const post = (route: string, body: unknown): Promise<void> => send(daemon.controlSocket, agent, route, body);
  try {
    await inLanes(volumes, (i) => post('/v1/volumes', { name: volumeName(i), size: MIB }));
    await inLanes(volumes * snapshotsEach, (i) =>
      post(`/v1/volumes/${volumeName(i % volumes)}/snapshots`, { name: `s${Math.floor(i / volumes)}` }),
    );
  } finally {
    agent.destroy();
  }
}

async function inLanes(count: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

function send(socketPath: string, agent: http.Agent, route: string, body: unknown): Promise<void> {
  const text = JSON.stringify(body);
  const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
  return new Promise((resolve, reject) => {
    const request = http.request({ socketPath, agent, method: 'POST', path: route, headers }, (response) => {
      let said = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        said += chunk;
      });
      response.once('error', reject);
      response.once('end', () => ((response.statusCode ?? 500) < 300 ? resolve() : reject(new Error(said))));
    });
    request.once('error', reject);
    request.end(text);
  });
}
