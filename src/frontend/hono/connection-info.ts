/** Hono's `getConnInfo` for Ringway. Role: a helper for handlers; the same shape as those of Hono's own adapters. */
import type { Context } from 'hono';
import type { AddressType, ConnInfo, GetConnInfo } from 'hono/conninfo';
import type { RingwayBindings } from './exchange.ts';

export type { ConnInfo };

/**
 * The client's address and port, behind trusted proxies as they tell it; a header tells no port. `remote` is empty when the client left, or came over
 * a Unix socket.
 */
export const getConnInfo: GetConnInfo = (c: Context): ConnInfo => {
  const bindings = c.env as Partial<RingwayBindings> | undefined;
  if (typeof bindings?.ip !== 'function')
    throw new TypeError('getConnInfo() needs the env that Ringway passes to fetch() as its second argument');
  const peer = bindings.ip();
  if (peer === undefined) return { remote: {} };
  const addressType: AddressType = peer.address.includes(':') ? 'IPv6' : 'IPv4';
  const port = peer.port === 0 ? {} : { port: peer.port };
  return { remote: { address: peer.address, addressType, ...port, transport: 'tcp' } };
};
