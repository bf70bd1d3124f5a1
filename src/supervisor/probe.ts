/**
 * Reading the config anew, in a process of its own: modules that were loaded once stay loaded, so the supervisor itself would see the old ones;
 * and what a wrong config does is not done to the supervisor.
 *
 * Role: starts the process and takes its verdict. Up: reload.ts. Down: cli/probe.ts, the process itself.
 */
import { outputTo, relay } from '../output.ts';
import type { Release } from './release.ts';
import type { NodeSettings } from './settings.ts';

/** What the process says, once. */
export type ProbeMessage =
  /**
   * For people: `answers`: what it serves, absent from releases before 0.2; `topics`: what policies do, and `warnings`: what ought to be otherwise,
   * absent from those before 0.3.
   */
  | {
      readonly type: 'config';
      readonly settings: NodeSettings;
      readonly answers?: readonly string[];
      readonly topics?: readonly string[];
      readonly warnings?: readonly string[];
      readonly release: Release;
    }
  | { readonly type: 'mistakes'; readonly where: string; readonly mistakes: readonly string[] }
  /** Something else keeps the config from being judged, such as a core that was not built. */
  | { readonly type: 'failed'; readonly reason: string };

/** Reads the config as it is now. Never throws. `giveUp`: its reason, in words, is that of the verdict then. */
export type ConfigReader = (giveUp: AbortSignal) => Promise<ProbeMessage>;

/** Longer than any sound config takes to load, also where the core of a new release is compiled first. */
export const readPatienceMs = 120_000;

const lastWordsMs = 200;

/** `command`: what Bun is started with. `timeoutMs`: undefined: as long as it takes. `slow`: who is told when it takes long. */
export function readThrough(
  command: readonly string[],
  timeoutMs: number | undefined,
  slow?: { readonly afterMs: number; tell(text: string): void },
): ConfigReader {
  return async (giveUp) => {
    const verdict = Promise.withResolvers<ProbeMessage>();
    const fail = (reason: string) => verdict.resolve({ type: 'failed', reason });
    let child: Bun.Subprocess<'ignore', 'pipe', 'pipe'>;
    try {
      child = Bun.spawn({
        cmd: [process.execPath, '--no-install', ...command],
        env: process.env,
        // What the config writes while it is loaded is seen, as it is at a start.
        stdio: ['ignore', 'pipe', 'pipe'],
        serialization: 'json',
        // What a config itself sends to its parent is not for us.
        ipc: (message: unknown) => void (isVerdict(message) && verdict.resolve(message)),
        onExit: (_, code, signal) =>
          fail(
            signal === null
              ? `the config ended the process that reads it, with code ${code}: does it call process.exit, or does what it imports?`
              : `the process that reads the config ended by signal ${signal}`,
          ),
      });
    } catch (error) {
      return { type: 'failed', reason: `the config cannot be read: ${error instanceof Error ? error.message : String(error)}` };
    }
    const relayed = Promise.all([relay(child.stdout, outputTo(1)), relay(child.stderr, outputTo(2))]);
    const giveUpLate = (ms: number) =>
      fail(`the config was not loaded after ${ms / 1000} s; does it wait for something (a top-level await)?`);
    const slowTimer =
      slow === undefined
        ? undefined
        : setTimeout(
            () => slow.tell(`the config is not loaded after ${slow.afterMs / 1000} s; does it wait for something (a top-level await)?`),
            slow.afterMs,
          );
    const timer = timeoutMs === undefined ? undefined : setTimeout(() => giveUpLate(timeoutMs), timeoutMs);
    const forgetSignals = endWithUs(child);
    const stop = () => fail(String(giveUp.reason));
    if (giveUp.aborted) stop();
    giveUp.addEventListener('abort', stop);
    try {
      return await verdict.promise;
    } finally {
      clearTimeout(timer);
      clearTimeout(slowTimer);
      forgetSignals();
      giveUp.removeEventListener('abort', stop);
      // It has nothing more to say, and what the config has begun must not go on.
      child.kill('SIGKILL');
      // What it has written comes before what is said of it. Its own children may keep the pipes open.
      await Promise.race([relayed, Bun.sleep(lastWordsMs)]);
    }
  };
}

/**
 * Where nobody else acts on them, signals end this process: then `child` is to end too, which a config that computes for ever would not do by
 * itself. ret: undo
 */
function endWithUs(child: Bun.Subprocess): () => void {
  const signals = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).filter((signal) => process.listenerCount(signal) === 0);
  const end = (signal: NodeJS.Signals) => {
    child.kill('SIGKILL');
    forget();
    process.kill(process.pid, signal);
  };
  const forget = () => {
    for (const signal of signals) process.off(signal, end);
  };
  for (const signal of signals) process.on(signal, end);
  return forget;
}

function isVerdict(message: unknown): message is ProbeMessage {
  const { type, settings, mistakes, reason } = (typeof message === 'object' && message !== null ? message : {}) as Record<string, unknown>;
  if (type === 'config') return typeof settings === 'object';
  return type === 'mistakes' ? Array.isArray(mistakes) : type === 'failed' && typeof reason === 'string';
}
