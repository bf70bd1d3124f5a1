/**
 * What `ringway top` shows, as lines of text for a terminal of a given size.
 * Role: pure. Up: cli/top.ts. Down: sample.ts.
 */
import type { Activity, NodeActivity, RedisActivity } from './sample.ts';

export interface Screen {
  readonly columns: number;
  readonly rows: number;
}

interface Column {
  readonly title: string;
  readonly width: number;
  text(row: Activity): string;
}

/** The leftmost are kept when the terminal is narrow. */
const columns: readonly Column[] = [
  { title: 'websocket', width: 10, text: ({ websocket }) => count(websocket) },
  { title: 'http', width: 8, text: ({ http }) => count(http) },
  { title: 'msg in/s', width: 9, text: ({ messagesIn }) => count(messagesIn) },
  { title: 'msg out/s', width: 10, text: ({ messagesOut }) => count(messagesOut) },
  { title: 'req/s', width: 8, text: ({ requests }) => count(requests) },
  { title: 'drops/s', width: 8, text: ({ drops }) => count(drops) },
  { title: 'lag', width: 8, text: ({ lagMs }) => milliseconds(lagMs) },
  { title: 'pub/s', width: 8, text: ({ publishes }) => count(publishes) },
  { title: 'deliv/s', width: 9, text: ({ deliveries }) => count(deliveries) },
  { title: 'waiting', width: 9, text: ({ backpressureBytes }) => bytes(backpressureBytes) },
  { title: 'in/s', width: 9, text: ({ bytesIn }) => bytes(bytesIn) },
  { title: 'out/s', width: 9, text: ({ bytesOut }) => bytes(bytesOut) },
  { title: 'conn/s', width: 8, text: ({ accepts }) => count(accepts) },
  { title: 'refused/s', width: 10, text: ({ refusals }) => count(refusals) },
  { title: 'errors/s', width: 9, text: ({ handlerErrors }) => count(handlerErrors) },
  { title: 'topics', width: 8, text: ({ topics }) => count(topics) },
  { title: 'subs', width: 8, text: ({ subscriptions }) => count(subscriptions) },
];

/** As 'worker 255' has. */
const nameWidth = 10;

/**
 * Columns that do not fit are told of all workers together, below, where there is room.
 * `title`: the first line, in parts. ret: at most `screen.rows` lines of at most `screen.columns` characters
 */
export function renderTop(title: readonly string[], { workers, node, redis }: NodeActivity, screen: Screen): string[] {
  const shown: Column[] = [];
  let width = nameWidth;
  for (const column of columns) {
    width += column.width;
    if (width > screen.columns) break;
    shown.push(column);
  }
  const line = (name: string, cells: readonly string[]) =>
    name.padEnd(nameWidth) + cells.map((cell, at) => cell.padStart(shown[at]?.width ?? 0)).join('');
  const row = (name: string, activity: Activity) =>
    line(
      name,
      shown.map((column) => column.text(activity)),
    );
  const head = [
    ...wrapped(title, screen.columns),
    '',
    line(
      '',
      shown.map((column) => column.title),
    ),
    row('all', node),
  ];
  const foot = redis === undefined ? [] : ['', ...wrapped(redisParts(redis), screen.columns)];
  const hiddenParts = columns.slice(shown.length).map((column) => `${column.title} ${column.text(node)}`);
  const more = hiddenParts.length === 0 ? [] : ['', ...wrapped(hiddenParts, screen.columns)];
  if (head.length + workers.length + more.length + foot.length <= screen.rows) foot.unshift(...more);
  const room = Math.max(0, screen.rows - head.length - foot.length);
  const rows = workers.map((worker) => row(`worker ${worker.place}`, worker));
  const hidden = rows.length - room;
  const body = hidden <= 0 ? rows : [...rows.slice(0, Math.max(0, room - 1)), `and ${hidden + 1} more`];
  return [...head, ...body, ...foot].slice(0, screen.rows).map((text) => text.slice(0, screen.columns).trimEnd());
}

const between = '   ';

/** Parts beside each other as long as they fit. ret: lines; one part alone may be longer than `width` */
function wrapped(parts: readonly string[], width: number): string[] {
  const lines: string[] = [];
  for (const part of parts) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + between.length + part.length <= width) lines[lines.length - 1] = last + between + part;
    else lines.push(part);
  }
  return lines;
}

function redisParts(redis: RedisActivity): string[] {
  return [
    `Redis ${redis.state}`,
    `lag ${milliseconds(redis.lagMs)}`,
    `in ${count(redis.messagesIn)}/s`,
    `out ${count(redis.messagesOut)}/s`,
    `topics ${count(redis.topics)}`,
    `outbox ${count(redis.outboxMessages)} (${bytes(redis.outboxBytes)})`,
    `drops ${count(redis.drops)}/s`,
    `gaps ${count(redis.gaps)}`,
  ];
}

/** Four digits at most, then thousands, millions, ... */
export function count(value: number): string {
  if (value > 0 && value < 10 && !Number.isInteger(value)) return value.toFixed(1);
  return scaled(value, 1000, ['', 'k', 'M', 'G', 'T']);
}

export function bytes(value: number): string {
  return `${scaled(value, 1024, ['', 'Ki', 'Mi', 'Gi', 'Ti'])}B`;
}

function milliseconds(value: number): string {
  return value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function scaled(value: number, base: number, units: readonly string[]): string {
  let unit = 0;
  let rest = value;
  while (rest >= 9999.5 && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  return `${unit > 0 && rest < 99.95 ? rest.toFixed(1) : Math.round(rest)}${units[unit]}`;
}

/** As `1d 02:03:04`. */
export function duration(seconds: number): string {
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  const days = Math.floor(seconds / 86400);
  return `${days > 0 ? `${days}d ` : ''}${two((seconds % 86400) / 3600)}:${two((seconds % 3600) / 60)}:${two(seconds % 60)}`;
}
