/**
 * Prometheus metrics: what each counter in shared memory is called, and its meaning.
 *
 * Every family exists twice: `ringway_x{worker="0"}` for each worker, and `ringway_node_x`, the sum (or the worst) of all
 * workers. Two families and not one more label value, because sum() over the first must not count anything twice.
 * Role: read by admin.ts. Down: counters of the core by name (ffi/layout.ts), and those of TypeScript as core/host-counters.ts declares them. A
 * test sees to it that no counter is forgotten.
 */
import { Counter, Gauge, Registry } from 'prom-client';
import { backend as backends } from '../core/abi.ts';
import { hostCounters, redisStates } from '../core/host-counters.ts';
import { by, counter, type Family, gauge, one, type Source } from '../core/metric-family.ts';
import type { TopicMemory } from '../core/native.ts';
import type { StatName } from '../core/stat-index.ts';

const sizeClasses = { '64': '64', '256': '256', '1024': '1k', '4096': '4k', '16384': '16k', '65536': '64k' } as const;
/** Sizes as label values are bytes, so that they compare as numbers do. */
const buffersBySize = (what: 'used' | 'total'): readonly Source<StatName>[] =>
  Object.entries(sizeClasses).map(([bytes, name]): Source<StatName> => [`buffers_${name}_${what}`, { bytes }]);

