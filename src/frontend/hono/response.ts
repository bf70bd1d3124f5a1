/**
 * A Response that keeps what it was given: status, headers and body as they are, with no stream and no Headers object until somebody asks.
 *
 * Role: stands for globalThis.Response in worker processes (globals.ts). Upstream: handlers and middleware; downstream:
 * response-sender.ts, which reads the fields marked internal.
 * Observable behaviour is the native one's, or the Fetch Standard's where the two differ: headers and bytes are taken over when the
 * Response is made; errors are the native ones, since anything unusual is handed to a native Response to judge. Response is both a value handlers make and a type they test
 * for: `instanceof` is true for light and native ones alike.
 */

import { inspection, shown } from '../../core/inspection.ts';
import { blockFlags, decodeBlock, emptyBlock, encodeHeaders, encodeNative, type HeaderBlock, withField } from '../http/header-block.ts';
import { type BodySource, bodyUsedError, NativeResponse, type Reader, type ReadResult } from '../http/natives.ts';
import { headersForBody } from './inflated.ts';

type BodyMethod = 'text' | 'json' | 'bytes' | 'arrayBuffer' | 'blob' | 'formData';

/** What a body is once the Response has taken it over. A stream may be replaced by a branch of itself (clone). */
export type Content = null | string | Uint8Array<ArrayBuffer> | Blob | ReadableStream;

/** Streams that only show a plain body, and have not been read: whoever gets such a stream may take the body itself. */
const plainStreams = new WeakMap<ReadableStream, PlainSource>();
const encoder = new TextEncoder();

/** The type of a text that was given none. */
export const textType = 'text/plain;charset=utf-8';
const lightBrand = Symbol('ringway.response');

const View = class Response {};

export class LightResponse {
  /** @internal */ content: Content;
  /** @internal */ code: number;
  /** @internal */ used: boolean;
  private message: string;
  private block: HeaderBlock;
  private fields: Headers | null;
  private view: ReadableStream | null;
  /** @internal The Response this one was made from without its body: a HEAD answer made from that of GET. */
  template: LightResponse | null;

  constructor(body?: BodySource, init?: ResponseInit) {
    this.content = null;
    this.code = 200;
    this.used = false;
    this.message = '';
    this.block = emptyBlock;
    this.fields = null;
    this.view = null;
    this.template = null;
    if (init !== undefined && init !== null) this.adoptInit(init, body === null || body === undefined);
    if (typeof body === 'string') this.content = body;
    else if (body !== null && body !== undefined) this.adoptBody(body);
  }

  get status(): number {
    return this.code;
  }

  get statusText(): string {
    return this.message;
  }

  get ok(): boolean {
    return this.code >= 200 && this.code <= 299;
  }

  get type(): Response['type'] {
    return 'default';
  }

  get url(): string {
    return '';
  }

  get redirected(): boolean {
    return false;
  }

  get headers(): Headers {
    this.fields ??= decodeBlock(this.shownBlock());
    return this.fields;
  }

  get body(): ReadableStream | null {
    const { content } = this;
    if (content === null) return null;
    if (content instanceof ReadableStream) return content;
    this.view ??= streamOf(content, this.used);
    return this.view;
  }

  get bodyUsed(): boolean {
    if (this.used) return true;
    if (this.content instanceof ReadableStream) {
      const source = plainStreams.get(this.content);
      return source === undefined ? isDisturbed(this.content) : source.touched;
    }
    return this.view !== null && isTouched(this.view);
  }

  text(): Promise<string> {
    const plain = this.used ? undefined : this.plainContent();
    if (typeof plain === 'string') {
      this.used = true;
      // the bytes between would have lost a byte order mark, and have replacement characters for lone surrogates
      return Promise.resolve((plain.charCodeAt(0) === 0xfeff ? plain.slice(1) : plain).toWellFormed());
    }
    return this.consume('text') as Promise<string>;
  }

  json(): Promise<unknown> {
    return this.consume('json');
  }

  bytes(): Promise<Uint8Array<ArrayBuffer>> {
    return this.consume('bytes') as Promise<Uint8Array<ArrayBuffer>>;
  }

