/**
 * What a request is called in logs: by whoever stands in front of the gateway, or by us.
 * Role: asked by frontends and by the request log. Costs next to nothing while nobody asks: an id is made for the first who does.
 */
import { randomUUID } from 'node:crypto';
import type { RequestHead } from '../core/http.ts';

/** Ids are written into logs and headers as they came. */
const sane = /^[\w.:+/=-]{1,128}$/;

export class RequestIds {
  /** Carries the id in requests and in responses; '' when none does. */
  readonly header: string;
  /** Of the header's name in a request's block of fields. */
  readonly #line: string;
  /** Those made here; undefined: none so far. */
  #made: WeakMap<RequestHead, string> | undefined;

  /** `header`: in lower case, or false */
  constructor(header: string | false) {
    this.header = header === false ? '' : header;
    this.#line = `${this.header}\n`;
  }

  /** The id of a request; the same each time it is asked for. */
  of(head: RequestHead): string {
    const known = this.shown(head);
    if (known !== '') return known;
    const made = randomUUID();
    this.#made ??= new WeakMap();
    this.#made.set(head, made);
    return made;
  }

  /** The id that the response is to carry: one that came with the request, or that somebody has asked for; else ''. */
  shown(head: RequestHead): string {
    return this.given(head) || (this.#made?.get(head) ?? '');
  }

  /** The same as a field, `name: id\r\n`, or ''. */
  line(head: RequestHead): string {
    if (this.header === '') return '';
    const id = this.shown(head);
    return id === '' ? '' : `${this.header}: ${id}\r\n`;
  }

  /** The id that came with a request; '' when none did, or one that is not fit for a log. */
  given(head: RequestHead): string {
    if (this.header === '') return '';
    const { raw } = head;
    const fields = head.hostBytes + head.targetBytes;
    for (let at = raw.indexOf(this.#line, fields); at >= 0; at = raw.indexOf(this.#line, at + 1)) {
      if (!isName(raw, fields, at)) continue;
      const start = at + this.#line.length;
      const value = raw.slice(start, raw.indexOf('\n', start));
      return sane.test(value) ? value : '';
    }
    return '';
  }
}

/** Whether a field's name begins at `at`, and not a value that looks like one: names and values take turns, one on each line. */
function isName(raw: string, fields: number, at: number): boolean {
  if (at > fields && raw.charCodeAt(at - 1) !== 0x0a) return false;
  let lines = 0;
  for (let end = raw.indexOf('\n', fields); end >= 0 && end < at; end = raw.indexOf('\n', end + 1)) lines += 1;
  return lines % 2 === 0;
}
