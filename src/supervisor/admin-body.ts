/**
 * Bodies of requests to the admin listener, within bounds: for each, and for all that are held at once.
 * Role: between the token and what reads a body. Up: admin.ts. What is read lies in the context as `body`.
 */
import type { Context, MiddlewareHandler } from 'hono';

/** Bytes of one request. */
export const bodyBytesMax = 8 * 1024 * 1024;
/** Bytes of all bodies that have come in and are not answered yet. */
const heldBytesMax = 64 * 1024 * 1024;

/** What handlers of the admin listener find in their context. */
export interface AdminEnv {
  Variables: {
    /** Behind `readBody`. */
    body: Uint8Array<ArrayBuffer>;
  };
}

/** Read the whole body, and answer for the handler when there is no room for it. One of these is for all requests of a listener. */
export function readBody(heldMax = heldBytesMax): MiddlewareHandler<AdminEnv> {
  let held = 0;
  return async (context, next) => {
    let own = 0;
    /** ret: false: there is no room for them now */
    const hold = (bytes: number) => {
      if (held + bytes > heldMax) return false;
      held += bytes;
      own += bytes;
      return true;
    };
    try {
      // Told before any of it has come, when the client says how long it is.
      const told = /^\d+$/.test(context.req.header('content-length') ?? '') ? Number(context.req.header('content-length')) : 0;
      if (told > bodyBytesMax) return tooLarge(context);
      if (!hold(told)) return busy(context);
      const chunks: Uint8Array[] = [];
      let bytes = 0;
      // A for-await that is left cancels the stream.
      for await (const chunk of context.req.raw.body ?? []) {
        bytes += chunk.byteLength;
        if (bytes > bodyBytesMax) return tooLarge(context);
        if (bytes > own && !hold(bytes - own)) return busy(context);
        chunks.push(chunk);
      }
      context.set('body', Buffer.concat(chunks));
      return await next();
    } finally {
      held -= own;
    }
  };
}

function tooLarge(context: Context): Response {
  return context.json({ error: `the body is larger than ${bodyBytesMax} bytes; send several requests` }, 413);
}

function busy(context: Context): Response {
  return context.json({ error: 'too much is being published at once; try again' }, 503, { 'retry-after': '1' });
}
