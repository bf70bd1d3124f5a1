/**
 * Where a client of a stream was when it left: the id of the last event that it had, which names its place in each topic.
 * Role: pure; for whoever reads what is asked of a stream. Down: core/position.ts.
 */
import type { RequestHead } from '../../core/http.ts';
import { type Position, parsePosition } from '../../core/position.ts';
import { headerValues } from '../../core/request-target.ts';

/** 'unknown': it has a place that nobody knows. */
export type Place = Position | 'unknown' | undefined;

/** An id is at most this long; what is longer is not ours. */
const idBytesMax = 64 * 1024;

/** What a client that comes back says: browsers by a header, polyfills that cannot write one by the query (`lastEventId`). ret: '' for nothing */
export function rememberedId(head: RequestHead, query: string | null): string {
  return headerValues(head, 'last-event-id').join(',') || query || '';
}

/**
 * ret: by topic. What a client remembers is never wrong, only unknown: a browser that is refused does not come back, and one that is told of a loss
 * begins anew.
 */
export function placesOf(id: string, topics: number): readonly Place[] {
  if (id === '') return Array.from({ length: topics }, () => undefined);
  const texts = id.length > idBytesMax ? [] : id.split(',');
  if (texts.length !== topics) return Array.from({ length: topics }, () => 'unknown');
  return texts.map((text) => (text.trim() === '-' ? undefined : (parsePosition(text.trim()) ?? 'unknown')));
}
