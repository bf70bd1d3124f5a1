/**
 * Events of the core, read where it has left them.
 *
 * Role: `struct rw_event` records → calls of handlers. Up: core.ts, which has the core fill the batch. Down: ffi/layout.ts.
 * Nothing is allocated per event but what its handler is given.
 */
import { coreCalls } from '../../ffi/bindings.ts';
import { commandFlag, eventFlag, eventLayout, eventType } from '../../ffi/layout.ts';
import type { ConnectionEvents } from './connection.ts';
import type { HttpEvents, RequestHead } from './http.ts';
import type { TopicListener } from './log-commands.ts';
import type { BusEvents } from './node.ts';
import type { Observer } from './observer.ts';
import { epochOf, type Position } from './position.ts';

const eventWords = eventLayout.bytes / 4;
const positionBytes = 16;
const emptyBytes = new Uint8Array(0);

/** What the core tells about WebSockets. Payloads lie at `core.payload[offset..offset+bytes)`, or in `large`, until the next turn. */
export interface WebSocketEvents {
  onOpen(slot: number, generation: number): void;
  onMessage(slot: number, generation: number, isBinary: boolean, offset: number, bytes: number, large: Uint8Array | undefined): void;
  /** `cause`: one of `closeCause` in ffi/layout.ts. */
  onClose(slot: number, generation: number, code: number, reason: string, cause: number): void;
  onDrain(slot: number, generation: number): void;
  onPing(slot: number, generation: number, data: Uint8Array): void;
  onPong(slot: number, generation: number, data: Uint8Array): void;
  /** `message`: what a publish dropped, for behaviors that want it; borrowed for the call. */
  onDropped(
    slot: number,
    generation: number,
    count: number,
    message: { readonly bytes: Uint8Array; readonly isBinary: boolean } | undefined,
  ): void;
  /** One that hears the messages of topics alone has missed some of a logged one: all up to `position`. `topic` is borrowed for the call. */
  onLost?(slot: number, generation: number, topic: Uint8Array, position: Position): void;
}

export class EventBatch {
  private readonly words: Uint32Array;
  private readonly payloadBytes: Uint8Array;
  private readonly payload: Buffer;
  /** Told of the node, if it is there. */
  bus: BusEvents | undefined;
  /** Told of topics that this process holds. */
  onTopicMessage: TopicListener | undefined;
  /** Told of what passes; undefined: nobody is. */
  observers: readonly Observer[] | undefined;
  /** By index of a listener: what heads of requests call it. */
  readonly listeners = Uint8Array.from({ length: 256 }, (_, index) => index);

  /** `payloadBytes` and `payload`: the same memory, as bytes and for decoding text. */
  constructor(records: ArrayBuffer, payloadBytes: Uint8Array, payload: Buffer) {
    this.words = new Uint32Array(records);
    this.payloadBytes = payloadBytes;
    this.payload = payload;
  }