/** What the core counts. */
const coreFamilies: readonly Family<StatName>[] = [
  gauge('connections', 'Open connections.', by('protocol', { http: 'connections_http', websocket: 'connections_websocket' })),
  gauge('sse_streams', 'Streams of server-sent events of topics that are open.', one('event_streams')),
  counter('sse_messages_sent', 'Messages of topics queued to streams of server-sent events.', one('event_messages_out')),
  counter('connections_accepted', 'Connections accepted and given a slot.', one('accepts')),
  counter('connections_closed', 'Connections whose slot was given back.', one('closes')),
  counter(
    'connections_refused',
    'Connections that were not let in: no slot free, no descriptors (EMFILE, ENFILE), no memory, the peer left first, too many of one address (upgrades too), or no PROXY header of a trusted proxy.',
    by('reason', {
      slots: 'refused_slots',
      descriptors: 'refused_descriptors',
      memory: 'refused_memory',
      aborted: 'refused_aborted',
      ip: 'refused_ip',
      proxy: 'refused_proxy',
    }),
  ),
  counter('tls_handshakes', 'TLS handshakes completed.', one('tls_handshakes')),
  counter('tls_resumptions', 'TLS handshakes that resumed a session.', one('tls_resumptions')),
  counter('tls_errors', 'TLS handshakes that failed, and broken records.', one('tls_errors')),
  counter('tls_plain_requests', 'Plain HTTP that came to a TLS port, answered with 400.', one('tls_plain')),
  counter('http_requests', 'Requests whose head was complete and valid.', one('requests')),
  counter(
    'http_responses',
    'Responses by status class.',
    by('status', {
      '1xx': 'responses_1xx',
      '2xx': 'responses_2xx',
      '3xx': 'responses_3xx',
      '4xx': 'responses_4xx',
      '5xx': 'responses_5xx',
    }),
  ),
  counter('http_errors', 'Requests refused before they reached a handler (400, 413, 431, ...).', one('http_errors')),
  counter('http_aborts', 'Clients that left, or took nothing for too long, before their response was complete.', one('http_aborts')),
  counter(
    'timeouts',
    'Deadlines missed: request head, request body, message, nothing received, nothing taken.',
    by('kind', {
      head: 'timeouts_head',
      body: 'timeouts_body',
      message: 'timeouts_message',
      idle: 'timeouts_idle',
      write: 'timeouts_write',
    }),
  ),
  counter('received_bytes', 'Bytes received from sockets.', one('bytes_in')),
  counter('sent_bytes', 'Bytes that the kernel took for sockets.', one('bytes_out')),
  counter('websocket_upgrades', 'WebSocket handshakes completed.', one('ws_upgrades')),
  counter(
    'websocket_upgrades_refused',
    'WebSocket handshakes refused.',
    by('reason', { handshake: 'refused_handshake', rate: 'refused_upgrade_rate' }),
  ),
  counter(
    'websocket_messages',
    'Messages received, and messages queued to one socket each.',
    by('direction', { in: 'ws_messages_in', out: 'ws_messages_out' }),
  ),
  counter('websocket_message_bytes', 'Payload of those messages.', by('direction', { in: 'ws_bytes_in', out: 'ws_bytes_out' })),
  counter(
    'websocket_compressed_messages',
    'Messages received compressed, and messages queued compressed to one socket each.',
    by('direction', { in: 'ws_deflated_in', out: 'ws_deflated_out' }),
  ),
  counter('websocket_compressions', 'Compressions done: a published message counts once for each window size in use.', one('deflates')),
  counter('websocket_pings', 'Ping frames.', by('direction', { in: 'ws_pings_in', out: 'ws_pings_out' })),
  counter('websocket_pongs_received', 'Pong frames received.', one('ws_pongs_in')),
  counter('websocket_closes', 'Close frames.', by('direction', { in: 'ws_closes_in', out: 'ws_closes_out' })),
  counter(
    'websocket_errors',
    'WebSockets closed for what the client sent: against the protocol (1002, 1003, 1007) or too big (1009).',
    by('reason', { protocol: 'ws_protocol_errors', too_big: 'ws_too_big' }),
  ),
  counter(
    'websocket_invalid_compression',
    'Of them, closed (1007) because a compressed message did not inflate.',
    one('ws_invalid_deflate'),
  ),
  counter(
    'websocket_rate_closes',
    'WebSockets closed (1008) because the client sent more in a second than allowed.',
    by('reason', { messages: 'closes_message_rate', bytes: 'closes_byte_rate' }),
  ),
  counter('websocket_rate_pauses', 'Times a WebSocket was not read from because its client was past its rate.', one('pauses_rate')),
  counter(
    'publishes',
    'Messages published: here, or on another worker or node.',
    by('origin', { local: 'publishes', remote: 'publishes_remote' }),
  ),
  counter('deliveries', 'Messages queued to subscribers by publishes.', one('deliveries')),
  counter(
    'messages_dropped',
    'Messages not delivered: a client or another worker too slow, too many pongs waiting, Redis gone for too long, or waiting for a handler when this side closed the socket.',
    by('reason', {
      backpressure: 'drops_backpressure',
      control: 'drops_control',
      bus: 'node_drops',
    }),
  ),
  gauge('unfinished_bytes', 'Bytes held of requests and messages that clients have begun and not finished.', one('unfinished_bytes')),
  gauge('unfinished_limit_bytes', 'The most that may be held of them.', one('unfinished_limit_bytes')),
  counter(
    'unfinished_refused',
    'Requests refused (503, 413) and WebSockets closed (1013) because more would have been held than that.',
    by('kind', { request: 'refused_unfinished', message: 'closes_unfinished' }),
  ),
  gauge('inflate_bytes', 'Bytes held of windows of WebSockets that send compressed messages.', one('inflate_bytes')),
  gauge('inflate_limit_bytes', 'The most that may be held of them; 0: no limit.', one('inflate_limit_bytes')),
  counter(
    'inflate_refused',
    'Handshakes answered without compression, and WebSockets closed (1013) at their first compressed message, because more would have been held than that.',
    by('kind', { handshake: 'declined_inflate', message: 'closes_inflate' }),
  ),
  counter('backpressure_closes', 'Connections closed because too much waited for them.', one('closes_backpressure')),
  gauge('backpressure_bytes', 'Bytes that wait for slow clients.', one('backpressure_bytes')),
  gauge('backpressure_connections', 'Connections with such bytes.', one('backpressure_connections')),
  gauge('topics', 'Topics with a subscriber.', one('topics')),
  gauge('subscriptions', 'Subscriptions of sockets to topics.', one('subscriptions')),
  gauge('presence_members', 'Of them, those that are seen on a topic with presence.', one('presence_members')),
  counter(
    'presence_changes',
    'Users that came to a topic with presence, and that left it, as far as this node knows.',
    by('kind', { join: 'presence_joins', leave: 'presence_leaves' }),
  ),
  counter(
    'subscriptions_refused',
    'Subscriptions refused because the socket, or the worker, had as many topics as it may have.',
    by('reason', { socket: 'refused_topics_socket', worker: 'refused_topics_worker' }),
  ),
  counter('topic_appends', 'Messages stored in the logs of topics.', one('topic_appends')),
  counter('topic_appends_refused', 'Messages that could not be stored in a log.', one('topic_appends_refused')),
  counter(
    'topic_attaches',
    'Subscribers that came to a log with a position: all they had missed was there, some was not, or it was left to the store of all nodes.',
    by('outcome', { recovered: 'topic_attaches_recovered', lost: 'topic_attaches_lost', behind: 'topic_attaches_behind' }),
  ),
  counter('topic_lost', 'Times a subscriber was told that messages of a log are gone.', one('topic_lost')),
  counter('topic_lags', 'Times a subscriber of a log had no room for more, and went on from the log later.', one('topic_lags')),
  gauge('topic_lagging', 'Subscriptions that are behind their log now.', one('topic_lagging')),
  counter('topic_host_drops', 'Messages without a log that the queue of a handler of topics had no room for.', one('topic_host_drops')),
  counter(
    'bus_messages',
    'Messages between the workers of this node.',
    by('direction', { out: 'node_messages_out', in: 'node_messages_in' }),
  ),
  gauge('bus_outbox_bytes', 'Bytes that wait for room in the rings of other workers.', one('node_outbox_bytes')),
  gauge('buffers_used', 'Buffers in use, by size.', [...buffersBySize('used'), ['buffers_large_used', { bytes: 'larger' }]]),
  gauge('buffers_carved', 'Buffers ever carved from the arena, by size.', buffersBySize('total')),
  counter('buffers_large_allocated', 'Allocations larger than the largest class.', one('buffers_large_total')),
  counter('receive_buffers_exhausted', 'Times the shared receive buffers ran out (ENOBUFS).', one('recv_no_buffers')),
  counter('completion_overflows', 'Times the completion queue overflowed; nothing was lost.', one('cq_overflows')),
  counter('short_sends', 'Sends of which the kernel took only a part.', one('send_short')),
  counter('loop_turns', 'Turns of the event loop.', one('turns')),
  counter('loop_turns_empty', 'Turns that found nothing to do.', one('turns_empty')),
  counter('loop_sleeps', 'Times the event loop went to sleep.', one('sleeps')),
  gauge('worker_start_time_seconds', 'When the worker started, since the Unix epoch; 0: it is not running.', one('started_at_ms'), {
    scale: 1e-3,
    node: 'none',
  }),
];

