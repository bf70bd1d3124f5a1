import { describe, expect, test } from 'bun:test';
import { hostCounters, redisStates } from '../../../src/core/host-counters.ts';
import { stats } from '../../../src/core/stat-index.ts';
import { createMetrics, families, infoFields } from '../../../src/supervisor/metrics.ts';

const apart = hostCounters.filter((each) => 'shownBy' in each);
const exported = [...[...families, ...apart].flatMap(({ sources }) => sources.map(([field]) => field)), ...infoFields];

function scrape(values: (worker: number, field: string) => number, workers = 2): Promise<string> {
  const facts = Array.from({ length: workers }, (_, worker) => ({ isReady: worker === 0, restarts: worker * 3 }));
  return createMetrics({
    workers: facts,
    startedAtMs: 1_500,
    version: '1.2.3',
    generation: 3,
    reloads: { reloaded: 2, failed: 1 },
    linesLost: 3,
    read: values,
  }).metrics();
}

describe('metrics', () => {
  test('every counter is exported exactly once, and no other', () => {
    expect(exported.toSorted() as string[]).toEqual(stats.map(({ name }) => name).toSorted());
  });

  test('kinds agree with those in shared memory', () => {
    const kinds = new Map<string, string>(stats.map(({ name, kind }) => [name, kind]));
    for (const family of families) for (const [field] of family.sources) expect([field, kinds.get(field)]).toEqual([field, family.kind]);
  });

  test('names follow the conventions of Prometheus', () => {
    for (const family of families) {
      expect(family.name).toMatch(/^[a-z][a-z0-9_]*$/);
      expect(family.name.endsWith('_total')).toBe(family.kind === 'counter');
      expect(family.name).not.toMatch(/_(ms|us|milliseconds|kb|count)(_|$)/);
      expect(family.help).toEndWith('.');
    }
    expect(new Set(families.map((family) => family.name)).size).toBe(families.length);
  });

  test('each worker has its series, and the node their sum', async () => {
    const text = await scrape((worker, field) => (field === 'connections_websocket' ? 10 + worker : field === 'refused_slots' ? 1 : 0));
    expect(text).toContain('ringway_connections{worker="0",protocol="websocket"} 10\n');
    expect(text).toContain('ringway_connections{worker="1",protocol="websocket"} 11\n');
    expect(text).toContain('ringway_node_connections{protocol="websocket"} 21\n');
    expect(text).toContain('ringway_node_connections_refused_total{reason="slots"} 2\n');
    expect(text).toContain('# TYPE ringway_connections gauge\n');
    expect(text).toContain('# TYPE ringway_connections_refused_total counter\n');
  });

  test('a second scrape shows new values, not sums of both', async () => {
    let value = 5;
    const registry = createMetrics({
      workers: [{ isReady: true, restarts: 0 }],
      startedAtMs: 0,
      version: '1',
      generation: 1,
      reloads: { reloaded: 0 },
      linesLost: 0,
      read: () => value,
    });
    await registry.metrics();
    value = 7;
    expect(await registry.metrics()).toContain('ringway_http_requests_total{worker="0"} 7\n');
  });

  test('times are in seconds; of lag the node shows the worst', async () => {
    const text = await scrape((worker, field) => (field === 'loop_lag_us' ? 1500 * (worker + 1) : field === 'started_at_ms' ? 2000 : 0));
    expect(text).toContain('ringway_event_loop_lag_seconds{worker="0"} 0.0015\n');
    expect(text).toContain('ringway_node_event_loop_lag_seconds 0.003\n');
    expect(text).toContain('ringway_worker_start_time_seconds{worker="1"} 2\n');
    expect(text).not.toContain('ringway_node_worker_start_time_seconds');
    expect(text).toContain('process_start_time_seconds 1.5\n');
  });

  test('whether Redis can be reached is told for workers that use it', async () => {
    const states = [redisStates.up, redisStates.lost, redisStates.connecting, redisStates.none];
    const text = await scrape((worker, field) => (field === 'redis_state' ? (states[worker] ?? 0) : 0), 4);
    expect([...text.matchAll(/^ringway_redis_up\{worker="(\d)"\} (\d)$/gm)].map(([, worker, up]) => [worker, up])).toEqual([
      ['0', '1'],
      ['1', '0'],
      ['2', '0'],
    ]);
  });

  test('the backend is a label, and absent while a worker has none', async () => {
    const text = await scrape((worker, field) => (field === 'backend' ? ([0, 2][worker] ?? 0) : 0));
    expect(text).toContain('ringway_io_backend_info{worker="1",backend="epoll"} 1\n');
    expect(text).not.toContain('ringway_io_backend_info{worker="0"');
  });

  test('a place without a worker keeps its counters, and is not said to be down', async () => {
    const workers = [
      { isReady: false, restarts: 2, isEmpty: true },
      { isReady: true, restarts: 0, isEmpty: false },
    ];
    const source = { workers, startedAtMs: 0, version: '1', generation: 2, reloads: {}, linesLost: 0, read: () => 5 };
    const registry = createMetrics(source);
    const text = await registry.metrics();
    expect(text).toContain('ringway_node_http_requests_total 10\n');
    expect(text).toContain('ringway_worker_restarts_total{worker="0"} 2\n');
    expect(text).toContain('ringway_worker_up{worker="1"} 1\n');
    expect(text).not.toContain('ringway_worker_up{worker="0"}');
    // Whoever was there at the scrape before and has left since is not shown any more.
    workers[1] = { isReady: false, restarts: 0, isEmpty: true };
    expect(await registry.metrics()).not.toContain('ringway_worker_up{');
  });

  test('what topics remember is of the node', async () => {
    const none = { workers: [], startedAtMs: 0, version: '1', generation: 1, reloads: {}, linesLost: 0, read: () => 0 };
    expect(await createMetrics(none).metrics()).toContain('ringway_topic_memory_limit_bytes 0\n');
    const topicMemory = () => ({ bytes: 1000, usedBytes: 300, logs: 2, evicted: 7, recovered: 1, damaged: 4 });
    const text = await createMetrics({ ...none, topicMemory }).metrics();
    expect(text).toContain('ringway_topic_memory_limit_bytes 1000\n');
    expect(text).toContain('ringway_topic_memory_bytes 300\n');
    expect(text).toContain('ringway_topic_logs 2\n');
    expect(text).toContain('ringway_topic_logs_evicted_total 7\n');
    expect(text).toContain('ringway_topic_memory_recoveries_total 1\n');
    expect(text).toContain('ringway_topic_memory_damages_total 4\n');
  });

  test('the supervisor tells what it knows of workers', async () => {
    const text = await scrape(() => 0);
    expect(text).toContain('ringway_worker_up{worker="0"} 1\n');
    expect(text).toContain('ringway_worker_up{worker="1"} 0\n');
    expect(text).toContain('ringway_worker_restarts_total{worker="1"} 3\n');
    expect(text).toContain(`ringway_build_info{version="1.2.3",bun="${Bun.version}"} 1\n`);
    expect(text).toContain('ringway_config_generation 3\n');
    expect(text).toContain('ringway_reloads_total{outcome="reloaded"} 2\nringway_reloads_total{outcome="failed"} 1\n');
  });
});