  /** Give event `index` to its handler. */
  deliver(index: number, http: HttpEvents, websocket: WebSocketEvents, connection: ConnectionEvents | undefined): void {
    const { words } = this;
    const at = index * eventWords;
    const head = words[at] as number;
    const flags = head >>> 16;
    const slot = words[at + 1] as number;
    const generation = words[at + 2] as number;
    const offset = words[at + 3] as number;
    const bytes = words[at + 4] as number;
    const arg0 = words[at + 5] as number;
    const arg1 = words[at + 6] as number;
    switch (head & 0xffff) {
      case eventType.message: {
        const large = flags & eventFlag.large ? largePayload(arg0, arg1, bytes) : undefined;
        websocket.onMessage(slot, generation, (flags & eventFlag.wsBinary) !== 0, offset, bytes, large);
        break;
      }
      case eventType.request: {
        const { observers } = this;
        if (http.onRequestRecord === undefined || observers !== undefined) {
          const head = this.headAt(at);
          if (observers !== undefined) for (const each of observers) each.requestBegan?.(head);
          if (http.onRequestRecord === undefined) {
            http.onRequest(head);
            break;
          }
        }
        http.onRequestRecord(slot, generation, words[at + 7] as number, flags, arg1, offset, bytes, arg0);
        break;
      }
      case eventType.body:
        http.onBody(slot, words[at + 7] as number, this.payloadBytes.subarray(offset, offset + bytes), (flags & eventFlag.bodyEnd) !== 0);
        break;
      case eventType.abort:
        if (this.observers !== undefined) {
          const name = { slot, generation, request: words[at + 7] as number };
          for (const each of this.observers) each.requestAborted?.(name, arg0 >>> 16, arg0 & 0xffff);
        }
        http.onAbort(slot, words[at + 7] as number, arg0 >>> 16, arg0 & 0xffff);
        break;
      case eventType.responseDrain:
        http.onResponseDrain(slot, words[at + 7] as number);
        break;
      case eventType.halfClosed:
        http.onHalfClosed?.(slot, generation, words[at + 7] as number);
        break;
      case eventType.open:
        websocket.onOpen(slot, generation);
        break;
      case eventType.close:
        if (this.observers !== undefined) for (const each of this.observers) each.socketClosed?.(slot, generation, arg0, arg1);
        websocket.onClose(slot, generation, arg0, bytes === 0 ? '' : this.payload.utf8Slice(offset, offset + bytes), arg1);
        break;
      case eventType.wsDrain:
        websocket.onDrain(slot, generation);
        break;
      case eventType.ping:
        websocket.onPing(slot, generation, this.payloadBytes.subarray(offset, offset + bytes));
        break;
      case eventType.pong:
        websocket.onPong(slot, generation, this.payloadBytes.subarray(offset, offset + bytes));
        break;
      case eventType.dropped:
        websocket.onDropped(
          slot,
          generation,
          flags & eventFlag.droppedPayload ? 1 : arg0,
          flags & eventFlag.droppedPayload
            ? {
                bytes: flags & eventFlag.large ? largePayload(arg0, arg1, bytes) : this.payloadBytes.subarray(offset, offset + bytes),
                isBinary: (flags & eventFlag.wsBinary) !== 0,
              }
            : undefined,
        );
        break;
      case eventType.connect:
        connection?.onConnect(slot, generation, arg0);
        break;
      case eventType.disconnect:
        connection?.onDisconnect(slot, generation, arg0);
        break;
      case eventType.serverName:
        connection?.onServerName(slot, generation, arg0, this.payload.latin1Slice(offset, offset + bytes));
        break;
      case eventType.interest:
        this.bus?.onInterest(this.payloadBytes.slice(offset, offset + bytes), (flags & eventFlag.interestWanted) !== 0);
        break;
      case eventType.topic: {
        const large = flags & eventFlag.large ? largePayload(arg0, arg1, bytes) : undefined;
        this.heard(flags, large ?? this.payloadBytes.subarray(offset, offset + bytes), words[at + 7] as number);
        break;
      }
      case eventType.lost: {
        const told = this.payloadBytes.subarray(offset, offset + bytes);
        websocket.onLost?.(slot, generation, told.subarray(positionBytes), positionAt(told));
        break;
      }
      case eventType.mail:
        this.bus?.onMail(
          slot,
          generation,
          flags & eventFlag.large ? largePayload(arg0, arg1, bytes).slice() : this.payloadBytes.slice(offset, offset + bytes),
        );
        break;
      default: // NONE: a place the core reserved and did not need
    }
  }

  /** A message of a topic that this process holds. */
  private heard(flags: number, bytes: Uint8Array, topicBytes: number): void {
    const { onTopicMessage } = this;
    if (onTopicMessage === undefined) return;
    const position = flags & eventFlag.heardPosition ? positionAt(bytes) : undefined;
    const topicAt = position === undefined ? 0 : positionBytes;
    const sent =
      (flags & eventFlag.heardText ? commandFlag.sendText : 0) |
      (flags & eventFlag.heardCompress ? commandFlag.sendCompress : 0) |
      (flags & eventFlag.heardJoin ? commandFlag.entryJoin : 0) |
      (flags & eventFlag.heardLeave ? commandFlag.entryLeave : 0);
    onTopicMessage(
      bytes.subarray(topicAt, topicAt + topicBytes),
      sent,
      bytes.subarray(topicAt + topicBytes),
      position,
      (flags & eventFlag.heardLost) !== 0,
    );
  }

  /** The request that the record at this word tells of. */
  private headAt(at: number): RequestHead {
    const { words } = this;
    const offset = words[at + 3] as number;
    const lengths = words[at + 5] as number;
    const numbers = words[at + 6] as number;
    return {
      slot: words[at + 1] as number,
      generation: words[at + 2] as number,
      request: words[at + 7] as number,
      listener: this.listeners[(numbers >>> 8) & 0xff] as number,
      flags: (words[at] as number) >>> 16,
      method: numbers & 0xff,
      raw: this.payload.latin1Slice(offset, offset + (words[at + 4] as number)),
      hostBytes: lengths >>> 16,
      targetBytes: lengths & 0xffff,
    };
  }
}

/** A position at the beginning of a payload: two u64. */
function positionAt(bytes: Uint8Array): Position {
  const view = new DataView(bytes.buffer, bytes.byteOffset, positionBytes);
  return {
    epoch: epochOf(view.getUint32(0, true), view.getUint32(4, true)),
    offset: view.getUint32(8, true) + view.getUint32(12, true) * 0x1_0000_0000,
  };
}

function largePayload(low: number, high: number, bytes: number): Uint8Array {
  return bytes === 0 ? emptyBytes : new Uint8Array(coreCalls.view(high * 0x1_0000_0000 + low, bytes));
}