  arrayBuffer(): Promise<ArrayBuffer> {
    return this.consume('arrayBuffer') as Promise<ArrayBuffer>;
  }

  blob(): Promise<Blob> {
    return this.consume('blob') as Promise<Blob>;
  }

  formData(): Promise<FormData> {
    return this.consume('formData') as Promise<FormData>;
  }

  textStream(): unknown {
    return (this.toNative() as unknown as { textStream(): unknown }).textStream();
  }

  /** err: TypeError when the body was read, or is being read */
  clone(): Response {
    if (this.used || this.body?.locked) {
      throw Object.assign(new TypeError('Body is disturbed or locked'), { code: 'ERR_BODY_ALREADY_USED' });
    }
    const copy = new LightResponse(null, undefined);
    copy.code = this.code;
    copy.message = this.message;
    copy.block = this.shownBlock();
    const plain = this.plainContent();
    if (plain !== undefined) copy.content = plain;
    else if (this.content !== null) {
      const [mine, theirs] = (this.body as ReadableStream).tee();
      this.content = mine;
      this.view = null;
      copy.content = theirs;
    }
    return copy as unknown as Response;
  }

  /** A native Response that takes over the body. err: TypeError when it was read before */
  toNative(): Response {
    const body = this.take();
    return new NativeResponse(body as BodySource, { status: this.code, statusText: this.message, headers: this.headers });
  }

  /**
   * The header block as handlers see it: with the type of a text (Fetch Standard, "extract a body"; the runtime itself shows that only on the
   * wire, which hides it from middleware such as compress). Sending adds it at the last moment, so that most responses never build it.
   */
  private shownBlock(): HeaderBlock {
    const block = this.currentBlock();
    const untyped =
      typeof this.content === 'string' && this.content !== '' && this.fields === null && !(block.flags & blockFlags.contentType);
    return untyped ? withField(block, 'content-type', textType) : block;
  }

  /** @internal The header block as it is now. */
  currentBlock(): HeaderBlock {
    return this.fields === null ? this.block : encodeNative(this.fields);
  }

  /**
   * @internal The body for sending; the Response is used up.
   * err: TypeError when it was read before
   */
  take(): Content {
    if (this.used) throw bodyUsedError();
    const plain = this.plainContent();
    if (plain !== undefined) {
      this.used = plain !== null;
      return plain;
    }
    const stream = this.body as ReadableStream;
    if (stream.locked) throw bodyUsedError();
    this.used = true;
    return stream;
  }

  /** @internal The body when it is not a stream, or a stream of ours that nobody has touched; else undefined. */
  plainContent(): Exclude<Content, ReadableStream> | undefined {
    const { content, view } = this;
    if (content instanceof ReadableStream) {
      const source = plainStreams.get(content);
      return source === undefined || source.touched || content.locked ? undefined : source.content;
    }
    return view !== null && (view.locked || isTouched(view)) ? undefined : content;
  }

