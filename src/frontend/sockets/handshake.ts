/**
 * What a handshake asks for: its origin and its subprotocols.
 * Role: pure functions over a request head. Up: socket-handlers.ts, and frontends that decide on handshakes.
 */
import type { Authentication } from '../../auth/authentication.ts';
import type { RouteAuthSettings } from '../../config/auth.ts';
import { eventFlag } from '../../core/abi.ts';
import type { RequestHead } from '../../core/http.ts';
import { headerValues } from '../../core/request-target.ts';

/**
 * May a page of this origin connect? Requests without Origin come from programs, not pages, and pass (RFC 6454 §7.3).
 * ret: undefined when it may, else why not
 */
export function checkOrigin(head: RequestHead, allowed: 'any' | 'same-host' | readonly string[]): string | undefined {
  if (allowed === 'any') return undefined;
  // More than one is against RFC 6454 §7.3; then each must be allowed, so that it does not matter which one the client means.
  const origins = headerValues(head, 'origin');
  if (allowed === 'same-host') {
    const host = hostOf(addressedHost(head));
    const isSame = (origin: string) => host !== '' && hostOf(URL.parse(origin)?.host ?? '') === host;
    return origins.every(isSame) ? undefined : 'Forbidden: the page is not of this host';
  }
  return origins.every((origin) => allowed.includes(origin)) ? undefined : 'Forbidden: origin not allowed';
}

/**
 * The host, and the port where it is told, that the client has addressed: as trusted proxies tell it, else as Host does.
 * Of a list it is the first, the outermost proxy's: no page can write these fields into a handshake, so nothing of a page stands before it,
 * and whoever else writes them needs no Origin either.
 */
function addressedHost(head: RequestHead): string {
  const host = head.raw.slice(0, head.hostBytes);
  if (head.flags & eventFlag.requestForwarded) return forwardedHost(headerValues(head, 'forwarded').join(',')) || host;
  if (!(head.flags & eventFlag.requestXForwarded)) return host;
  const told = firstOf(head, 'x-forwarded-host') || host;
  const port = firstOf(head, 'x-forwarded-port');
  return port === '' || hasPort.test(told) ? told : `${told}:${port}`;
}

const hasPort = /:\d*$/;

/** The first element of a field that is a list, or ''. */
function firstOf(head: RequestHead, name: string): string {
  return headerValues(head, name).join(',').split(',', 1)[0]?.trim() ?? '';
}

/** One `name=value` of Forwarded with what stands before it (RFC 7239 §4); a value with a port has a colon, and so is quoted. */
const forwardedPair = /[\s,;]*([\w!#$%&'*+.^`|~-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*))/gy;

/** ret: the first `host` in Forwarded, or '' when none comes before what is not in its form */
function forwardedHost(value: string): string {
  for (const [, name, quoted, token] of value.matchAll(forwardedPair)) {
    if (name?.toLowerCase() === 'host') return quoted?.replace(/\\(.)/g, '$1') ?? token ?? '';
  }
  return '';
}

/** Octets that would end the host early in a URL. The core lets none of them into Host, but looks at no other field. */
const foreignToHost = /[/?#@\\\s]/;

/** A host and port as a URL writes them, without a port that is the default of http or https: the scheme that the page used is not known. */
function hostOf(host: string): string {
  if (foreignToHost.test(host)) return '';
  return URL.parse(`http://${host}/`)?.host.replace(/:443$/, '') ?? '';
}

/** The extensions that the client offers, in one line (RFC 6455 §9.1), or ''. */
export function extensionsOffered(head: RequestHead): string {
  return headerValues(head, 'sec-websocket-extensions').join(', ');
}

/** The first of `spoken` that the client offers (RFC 6455 §4.2.2), or ''. */
export function chooseProtocol(head: RequestHead, spoken: readonly string[]): string {
  if (spoken.length === 0) return '';
  const offers = headerValues(head, 'sec-websocket-protocol').flatMap((value) => value.split(',').map((name) => name.trim()));
  return spoken.find((name) => offers.includes(name)) ?? '';
}

/** Header lines of an answer as they may be sent: with no subprotocol that holds a token, which a client offers for the gateway alone. */
export function withoutTokenProtocol(head: RequestHead, headers: string, authentication: Authentication): string {
  const { subprotocol } = authentication.settings;
  const line = new RegExp(`^sec-websocket-protocol: *${RegExp.escape(subprotocol)}\\..*\\r\\n`, 'im');
  if (!line.test(headers)) return headers;
  const name = chooseProtocol(head, [subprotocol]);
  return headers.replace(line, name === '' ? '' : `Sec-WebSocket-Protocol: ${name}\r\n`);
}

/**
 * What is agreed on with a client that brings its token as a subprotocol and speaks none of the route's: browsers close a connection of which they have
 * offered subprotocols and got none. Never what holds a token. ret: '' for none
 */
export function tokenProtocol(head: RequestHead, asks: RouteAuthSettings, authentication: Authentication | undefined): string {
  if (asks === false || authentication === undefined || !asks.from.includes('subprotocol')) return '';
  return chooseProtocol(head, [authentication.settings.subprotocol]);
}