/** Of all counters: those of TypeScript stand with those of the core, or in families of their own. */
export const families: readonly Family<StatName>[] = [
  ...coreFamilies.map((family) => {
    const more = hostCounters.flatMap((each): readonly Source<StatName>[] =>
      'joins' in each && each.joins === family.name ? each.sources : [],
    );
    return { ...family, sources: [...family.sources, ...more] };
  }),
  ...hostCounters.filter((each) => 'name' in each),
];

/** Counters that are shown as info, with their value as a label: see `ringway_io_backend_info`. */
export const infoFields: readonly StatName[] = ['backend'];

const backendNames: Readonly<Record<number, string>> = { [backends.ioUring]: 'io_uring', [backends.epoll]: 'epoll', [backends.sim]: 'sim' };

export interface WorkerFacts {
  readonly isReady: boolean;
  readonly restarts: number;
  /** Since its last heartbeat; 0 when it is not ready. */
  readonly silentSeconds?: number;
  /** Nobody is at this place now. */
  readonly isEmpty?: boolean;
}

/** Where the numbers come from. */
export interface MetricsSource {
  readonly workers: readonly WorkerFacts[];
  readonly startedAtMs: number;
  readonly version: string;
  /** Counts the configs that have served. */
  readonly generation: number;
  /** Reloads that have ended, by outcome. */
  readonly reloads: Readonly<Record<string, number>>;
  /** Lines that the supervisor could not write. */
  readonly linesLost: number;
  /** undefined: topics remember nothing. */
  topicMemory?(): TopicMemory | undefined;
  /** Value of a counter in shared memory. */
  read(worker: number, field: StatName): number;
}

/** A registry that reads `source` anew for each scrape. */
export function createMetrics(source: MetricsSource): Registry {
  const registry = new Registry();
  for (const family of families) registerFamily(registry, family, source);
  registerWorkers(registry, source);
  registerSupervisor(registry, source);
  registerTopicMemory(registry, source);
  return registry;
}

function registerFamily(registry: Registry, family: Family<StatName>, source: MetricsSource): void {
  const labelNames = Object.keys(family.sources[0]?.[1] ?? {});
  const Metric = family.kind === 'counter' ? Counter : Gauge;
  const value = (worker: number, field: StatName) => source.read(worker, field) * (family.scale ?? 1);
  new Metric({
    name: `ringway_${family.name}`,
    help: family.help,
    labelNames: ['worker', ...labelNames],
    registers: [registry],
    collect() {
      this.reset();
      for (const [field, labels] of family.sources) {
        for (const worker of source.workers.keys()) this.inc({ worker: String(worker), ...labels }, value(worker, field));
      }
    },
  });
  if (family.node === 'none') return;
  new Metric({
    name: `ringway_node_${family.name}`,
    help: `${family.help} ${family.node === 'max' ? 'The highest of all workers.' : 'All workers together.'}`,
    labelNames,
    registers: [registry],
    collect() {
      this.reset();
      for (const [field, labels] of family.sources) {
        const values = [...source.workers.keys()].map((worker) => value(worker, field));
        this.inc(labels, family.node === 'max' ? Math.max(0, ...values) : values.reduce((sum, each) => sum + each, 0));
      }
    },
  });
}

