/**
 * What a response does with the body of its request: onData, onDataV2 and collectBody.
 *
 * Role: makes the sink that response.ts gives each part to. A part is handed out as an ArrayBuffer that is detached when the handler has
 * returned and what it has queued has run, since its memory is the core's; only a body that collectBody put together belongs to the program.
 */
import type { Core } from '../../core/core.ts';
import { giveBack, lend } from './lend.ts';
import { runMicrotasks } from './microtasks.ts';

/** Takes the parts of one body in order. `bytes` lie in the payload area. ret: what the program's handler returned */
export type BodySink = (core: Core, bytes: Uint8Array, isLast: boolean) => unknown;

/** What is told of a chunked body until its last part: no bound is known. */
const unbounded = 0xffff_ffff_ffff_ffffn;

/** A buffer made ahead for a body that has announced its length is not larger: announcing costs a client nothing. */
const reserveLimit = 1 << 20;

export function dataSink(handler: (chunk: ArrayBuffer, isLast: boolean) => unknown): BodySink {
  return (core, bytes, isLast) => giveLent(core, bytes, handler, isLast);
}

/** `contentLength`: of the request, undefined when it is chunked or not known. */
export function countedDataSink(
  handler: (chunk: ArrayBuffer, maxRemainingBodyLength: bigint) => unknown,
  contentLength: number | undefined,
): BodySink {
  let received = 0;
  return (core, bytes, isLast) => {
    received += bytes.byteLength;
    return giveLent(core, bytes, handler, isLast ? 0n : remaining(contentLength, received));
  };
}

function giveLent<About>(core: Core, bytes: Uint8Array, handler: (chunk: ArrayBuffer, about: About) => unknown, about: About): unknown {
  const chunk = lend(core, bytes.byteOffset, bytes.byteLength);
  try {
    return handler(chunk, about);
  } finally {
    runMicrotasks();
    giveBack(chunk);
  }
}

/** As above, for what the program may keep. */
function giveOwn<Body>(handler: (body: Body) => unknown, body: Body): unknown {
  try {
    return handler(body);
  } finally {
    runMicrotasks();
  }
}

function remaining(contentLength: number | undefined, received: number): bigint {
  // While more is to come it is never 0n, which would say that this was all.
  return contentLength === undefined || contentLength <= received ? unbounded : BigInt(contentLength - received);
}

/** `handler` is called once: with the whole body, or with null as soon as it is longer than `maxBytes`. */
export function collectingSink(
  maxBytes: number,
  handler: (fullBody: ArrayBuffer | null) => unknown,
  contentLength: number | undefined,
): BodySink {
  let collected: Uint8Array<ArrayBuffer> | undefined;
  let used = 0;
  let isOver = false;
  return (core, bytes, isLast) => {
    if (isOver) return undefined;
    if (bytes.byteLength > maxBytes - used) {
      isOver = true;
      collected = undefined;
      return giveOwn(handler, null);
    }
    if (isLast) isOver = true;
    if (isLast && collected === undefined) return giveLent(core, bytes, handler, undefined);
    collected = withRoom(collected, used, bytes.byteLength, Math.min(contentLength ?? 0, maxBytes, reserveLimit));
    collected.set(bytes, used);
    used += bytes.byteLength;
    if (!isLast) return undefined;
    const whole = used === collected.byteLength ? collected.buffer : collected.buffer.transfer(used);
    collected = undefined;
    return giveOwn(handler, whole);
  };
}

/** `collected`, or its successor, at least twice as large, with room for so many bytes more. */
function withRoom(collected: Uint8Array<ArrayBuffer> | undefined, used: number, more: number, wanted: number): Uint8Array<ArrayBuffer> {
  if (collected !== undefined && collected.byteLength - used >= more) return collected;
  const bytes = Math.max(used + more, 2 * used, wanted);
  // What is left behind is given back at once, and not when the collector comes.
  return new Uint8Array(collected === undefined ? new ArrayBuffer(bytes) : collected.buffer.transfer(bytes));
}
