/**
 * HttpRequest: a view of a request's head where the core left it, decoded as far as it is asked for.
 *
 * Role: made by app.ts for each request, handed to route handlers, dead once they have returned: its text lies in the payload area, which
 * the next turn overwrites. Down: core.ts (payload). What lies there is `RW_EVENT_REQUEST` of ffi/include/ringway.h.
 */
import { method as methodOf } from '../../core/abi.ts';
import type { Core } from '../../core/core.ts';
import { behind, type Handle } from '../../core/handles.ts';
import { methodNames } from '../../core/http.ts';
import { inspection, shown } from '../../core/inspection.ts';
import { withoutQuery } from '../../core/request-target.ts';
import { queryValue } from './query.ts';
import { shortText } from './short-text.ts';
import { latin1OfArgument, textOfArgument, utf8OfLatin1 } from './strings.ts';

const lowerMethodNames = methodNames.map((name) => name.toLowerCase());

const deadRequest =
  'uWS.HttpRequest must not be accessed after await or route handler return. See documentation for uWS.HttpRequest and consult the user manual.';

// Symbols, so that nothing a program attaches meets them.
const coreOf = Symbol('core');
const methodIndex = Symbol('method');
const at = Symbol('offset');
const size = Symbol('bytes');
const lengths = Symbol('lengths');
const target = Symbol('target');
const fields = Symbol('fields');

const noTexts: readonly string[] = [];

/** The request made last: while its handler runs, the one that a call to the response is about. */
let latest: HttpRequest | undefined;

const View = class HttpRequest {};

export class HttpRequest {
  /** undefined: the handler has returned. */
  declare [coreOf]: Handle<Core> | undefined;
  declare [methodIndex]: number;
  declare [at]: number;
  declare [size]: number;
  /** Host bytes << 16 | target bytes. */
  declare [lengths]: number;
  /** The request target, once it is decoded. */
  declare [target]: string | undefined;
  /** The header block in latin1, once it is decoded. */
  declare [fields]: string | undefined;
  /** What the segments of the path gave to the route's parameters, and the names of these. Set by the router. */
  declare parameters: readonly string[];
  declare parameterNames: readonly string[];
  declare yielded: boolean;

  /** The arguments are those of `onRequestRecord` in src/core/http.ts; `method` is an index into `methodNames`. */
  constructor(core: Core, _flags: number, method: number, offset: number, bytes: number, hostAndTarget: number) {
    this[coreOf] = core.handle;
    this[methodIndex] = method;
    this[at] = offset;
    this[size] = bytes;
    this[lengths] = hostAndTarget;
    this[target] = undefined;
    this[fields] = undefined;
    this.parameters = noTexts;
    this.parameterNames = noTexts;
    this.yielded = false;
    latest = this;
  }

  /** The path without the query, for the router. */
  get url(): string {
    return withoutQuery(targetOf(this));
  }

  /** A program may keep something of its own under this name. */
  set url(value: string) {
    Object.defineProperty(this, 'url', { value, writable: true, enumerable: true, configurable: true });
  }

  getHeader(lowerCaseKey: unknown): string {
    const key = latin1OfArgument(lowerCaseKey);
    const block = blockOf(this);
    for (let name = 0; name < block.length; ) {
      const nameEnd = block.indexOf('\n', name);
      const valueEnd = block.indexOf('\n', nameEnd + 1);
      if (nameEnd - name === key.length && block.startsWith(key, name)) return block.slice(nameEnd + 1, valueEnd);
      name = valueEnd + 1;
    }
    return '';
  }

  getParameter(indexOrName: unknown): string | undefined {
    alive(this);
    if (typeof indexOrName === 'number') return this.parameters[indexOrName >>> 0];
    return this.parameters[this.parameterNames.lastIndexOf(textOfArgument(indexOrName))];
  }

  getUrl(): string {
    return withoutQuery(targetOf(this));
  }

  getMethod(): string {
    alive(this);
    return this[methodIndex] === methodOf.other ? otherMethodOf(this).toLowerCase() : (lowerMethodNames[this[methodIndex]] as string);
  }

  getCaseSensitiveMethod(): string {
    alive(this);
    return this[methodIndex] === methodOf.other ? otherMethodOf(this) : (methodNames[this[methodIndex]] as string);
  }

  /** Without a key: the query as it was sent, or undefined when the target has no question mark. */
  getQuery(...key: readonly unknown[]): string | undefined {
    const whole = targetOf(this);
    const mark = whole.indexOf('?');
    if (key.length !== 1) return mark < 0 ? undefined : whole.slice(mark + 1);
    const name = textOfArgument(key[0]);
    return mark < 0 ? undefined : queryValue(whole, mark, name);
  }

  forEach(callback: (key: string, value: string) => void): void {
    const block = blockOf(this);
    for (let name = 0; name < block.length; ) {
      const nameEnd = block.indexOf('\n', name);
      const valueEnd = block.indexOf('\n', nameEnd + 1);
      callback(block.slice(name, nameEnd), utf8OfLatin1(block.slice(nameEnd + 1, valueEnd)));
      name = valueEnd + 1;
    }
  }

  setYield(isYielding: unknown): this {
    alive(this);
    this.yielded = Boolean(isYielding);
    return this;
  }

  /** What is printed: only the program's own properties, since it may be dead. */
  [inspection](): object {
    const { parameters, parameterNames, yielded, ...own } = this;
    return shown(this, View, own);
  }
}

// The name that programs and their logs know.
Object.defineProperty(HttpRequest, 'name', { value: 'uWS.HttpRequest' });

/** The handler has returned: from now on every call throws. */
export function expire(request: HttpRequest): void {
  request[coreOf] = undefined;
}

/** The request made last, unless its handler has returned. */
export function latestRequest(): HttpRequest | undefined {
  return latest?.[coreOf] === undefined ? undefined : latest;
}

function alive(request: HttpRequest): Core {
  const core = request[coreOf];
  if (core === undefined) throw new Error(deadRequest);
  return behind(core);
}

function targetOf(request: HttpRequest): string {
  const core = alive(request);
  const known = request[target];
  if (known !== undefined) return known;
  const start = request[at] + (request[lengths] >>> 16);
  const text = shortText(core.payload, start, request[lengths] & 0xffff);
  request[target] = text;
  return text;
}

/** The whole block, a method with a name of its own included. */
function rawBlockOf(request: HttpRequest): string {
  const start = request[at] + (request[lengths] >>> 16) + (request[lengths] & 0xffff);
  return alive(request).payload.latin1Slice(start, request[at] + request[size]);
}

/** The fields, `name\nvalue\n` each. */
function blockOf(request: HttpRequest): string {
  alive(request);
  let block = request[fields];
  if (block !== undefined) return block;
  block = rawBlockOf(request);
  if (request[methodIndex] === methodOf.other) block = block.slice(block.indexOf('\n', block.indexOf('\n') + 1) + 1);
  request[fields] = block;
  return block;
}

/** The method is the first "field", see RW_EVENT_REQUEST. */
function otherMethodOf(request: HttpRequest): string {
  const block = rawBlockOf(request);
  const nameEnd = block.indexOf('\n');
  return block.slice(nameEnd + 1, block.indexOf('\n', nameEnd + 1));
}
