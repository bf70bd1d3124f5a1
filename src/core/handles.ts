/**
 * Numbers that stand for objects which what handlers hold must not lead to: the core above all, whose memory has every client's bytes.
 *
 * Role: messages, requests and sockets name their core (or frontend) by a handle, so that whoever prints, clones or serialises one meets a
 * number. Private fields would hide as well, but Bun takes ten times as long to construct an object that has some, and there is one
 * for each message and each request.
 *
 * What is kept stays for the life of the process: a worker has one core and a few frontends.
 */

/** Stands for a Value in this process. */
export type Handle<Value> = number & { readonly standsFor: Value };

const kept: unknown[] = [];

export function handleFor<Value>(value: Value): Handle<Value> {
  return (kept.push(value) - 1) as Handle<Value>;
}

/** `value` itself, with a handle of its own that stands for it. */
export function withHandle<Value extends { readonly handle: unknown }>(value: Omit<Value, 'handle'>): Value {
  return Object.assign(value, { handle: handleFor(value) }) as unknown as Value;
}

export function behind<Value>(handle: Handle<Value>): Value {
  return kept[handle] as Value;
}
