/** Records of the core as the frontends hear of them: which request of which stream of which connection. */
import { describe, expect, test } from 'bun:test';
import { eventLayout, eventType } from '../../../ffi/layout.ts';
import type { WebSocketEvents } from '../../../src/core/event-batch.ts';
import { EventBatch } from '../../../src/core/event-batch.ts';
import type { HeadEvents, RecordEvents } from '../../../src/core/http.ts';

type Field = Exclude<keyof typeof eventLayout, 'bytes'>;

const payload = Buffer.from('a/GET\n');
const websocket = {} as WebSocketEvents;

/** A batch of these records, whose fields are zero unless they are given. */
function batchOf(...records: Partial<Record<Field, number>>[]): EventBatch {
  const memory = new ArrayBuffer(records.length * eventLayout.bytes);
  const view = new DataView(memory);
  const half: readonly Field[] = ['type', 'flags', 'request', 'stream'];
  for (const [index, record] of records.entries())
    for (const [field, value] of Object.entries(record) as [Field, number][]) {
      const at = index * eventLayout.bytes + eventLayout[field];
      if (half.includes(field)) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
    }
  return new EventBatch(memory, payload, payload);
}

/** On two streams at once, the second as far as 16 bits go. */
const records = [
  {
    type: eventType.request,
    slot: 7,
    generation: 9,
    request: 1,
    stream: 0,
    payloadBytes: 2,
    arg0: (1 << 16) | 1,
    arg1: (5 << 16) | (3 << 8) | 1,
  },
  { type: eventType.request, slot: 7, generation: 9, request: 65535, stream: 65535, arg1: 2 },
  { type: eventType.body, slot: 7, generation: 9, request: 65535, stream: 65535, payloadBytes: 1 },
  { type: eventType.responseDrain, slot: 7, generation: 9, request: 1, stream: 3 },
  { type: eventType.halfClosed, slot: 7, generation: 9, request: 2, stream: 0 },
  { type: eventType.abort, slot: 7, generation: 9, request: 65535, stream: 65535, arg0: (1 << 16) | 408 },
];

function deliverAll(http: HeadEvents | RecordEvents): void {
  const batch = batchOf(...records);
  for (const index of records.keys()) batch.deliver(index, http, websocket, undefined);
}

describe('requests of one connection', () => {
  const told: unknown[][] = [];
  const events = {
    onBody: (...rest: unknown[]) => void told.push(['body', ...rest.slice(0, 2)]),
    onResponseDrain: (...rest: unknown[]) => void told.push(['drain', ...rest]),
    onHalfClosed: (...rest: unknown[]) => void told.push(['half closed', ...rest]),
    onAbort: (...rest: unknown[]) => void told.push(['abort', ...rest]),
  };
  const rest = [
    ['body', 7, 0xffffffff],
    ['drain', 7, 0x30001],
    ['half closed', 7, 9, 2],
    ['abort', 7, 0xffffffff, 1, 408],
  ];

  test('are told apart by stream and number: heads', () => {
    told.length = 0;
    deliverAll({
      ...events,
      onRequest: ({ slot, generation, request, listener, method }) => void told.push([slot, generation, request, listener, method]),
    });
    expect(told).toEqual([[7, 9, 1, 3, 1], [7, 9, 0xffffffff, 0, 2], ...rest]);
  });

  test('and records', () => {
    told.length = 0;
    deliverAll({ ...events, onRequestRecord: (...numbers) => void told.push(numbers) });
    const facts = (5 << 16) | (3 << 8) | 1;
    expect(told).toEqual([[7, 9, 1, 0, facts, 0, 2, (1 << 16) | 1], [7, 9, 0xffffffff, 0, 2, 0, 0, 0], ...rest]);
  });
});
