/**
 * What `ringway top` shows, as numbers: the counters of every worker at one moment, and rates between two moments.
 * Role: pure. Up: cli/top.ts. Down: a reader of shared memory.
 */
import { redisStates } from '../core/host-counters.ts';
import type { StatName as Field } from '../core/stat-index.ts';

/** Reads the counters of a place in shared memory. */
export interface CounterReader {
  /** Places for workers, whether anybody is there or not. */
  readonly places: number;
  read(place: number, field: Field): number;
}

/** The counters of one worker at one moment. */
export interface WorkerSample {
  readonly place: number;
  readonly startedAtMs: number;
  readonly values: Readonly<Record<Field, number>>;
}

export interface Sample {
  /** Milliseconds of a clock that never jumps. */
  readonly atMs: number;
  readonly workers: readonly WorkerSample[];
}

/** Read every place where a worker is. */
export function takeSample(reader: CounterReader, fields: readonly Field[], atMs: number): Sample {
  const workers: WorkerSample[] = [];
  for (let place = 0; place < reader.places; place++) {
    // Set when a worker has its core, and taken back when it is gone.
    const startedAtMs = reader.read(place, 'started_at_ms');
    if (startedAtMs === 0) continue;
    const values = Object.fromEntries(fields.map((field) => [field, reader.read(place, field)])) as Record<Field, number>;
    workers.push({ place, startedAtMs, values });
  }
  return { atMs, workers };
}

/** One worker, or all of them: rates are per second. */
export interface Activity {
  readonly http: number;
  readonly websocket: number;
  readonly requests: number;
  readonly messagesIn: number;
  readonly messagesOut: number;
  readonly publishes: number;
  readonly deliveries: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  readonly accepts: number;
  readonly refusals: number;
  readonly drops: number;
  readonly handlerErrors: number;
  readonly backpressureBytes: number;
  readonly topics: number;
  readonly subscriptions: number;
  readonly lagMs: number;
}

export interface WorkerActivity extends Activity {
  readonly place: number;
  readonly uptimeSeconds: number;
}

export interface RedisActivity {
  readonly state: 'connecting' | 'up' | 'lost';
  readonly messagesIn: number;
  readonly messagesOut: number;
  readonly topics: number;
  readonly lagMs: number;
  readonly outboxMessages: number;
  readonly outboxBytes: number;
  readonly drops: number;
  readonly gaps: number;
}

export interface NodeActivity {
  readonly workers: readonly WorkerActivity[];
  readonly node: Activity;
  /** undefined: not used */
  readonly redis: RedisActivity | undefined;
}

const refusedFields: readonly Field[] = [
  'refused_slots',
  'refused_descriptors',
  'refused_memory',
  'refused_origin',
  'refused_handshake',
  'refused_ip',
  'refused_upgrade_rate',
  'refused_proxy',
];
const droppedFields: readonly Field[] = ['drops_backpressure', 'drops_control', 'node_drops', 'redis_drops'];

/** Every counter that is shown. */
export const shownFields: readonly Field[] = [
  'connections_http',
  'connections_websocket',
  'requests',
  'ws_messages_in',
  'ws_messages_out',
  'publishes',
  'deliveries',
  'bytes_in',
  'bytes_out',
  'accepts',
  'handler_errors',
  'backpressure_bytes',
  'topics',
  'subscriptions',
  'loop_lag_us',
  'redis_state',
  'redis_messages_in',
  'redis_messages_out',
  'redis_topics',
  'redis_lag_us',
  'redis_outbox_messages',
  'redis_outbox_bytes',
  'redis_gaps',
  ...refusedFields,
  ...droppedFields,
];

/** What happened between two samples. A worker that was not there at the first has no rates yet. */
export function activityBetween(before: Sample, after: Sample, nowMs: number): NodeActivity {
  const seconds = Math.max(0.001, (after.atMs - before.atMs) / 1000);
  const pairs = after.workers.map((worker) => ({
    worker,
    earlier: before.workers.find(({ place, startedAtMs }) => place === worker.place && startedAtMs === worker.startedAtMs),
  }));
  const rate = ({ worker, earlier }: (typeof pairs)[number], fields: readonly Field[]) =>
    earlier === undefined ? 0 : fields.reduce((sum, field) => sum + worker.values[field] - earlier.values[field], 0) / seconds;

  const workers = pairs.map((pair): WorkerActivity => {
    const { values, place, startedAtMs } = pair.worker;
    return {
      place,
      uptimeSeconds: Math.max(0, Math.round((nowMs - startedAtMs) / 1000)),
      http: values.connections_http,
      websocket: values.connections_websocket,
      requests: rate(pair, ['requests']),
      messagesIn: rate(pair, ['ws_messages_in']),
      messagesOut: rate(pair, ['ws_messages_out']),
      publishes: rate(pair, ['publishes']),
      deliveries: rate(pair, ['deliveries']),
      bytesIn: rate(pair, ['bytes_in']),
      bytesOut: rate(pair, ['bytes_out']),
      accepts: rate(pair, ['accepts']),
      refusals: rate(pair, refusedFields),
      drops: rate(pair, droppedFields),
      handlerErrors: rate(pair, ['handler_errors']),
      backpressureBytes: values.backpressure_bytes,
      topics: values.topics,
      subscriptions: values.subscriptions,
      lagMs: values.loop_lag_us / 1000,
    };
  });
  const users = pairs.filter(({ worker }) => worker.values.redis_state !== redisStates.none);
  return { workers, node: together(workers), redis: users.length === 0 ? undefined : redisActivity(users, rate) };
}

function redisActivity<Pair extends { readonly worker: WorkerSample }>(
  users: readonly Pair[],
  rate: (pair: Pair, fields: readonly Field[]) => number,
): RedisActivity {
  const sum = (value: (pair: Pair) => number) => users.reduce((total, pair) => total + value(pair), 0);
  const states = users.map(({ worker }) => worker.values.redis_state);
  return {
    state: states.includes(redisStates.lost) ? 'lost' : states.includes(redisStates.connecting) ? 'connecting' : 'up',
    messagesIn: sum((pair) => rate(pair, ['redis_messages_in'])),
    messagesOut: sum((pair) => rate(pair, ['redis_messages_out'])),
    topics: sum(({ worker }) => worker.values.redis_topics),
    lagMs: Math.max(...users.map(({ worker }) => worker.values.redis_lag_us)) / 1000,
    outboxMessages: sum(({ worker }) => worker.values.redis_outbox_messages),
    outboxBytes: sum(({ worker }) => worker.values.redis_outbox_bytes),
    drops: sum((pair) => rate(pair, ['redis_drops'])),
    gaps: sum(({ worker }) => worker.values.redis_gaps),
  };
}

/** Sums; of lag the worst. */
function together(workers: readonly WorkerActivity[]): Activity {
  const sum = (name: keyof Activity) => workers.reduce((total, worker) => total + worker[name], 0);
  return {
    http: sum('http'),
    websocket: sum('websocket'),
    requests: sum('requests'),
    messagesIn: sum('messagesIn'),
    messagesOut: sum('messagesOut'),
    publishes: sum('publishes'),
    deliveries: sum('deliveries'),
    bytesIn: sum('bytesIn'),
    bytesOut: sum('bytesOut'),
    accepts: sum('accepts'),
    refusals: sum('refusals'),
    drops: sum('drops'),
    handlerErrors: sum('handlerErrors'),
    backpressureBytes: sum('backpressureBytes'),
    topics: sum('topics'),
    subscriptions: sum('subscriptions'),
    lagMs: Math.max(0, ...workers.map(({ lagMs }) => lagMs)),
  };
}