  private consume(method: BodyMethod): Promise<unknown> {
    try {
      if (this.content === null && !this.used) return new NativeResponse(null, { headers: this.headers })[method]() as Promise<unknown>;
      return this.toNative()[method]() as Promise<unknown>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  private adoptInit(init: ResponseInit, bodyless: boolean): void {
    // the native constructor says what is wrong with an init that is no object
    if (typeof init !== 'object') new NativeResponse(null, init);
    if (isLightResponse(init)) {
      this.code = init.code;
      this.message = init.message;
      this.block = init.shownBlock();
      if (bodyless) this.template = init.content === null ? init.template : init;
      return;
    }
    const { status, statusText } = init;
    const headers = init instanceof NativeResponse ? headersForBody(init) : init.headers;
    if (status !== undefined) {
      if (typeof status === 'number' && status >= 200 && status <= 599 && Number.isInteger(status)) this.code = status;
      else this.code = new NativeResponse(null, { status }).status;
    }
    if (statusText !== undefined) this.message = new NativeResponse(null, { statusText }).statusText;
    if (headers !== undefined) this.block = encodeHeaders(headers);
  }

  private adoptBody(body: NonNullable<BodySource>): void {
    if (body instanceof ReadableStream) {
      // throws for a stream that is locked or was read from
      if (plainStreams.get(body)?.touched !== false || body.locked) new NativeResponse(body);
      this.content = body;
    } else if (body instanceof ArrayBuffer) this.content = new Uint8Array(body.slice(0));
    else if (ArrayBuffer.isView(body)) {
      this.content = new Uint8Array(new Uint8Array(body.buffer, body.byteOffset, body.byteLength));
    } else if (body instanceof Blob) {
      this.content = body;
      this.defaultType(body.type);
    } else if (body instanceof URLSearchParams) {
      this.content = body.toString();
      this.defaultType('application/x-www-form-urlencoded;charset=UTF-8');
    } else if (typeof body === 'number' || typeof body === 'boolean' || typeof body === 'bigint') this.content = String(body);
    else {
      const native = new NativeResponse(body);
      // its type is gone once the body is taken out of it
      this.defaultType(native.headers.get('content-type') ?? '');
      this.content = native.body;
    }
  }

  private defaultType(type: string): void {
    if (type !== '' && !(this.block.flags & blockFlags.contentType)) this.block = withField(this.block, 'content-type', type);
  }

  [inspection](): object {
    const { status, statusText, bodyUsed } = this;
    return shown(this, View, { status, statusText, headers: this.headers.toJSON(), bodyUsed });
  }

  static json(data: unknown, init?: ResponseInit | number): Response {
    const text = JSON.stringify(data);
    if (text === undefined) throw new TypeError('Value is not JSON serializable');
    const response = new LightResponse(text, typeof init === 'number' ? { status: init } : init);
    response.defaultType('application/json;charset=utf-8');
    return response as unknown as Response;
  }

  static redirect(url: string | URL, init?: ResponseInit | number): Response {
    return new LightResponse(null, NativeResponse.redirect(String(url), init as number)) as unknown as Response;
  }

  static error(): Response {
    return NativeResponse.error();
  }
}

Object.setPrototypeOf(LightResponse.prototype, NativeResponse.prototype);
Object.defineProperty(LightResponse.prototype, lightBrand, { value: true });
Object.defineProperty(LightResponse, 'name', { value: 'Response' });
Object.defineProperty(LightResponse, Symbol.hasInstance, {
  value(this: unknown, value: unknown): boolean {
    if (this === LightResponse) return value instanceof NativeResponse;
    // a class that extends Response has instances of its own
    return Function.prototype[Symbol.hasInstance].call(this as typeof LightResponse, value);
  },
});

/** True for responses of ours, false for native ones and for anything else. */
export function isLightResponse(value: unknown): value is LightResponse {
  return typeof value === 'object' && value !== null && (value as { [lightBrand]?: true })[lightBrand] === true;
}

interface PlainSource {
  content: string | Uint8Array<ArrayBuffer> | Blob;
  touched: boolean;
}

/** A stream over a plain body that notes when it is first read: with no high-water mark, pull() means that somebody reads. */
function streamOf(content: string | Uint8Array<ArrayBuffer> | Blob, used: boolean): ReadableStream {
  const source: PlainSource = { content, touched: used };
  let reader: Reader | null = null;
  const stream = new ReadableStream(
    {
      start(controller) {
        if (used) controller.close();
      },
      async pull(controller) {
        source.touched = true;
        if (content instanceof Blob) {
          reader ??= content.stream().getReader();
          const { value, done }: ReadResult = await reader.read();
          if (done) controller.close();
          else controller.enqueue(value);
          return;
        }
        const bytes = typeof content === 'string' ? encoder.encode(content) : content.slice();
        if (bytes.byteLength > 0) controller.enqueue(bytes);
        controller.close();
      },
      async cancel(reason) {
        source.touched = true;
        await reader?.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
  plainStreams.set(stream, source);
  return stream;
}

function isTouched(stream: ReadableStream): boolean {
  return plainStreams.get(stream)?.touched ?? false;
}

/** Only the runtime knows whether a stream was ever read; it refuses to make a Response from one that was. */
function isDisturbed(stream: ReadableStream): boolean {
  try {
    new NativeResponse(stream);
    return false;
  } catch {
    return true;
  }
}
