/** POST /v1/passwords: `atoll passwd`. */
import { PASSWORD_BYTES_MAX, randomPassword } from '../catalog/passwords.ts';
import { OPERATOR_HEADER } from '../client.ts';
import { ControlError } from '../errors.ts';
import type { Api, ApiContext } from './context.ts';
import * as schemas from './schemas.ts';

export function passwordRoutes(app: Api, context: ApiContext): void {
  app.post('/v1/passwords', { schema: { body: schemas.PasswordSet } }, async (request) => {
    const catalog = context.catalog?.() ?? null;
    if (catalog === null) throw new ControlError('UNSUPPORTED', 'this daemon serves no HTTP, so it has no users');
    if (!catalog.operator.isKey(request.headers[OPERATOR_HEADER]))
      throw new ControlError('DENIED', 'only who can read the home of the daemon may set passwords');
    const { user: name, domain = 'default', password = randomPassword() } = request.body;
    if (password === '' || Buffer.byteLength(password) > PASSWORD_BYTES_MAX)
      throw new ControlError('INVALID', `a password has 1 to ${PASSWORD_BYTES_MAX} bytes`);
    const db = await catalog.reader();
    const query = db.selectFrom('user').selectAll().where('domain_id', '=', domain).where('name', '=', name);
    const user = await query.executeTakeFirst();
    if (!user) throw new ControlError('NOT_FOUND', `there is no user ${name} in the domain ${domain}`);
    const set = { password_hash: await catalog.passwords.hash(password), password_changed_at: Date.now(), enabled: 1 };
    await catalog.write([{ do: 'update', table: 'user', where: { id: user.id }, set, revoke: true }]);
    catalog.passwordChanged(user, password);
    return { user: name, domain, password };
  });
}
