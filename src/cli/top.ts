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
/** Without a terminal nothing is too wide. */
const plainScreen = () => ({ columns: process.stdout.columns || 1000, rows: 10_000 });

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
  const { shmMap } = await loadNative();
  const attach = (pid: number) => ({ pid, counters: attachTo(pid, shmMap) });
  const watched =
    options.pid === undefined
      ? new Watched(attach(await pidFrom(client())), async () => attach(await pidFrom(client())))
      : new Watched(attach(options.pid), undefined);
  try {
    const isLive = !options.isOnce && !options.isJson && process.stdout.isTTY;
    if (isLive) await showLive(watched, options, write);
    else await showPlain(watched, options, write);
  } finally {
    watched.detach();
  }
}

async function pidFrom(client: AdminClient): Promise<number> {
  const response = await client.request('/healthz');
  const { pid } = (await response.json().catch(() => ({}))) as { pid?: unknown };
  if (typeof pid !== 'number') throw new OperatingError(`${client.label} does not tell its process id: is it a gateway of this version?`);
  return pid;
}

interface Attached {
  readonly pid: number;
  readonly counters: AttachedCounters;
}

/** A gateway that is looked at again and again. */
class Watched {
  #attached: Attached;
  readonly #find: (() => Promise<Attached>) | undefined;
  #isFinding = false;

  /** `find`: the gateway anew, wherever it is now; undefined: stay with this process */
  constructor(attached: Attached, find: (() => Promise<Attached>) | undefined) {
    this.#attached = attached;
    this.#find = find;
  }

  get pid(): number {
    return this.#attached.pid;
  }

  /** Throws OperatingError when the gateway has ended. */
  sample(): Sample {
    const { pid, counters } = this.#attached;
    if (!counters.isAlive()) throw new OperatingError(`the gateway (process ${pid}) has ended`);
    const sample = takeSample(counters, shownFields, performance.now());
    // After an upgrade another supervisor leads, with memory of its own.
    if (sample.workers.length === 0) void this.#follow();
    return sample;
  }

  detach(): void {
    this.#attached.counters.detach();
  }

  async #follow(): Promise<void> {
    if (this.#find === undefined || this.#isFinding) return;
    this.#isFinding = true;
    try {
      const found = await this.#find();
      if (found.pid === this.pid) found.counters.detach();
      else {
        this.detach();
        this.#attached = found;
      }
    } catch {
      // It starts or stops just now; the next look tries again.
    } finally {
      this.#isFinding = false;
    }
  }
}

/** Resolves when whoever reads what we write has gone, such as `head`. */
function readerGone(): Promise<void> {
  return new Promise((resolve) => process.stdout.on('error', () => resolve()));
}

async function showPlain(watched: Watched, options: TopOptions, write: (text: string) => void): Promise<void> {
  let isRead = true;
  const gone = readerGone().then(() => {
    isRead = false;
  });
  let before = watched.sample();
  do {
    await Promise.race([Bun.sleep(options.intervalMs), gone]);
    if (!isRead) return;
    const after = watched.sample();
    const activity = activityBetween(before, after, Date.now());
    const { pid } = watched;
    if (options.isJson) write(`${JSON.stringify({ time: new Date().toISOString(), pid, ...activity })}\n`);
    else write(`${renderTop(titleOf(pid, activity), activity, plainScreen()).join('\n')}\n`);
    before = after;
  } while (!options.isOnce);
}

const endSignals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

async function showLive(watched: Watched, options: TopOptions, write: (text: string) => void): Promise<void> {
  const { stdin, stdout } = process;
  const quit = Promise.withResolvers<void>();
  let before = watched.sample();
  let activity = activityBetween(before, before, Date.now());
  const draw = () => {
    const screen = { columns: stdout.columns || 80, rows: stdout.rows || 24 };
    const lines = renderTop([...titleOf(watched.pid, activity), '(q quits)'], activity, screen);
    write(ansi.home + lines.map((line) => line + ansi.restOfLine).join('\r\n') + ansi.restOfScreen);
  };
  const step = () => {
    try {
      const after = watched.sample();
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
  for (const signal of endSignals) process.on(signal, onSignal);
  stdout.on('resize', draw);
  void readerGone().then(onSignal);
  write(ansi.enter);
  draw();
  const timer = setInterval(step, options.intervalMs);
  try {
    await quit.promise;
  } finally {
    clearInterval(timer);
    stdout.off('resize', draw);
    for (const signal of endSignals) process.off(signal, onSignal);
    if (isKeyboard) {
      stdin.off('keypress', onKey);
      stdin.setRawMode(false);
      stdin.pause();
    }
    write(ansi.leave);
  }
}

function titleOf(pid: number, { workers }: NodeActivity): string[] {
  const uptime = Math.max(0, ...workers.map(({ uptimeSeconds }) => uptimeSeconds));
  const many = workers.length === 1 ? '1 worker' : `${workers.length} workers`;
  return [`ringway ${version}`, `process ${pid}`, `${many}, the oldest up ${duration(uptime)}`];
}
