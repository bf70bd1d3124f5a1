/**
 * A core without sockets: makes requests from a description, plays their bodies and records what the frontend commands, while
 * holding it to the rules of HttpCommands.
 */

import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'bun:test';
import { type HttpCommands, methodNames, type RequestHead } from '../../src/core/http.ts';
import { type ErrorContext, FetchFrontend, type FetchFrontendOptions, installLightGlobals } from '../../src/frontend/hono/index.ts';

export const flags = { hasBody: 1, upgrade: 2, tls: 4, http10: 8, asterisk: 16, authority: 32 } as const;

export interface RequestOptions {
  method?: string;
  host?: string;
  headers?: [name: string, value: string][] | Record<string, string>;
  /** Sent at once, one part per element. */
  body?: string | Uint8Array | (string | Uint8Array)[];
  flags?: number;
  slot?: number;
  generation?: number;
  request?: number;
  listener?: number;
}

export interface Recorded {
  head: RequestHead;
  status: number;
  /** As sent, in order. */
  headers: [name: string, value: string][];
  header(name: string): string | null;
  chunks: Uint8Array[];
  text(): string;
  /** Length given to respondBegin, undefined for a response sent whole. */
  length: number | undefined;
  state: 'none' | 'streaming' | 'complete' | 'aborted' | 'upgraded' | 'left';
  close: boolean;
  acknowledged: number;
  upgrade?: { headers: string; data: unknown };
  done: Promise<void>;
}

const bytesOf = (body: string | Uint8Array): Uint8Array =>
  typeof body === 'string' ? new TextEncoder().encode(body) : new Uint8Array(body);

export class FakeCore implements HttpCommands {
  readonly highWater: number;
  readonly frontend: FetchFrontend;
  readonly errors: { error: unknown; context: ErrorContext }[] = [];
  /** What is "not yet taken by the client", as respondChunk answers; `take()` empties it. */
  queued = 0;
  /** When true, chunks stay queued until take(). */
  slow = false;
  address: { address: string; port: number } | undefined = { address: '192.0.2.7', port: 4711 };
  private readonly records = new Map<RequestHead, Recorded>();
  private readonly finishers = new Map<RequestHead, () => void>();
  private numbers = 0;

  constructor(fetch: FetchFrontendOptions['fetch'], options: Partial<FetchFrontendOptions> & { highWater?: number } = {}) {
    this.highWater = options.highWater ?? 65536;
    this.frontend = new FetchFrontend({
      fetch,
      commands: this,
      sockets: { accept: (head, headers, data) => this.upgrade(head, headers, data), forget() {} },
      onError: (error, context) => this.errors.push({ error, context }),
      ...options,
    });
  }

  /** Deliver a request. Its body, if given, follows in one go. */
  request(target: string, options: RequestOptions = {}): Recorded {
    this.numbers += 1;
    const host = options.host ?? 'localhost:8080';
    const name = options.method ?? 'GET';
    const fields = Array.isArray(options.headers) ? options.headers : Object.entries(options.headers ?? {});
    const known = methodNames.indexOf(name as 'GET');
    let raw = host + target;
    if (known < 0) raw += `:method\n${name}\n`;
    if (host !== '') raw += `host\n${host}\n`;
    for (const [field, value] of fields) raw += `${field.toLowerCase()}\n${value}\n`;
    const parts = options.body === undefined ? [] : [options.body].flat().map(bytesOf);
    const head: RequestHead = {
      slot: options.slot ?? this.numbers,
      generation: options.generation ?? 1,
      request: options.request ?? 1,
      listener: options.listener ?? 0,
      flags: (options.flags ?? 0) | (parts.length > 0 ? flags.hasBody : 0),
      method: Math.max(known, 0),
      raw,
      hostBytes: host.length,
      targetBytes: target.length,
    };
    const recorded: Recorded = {
      head,
      status: 0,
      headers: [],
      header: (wanted) => {
        const found = recorded.headers.filter(([field]) => field.toLowerCase() === wanted.toLowerCase());
        return found.length === 0 ? null : found.map(([, value]) => value).join(', ');
      },
      chunks: [],
      text: () => Buffer.concat(recorded.chunks).toString(),
      length: undefined,
      state: 'none',
      close: false,
      acknowledged: 0,
      done: new Promise((resolve) => this.finishers.set(head, resolve)),
    };
    this.records.set(head, recorded);
    this.frontend.onRequest(head);
    for (const [index, part] of parts.entries()) this.body(recorded, part, index === parts.length - 1);
    return recorded;
  }

  /** Deliver a request and wait for the end of its response. */
  async exchange(target: string, options: RequestOptions = {}): Promise<Recorded> {
    const recorded = this.request(target, options);
    await recorded.done;
    return recorded;
  }

