/** What is known of a connection, asked for by Hono's context. Role: for handlers; `getConnInfo` has the shape of those of Hono's own adapters. */
import type { Context } from 'hono';
import type { AddressType, ConnInfo, GetConnInfo } from 'hono/conninfo';
import type { RingwayBindings } from '../../api/bindings.ts';
import type { TlsInfo } from '../../core/tls-info.ts';

export type { ConnInfo };

/**
 * The client's address and port, behind trusted proxies as they tell it; a header tells no port. `remote` is empty when the client left, or came over
 * a Unix socket.
 */
export const getConnInfo: GetConnInfo = (c: Context): ConnInfo => {
  const peer = bindingsOf(c, 'getConnInfo').ip();
  if (peer === undefined) return { remote: {} };
  const addressType: AddressType = peer.address.includes(':') ? 'IPv6' : 'IPv4';
  const port = peer.port === 0 ? {} : { port: peer.port };
  return { remote: { address: peer.address, addressType, ...port, transport: 'tcp' } };
};

/** The version of TLS, and the server name and certificate that the client has shown; undefined without TLS, or when it left. */
export const getTlsInfo = (c: Context): TlsInfo | undefined => bindingsOf(c, 'getTlsInfo').tls();

function bindingsOf(c: Context, caller: string): RingwayBindings {
  const bindings = c.env as Partial<RingwayBindings> | undefined;
  if (typeof bindings?.ip !== 'function')
    throw new TypeError(`${caller}() needs the env that Ringway passes to fetch() as its second argument`);
  return bindings as RingwayBindings;
}
