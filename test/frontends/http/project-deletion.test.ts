/** A project is deleted when it holds nothing, or with all that it holds and all that is below it. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LIST_MAX } from '../../../src/frontends/http/identity/rows.ts';
import type { Service } from '../../../src/frontends/http/service.ts';
import { Cloud } from './cloud.ts';

/** projects that the service was told to empty, in order */
const emptied: string[] = [];
let fails = false;
/** A service that keeps objects. */
const keeper: Service = {
  type: 'thing',
  mount: '/thing',
  open: new Set(),
  routes: () => {},
  emptyProject: async (projectId, { catalog }) => {
    emptied.push(projectId);
    if (fails) throw new Error('the disk is gone');
    const held = (await catalog.quotas.show({ projectId, userId: null })).find(
      ({ resource }) => resource === 'objects',
    );
    const amounts = { objects: -held!.used };
    await catalog.write([{ do: 'charge', project_id: projectId, user_id: null, amounts }]);
  },
};

const cloud = new Cloud(undefined, [keeper]);
let token: string;
let names = 0;
const ids: Record<string, string> = {};
beforeAll(async () => {
  await cloud.open();
  token = await cloud.admin();
});
afterAll(() => cloud.end());
beforeEach(async () => {
  fails = false;
  emptied.length = 0;
  for (const [name, parent] of [
    ['top', undefined],
    ['middle', 'top'],
    ['leaf', 'middle'],
    ['other', undefined],
  ] as const) {
    const body = { name: `${name}${++names}`, ...(parent ? { parent_id: ids[parent] } : {}) };
    ids[name] = await cloud.make('projects', 'project', body, token);
  }
});

const ask = (method: string, url: string, body?: unknown) => cloud.call(method, url, { token, body });
const drop = (name: string, query = '') => ask('DELETE', `/projects/${ids[name]}${query}`);
const holds = (name: string, objects: number) =>
  cloud.catalog.write([{ do: 'charge', project_id: ids[name]!, user_id: null, amounts: { objects } }]);
const disable = (...all: string[]) =>
  Promise.all(all.map((name) => ask('PATCH', `/projects/${ids[name]}`, { project: { enabled: false } })));
const there = async (...all: string[]) => {
  const found = await Promise.all(all.map(async (name) => (await ask('GET', `/projects/${ids[name]}`)).status === 200));
  return all.filter((_name, index) => found[index]);
};

describe('without what it holds', () => {
  it('is refused while there is something, and says what', async () => {
    await holds('leaf', 2);
    const refused = await drop('leaf');
    expect([refused.status, refused.body.error.message]).toEqual([
      409,
      `Cannot delete project ${ids.leaf} since it holds objects.`,
    ]);
    await holds('leaf', -2);
    const commission = await cloud.catalog.quotas.reserve({ projectId: ids.leaf!, userId: null }, { images: 1 });
    expect((await drop('leaf')).status).toBe(409);
    await cloud.catalog.quotas.release(commission);
    expect((await drop('leaf')).status).toBe(204);
    expect([await there('leaf', 'middle'), emptied]).toEqual([['middle'], []]);
  });

  it('is refused while there are projects below', async () => {
    expect([(await drop('middle')).status, (await drop('middle', '?cascade=false')).status]).toEqual([403, 403]);
    expect(await there('middle', 'leaf')).toEqual(['middle', 'leaf']);
  });

  it('goes for a domain too', async () => {
    const domain_id = await cloud.make('domains', 'domain', { name: `d${++names}` }, token);
    ids.inside = await cloud.make('projects', 'project', { name: 'inside', domain_id }, token);
    await holds('inside', 1);
    await ask('PATCH', `/domains/${domain_id}`, { domain: { enabled: false } });
    expect((await ask('DELETE', `/domains/${domain_id}`)).status).toBe(409);
    await holds('inside', -1);
    expect((await ask('DELETE', `/domains/${domain_id}`)).status).toBe(204);
  });
});

describe('with what it holds', () => {
  it('goes with the projects below, disabled first, each emptied by every service', async () => {
    await Promise.all([holds('top', 1), holds('leaf', 3), holds('other', 1)]);
    expect((await drop('top', '?cascade')).status).toBe(403);
    await disable('top', 'middle');
    expect((await drop('top', '?cascade=true')).status).toBe(403);
    expect([emptied, await there('top', 'middle', 'leaf')]).toEqual([[], ['top', 'middle', 'leaf']]);
    await disable('leaf');
    expect((await drop('top', '?cascade=true')).status).toBe(204);
    expect(emptied.sort()).toEqual([ids.top, ids.middle, ids.leaf].sort());
    expect(await there('top', 'middle', 'leaf', 'other')).toEqual(['other']);
  });

  it('stays when a service fails, or leaves something', async () => {
    await holds('leaf', 1);
    await disable('leaf');
    fails = true;
    expect((await drop('leaf', '?cascade')).status).toBe(500);
    expect(await there('leaf')).toEqual(['leaf']);
    fails = false;
    await cloud.catalog.write([
      { do: 'charge', project_id: ids.leaf!, user_id: null, amounts: { volumes: 1, volume_bytes: 1 } },
    ]);
    const left = await drop('leaf', '?cascade');
    expect([left.status, left.body.error.message]).toEqual([
      409,
      `Cannot delete project ${ids.leaf} since it holds volume_bytes, volumes.`,
    ]);
    expect(await there('leaf')).toEqual(['leaf']);
  });

  it('is never the operators’, nor what is above it', async () => {
    const admin = await cloud.idOf('projects', 'admin', token);
    expect((await ask('DELETE', `/projects/${admin}?cascade`)).status).toBe(403);
    await cloud.catalog.write([
      { do: 'update', table: 'project', where: { id: admin }, set: { parent_id: ids.other! } },
    ]);
    await disable('other');
    expect((await drop('other', '?cascade')).status).toBe(403);
    expect((await ask('GET', `/projects/${admin}`)).status).toBe(200);
    await cloud.catalog.write([{ do: 'update', table: 'project', where: { id: admin }, set: { parent_id: null } }]);
  });

  it('takes a thousand projects below it, and no more', async () => {
    const row = (index: number) => ({
      ...{
        id: `b${String(index).padStart(31, '0')}`,
        name: `below${index}`,
        domain_id: 'default',
        parent_id: ids.other!,
      },
      ...{ description: '', enabled: 0, epoch: 0, extra: '{}' },
    });
    const rows = Array.from({ length: LIST_MAX + 1 }, (_, index) => row(index));
    await cloud.catalog.write(rows.map((one) => ({ do: 'insert', table: 'project', row: one }) as const));
    await disable('other');
    expect([(await drop('other', '?cascade')).status, emptied]).toEqual([403, []]);
    await cloud.catalog.write([{ do: 'delete', table: 'project', where: { id: rows[0]!.id } }]);
    expect([(await drop('other', '?cascade')).status, emptied.length]).toEqual([204, LIST_MAX + 1]);
  });

  it('is for who may delete it', async () => {
    await disable('leaf');
    const demo = await cloud.demo();
    expect((await cloud.call('DELETE', `/projects/${ids.leaf}?cascade`, { token: demo })).status).toBe(403);
    expect(emptied).toEqual([]);
  });
});
