/**
 * `ringway reload`: ask a gateway that runs to serve its config as it is now, and wait for what becomes of it.
 * Role: SIGHUP to the supervisor; the outcome stands in /healthz, numbered, so that the answer is to this request or a later one.
 */
import { readFileSync } from 'node:fs';
import { ConfigError } from '../config/config-error.ts';
import { errorCode, OperatingError } from '../operating-error.ts';
import type { NodeHealth } from '../supervisor/health.ts';
import type { LastReload } from '../supervisor/reload-queue.ts';
import type { AdminClient } from './admin-client.ts';

const lookEveryMs = 100;
/** The admin listener may move, and is away for a moment when another supervisor takes over. */
const absenceMs = 10_000;
/** After an upgrade it may be elsewhere for good. */
const takeOverMs = 2000;

export interface ReloadOptions {
  /** Undefined: as the admin listener tells. */
  readonly pid: number | undefined;
  /** Told of a reload that has to wait. */
  tell(text: string): void;
}

/** ret: what to print. Throws ConfigError with the mistakes of a config that is wrong, and OperatingError when something else has failed. */
export async function reload(client: AdminClient, { pid, tell }: ReloadOptions): Promise<string> {
  const before = await readHealth(client, pid);
  const target = pid ?? before?.pid;
  if (target === undefined) throw new OperatingError(`the gateway at ${client.label} does not tell its process number; say it with --pid`);
  const asked = before?.reload.requests ?? 0;
  hangUp(target);
  if (before === undefined)
    return `process ${target} was asked to reload; no admin listener at ${client.label} tells what becomes of it, its log does`;
  const last = await untilAnswered(client, { pid: target, leader: before.pid, asked }, tell);
  return answer(last);
}

/** Where nothing is heard with a pid given, the gateway may be one without an admin listener. */
async function readHealth(client: AdminClient, pid: number | undefined): Promise<NodeHealth | undefined> {
  try {
    const response = await client.request('/healthz');
    const health = (await response.json()) as Partial<NodeHealth>;
    return health.reload === undefined ? undefined : (health as NodeHealth);
  } catch (error) {
    if (pid === undefined) throw error;
    return undefined;
  }
}

function hangUp(pid: number): void {
  if (isAlive(pid) && !takesHangUp(pid))
    throw new OperatingError(
      `process ${pid} here is no gateway that reloads; is the gateway in another container, or on another machine? Then send POST /reload to its admin listener`,
    );
  try {
    process.kill(pid, 'SIGHUP');
  } catch (error) {
    const reasons: Readonly<Record<string, string>> = {
      ESRCH: 'there is no such process here; is the gateway in another container, or on another machine?',
      EPERM: 'it belongs to another user; become that user, or root',
    };
    const code = errorCode(error);
    throw new OperatingError(`process ${pid} cannot be asked to reload: ${reasons[code] ?? code}`, { cause: error });
  }
}

interface Request {
  /** The process that was asked. */
  readonly pid: number;
  /** The supervisor that led then. */
  readonly leader: number;
  /** How many requests there were before. */
  readonly asked: number;
}

async function untilAnswered(client: AdminClient, { pid, leader, asked }: Request, tell: (text: string) => void): Promise<LastReload> {
  let heardAt = performance.now();
  let hasTold = false;
  /** Told by a supervisor that another one is about to take the admin listener over from. */
  let upgraded: LastReload | undefined;
  for (;;) {
    await Bun.sleep(lookEveryMs);
    let health: NodeHealth | undefined;
    try {
      health = await readHealth(client, undefined);
      heardAt = performance.now();
    } catch (error) {
      if (upgraded !== undefined && performance.now() - heardAt > takeOverMs) return upgraded;
      if (!isAlive(pid)) throw new OperatingError(`the gateway (process ${pid}) has ended; look at its log`, { cause: error });
      if (performance.now() - heardAt > absenceMs)
        throw new OperatingError(
          `the admin listener at ${client.label} does not answer any more; if the new config moves it, the log of the gateway tells what became of the reload`,
          { cause: error },
        );
      continue;
    }
    const last = health?.reload.last ?? null;
    if (last === null || last.request <= asked) continue;
    if (last.kind === 'reloaded' && last.upgraded && health?.pid === leader) upgraded = last;
    else if (last.kind !== 'postponed') return last;
    if (last.kind !== 'postponed') continue;
    if (!hasTold) tell(`postponed: ${last.reason}`);
    hasTold = true;
  }
}

/** The number may be that of another machine or container: whom SIGHUP would end is not to get it. */
function takesHangUp(pid: number): boolean {
  try {
    // proc_pid_status(5): the signals that have a handler, as a mask in hexadecimal; SIGHUP is 1.
    const caught = /^SigCgt:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? '0';
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return Number.parseInt(caught.slice(-1), 16) % 2 === 1 && words.some((word) => /(?:^|\/)(?:main\.ts|ringway|[\w-]+\.mjs)$/.test(word));
  } catch {
    return false;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return errorCode(error) === 'EPERM';
  }
}

function answer(last: LastReload): string {
  switch (last.kind) {
    case 'reloaded':
      return last.upgraded
        ? `upgraded: generation ${last.generation} serves, led by another supervisor; older workers finish what is in progress`
        : `reloaded: generation ${last.generation} serves; older workers finish what is in progress`;
    case 'wrong config':
      throw new ConfigError(last.where === '' ? 'the config' : last.where, last.mistakes);
    case 'failed':
    case 'postponed':
      throw new OperatingError(`nothing has changed: ${last.reason}`);
    default:
      return last satisfies never;
  }
}
