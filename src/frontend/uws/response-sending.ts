/**
 * Sends a response: its head, its body whole, in chunks, or in parts of a length that was announced.
 * Role: what response.ts has to send → commands of core.ts. Down: response-head.ts for the fields.
 */
import { commandFlag } from '../../core/abi.ts';
import { behind } from '../../core/handles.ts';
import { asksForClose, fieldKind, fieldLine, invalid, kindOfField, lengthOf, lineText, statusOf } from './response-head.ts';
import {
  attached,
  attachedTo,
  begun,
  block,
  conclude,
  hostOf,
  is,
  nameOf,
  type ResponseState,
  state,
  statusText,
} from './response-state.ts';
import type { Texts } from './strings.ts';

/** A whole body up to this goes out in one command: the core would take it at once in any case. */
export const wholeBytes = 16384;
/** Lengths go to the core in 48 bits. */
export const countLimit = 2 ** 48 - 1;
/** Most that one `respondTry` is given; it counts in 31 bits. */
export const tryBytes = 1 << 30;

/** What is no count is none; Infinity is as good as no limit. */
export function countOf(value: unknown): number {
  const number = Math.floor(Number(value));
  return number > 0 ? Math.min(number, countLimit) : 0;
}

export function writeField(response: ResponseState, bits: number, key: Texts, value: Texts): void {
  const name = lineText(key);
  const text = lineText(value);
  const kind = kindOfField(name);
  if (bits & begun) throw invalid('a header cannot be written once the body has begun');
  response[state] = bits | is.statusCalled;
  if (kind === fieldKind.plain) response[block] += fieldLine(name, text);
  else writeFraming(response, kind, name, text);
}

export function writeFraming(response: ResponseState, kind: number, fieldName: string, value: string): void {
  if (kind === fieldKind.contentLength) attachedTo(response).contentLength = lengthOf(value);
  if (kind !== fieldKind.connection) return;
  if (asksForClose(value)) response[state] |= is.closing;
  else response[block] += `${fieldName}: ${value}\r\n`;
}

export function statusNumberOf(response: ResponseState): number {
  const text = response[statusText];
  return text === '' ? 200 : statusOf(text);
}

export function closeFlagOf(response: ResponseState): number {
  return response[state] & is.closing ? commandFlag.respondClose : 0;
}

export function respondWhole(response: ResponseState, body: string | Uint8Array | null): void {
  const { core } = behind(response[hostOf]);
  core.respondWith(nameOf(response), statusNumberOf(response), response[statusText], response[block], body, closeFlagOf(response));
}

/**
 * A response without body. `reported`: the length that GET would have had; only an answer to HEAD may tell it, since any other client
 * would wait for that many bytes (RFC 9110 §8.6).
 */
export function respondWithout(response: ResponseState, reported: number | undefined): void {
  if (reported === undefined || !(response[state] & is.head)) {
    respondWhole(response, null);
    return;
  }
  begin(response, reported, is.sized);
  behind(response[hostOf]).core.respondEnd(nameOf(response));
}

/** `length`: of the body, -1 when it is not known. */
export function begin(response: ResponseState, length: number, mode: number): void {
  const { core } = behind(response[hostOf]);
  const status = statusNumberOf(response);
  core.respondBeginWith(nameOf(response), status, response[statusText], response[block], length, closeFlagOf(response));
  response[state] |= mode | is.statusCalled;
  response[block] = '';
}

/** The rest of the response. */
export function endWith(response: ResponseState, content: string | Uint8Array): void {
  if (response[state] & begun) endStream(response, content);
  else if (content.length === 0) respondWithout(response, response[attached]?.contentLength);
  else respondWhole(response, content);
  conclude(response);
}

/** The last part, `content`, of a body that has begun. */
export function endStream(response: ResponseState, content: string | Uint8Array): void {
  const { core } = behind(response[hostOf]);
  if (content.length > 0 && !(response[state] & is.bodiless)) core.respondChunk(nameOf(response), content);
  core.respondEnd(nameOf(response), (response[state] & is.closing) !== 0);
}

/** As much of `bytes` as the client takes now; what is beyond the total is cut off. */
export function tryPart(response: ResponseState, bytes: Uint8Array): [ok: boolean, hasResponded: boolean] {
  const { core } = behind(response[hostOf]);
  const extras = attachedTo(response);
  const wanted = Math.min(bytes.byteLength, extras.total - extras.offset);
  let taken = response[state] & is.bodiless ? wanted : 0;
  while (taken < wanted) {
    const part = bytes.subarray(taken, Math.min(wanted, taken + tryBytes));
    const accepted = core.respondTry(nameOf(response), part);
    taken += accepted;
    if (accepted < part.byteLength) break;
  }
  extras.offset += taken;
  if (extras.offset < extras.total) return [taken === wanted, false];
  core.respondEnd(nameOf(response));
  conclude(response);
  return [true, true];
}
