/**
 * Puts the light Response in the place of the runtime's, and teaches what takes a Request or a Response to accept ours.
 *
 * Role: called once by a worker before it loads the application. Everything the runtime reads itself must be native, so each
 * such door unwraps: fetch, new Request, Bun.serve, Bun.write and HTMLRewriter.
 */

import { NativeRequest, NativeResponse, nativeFetch } from '../http/natives.ts';
import { isLightRequest, type LightRequest } from '../http/request.ts';
import { noteRaw } from './inflated.ts';
import { isLightResponse, LightResponse } from './response.ts';

type Anything = (...args: unknown[]) => unknown;

/** ret: a function that puts everything back */
export function installLightGlobals(): () => void {
  const bun = Bun as unknown as { serve: Anything; write: Anything };
  const { serve, write } = bun;
  const { transform } = HTMLRewriter.prototype;

  globalThis.Request = requestForLight;
  globalThis.Response = LightResponse as unknown as typeof Response;
  globalThis.fetch = fetchForLight;
  bun.serve = (options) => serve.call(Bun, unwrapServer(options));
  bun.write = (target, input, ...rest) => write.call(Bun, target, unwrap(input), ...rest);
  HTMLRewriter.prototype.transform = function (this: HTMLRewriter, input: never) {
    return (transform as Anything).call(this, unwrap(input)) as never;
  };

  return () => {
    globalThis.Request = NativeRequest;
    globalThis.Response = NativeResponse;
    globalThis.fetch = nativeFetch;
    Object.assign(bun, { serve, write });
    HTMLRewriter.prototype.transform = transform;
  };
}

function unwrap(value: unknown): unknown {
  if (isLightResponse(value)) return value.toNative();
  return isLightRequest(value) ? value.toNative() : value;
}

const requestForLight: typeof Request = new Proxy(NativeRequest, {
  construct(target, [input, init], newTarget) {
    const settings = isLightRequest(init) ? requestInit(init) : init;
    if (!isLightRequest(input)) return Reflect.construct(target, settings === undefined ? [input] : [input, settings], newTarget);
    // Fetch Standard, Request constructor: with a body of its own the new request leaves that of the input alone
    const source = settings?.body == null ? input.toNative() : input.nativeWith({});
    return Reflect.construct(target, settings === undefined ? [source] : [source, settings], newTarget);
  },
});

/** A request of ours in the role of a RequestInit: its body goes over to the new request. */
function requestInit(request: LightRequest): RequestInit {
  const { method, headers, signal } = request;
  const body = request.incoming === null ? null : request.toNative().body;
  return body === null ? { method, headers, signal } : { method, headers, signal, body };
}

const fetchForLight = Object.assign(
  (input: unknown, init?: unknown) => {
    const response = nativeFetch(unwrap(input) as string, (isLightRequest(init) ? requestInit(init) : init) as RequestInit);
    return (init as { decompress?: unknown } | null | undefined)?.decompress === false ? response.then(noteRaw) : response;
  },
  { preconnect: nativeFetch.preconnect },
) as typeof fetch;

/** Bun.serve's handlers may answer with our Response as well. */
function unwrapServer(options: unknown): unknown {
  if (typeof options !== 'object' || options === null) return options;
  const settings = { ...options } as Record<string, unknown>;
  for (const name of ['fetch', 'error']) settings[name] = unwrapHandler(settings[name]);
  for (const name of ['routes', 'static']) {
    const routes = settings[name];
    if (typeof routes !== 'object' || routes === null) continue;
    settings[name] = Object.fromEntries(Object.entries(routes).map(([path, route]) => [path, unwrapRoute(route)]));
  }
  for (const name of Object.keys(settings)) if (settings[name] === undefined) delete settings[name];
  return settings;
}

function unwrapRoute(route: unknown): unknown {
  if (typeof route === 'function') return unwrapHandler(route);
  if (typeof route !== 'object' || route === null || Object.getPrototypeOf(route) !== Object.prototype) return unwrap(route);
  return Object.fromEntries(Object.entries(route).map(([method, handler]) => [method, unwrapRoute(handler)]));
}

function unwrapHandler(handler: unknown): unknown {
  if (typeof handler !== 'function') return handler;
  return function (this: unknown, ...args: unknown[]): unknown {
    const result: unknown = Reflect.apply(handler, this, args);
    return result instanceof Promise ? result.then(unwrap) : unwrap(result);
  };
}
