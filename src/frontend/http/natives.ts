/**
 * The runtime's own Request, Response and fetch, captured before anything replaces the globals.
 * Role: whatever in this folder needs the real thing takes it from here, never from globalThis.
 */
export const NativeRequest: typeof Request = globalThis.Request;
export const NativeResponse: typeof Response = globalThis.Response;
export const nativeFetch: typeof fetch = globalThis.fetch;

/** The error that a body which was read before answers with, named and coded as the runtime does. */
export function bodyUsedError(): TypeError {
  return Object.assign(new TypeError('Body already used'), { code: 'ERR_BODY_ALREADY_USED' });
}

/** What `new Response()` takes as a body. */
export type BodySource = ConstructorParameters<typeof Response>[0];

/** One answer of a stream's reader. */
export interface ReadResult {
  done: boolean;
  value?: unknown;
}

/** The part of a stream's reader that is used here. */
export interface Reader {
  read(): Promise<ReadResult>;
  cancel(reason?: unknown): Promise<void>;
}