  /** A part of a body. The memory is scribbled over afterwards, as the core reuses it. */
  body({ head }: Recorded, part: string | Uint8Array, end: boolean): void {
    const borrowed = bytesOf(part);
    this.frontend.onBody(head.slot, head.request, borrowed, end);
    borrowed.fill(0x21);
  }

  leave(recorded: Recorded): void {
    if (recorded.state === 'none' || recorded.state === 'streaming') this.finish(recorded.head, 'left');
    this.frontend.onAbort(recorded.head.slot, recorded.head.request, 0, 0);
  }

  /** The client takes everything that is queued. */
  take(recorded: Recorded): void {
    this.queued = 0;
    this.frontend.onResponseDrain(recorded.head.slot, recorded.head.request);
  }

  respond(head: RequestHead, status: number, headers: string, body: string | Uint8Array | null, close = false): void {
    const recorded = this.expect(head, 'none');
    if (recorded === undefined) return;
    this.begin(recorded, status, headers);
    recorded.close = close;
    // the length of a HEAD answer follows from the body that is not sent
    recorded.headers.push(['content-length', String(body === null ? 0 : bytesOf(body).byteLength)]);
    if (body !== null && head.method !== methodNames.indexOf('HEAD')) recorded.chunks.push(bytesOf(body));
    this.finish(head, 'complete');
  }

  respondBegin(head: RequestHead, status: number, headers: string, length: number, close = false): void {
    const recorded = this.expect(head, 'none');
    if (recorded === undefined) return;
    this.begin(recorded, status, headers);
    recorded.length = length;
    recorded.close = close;
    recorded.state = 'streaming';
    if (length >= 0) recorded.headers.push(['content-length', String(length)]);
  }

  respondChunk(head: RequestHead, chunk: string | Uint8Array): number {
    const recorded = this.expect(head, 'streaming');
    if (recorded === undefined) return 0;
    if (chunk.length === 0) throw new Error('an empty chunk would end a chunked body');
    recorded.chunks.push(bytesOf(chunk));
    if (!this.slow) return 0;
    this.queued += bytesOf(chunk).byteLength;
    return this.queued;
  }

  respondEnd(head: RequestHead): void {
    const recorded = this.expect(head, 'streaming');
    if (recorded === undefined) return;
    const sent = Buffer.concat(recorded.chunks).byteLength;
    const short = recorded.length !== -1 && recorded.length !== sent && head.method !== methodNames.indexOf('HEAD');
    this.finish(head, short ? 'aborted' : 'complete');
  }

  respondAbort(head: RequestHead): void {
    if (this.expect(head, 'streaming') !== undefined) this.finish(head, 'aborted');
  }

  bodyAck(head: RequestHead, bytes: number): void {
    const recorded = this.records.get(head);
    if (recorded !== undefined) recorded.acknowledged += bytes;
  }

  private upgrade(head: RequestHead, headers: string, data: unknown): void {
    const recorded = this.expect(head, 'none');
    if (recorded === undefined) return;
    recorded.upgrade = { headers, data };
    this.finish(head, 'upgraded');
  }

  tls(): undefined {
    return undefined;
  }

  remoteAddress(): { address: string; port: number } | undefined {
    return this.address;
  }

  private begin(recorded: Recorded, status: number, headers: string): void {
    recorded.status = status;
    if (!/^(?:[!#$%&'*+\-.^_`|~\w]+: [^\0\r\n]*\r\n)*$/.test(headers)) throw new Error(`malformed header block ${JSON.stringify(headers)}`);
    for (const line of headers.split('\r\n').slice(0, -1)) {
      const colon = line.indexOf(': ');
      const name = line.slice(0, colon);
      if (/^(?:content-length|transfer-encoding|connection|keep-alive|date)$/i.test(name))
        throw new Error(`${name} is the core's to write`);
      recorded.headers.push([name, line.slice(colon + 2)]);
    }
  }

  private expect(head: RequestHead, state: Recorded['state']): Recorded | undefined {
    const recorded = this.records.get(head);
    if (recorded === undefined) throw new Error('a command for a request that never came');
    if (recorded.state === 'left') return undefined;
    if (recorded.state !== state) throw new Error(`a command for a response that is ${recorded.state}, not ${state}`);
    return recorded;
  }

  private finish(head: RequestHead, state: Recorded['state']): void {
    const recorded = this.records.get(head);
    if (recorded !== undefined) recorded.state = state;
    this.finishers.get(head)?.();
  }
}

/** Let promises, streams and immediates that are under way come to rest. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 4; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

/** For a test file: the light globals while it runs, and after each test no rejection that nobody handled. */
export function withLightGlobals(): void {
  let restore: () => void;
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  beforeAll(() => {
    restore = installLightGlobals();
    process.on('unhandledRejection', note);
  });
  afterAll(() => {
    restore();
    process.off('unhandledRejection', note);
  });
  beforeEach(() => void unhandled.splice(0));
  afterEach(async () => {
    await settle();
    expect(unhandled).toEqual([]);
  });
}
