/**
 * A Request that costs one small object until more of it is asked for.
 *
 * Role: what handlers get. Upstream: a frontend makes one per request; downstream: a native Request is built from it only for what
 * the runtime itself must read (fetch, clone, new Request).
 * Its prototype chain ends in the native Request's, so `instanceof Request` holds. Its state lies in ordinary fields: private
 * ones cost ten times more to set up in this runtime.
 */
import { abortCause } from '../../core/abi.ts';
import type { RequestHead } from '../../core/http.ts';
import { inspection, shown } from '../../core/inspection.ts';
import { requestHeaders, requestMethod } from '../../core/request-target.ts';
import { bodyUsedError, NativeRequest } from './natives.ts';
import { type BodyKind, convert, type RequestBody } from './request-body.ts';

const nothing = new Uint8Array(0);

/**
 * What `signal` aborts with, and pending reads of the body reject with, when the core has ended a request: as `onAbort` tells it, by default
 * because its client left.
 */
export function abortReason(cause: number = abortCause.peerGone, status = 0): DOMException {
  return new DOMException(abortText(cause, status), 'AbortError');
}

function abortText(cause: number, status: number): string {
  if (cause === abortCause.refused) return `The body of the request was refused with status ${status}`;
  return cause === abortCause.writeTimeout ? 'The client took nothing of the response for too long' : 'The client closed the connection';
}

const View = class Request {};

export class LightRequest {
  /** @internal */ readonly head: RequestHead;
  /** @internal */ readonly incoming: RequestBody | null;
  /** @internal */ native: Request | null;
  private readonly address: string;
  private fields: Headers | null;
  private aborter: AbortController | null;
  private gone: unknown;

  constructor(head: RequestHead, url: string, incoming: RequestBody | null) {
    this.head = head;
    this.address = url;
    this.incoming = incoming;
    this.native = null;
    this.fields = null;
    this.aborter = null;
    this.gone = undefined;
  }

  get method(): string {
    return requestMethod(this.head);
  }

  get url(): string {
    return this.address;
  }

  get headers(): Headers {
    this.fields ??= requestHeaders(this.head);
    return this.fields;
  }

  /** @internal Whether anybody has asked for `signal`. */
  get hasSignal(): boolean {
    return this.aborter !== null;
  }

  /** Aborts with an AbortError when the client leaves before the response is complete. */
  get signal(): AbortSignal {
    return this.abortController().signal;
  }

  get body(): ReadableStream<Uint8Array<ArrayBuffer>> | null {
    if (this.native !== null) return this.native.body as ReadableStream<Uint8Array<ArrayBuffer>> | null;
    return this.incoming === null ? null : this.incoming.stream();
  }

  get bodyUsed(): boolean {
    if (this.native !== null) return this.native.bodyUsed;
    return this.incoming?.used ?? false;
  }

  text(): Promise<string> {
    return this.read('text') as Promise<string>;
  }

  json(): Promise<unknown> {
    return this.read('json');
  }

  bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this.read('bytes') as Promise<Uint8Array<ArrayBuffer>>;
  }

  arrayBuffer(): Promise<ArrayBuffer> {
    return this.read('arrayBuffer') as Promise<ArrayBuffer>;
  }

  blob(): Promise<Blob> {
    return this.read('blob') as Promise<Blob>;
  }

  formData(): Promise<FormData> {
    return this.read('formData') as Promise<FormData>;
  }

  textStream(): unknown {
    return (this.toNative() as unknown as { textStream(): unknown }).textStream();
  }

  /** err: TypeError when the body was read before */
  clone(): Request {
    if (this.incoming === null) {
      const copy = new LightRequest(this.head, this.address, null);
      if (this.fields !== null) copy.fields = new Headers(this.fields);
      // a copy aborts with its original: both share one controller, made now
      copy.aborter = this.abortController();
      return copy as unknown as Request;
    }
    // what one of the two has read is held until the other has
    this.incoming.gather();
    return this.toNative().clone() as Request;
  }

  /**
   * The native Request that stands for this one from now on: it takes over the body.
   * err: TypeError when the body was read before
   */
  toNative(): Request {
    if (this.native === null) {
      if (this.incoming?.used || this.incoming?.stream().locked) throw bodyUsedError();
      this.native = this.nativeWith({ body: this.incoming === null ? null : this.incoming.stream() });
    }
    return this.native;
  }

  /** A native Request like this one but for `init`; this one's body is left alone. */
  nativeWith(init: RequestInit): Request {
    return new NativeRequest(this.address, { method: this.method, headers: this.headers, signal: this.signal, ...init });
  }

  /** @internal The client left, or the response is complete while the body is not. */
  abort(reason: unknown, signal: boolean): void {
    this.incoming?.fail(reason);
    if (!signal) return;
    this.gone = reason;
    this.aborter?.abort(reason);
  }

  private abortController(): AbortController {
    if (this.aborter === null) {
      this.aborter = new AbortController();
      if (this.gone !== undefined) this.aborter.abort(this.gone);
    }
    return this.aborter;
  }

  private read(kind: BodyKind): Promise<unknown> {
    if (this.native !== null) {
      this.incoming?.gather();
      return this.native[kind]() as Promise<unknown>;
    }
    const needsType = kind === 'blob' || kind === 'formData';
    const contentType = needsType ? (this.headers.get('content-type') ?? '') : '';
    const { incoming } = this;
    if (incoming === null) return emptyBody(kind, contentType);
    if (!incoming.streamed) return incoming.collect(kind, contentType);
    incoming.gather();
    try {
      return this.toNative()[kind]() as Promise<unknown>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  [inspection](): object {
    return shown(this, View, { method: this.method, url: this.url, headers: this.headers.toJSON() });
  }

  // What a server's request has no use for has the values of a fresh native Request.
  get cache(): Request['cache'] {
    return 'default';
  }

  get credentials(): Request['credentials'] {
    return 'include';
  }

  get destination(): string {
    return '';
  }

  get integrity(): string {
    return '';
  }

  get keepalive(): boolean {
    return false;
  }

  get mode(): Request['mode'] {
    return 'cors';
  }

  get redirect(): Request['redirect'] {
    return 'follow';
  }

  get referrer(): string {
    return '';
  }

  get referrerPolicy(): Request['referrerPolicy'] {
    return '';
  }
}

async function emptyBody(kind: BodyKind, contentType: string): Promise<unknown> {
  return convert(nothing, kind, contentType);
}

Object.setPrototypeOf(LightRequest.prototype, NativeRequest.prototype);
// what code outside sees is a Request, not how it is made
Object.defineProperty(LightRequest.prototype, 'constructor', { value: NativeRequest, writable: true, configurable: true });

/** True for requests of ours, false for native ones and for anything else. */
export function isLightRequest(value: unknown): value is LightRequest {
  return typeof value === 'object' && value !== null && Object.prototype.isPrototypeOf.call(LightRequest.prototype, value);
}
