/**
 * An HTTP client that writes exactly the bytes it is told to, and reads responses one by one.
 *
 * Role: for what well-behaved HTTP clients cannot be made to send, and for counting what comes back. Its response reader is strict:
 * bytes that are no response fail the test.
 */
import { Connection, dial } from './connection.ts';

export interface RawResponse {
  readonly status: number;
  readonly version: string;
  /** The reason phrase. */
  readonly reason: string;
  /** By name in lower case; repeated fields are joined with ', '. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  readonly text: string;
}

/** `localAddress`: one of 127.0.0.0/8 to come from. */
export type Address = { readonly port: number; readonly host?: string; readonly localAddress?: string } | { readonly path: string };

export class RawClient extends Connection {
  static async connect(address: Address): Promise<RawClient> {
    return new RawClient(await dial({ ...address, allowHalfOpen: true }));
  }

  /** A string is written as one byte for each character. */
  override write(data: string | Uint8Array): void {
    super.write(typeof data === 'string' ? Buffer.from(data, 'latin1') : data);
  }

  /** Wait until the server has closed, and close too. ret: what came and was not taken */
  async closed(): Promise<Buffer> {
    await this.untilEnded();
    this.destroy();
    return this.received;
  }

  /** Take the next response, interim ones (1xx) included. `method` is that of its request: a response to HEAD has no body. */
  async response(method = 'GET'): Promise<RawResponse> {
    const parsed = await this.until('a whole response', () => {
      const found = parseResponse(this.received, method, this.isClosed);
      if (found === undefined && this.isClosed)
        throw new Error(`closed within a response: ${JSON.stringify(this.received.toString('latin1').slice(0, 2000))}`);
      return found;
    });
    this.take(parsed.bytes);
    return parsed.response;
  }

  /** Write and take the response. */
  exchange(data: string | Uint8Array, method = 'GET'): Promise<RawResponse> {
    this.write(data);
    return this.response(method);
  }
}

/** Read every response in `bytes`, which a closed connection has left. */
export function parseAll(bytes: Buffer): RawResponse[] {
  const responses: RawResponse[] = [];
  for (let rest = bytes; rest.length > 0; ) {
    const parsed = parseResponse(rest, 'GET', true);
    if (parsed === undefined) throw new Error(`not a whole response: ${JSON.stringify(rest.toString('latin1').slice(0, 2000))}`);
    responses.push(parsed.response);
    rest = rest.subarray(parsed.bytes);
  }
  return responses;
}

interface Parsed {
  readonly response: RawResponse;
  /** Consumed. */
  readonly bytes: number;
}

function parseResponse(bytes: Buffer, method: string, isClosed: boolean): Parsed | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd < 0) return undefined;
  const [statusLine = '', ...lines] = bytes.toString('latin1', 0, headEnd).split('\r\n');
  const start = /^(HTTP\/1\.1) ([1-5]\d\d) ([ -~]*)$/.exec(statusLine);
  if (start === null) throw new Error(`not a status line: ${JSON.stringify(statusLine)}`);
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const field = /^([!#$%&'*+\-.^_`|~\w]+): ?(.*)$/.exec(line);
    if (field === null) throw new Error(`not a field: ${JSON.stringify(line)}`);
    const name = (field[1] as string).toLowerCase();
    headers[name] = name in headers ? `${headers[name]}, ${field[2]}` : (field[2] as string);
  }
  const status = Number(start[2]);
  const at = headEnd + 4;
  const body = parseBody(bytes, at, headers, method === 'HEAD' || status < 200 || status === 204 || status === 304, isClosed);
  if (body === undefined) return undefined;
  const response = {
    status,
    version: start[1] as string,
    reason: start[3] as string,
    headers,
    body: body.data,
    text: body.data.toString('utf8'),
  };
  return { response, bytes: body.end };
}

function parseBody(
  bytes: Buffer,
  at: number,
  headers: Readonly<Record<string, string>>,
  isBodiless: boolean,
  isClosed: boolean,
): { data: Buffer; end: number } | undefined {
  const { 'content-length': length, 'transfer-encoding': coding } = headers;
  if (length !== undefined && coding !== undefined) throw new Error('a response with both Content-Length and Transfer-Encoding');
  if (isBodiless) return { data: Buffer.alloc(0), end: at };
  if (coding !== undefined) return parseChunks(bytes, at);
  if (length === undefined) return isClosed ? { data: bytes.subarray(at), end: bytes.length } : undefined;
  if (!/^\d+$/.test(length)) throw new Error(`not a length: ${length}`);
  const end = at + Number(length);
  return bytes.length >= end ? { data: bytes.subarray(at, end), end } : undefined;
}

function parseChunks(bytes: Buffer, start: number): { data: Buffer; end: number } | undefined {
  const pieces: Buffer[] = [];
  for (let at = start; ; ) {
    const lineEnd = bytes.indexOf('\r\n', at);
    if (lineEnd < 0) return undefined;
    const line = bytes.toString('latin1', at, lineEnd);
    if (!/^[0-9a-f]+$/i.test(line)) throw new Error(`not a chunk size: ${JSON.stringify(line)}`);
    const size = Number.parseInt(line, 16);
    const end = lineEnd + 2 + size;
    if (bytes.length < end + 2) return undefined;
    if (bytes.toString('latin1', end, end + 2) !== '\r\n') throw new Error('a chunk that does not end where it says');
    if (size === 0) return { data: Buffer.concat(pieces), end: end + 2 };
    pieces.push(bytes.subarray(lineEnd + 2, end));
    at = end + 2;
  }
}
