/**
 * Where a token stands in a request, and how it gets out of an URL before anybody sees that.
 * Role: pure functions over a request head. Up: tokens.ts; the registry of frontends, for `takeQueryToken`.
 */
import type { TokenSource } from '../api/user.ts';
import type { AuthSettings } from '../config/auth.ts';
import type { RequestHead } from '../core/http.ts';
import { headerValues } from '../core/request-target.ts';

type Names = Pick<AuthSettings, 'cookie' | 'subprotocol' | 'query'>;

/** ret: what stands where a token should, whether it is one or not; undefined: nothing does. Of several sources the first that has something counts */
export function findToken(head: RequestHead, from: readonly TokenSource[], names: Names): string | undefined {
  for (const source of from) {
    const found = finders[source](head, names);
    if (found !== undefined) return found;
  }
  return undefined;
}

const finders: Readonly<Record<TokenSource, (head: RequestHead, names: Names) => string | undefined>> = {
  header(head) {
    // RFC 9110 §11.1: the scheme is without case. Others than Bearer are not for us, such as Basic of a proxy.
    const values = headerValues(head, 'authorization').filter((value) => /^bearer(?: |$)/i.test(value));
    // RFC 6750 §2: only one. Which one is meant nobody knows, so it is none that verifies.
    return values.length > 1 ? '' : values[0]?.slice('bearer'.length).trim();
  },
  cookie(head, { cookie }) {
    for (const value of headerValues(head, 'cookie'))
      for (const pair of value.split(';')) {
        const at = pair.indexOf('=');
        // RFC 6265 §4.1.1: a value may stand in quotes.
        if (at > 0 && pair.slice(0, at).trim() === cookie)
          return pair
            .slice(at + 1)
            .trim()
            .replace(/^"(.*)"$/, '$1');
      }
    return undefined;
  },
  subprotocol(head, { subprotocol }) {
    for (const value of headerValues(head, 'sec-websocket-protocol'))
      for (const name of value.split(',').map((each) => each.trim()))
        if (name.startsWith(`${subprotocol}.`)) return name.slice(subprotocol.length + 1);
    return undefined;
  },
  query(head) {
    return fromQueries.get(head);
  },
  message() {
    return undefined;
  },
};

/** Tokens that were taken out of URLs. Nothing that handlers are given leads here. */
const fromQueries = new WeakMap<RequestHead, string>();

/**
 * Take a token out of the query of a request, before the head is handed on: no handler, log or error has it then. In place, since others know the
 * request by this object.
 */
export function takeQueryToken(head: { -readonly [Name in keyof RequestHead]: RequestHead[Name] }, name: string): void {
  const { raw, hostBytes, targetBytes } = head;
  const target = raw.slice(hostBytes, hostBytes + targetBytes);
  const mark = target.indexOf('?');
  if (mark < 0) return;
  const tokens: string[] = [];
  const kept = target
    .slice(mark + 1)
    .split('&')
    .filter((pair) => {
      const at = pair.indexOf('=');
      const isToken = decoded(at < 0 ? pair : pair.slice(0, at)) === name;
      if (isToken) tokens.push(decoded(at < 0 ? '' : pair.slice(at + 1)));
      return !isToken;
    });
  if (tokens.length === 0) return;
  const rest = target.slice(0, mark) + (kept.length === 0 ? '' : `?${kept.join('&')}`);
  head.raw = raw.slice(0, hostBytes) + rest + raw.slice(hostBytes + targetBytes);
  head.targetBytes = rest.length;
  // As of headers: of several none is meant.
  fromQueries.set(head, tokens.length > 1 ? '' : (tokens[0] as string));
}

/** As forms write it, where it can be read so. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text;
  }
}
