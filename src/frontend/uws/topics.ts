/**
 * The topics of one app: names that no other app of the process shares, publishing, and who is told of subscriptions.
 *
 * Role: up: websocket.ts, app.ts. Down: core.ts, which has one space of topics for all; so each name gets a prefix that tells the app. It
 * is the number of the app in the order of creation: app k of every worker of a node hears app k of the others.
 */
import { commandFlag, noSlot } from '../../core/abi.ts';
import type { Core } from '../../core/core.ts';

/** Names kept as bytes, so that a publish does not encode its topic again. */
const knownNamesMax = 1024;
/** From here on the original publishes at once, and says yes even when only the publisher is subscribed. */
const bigMessageBytes = 16384;

type Text = string | Uint8Array;

export class AppTopics {
  readonly #core: Core;
  readonly #prefix: Buffer;
  readonly #isSharedByWorkers: boolean;
  readonly #names = new Map<string, Uint8Array>();
  /** Subscribers by name, once a route of the app wants to be told; by name in latin1. */
  #counts: Map<string, number> | undefined;

  constructor(core: Core, app: number, workerCount: number) {
    this.#core = core;
    this.#prefix = prefixOf(app);
    this.#isSharedByWorkers = workerCount > 1;
  }

  /** From now on subscriptions are counted. */
  count(): void {
    this.#counts ??= new Map();
  }

  get isCounting(): boolean {
    return this.#counts !== undefined;
  }

  /** The name that the core knows. */
  nameOf(topic: Text): Uint8Array {
    if (typeof topic !== 'string') return Buffer.concat([this.#prefix, topic]);
    const known = this.#names.get(topic);
    if (known !== undefined) return known;
    const name = Buffer.concat([this.#prefix, Buffer.from(topic)]);
    if (this.#names.size === knownNamesMax) this.#names.clear();
    this.#names.set(topic, name);
    return name;
  }

  /** The topic of such a name. */
  topicOf(name: Uint8Array): Uint8Array {
    return name.subarray(this.#prefix.byteLength);
  }

  /** A socket had subscribed before anybody counted. */
  found(key: string, name: Uint8Array): void {
    if (this.#counts?.has(key) === false) this.#counts.set(key, this.#core.subscribers(name));
  }

  /** A socket has subscribed. ret: subscribers now */
  joined(key: string, name: Uint8Array): number {
    const before = this.#counts?.get(key);
    const count = before === undefined ? this.#core.subscribers(name) : before + 1;
    this.#counts?.set(key, count);
    return count;
  }

  /** A socket has left. ret: subscribers now */
  left(key: string): number {
    const count = Math.max(0, (this.#counts?.get(key) ?? 1) - 1);
    if (count === 0) this.#counts?.delete(key);
    else this.#counts?.set(key, count);
    return count;
  }

  subscribers(topic: Text): number {
    return this.#core.subscribers(this.nameOf(topic));
  }

  /** `slot`, `generation`: of the socket that publishes and is left out. ret: whether anybody else may get it */
  publish(topic: Text, message: Text, isBinary: unknown, compress: unknown, slot: number = noSlot, generation = 0): boolean {
    const core = this.#core;
    const name = this.nameOf(topic);
    if (!core.isWanted(name)) return false;
    if (slot !== noSlot && this.#isAlone(name, slot, generation)) return isBig(message);
    const flags = (isBinary ? 0 : commandFlag.sendText) | (compress ? commandFlag.sendCompress : 0);
    core.publish(name, flags, message, slot, generation);
    return true;
  }

  #isAlone(name: Uint8Array, slot: number, generation: number): boolean {
    const core = this.#core;
    return !this.#isSharedByWorkers && core.subscribers(name) === 1 && core.isSubscribed(slot, generation, name);
  }
}

/** The number of an app in bytes of 7 bits; all but the last have the eighth, so that no prefix begins another. */
function prefixOf(app: number): Buffer {
  const bytes: number[] = [];
  let rest = app;
  for (; rest > 0x7f; rest >>>= 7) bytes.push((rest & 0x7f) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

function isBig(message: Text): boolean {
  if (typeof message !== 'string') return message.byteLength >= bigMessageBytes;
  return message.length >= bigMessageBytes || (message.length * 3 >= bigMessageBytes && Buffer.byteLength(message) >= bigMessageBytes);
}
