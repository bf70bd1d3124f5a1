import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { native, type SharedStats, SystemError } from '../../../ffi/bindings.ts';
import { statsLayout } from '../../../ffi/layout.ts';
import { hostCounters } from '../../../src/core/host-counters.ts';
import { stats as declared, hostLayout, placesOf, type StatName, statIndex } from '../../../src/core/stat-index.ts';
import { frame, opcode } from '../../support/frames.mjs';
import { backends, LiveCore } from '../../support/live-core.ts';

describe('the shared counters of a node', () => {
  let fd: number;
  let stats: SharedStats;
  beforeEach(() => {
    fd = native.shmCreate(2, 65536, hostLayout);
    stats = native.shmMap(fd, hostLayout);
  });
  afterEach(() => {
    stats.unmap();
    native.fdClose(fd);
  });

  const of = (worker: number, name: StatName) => Number(stats.read(worker)[statIndex(name)]);
  const core = (workerIndex: number, backend = backends[0] as (typeof backends)[number]) =>
    new LiveCore(backend, { core: { shmFd: fd, workerIndex, workerCount: 2 } });

  test('every field has a place of its own, and the record is whole cache lines', () => {
    expect(new Set(declared.map(({ name }) => name)).size).toBe(declared.length);
    expect(new Set(declared.map(({ index }) => index)).size).toBe(declared.length);
    expect(declared.every(({ index }) => index * 8 < statsLayout.bytes)).toBeTrue();
    expect(statsLayout.bytes % 64).toBe(0);
    expect(stats.read(0).byteLength).toBe(statsLayout.bytes);
  });

  test('begin at zero, one block for each worker', () => {
    expect(stats.read(0).every((value) => value === 0n)).toBeTrue();
    expect(stats.read(1).every((value) => value === 0n)).toBeTrue();
    stats.read(0)[statIndex('handler_errors')] = 7n;
    expect([of(0, 'handler_errors'), of(1, 'handler_errors')]).toEqual([7, 0]);
  });

  for (const backend of backends) {
    test(`are live: what a worker on ${backend} does is read without asking it`, async () => {
      const live = core(1, backend);
      try {
        const view = stats.read(1);
        const { wire, socket } = await live.open();
        live.onMessage = (from, message) => from.send(message);
        wire.write(frame(opcode.text, '12345'));
        await live.during(wire.frame());
        const http = await live.connect();
        live.onRequest = (head) => live.core.respond(head, 404, '', 'no');
        http.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
        await live.during(http.head());
        live.core.addStat(statIndex('handler_errors'), 3);
        live.core.addStat(statIndex('handler_errors'), 2);
        live.core.setStat(statIndex('loop_lag_us'), 1234);
        const read = (names: StatName[]) => names.map((name) => Number(view[statIndex(name)]));
        expect(read(['accepts', 'ws_upgrades', 'ws_messages_in', 'ws_messages_out', 'ws_bytes_in', 'ws_bytes_out'])).toEqual([
          2, 1, 1, 1, 5, 5,
        ]);
        expect(read(['requests', 'responses_1xx', 'responses_4xx', 'handler_errors', 'loop_lag_us'])).toEqual([2, 1, 1, 5, 1234]);
        expect(read(['backend'])).toEqual([backend === 'io_uring' ? 1 : 2]);
        expect(of(1, 'turns')).toBeGreaterThan(0);
        expect(of(0, 'turns')).toBe(0);
        socket.terminate();
        await live.until('the close', () => of(1, 'closes') === 1);
      } finally {
        live.destroy();
      }
    });
  }

  test('survive the worker: its successor counts on; gauges go to zero when it is said to be gone', async () => {
    const first = core(0);
    await first.open();
    first.core.setStat(statIndex('loop_lag_us'), 99);
    first.core.addStat(statIndex('handler_errors'), 3);
    const accepts = of(0, 'accepts');
    first.destroy();
    stats.workerGone(0);
    expect([accepts, of(0, 'accepts'), of(0, 'loop_lag_us'), of(0, 'connections_websocket'), of(0, 'backend')]).toEqual([1, 1, 0, 0, 0]);
    expect(of(0, 'handler_errors')).toBe(3);
    const second = core(0);
    await second.open();
    expect(of(0, 'accepts')).toBe(2);
    second.destroy();
  });

  test('another mapping of the same memory shows the same counters', () => {
    const other = native.shmMap(fd, hostLayout);
    stats.read(1)[statIndex('requests')] = 42n;
    expect(other.read(1)[statIndex('requests')]).toBe(42n);
    other.unmap();
    expect(of(1, 'requests')).toBe(42);
  });

  test('what TypeScript counts lies behind what the core counts, gauges apart from counters', () => {
    const [counters, gauges] = [statsLayout.hostCounters / 8, statsLayout.hostGauges / 8];
    const own = placesOf(hostCounters);
    expect(own.length).toBeGreaterThan(20);
    for (const { name, kind, index } of own) expect([name, kind]).toEqual([name, index < gauges ? 'counter' : 'gauge']);
    expect(Math.min(...own.map(({ index }) => index))).toBe(counters);
    expect(counters * 8).toBeGreaterThan(Math.max(...statsLayout.fields.map(({ offset }) => offset)));
  });

  test('more than there is room for is refused with what to do', () => {
    const many = (kind: 'counter' | 'gauge', count: number) => [
      { kind, sources: Array.from({ length: count }, (_, at) => [`${kind}_${at}`, {}] as const) },
    ];
    const { hostCountersMost: counters, hostGaugesMost: gauges } = statsLayout;
    expect(placesOf([...many('counter', counters), ...many('gauge', gauges)])).toHaveLength(counters + gauges);
    expect(() => placesOf(many('counter', counters + 1))).toThrow(
      `no room for the counter counter_${counters}: ${counters} of TypeScript's fit; raise RW_HOST_COUNTERS and RW_ABI_VERSION in ffi/include/ringway.h`,
    );
    expect(() => placesOf(many('gauge', gauges + 1))).toThrow('raise RW_HOST_GAUGES');
  });

  test('a core or a reader for which the counters of TypeScript mean something else is refused', () => {
    const other = native.shmCreate(1, 65536, hostLayout ^ 1);
    expect(() => native.shmMap(other, hostLayout)).toThrow('cannot be mapped');
    expect(() => new LiveCore('epoll', { core: { shmFd: other } })).toThrow('laid out by another version');
    native.fdClose(other);
  });

  test('memory of topics is as large as was asked for, or there is none', () => {
    expect(stats.topicMemory()).toBeUndefined();
    const node = native.shmCreate(1, 65536, hostLayout, 2 ** 24);
    const shared = native.shmMap(node, hostLayout);
    const { bytes, ...rest } = shared.topicMemory() ?? { bytes: 0 };
    expect(bytes).toBeWithin(2 ** 23, 2 ** 24);
    expect(rest).toEqual({ usedBytes: 0, logs: 0, evicted: 0, recovered: 0, damaged: 0 });
    shared.unmap();
    native.fdClose(node);
    for (const size of [1, 2 ** 22, 2 ** 39])
      expect(() => native.shmCreate(1, 65536, hostLayout, size)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('what is no shared memory of a node is refused', () => {
    const eventfd = native.eventfdCreate();
    for (const wrong of [-1, eventfd]) expect(() => native.shmMap(wrong, hostLayout)).toThrow('cannot be mapped');
    native.fdClose(eventfd);
    for (const workers of [0, 513])
      expect(() => native.shmCreate(workers, 0, hostLayout)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => native.shmCreate(1, 1000, hostLayout)).toThrow(SystemError);
  });
});

describe('native sockets', () => {
  test('errors carry the name that the kernel gives them', () => {
    const fd = native.listenSocket('127.0.0.1', 0, 8, 2);
    const port = native.socketPort(fd);
    expect(port).toBeGreaterThan(0);
    expect(() => native.listenSocket('127.0.0.1', port, 8, 2)).toThrow(
      expect.objectContaining({ code: 'EADDRINUSE', message: `cannot listen on 127.0.0.1 port ${port}: EADDRINUSE` }),
    );
    native.fdClose(fd);
    expect(() => native.socketPort(-1)).toThrow(expect.objectContaining({ code: 'EBADF' }));
    expect(() => native.listenSocket('not an address', 0, 8, 0)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
  });

  test('the CPUs of this process are listed, each once', () => {
    const cpus = native.affinityGet();
    expect(cpus.length).toBeGreaterThan(0);
    expect(new Set(cpus).size).toBe(cpus.length);
  });
});