function registerWorkers(registry: Registry, source: MetricsSource): void {
  const registers = [registry];
  new Gauge({
    name: 'ringway_io_backend_info',
    help: 'The I/O backend that the worker runs on, as a label.',
    labelNames: ['worker', 'backend'],
    registers,
    collect() {
      this.reset();
      for (const worker of source.workers.keys()) {
        const backend = backendNames[source.read(worker, 'backend')];
        if (backend !== undefined) this.set({ worker: String(worker), backend }, 1);
      }
    },
  });
  new Gauge({
    name: 'ringway_redis_up',
    help: '1: the worker publishes and receives through Redis; 0: it cannot. Absent without Redis.',
    labelNames: ['worker'],
    registers,
    collect() {
      this.reset();
      for (const worker of source.workers.keys()) {
        const state = source.read(worker, 'redis_state');
        if (state !== redisStates.none) this.set({ worker: String(worker) }, state === redisStates.up ? 1 : 0);
      }
    },
  });
  new Gauge({
    name: 'ringway_worker_up',
    help: '1: the worker serves; 0: it starts, drains, waits to be restarted, or does not go on.',
    labelNames: ['worker'],
    registers,
    collect() {
      this.reset();
      for (const [worker, facts] of source.workers.entries())
        if (facts.isEmpty !== true) this.set({ worker: String(worker) }, facts.isReady ? 1 : 0);
    },
  });
  new Gauge({
    name: 'ringway_worker_silent_seconds',
    help: 'Since the last heartbeat of the worker, of which there is about one a second.',
    labelNames: ['worker'],
    registers,
    collect() {
      this.reset();
      for (const [worker, facts] of source.workers.entries())
        if (facts.isEmpty !== true) this.set({ worker: String(worker) }, facts.silentSeconds ?? 0);
    },
  });
  new Counter({
    name: 'ringway_worker_restarts_total',
    help: 'Times the worker was started again.',
    labelNames: ['worker'],
    registers,
    collect() {
      this.reset();
      for (const [worker, facts] of source.workers.entries()) this.inc({ worker: String(worker) }, facts.restarts);
    },
  });
}

function registerSupervisor(registry: Registry, source: MetricsSource): void {
  const registers = [registry];
  const info = new Gauge({ name: 'ringway_build_info', help: 'Versions, as labels.', labelNames: ['version', 'bun'], registers });
  info.set({ version: source.version, bun: Bun.version }, 1);
  const start = new Gauge({ name: 'process_start_time_seconds', help: 'When the supervisor started, since the Unix epoch.', registers });
  start.set(source.startedAtMs / 1000);
  new Gauge({
    name: 'ringway_supervisor_uptime_seconds',
    help: 'Time since the supervisor started.',
    registers,
    collect() {
      this.set(performance.now() / 1000);
    },
  });
  new Counter({
    name: 'ringway_supervisor_log_lines_lost_total',
    help: 'Lines that could not be written: of the supervisor, and of workers by way of it.',
    registers,
    collect() {
      this.reset();
      this.inc(source.linesLost);
    },
  });
  new Gauge({
    name: 'ringway_config_generation',
    help: 'Counts the configs that have served since the node was started.',
    registers,
    collect() {
      this.set(source.generation);
    },
  });
  new Counter({
    name: 'ringway_reloads_total',
    help: 'Reloads that have ended, by outcome.',
    labelNames: ['outcome'],
    registers,
    collect() {
      this.reset();
      for (const [outcome, count] of Object.entries(source.reloads)) this.inc({ outcome }, count);
    },
  });
}

const topicMemoryGauges = {
  topic_memory_limit_bytes: ['bytes', 'Bytes that there are for what topics remember and who is on them.'],
  topic_memory_bytes: ['usedBytes', 'Of them, those in use.'],
  topic_logs: ['logs', 'Logs of topics that the node keeps.'],
} as const satisfies Record<string, readonly [keyof TopicMemory, string]>;
const topicMemoryCounters = {
  topic_logs_evicted: ['evicted', 'Logs dropped for want of room; their topics have begun new epochs.'],
  topic_memory_recoveries: [
    'recovered',
    'Times that a worker had died in the middle of a change to that memory; the change was taken back.',
  ],
  topic_memory_damages: [
    'damaged',
    'Times that a 64th of it was emptied because what lay there could not be: a fault of Ringway, or of the machine.',
  ],
} as const satisfies Record<string, readonly [keyof TopicMemory, string]>;

/** Of the node, since its workers share that memory. */
function registerTopicMemory(registry: Registry, source: MetricsSource): void {
  const registers = [registry];
  for (const [name, [field, help]] of Object.entries(topicMemoryGauges)) {
    new Gauge({
      name: `ringway_${name}`,
      help,
      registers,
      collect() {
        this.set(source.topicMemory?.()?.[field] ?? 0);
      },
    });
  }
  for (const [name, [field, help]] of Object.entries(topicMemoryCounters)) {
    new Counter({
      name: `ringway_${name}_total`,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(source.topicMemory?.()?.[field] ?? 0);
      },
    });
  }
}
