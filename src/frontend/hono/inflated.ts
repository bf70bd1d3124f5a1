/**
 * Responses of `fetch` whose body the runtime has inflated while their headers still tell of the compressed one (Fetch Standard, HTTP-network
 * fetch: the headers stay). Sent on as they are, they would name a coding that the body has not, and a length that it has not.
 *
 * Role: asked where a native Response, or the headers of one, becomes ours. Up: response.ts, globals.ts.
 */

/** Those that were asked for with `decompress: false`, and their clones. */
const raw = new WeakSet<Response>();

const codings = /^(?:gzip|deflate|br|zstd)$/i;

/** The body is as it came. ret: the response */
export function noteRaw(response: Response): Response {
  raw.add(response);
  const clone = response.clone.bind(response);
  Object.defineProperty(response, 'clone', { value: () => noteRaw(clone() as Response), configurable: true, writable: true });
  return response;
}

/** The headers of a native Response that fit its body. */
export function headersForBody(response: Response): Headers {
  const { headers } = response;
  // Only those of `fetch` have a URL.
  if (response.url === '' || response.body === null || raw.has(response) || !codings.test(headers.get('content-encoding') ?? ''))
    return headers;
  const fitting = new Headers(headers);
  fitting.delete('content-encoding');
  fitting.delete('content-length');
  return fitting;
}
