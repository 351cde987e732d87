/** The load that the identity rows make: so many at once, for so long, and what failed is told apart. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { byPassword, IdentityClient, load } from '../../bench/identity-client.ts';

let server: http.Server;
let url: string;
let connections = 0;
beforeAll(async () => {
  server = http.createServer((request, response) => {
    request.resume();
    request.once('end', () => {
      const refused = request.url === '/v3/refused';
      response.writeHead(refused ? 409 : 201, { 'x-subject-token': 'a-token' });
      response.end(JSON.stringify({ error: refused ? 'conflict' : undefined }));
    });
  });
  server.on('connection', () => connections++);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v3`;
});
afterAll(() => void server.close());

it('keeps its connections, counts what was done and what failed, and times each', async () => {
  const client = new IdentityClient(url, 3);
  const user = { name: 'u', password: 'p', project: 'q' };
  expect(await client.login(user)).toBe('a-token');
  let asked = 0;
  const one = async (n: number) => (await client.ask('POST', n % 2 ? '/refused' : '/x')).status === 201;
  const found = await load(3, 60, one, () => ++asked > 40);
  expect(found.done + found.failed).toBe(found.latencies.length);
  expect([found.done > 10, found.failed > 10, connections]).toEqual([true, true, 3]);
  await expect(client.expect(201, 'POST', '/refused', {}, byPassword(user))).rejects.toThrow(/answered 409.*conflict/);
  client.close();
});
