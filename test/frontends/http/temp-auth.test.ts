/** TempAuth: the same users, by headers. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cloud, PUBLIC_URL } from './cloud.ts';

const cloud = new Cloud();
beforeAll(() => cloud.open());
afterAll(() => cloud.end());

const login = (headers: Record<string, string>) => cloud.call('GET', '/auth/v1.0', { headers });

describe('/auth/v1.0', () => {
  it.each([
    ['x-auth-user', 'x-auth-key'],
    ['x-storage-user', 'x-storage-pass'],
    ['x-auth-user', 'x-storage-pass'],
  ])('by %s and %s: a token for the project, and where its account is', async (user, key) => {
    const answer = await login({ [user]: 'demo:demo', [key]: cloud.password('demo') });
    expect([answer.status, answer.body]).toEqual([200, '']);
    const token = String(answer.headers['x-auth-token']);
    expect(answer.headers['x-storage-token']).toBe(token);
    const shown = await cloud.call('GET', '/auth/tokens', { token, headers: { 'x-subject-token': token } });
    const { project, expires_at } = shown.body.token;
    expect(project.name).toBe('demo');
    expect(answer.headers['x-storage-url']).toBe(`${PUBLIC_URL}/v1/AUTH_${project.id}`);
    const seconds = (Date.parse(expires_at) - Date.now()) / 1000;
    expect(Math.abs(Number(answer.headers['x-auth-token-expires']) - seconds)).toBeLessThan(60);
    expect(answer.headers['x-trans-id']).toMatch(/^tx[0-9a-f]{21}-[0-9a-f]{10}$/);
  });

  it('names are UTF-8, and only the first colon parts them', async () => {
    const admin = await cloud.admin();
    const role = await cloud.idOf('roles', 'member', admin);
    const project = await cloud.make('projects', 'project', { name: 'projet é' }, admin);
    const user = await cloud.make('users', 'user', { name: 'a:ü', password: 'pässword' }, admin);
    await cloud.call('PUT', `/projects/${project}/users/${user}/roles/${role}`, { token: admin });
    const raw = (text: string) => Buffer.from(text, 'utf8').toString('latin1');
    const answer = await login({ 'x-auth-user': raw('projet é:a:ü'), 'x-auth-key': raw('pässword') });
    expect([answer.status, answer.headers['x-storage-url']]).toEqual([200, `${PUBLIC_URL}/v1/AUTH_${project}`]);
  });

  it('says the same to whoever it does not let in', async () => {
    const key = cloud.password('demo');
    const answers = await Promise.all(
      [
        {},
        { 'x-auth-user': 'demo:demo' },
        { 'x-auth-key': key },
        { 'x-auth-user': 'demo', 'x-auth-key': key },
        { 'x-auth-user': ':demo', 'x-auth-key': key },
        { 'x-auth-user': 'demo:', 'x-auth-key': key },
        { 'x-auth-user': 'demo:demo', 'x-auth-key': '' },
        { 'x-auth-user': 'demo:demo', 'x-auth-key': 'wrong' },
        { 'x-auth-user': 'demo:demo', 'x-auth-key': 'x'.repeat(4097) },
        { 'x-auth-user': 'admin:demo', 'x-auth-key': key },
        { 'x-auth-user': 'demo:nobody', 'x-auth-key': key },
        { 'x-auth-user': 'nowhere:demo', 'x-auth-key': key },
      ].map((headers) => login(headers as Record<string, string>)),
    );
    for (const answer of answers) {
      expect(answer).toMatchObject({ status: 401, body: '<html><h1>Unauthorized</h1></html>' });
      expect(answer.headers['www-authenticate']).toBe('Swift realm="unknown"');
      for (const name of ['x-auth-token', 'x-storage-token', 'x-storage-url'])
        expect(answer.headers).not.toHaveProperty(name);
    }
  });

  it('more at once than can be: 429', async () => {
    const all = Array.from({ length: 80 }, () => login({ 'x-auth-user': 'a:nobody', 'x-auth-key': 'x' }));
    const answers = await Promise.all(all);
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(66);
    const refused = answers.filter(({ status }) => status === 429);
    expect([refused.length, refused[0]!.headers['retry-after']]).toEqual([14, '1']);
  });

  it('logs no password and no token', () => {
    expect(cloud.logged.join('\n')).not.toContain(cloud.password('demo'));
    expect(cloud.logged.join('\n')).toContain('/auth/v1.0');
  });
});
