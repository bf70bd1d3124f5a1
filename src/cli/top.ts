/** `ringway top`: what a gateway on this machine does right now, from its shared memory: it is not asked for anything. */
import { emitKeypressEvents } from 'node:readline';
import { OperatingError } from '../operating-error.ts';
import { type AttachedCounters, attachTo } from '../top/attach.ts';
import { duration, renderTop } from '../top/render.ts';
import { activityBetween, type NodeActivity, type Sample, shownFields, takeSample } from '../top/sample.ts';
import { version } from '../version.ts';
import type { AdminClient } from './admin-client.ts';
import { UsageError } from './arguments.ts';
import { loadNative } from './core-modules.ts';

export interface TopOptions {
  /** Of the supervisor; undefined: the admin listener tells. */
  readonly pid: number | undefined;
  readonly intervalMs: number;
  /** Show once, and end. */
  readonly isOnce: boolean;
  /** One JSON object a line instead of a table. */
  readonly isJson: boolean;
}

const ansi = {
  enter: '\x1b[?1049h\x1b[?25l',
  leave: '\x1b[?25h\x1b[?1049l',
  home: '\x1b[H',
  restOfLine: '\x1b[K',
  restOfScreen: '\x1b[J',
} as const;
const plainScreen = { columns: 160, rows: 10_000 };

export function topPid(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,9}$/.test(text)) throw new UsageError(`--pid is '${text}'; write the process id of a supervisor`);
  return Number(text);
}

export function topInterval(text: string | undefined): number {
  const seconds = text === undefined ? 1 : Number(text);
  if (!(seconds >= 0.1 && seconds <= 3600)) throw new UsageError(`--interval is '${text}'; write seconds from 0.1 to 3600`);
  return seconds * 1000;
}

/** Shows until `q`, Ctrl-C, or the end of the gateway. `write`: standard output. Throws OperatingError. */
export async function top(client: () => AdminClient, options: TopOptions, write: (text: string) => void): Promise<void> {
  const pid = options.pid ?? (await pidFrom(client()));
  const native = await loadNative();
  const counters = attachTo(pid, native.shmMap);
  try {
    const isLive = !options.isOnce && !options.isJson && process.stdout.isTTY;
    if (isLive) await showLive(pid, counters, options, write);
    else await showPlain(pid, counters, options, write);
  } finally {
    counters.detach();
  }
}

async function pidFrom(client: AdminClient): Promise<number> {
  const response = await client.request('/healthz');
  const { pid } = (await response.json().catch(() => ({}))) as { pid?: unknown };
  if (typeof pid !== 'number') throw new OperatingError(`${client.label} does not tell its process id: is it a gateway of this version?`);
  return pid;
}

function sampleOf(pid: number, counters: AttachedCounters): Sample {
  try {
    process.kill(pid, 0);
  } catch {
    throw new OperatingError(`the gateway (process ${pid}) has ended`);
  }
  return takeSample(counters, shownFields, performance.now());
}

async function showPlain(pid: number, counters: AttachedCounters, options: TopOptions, write: (text: string) => void): Promise<void> {
  let before = sampleOf(pid, counters);
  do {
    await Bun.sleep(options.intervalMs);
    const after = sampleOf(pid, counters);
    const activity = activityBetween(before, after, Date.now());
    if (options.isJson) write(`${JSON.stringify({ time: new Date().toISOString(), pid, ...activity })}\n`);
    else write(`${renderTop(titleOf(pid, activity), activity, plainScreen).join('\n')}\n`);
    before = after;
  } while (!options.isOnce);
}

async function showLive(pid: number, counters: AttachedCounters, options: TopOptions, write: (text: string) => void): Promise<void> {
  const { stdin, stdout } = process;
  const quit = Promise.withResolvers<void>();
  let before = sampleOf(pid, counters);
  let activity = activityBetween(before, before, Date.now());
  const draw = () => {
    const screen = { columns: stdout.columns || 80, rows: stdout.rows || 24 };
    const lines = renderTop(`${titleOf(pid, activity)}   (q quits)`, activity, screen);
    write(ansi.home + lines.map((line) => line + ansi.restOfLine).join('\r\n') + ansi.restOfScreen);
  };
  const step = () => {
    try {
      const after = sampleOf(pid, counters);
      activity = activityBetween(before, after, Date.now());
      before = after;
      draw();
    } catch (error) {
      quit.reject(error);
    }
  };
  const onKey = (_: string | undefined, key: { readonly name?: string; readonly ctrl?: boolean }) => {
    if (key.name === 'q' || key.name === 'escape' || (key.ctrl && (key.name === 'c' || key.name === 'd'))) quit.resolve();
  };
  const onSignal = () => quit.resolve();
  const isKeyboard = stdin.isTTY;
  if (isKeyboard) {
    emitKeypressEvents(stdin);
    stdin.setRawMode(true);
    stdin.on('keypress', onKey);
    stdin.resume();
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);
  stdout.on('resize', draw);
  write(ansi.enter);
  draw();
  const timer = setInterval(step, options.intervalMs);
  try {
    await quit.promise;
  } finally {
    clearInterval(timer);
    stdout.off('resize', draw);
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, onSignal);
    if (isKeyboard) {
      stdin.off('keypress', onKey);
      stdin.setRawMode(false);
      stdin.pause();
    }
    write(ansi.leave);
  }
}

function titleOf(pid: number, { workers }: NodeActivity): string {
  const uptime = Math.max(0, ...workers.map(({ uptimeSeconds }) => uptimeSeconds));
  const many = workers.length === 1 ? '1 worker' : `${workers.length} workers`;
  return `ringway ${version}   process ${pid}   ${many}, the oldest up ${duration(uptime)}`;
}
