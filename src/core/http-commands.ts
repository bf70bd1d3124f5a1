/**
 * Responses, bodies and handshakes, and what is known of the client of a request.
 * Role: the commands of HttpCommands (http.ts), and those of a frontend that writes heads itself. Down: core-memory.ts.
 */
import { coreCalls } from '../../ffi/bindings.ts';
import { capacity, commandFlag, commandType, slotLayout, slotStateMask } from '../../ffi/layout.ts';
import { addressText } from './address.ts';
import { bytesOf, eagerBytes, roomOf } from './command-batch.ts';
import type { ConnectionName } from './connection.ts';
import { CoreMemory, slotOutBytes, slotState, slotWords } from './core-memory.ts';
import type { HttpCommands, RequestHead, RequestName } from './http.ts';
import type { CoreOptions } from './options.ts';
import type { Position } from './position.ts';
import { type TlsInfo, tlsInfo } from './tls-info.ts';

/** Of HTTP, in the lower half: the number of the latest request. */
const slotRequest = slotLayout.request / 4;

const emptyBytes = new Uint8Array(0);

export abstract class HttpCommandQueue extends CoreMemory implements HttpCommands {
  readonly highWater: number;
  /** Proxies may have told of clients. */
  protected knowsProxies = false;

  constructor(options: CoreOptions) {
    super(options);
    this.highWater = options.numbers.responseHighWaterBytes ?? 262144;
  }

  respond(head: RequestHead, status: number, headers: string, body: string | Uint8Array | null, close = false): void {
    this.respondWith(head, status, '', headers, body, close ? commandFlag.respondClose : 0);
  }

  /** A whole response. `statusText`: the status as it stands on the wire, such as '200 OK', or '' for the usual one; `flags`: RW_RESPOND_*. */
  respondWith(
    request: RequestName,
    status: number,
    statusText: string,
    headers: string,
    body: string | Uint8Array | null,
    flags: number,
  ): void {
    const commands = this.commands;
    const { slot, generation } = request;
    const { observers } = this.events;
    if (observers !== undefined) {
      for (const each of observers) each.responseBegan?.(request, status);
      for (const each of observers) each.responseEnded?.(request, true);
    }
    const head = withStatus(statusText, headers);
    const allFlags = statusText === '' ? flags : flags | commandFlag.respondStatusText;
    const room = head.length + (body === null ? 0 : roomOf(body));
    if (room > capacity.dataBytes || (typeof body !== 'string' && room > eagerBytes)) {
      const blob = Buffer.concat([Buffer.from(head, 'latin1'), body === null ? emptyBytes : bytesOf(body)]);
      commands.direct(commandType.respond, allFlags, slot, generation, blob, status, headers.length, request.request);
      return;
    }
    const offset = commands.room(room);
    let at = offset + commands.writeLatin1(head, offset);
    if (body !== null) at += commands.write(body, at);
    commands.push(commandType.respond, allFlags, slot, generation, offset, at - offset, status, headers.length, request.request);
  }

  respondBegin(head: RequestHead, status: number, headers: string, length: number, close = false): void {
    this.respondBeginWith(head, status, '', headers, length, close ? commandFlag.respondClose : 0);
  }

  /** Begin a streamed response. `length`: body bytes, or -1 when not known. As `respondWith` otherwise. */
  respondBeginWith(request: RequestName, status: number, statusText: string, headers: string, length: number, flags: number): void {
    const { observers } = this.events;
    if (observers !== undefined) for (const each of observers) each.responseBegan?.(request, status);
    const sized = length >= 0;
    const high = sized ? Math.floor(length / 0x1_0000_0000) & 0xffff : 0;
    const low = sized ? length >>> 0 : 0;
    const allFlags = flags | (sized ? commandFlag.respondSized : 0) | (statusText === '' ? 0 : commandFlag.respondStatusText);
    const { slot, generation } = request;
    const head = withStatus(statusText, headers);
    this.commands.headers(commandType.respondBegin, allFlags, slot, generation, head, status | (high << 16), low, request.request);
  }

  /**
   * Begin a stream of events (text/event-stream), which may subscribe to topics as a socket does. `quietMs`: after so long without output a comment is
   * sent; 0: never.
   */
  respondBeginEvents(request: RequestName, headers: string, quietMs: number): void {
    const { observers } = this.events;
    if (observers !== undefined) for (const each of observers) each.responseBegan?.(request, 200);
    const { slot, generation } = request;
    this.commands.headers(commandType.respondBegin, commandFlag.respondEvents, slot, generation, headers, 200, quietMs, request.request);
  }

  /** An event of one's own on a stream. `rest`: what stands behind its id, '\n' for the id alone; the core puts the id in front. */
  respondEvent(request: RequestName, rest: string): void {
    this.commands.payload(commandType.respondEvent, 0, request.slot, request.generation, rest, request.request);
  }

