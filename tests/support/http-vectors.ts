/**
 * The cases of tests/vectors/http/*.md, whose notation valid.md tells, for tests that send them over a socket.
 * A page that does not follow the notation throws: nothing is skipped.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface HttpVector {
  readonly title: string;
  /** A request head, or a chunked body. */
  readonly kind: 'http' | 'chunked';
  readonly bytes: Buffer;
  /** 'ok', 'more', 'end' or the status of the refusal. */
  readonly result: string;
}

export function readVectors(page: string): HttpVector[] {
  const text = readFileSync(join(import.meta.dir, '..', 'vectors', 'http', page), 'utf8');
  return text
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const title = section.slice(0, section.indexOf('\n'));
      const fence = /^```(http|chunked)\n([\s\S]*?)\n```$/m.exec(section);
      const result = /^- result: (\w+)$/m.exec(section);
      if (fence === null || result === null) throw new Error(`${page}: "${title}" has no bytes or no result`);
      return { title, kind: fence[1] as 'http' | 'chunked', bytes: resolveEscapes(fence[2] as string), result: result[1] as string };
    });
}

function resolveEscapes(text: string): Buffer {
  const named: Record<string, string> = { r: '\r', n: '\n', t: '\t', '0': '\0', '\\': '\\' };
  const plain = (escaped: string) =>
    escaped.replace(/\\(?:x([0-9a-f]{2})|([rnt0\\]))/gi, (_, hex?: string, name?: string) =>
      hex === undefined ? (named[name as string] as string) : String.fromCharCode(Number.parseInt(hex, 16)),
    );
  const repeated = text
    .replaceAll('\n', '')
    .replace(/\\\{(\d+) ([^}]*)\}/g, (_, count: string, inner: string) => inner.repeat(Number(count)));
  return Buffer.from(plain(repeated), 'latin1');
}
