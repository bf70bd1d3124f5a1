import { afterEach, beforeEach, describe, expect, test } from 'bun:test';
import { native, type SharedStats, SystemError } from '../../../ffi/bindings.ts';
import { statsLayout } from '../../../ffi/layout.ts';
import { frame, opcode } from '../../support/frames.mjs';
import { backends, LiveCore } from '../../support/live-core.ts';

const index = (name: string) => statsLayout.fields.findIndex((field) => field.name === name);

describe('the shared counters of a node', () => {
  let fd: number;
  let stats: SharedStats;
  beforeEach(() => {
    fd = native.shmCreate(2, 65536);
    stats = native.shmMap(fd);
  });
  afterEach(() => {
    stats.unmap();
    native.fdClose(fd);
  });

  const of = (worker: number, name: string) => Number(stats.read(worker)[index(name)]);
  const core = (workerIndex: number, backend = backends[0] as (typeof backends)[number]) =>
    new LiveCore(backend, { core: { shmFd: fd, workerIndex, workerCount: 2 } });

  test('every field has a place of its own, and the record is whole cache lines', () => {
    const names = statsLayout.fields.map((field) => field.name);
    expect(new Set(names).size).toBe(names.length);
    expect(statsLayout.bytes % 64).toBe(0);
    expect(statsLayout.bytes).toBeGreaterThanOrEqual(names.length * 8);
    expect(stats.read(0).byteLength).toBe(statsLayout.bytes);
  });

  test('begin at zero, one block for each worker', () => {
    expect(stats.read(0).every((value) => value === 0n)).toBeTrue();
    expect(stats.read(1).every((value) => value === 0n)).toBeTrue();
    stats.read(0)[index('handler_errors')] = 7n;
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
        live.core.addStat(index('handler_errors'), 3);
        live.core.addStat(index('handler_errors'), 2);
        live.core.setStat(index('loop_lag_us'), 1234);
        const read = (names: string[]) => names.map((name) => Number(view[index(name)]));
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
    first.core.setStat(index('loop_lag_us'), 99);
    const accepts = of(0, 'accepts');
    first.destroy();
    stats.workerGone(0);
    expect([accepts, of(0, 'accepts'), of(0, 'loop_lag_us'), of(0, 'connections_websocket'), of(0, 'backend')]).toEqual([1, 1, 0, 0, 0]);
    const second = core(0);
    await second.open();
    expect(of(0, 'accepts')).toBe(2);
    second.destroy();
  });

  test('another mapping of the same memory shows the same counters', () => {
    const other = native.shmMap(fd);
    stats.read(1)[index('requests')] = 42n;
    expect(other.read(1)[index('requests')]).toBe(42n);
    other.unmap();
    expect(of(1, 'requests')).toBe(42);
  });

  test('what is no shared memory of a node is refused', () => {
    const eventfd = native.eventfdCreate();
    for (const wrong of [-1, eventfd]) expect(() => native.shmMap(wrong)).toThrow('cannot be mapped');
    native.fdClose(eventfd);
    for (const workers of [0, 513]) expect(() => native.shmCreate(workers, 0)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => native.shmCreate(1, 1000)).toThrow(SystemError);
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