  /** The topics of a stream, in the order in which its ids name them, and where its client is in each. Before it subscribes to any. */
  respondPlaces(request: RequestName, places: readonly { readonly topic: string; readonly at: Position | undefined }[]): void {
    const parts = places.map(({ topic, at }) => {
      const name = Buffer.from(topic);
      const place = Buffer.alloc(20);
      if (at !== undefined) {
        place.writeBigUInt64LE(BigInt(`0x${at.epoch}`), 0);
        place.writeBigUInt64LE(BigInt(at.offset), 8);
      }
      place.writeUInt32LE(name.byteLength, 16);
      return [place, name];
    });
    const { slot, generation } = request;
    this.commands.direct(commandType.respondPlaces, 0, slot, generation, Buffer.concat(parts.flat()), 0, 0, request.request);
  }

  /** ret: bytes that wait for the client, these included */
  respondChunk(request: RequestName, chunk: string | Uint8Array): number {
    const { slot, generation } = request;
    this.commands.payload(commandType.respondChunk, 0, slot, generation, chunk, request.request);
    // Applied at once, so that the answer is exact and a stream never runs ahead of its limit.
    this.flush();
    return this.isLive(slot, generation) ? (this.slots[slot * slotWords + slotOutBytes] as number) : 0;
  }

  /** Queue what the client takes at once of a part of a sized body. ret: bytes accepted; with less than all, `onResponseDrain` follows */
  respondTry(request: RequestName, chunk: Uint8Array): number {
    const { slot, generation } = request;
    return Math.max(0, this.commands.direct(commandType.respondTry, 0, slot, generation, chunk, 0, 0, request.request));
  }

  /** `close`: and the connection with it. */
  respondEnd(request: RequestName, close = false): void {
    const { observers } = this.events;
    if (observers !== undefined) for (const each of observers) each.responseEnded?.(request, true);
    const { slot, generation } = request;
    this.commands.push(commandType.respondEnd, close ? commandFlag.respondClose : 0, slot, generation, 0, 0, 0, 0, request.request);
  }

  respondAbort(request: RequestName): void {
    const { observers } = this.events;
    if (observers !== undefined) for (const each of observers) each.responseEnded?.(request, false);
    this.commands.push(commandType.respondAbort, 0, request.slot, request.generation, 0, 0, 0, 0, request.request);
  }

  bodyAck(request: RequestName, bytes: number, kept = false): void {
    const { slot, generation } = request;
    this.commands.push(commandType.bodyAck, kept ? commandFlag.bodyKept : 0, slot, generation, 0, 0, bytes, 0, request.request);
  }

  /** Accept a WebSocket handshake (a head with RW_REQUEST_UPGRADE). `offer`: the client's Sec-WebSocket-Extensions, '' to do without compression. */
  acceptUpgrade(head: RequestHead, headers: string, behavior: number, offer = ''): void {
    this.acceptUpgradeWith(head, behavior, offer, '', headers, false);
  }

  /** `leading` and `trailing`: header blocks before and behind the handshake's own fields. `quiet`: no `onOpen` follows. */
  acceptUpgradeWith(request: RequestName, behavior: number, offer: string, leading: string, trailing: string, quiet: boolean): void {
    const { slot, generation } = request;
    const { observers } = this.events;
    if (observers !== undefined) for (const each of observers) each.socketOpened?.(request);
    const data = offer === '' && leading === '' ? trailing : offer + leading + trailing;
    const arg0 = behavior | (leading.length << 8);
    const flags = quiet ? commandFlag.upgradeQuiet : 0;
    this.commands.headers(commandType.upgrade, flags, slot, generation, data, arg0, offer.length, request.request);
  }

  /**
   * The client's address: as proxies that are trusted have told it, else that of the socket. Of a request it is known until the next one of its
   * connection, which behind a proxy may be another client's.
   */
  remoteAddress(request: RequestName): { address: string; port: number } | undefined {
    return this.knowsProxies && !this.#isLatest(request) ? undefined : this.addressOf(request.slot, request.generation);
  }

  /** The client's address of a connection that is one client's, such as a WebSocket. */
  addressOf(slot: number, generation: number): { address: string; port: number } | undefined {
    if (this.knowsProxies) {
      const told = coreCalls.peer(this.pointer, slot, generation, true);
      if (told !== undefined && told.address.length > 0) return { address: addressText(told.address), port: told.port };
    }
    return coreCalls.remoteAddress(this.pointer, slot, generation);
  }

  /** Undefined when the connection has ended or is not over TLS. */
  tls({ slot, generation }: ConnectionName): TlsInfo | undefined {
    const found = coreCalls.tls(this.pointer, slot, generation);
    return found && tlsInfo(found.version, found.serverName, found.certificate);
  }

  #isLatest({ slot, request }: RequestName): boolean {
    const base = slot * slotWords;
    const isWebSocket = ((this.slots[base + slotState] as number) & slotStateMask.websocket) !== 0;
    return isWebSocket || ((this.slots[base + slotRequest] as number) & 0xffff) === request;
  }

  /** The peer's address in binary, of the socket or as a proxy told it; undefined once the connection is gone. */
  peer(slot: number, generation: number, proxied: boolean): { address: Uint8Array; port: number } | undefined {
    return coreCalls.peer(this.pointer, slot, generation, proxied);
  }
}

/** A status of its own goes before the header block, behind a byte that tells its length (RW_RESPOND_STATUS_TEXT). */
function withStatus(statusText: string, headers: string): string {
  return statusText === '' ? headers : String.fromCharCode(statusText.length) + statusText + headers;
}
