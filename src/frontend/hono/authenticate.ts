/**
 * Hono middleware that lets in whoever has a token that the config's `auth` believes.
 * Role: for routes of `fetch`. Down: identity.ts.
 */
import type { Context, MiddlewareHandler } from 'hono';
import type { User } from '../../api/user.ts';
import { Exchange, hostOf } from './exchange.ts';
import { identify, unauthorized } from './identity.ts';

/** What routes behind `authenticate()` find in `c.get('user')`: `new Hono<{ Variables: UserVariables }>()`. */
export interface UserVariables {
  readonly user: User;
}

/**
 * Answers with 401 unless the request has a token of a user, whom the routes behind find in `c.get('user')`:
 * `app.use('/api/*', authenticate())`. `optional`: a request without a token goes on without a user; one with a bad token does not.
 * Throws TypeError where the config has no `auth`: then nobody is let in.
 */
export function authenticate(options: { readonly optional?: boolean } = {}): MiddlewareHandler {
  return async (c: Context, next) => {
    const exchange: unknown = c.env;
    if (!(exchange instanceof Exchange))
      throw new TypeError('authenticate() needs the env that Ringway passes to fetch() as its second argument');
    const { authentication } = hostOf(exchange);
    if (authentication === undefined) throw new TypeError('authenticate() needs auth in the config, which says whose tokens are believed');
    const verified = await identify(exchange, authentication);
    if (verified.ok) c.set('user', verified.user);
    else if (verified.reason !== 'missing' || options.optional !== true) return unauthorized(authentication, verified);
    return next();
  };
}
