/**
 * From a request head to the URL, path and method that handlers are shown.
 * Role: pure functions over RequestHead. Up: frontends, the request log.
 */
import { eventFlag } from '../../ffi/layout.ts';
import { methodNames, type RequestHead } from './http.ts';

/** Hosts whose origin is remembered. Clients choose the Host, so the table is bounded and starts over when it is full. */
const originCacheLimit = 128;
const originCache = new Map<string, string>();
let lastHost = '\0';
let lastScheme = '';
let lastOrigin = '';

/** Targets that the URL parser would leave alone: no octet it encodes, no segment that begins with a dot, plain or encoded. */
const settledTarget = /^\/[\w\-~!$&()*+,;=:@/?]*$/;
const settledCharacters = /^\/[\w\-~!$&()*+,;=:@/?.%]*$/;

/** Octets that would end the host early in `scheme://host/` and so let a client move text into another part of the URL. */
const foreignToHost = /[/?#@\\\s]/;

/**
 * The URL of a request, normalised as `new URL()` does.
 * Not for CONNECT, whose target is no part of a URL. ret: '' when the host is not one that a URL can have
 */
export function requestUrl(head: RequestHead): string {
  const { raw, hostBytes, flags } = head;
  const target = raw.slice(hostBytes, hostBytes + head.targetBytes);
  const scheme = flags & eventFlag.requestTls ? 'https' : 'http';
  const origin = originOf(scheme, raw.slice(0, hostBytes));
  if (flags & eventFlag.requestAsterisk) return origin && `${origin}/*`;
  if (origin === '') return '';
  if (settledTarget.test(target)) return origin + target;
  return origin + settle(target);
}

function originOf(scheme: string, host: string): string {
  if (host === lastHost && scheme === lastScheme) return lastOrigin;
  const key = `${scheme}://${host}`;
  let origin = originCache.get(key);
  if (origin === undefined) {
    origin = parseOrigin(scheme, host);
    if (originCache.size >= originCacheLimit) originCache.clear();
    originCache.set(key, origin);
  }
  lastHost = host;
  lastScheme = scheme;
  lastOrigin = origin;
  return origin;
}

function parseOrigin(scheme: string, host: string): string {
  // HTTP/1.0 may come without Host (RFC 9112 §3.2 asks for it from 1.1 on)
  if (host === '') return `${scheme}://localhost`;
  if (foreignToHost.test(host)) return '';
  const url = URL.parse(`${scheme}://${host}/`);
  return url === null || url.host === '' ? '' : `${scheme}://${url.host}`;
}

/** Path and query as the URL parser writes them. An absolute-form target may have left only a query, or nothing. */
function settle(target: string): string {
  const path = target.charCodeAt(0) === 0x2f ? target : `/${target}`;
  if (settledCharacters.test(path) && !path.includes('/.') && !path.includes('/%2')) return path;
  const url = URL.parse(`http://localhost${path}`);
  return url === null ? '/' : url.href.slice('http://localhost'.length);
}

/** The path of a request as it came, without its query. */
export function requestPath(head: RequestHead): string {
  return withoutQuery(head.raw.slice(head.hostBytes, head.hostBytes + head.targetBytes));
}

export function withoutQuery(target: string): string {
  const mark = target.indexOf('?');
  return mark < 0 ? target : target.slice(0, mark);
}

/** ret: the method in upper case as it came; for methods without a number, the value of the ":method" field */
export function requestMethod(head: RequestHead): string {
  if (head.method !== 0) return methodNames[head.method] ?? 'GET';
  const start = head.raw.indexOf('\n', head.hostBytes + head.targetBytes) + 1;
  return head.raw.slice(start, head.raw.indexOf('\n', start));
}

/** All values of a header field, in the order received. `name` in lower case. */
export function headerValues(head: RequestHead, name: string): string[] {
  const lines = head.raw.slice(head.hostBytes + head.targetBytes).split('\n');
  const values: string[] = [];
  for (let at = 0; at + 1 < lines.length; at += 2) if (lines[at] === name) values.push(lines[at + 1] as string);
  return values;
}

/** The fields of a request as a real Headers object. */
export function requestHeaders(head: RequestHead): Headers {
  const { raw } = head;
  const headers = new Headers();
  let at = head.hostBytes + head.targetBytes;
  if (head.method === 0) at = raw.indexOf('\n', raw.indexOf('\n', at) + 1) + 1;
  while (at < raw.length) {
    const nameEnd = raw.indexOf('\n', at);
    const valueEnd = raw.indexOf('\n', nameEnd + 1);
    if (nameEnd < 0 || valueEnd < 0) break;
    const name = raw.slice(at, nameEnd);
    const value = raw.slice(nameEnd + 1, valueEnd);
    at = valueEnd + 1;
    if (name === 'cookie') {
      // RFC 6265 §5.4: cookies are joined with "; ", where other fields take ", "
      const before = headers.get('cookie');
      headers.set('cookie', before === null ? value : `${before}; ${value}`);
    } else headers.append(name, value);
  }
  return headers;
}
