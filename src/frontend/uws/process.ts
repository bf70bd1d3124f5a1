/**
 * The one core and the one frontend that all apps of a process share, and the loop that drives them.
 *
 * Role: composition, where a program makes its first app and no worker has composed anything. Up: app.ts, worker/program.ts. Down: registry.ts,
 * runtime.ts, host/. The loop runs, and keeps the process alive, while there is a listener or a connection.
 */

import { inspect } from 'node:util';
import { Core } from '../../core/core.ts';
import { native } from '../../core/native.ts';
import { watchHostTimers } from '../../host/host-timers.ts';
import { Loop } from '../../host/loop.ts';
import { releaseMemoryWhenQuiet } from '../../host/release-memory.ts';
import { RequestIds } from '../../host/request-ids.ts';
import { tellTopicsFull } from '../../host/topics-full.ts';
import { outputTo } from '../../output.ts';
import { unfinishedBytesOf } from '../../process/memory.ts';
import { RawTopics } from '../../topics/raw-topics.ts';
import { Frontends } from '../registry.ts';
import { headLimitName, headLimitOf } from './head-limit.ts';
import { type Runtime, type RuntimeOptions, uwsFrontend } from './runtime.ts';

/** As the original's: a process whose listeners have closed ends when its clients have been silent for so long. */
const keepAliveTimeoutMs = 10_000;
/** A program may have kept timers from before this module was loaded, which nobody notes: they are no later than this. */
const longestWaitMs = 50;

/** The original has no limit; what is far beyond any use must not fill the memory. */
const topicsPerSocket = 65_536;

let configured: RuntimeOptions = {};
let current: Runtime | undefined;
let loop: Loop | undefined;

/** Set before the first app is made. */
export function configureRuntime(options: RuntimeOptions): void {
  if (current !== undefined)
    throw new Error('the runtime of uWebSockets.js programs is in use already: configure it before the first App()');
  configured = options;
}

export function runtime(): Runtime {
  current ??= make(configured);
  return current;
}

/** The runtime if any app has been made; for who ends the process or reloads certificates. */
export function activeRuntime(): Runtime | undefined {
  return current;
}

/** Whether the core is being driven. */
export function isRunning(): boolean {
  return loop !== undefined;
}

function make(options: RuntimeOptions): Runtime {
  const wakeFd = native.eventfdCreate();
  const core = createCore(options, wakeFd);
  const frontends = new Frontends({ core, topics: new RawTopics(core), requestIds: new RequestIds(false), onFailure: tellFailure });
  const made = frontends.add(uwsFrontend, { ...options, needsLoop: () => drive(core, made, frontends, wakeFd) });
  core.onHandlerError = (error) => made.report(error, 'the frontend');
  releaseMemoryWhenQuiet(core);
  tellTopicsFull(core, undefined, (sentence) => void outputTo(2).write(`${sentence}\n`));
  return made;
}

function createCore(options: RuntimeOptions, wakeFd: number): Core {
  const headLimit = headLimitOf(process.env[headLimitName]);
  return new Core({
    backend: options.backend ?? 'auto',
    wakeFd,
    inboxFdFirst: options.inboxFdFirst ?? -1,
    shmFd: options.shmFd ?? -1,
    workerIndex: options.workerIndex ?? 0,
    workerCount: options.workerCount ?? 1,
    // The original has no limit: a program that wants one counts in onData.
    maxBodyBytes: Number.MAX_SAFE_INTEGER,
    numbers: {
      keepAliveTimeoutMs,
      topicsPerSocket,
      unfinishedKib: Math.ceil(unfinishedBytesOf('auto', options.workers ?? 1) / 1024),
      ...(options.maxConnections === undefined ? {} : { maxConnections: options.maxConnections }),
      // The original knows no other limit of a request's target.
      ...(headLimit === undefined ? {} : { maxHeadBytes: headLimit, maxTargetBytes: headLimit }),
    },
  });
}

function drive(core: Core, made: Runtime, frontends: Frontends, wakeFd: number): void {
  if (loop !== undefined) return;
  loop = new Loop({
    core,
    ...frontends.events(),
    wakeFd,
    timers: watchHostTimers(),
    longestWaitMs,
    pending: () => made.pending,
    isNeeded: () => made.isNeeded,
    onStopped: () => {
      loop = undefined;
    },
  });
  loop.run().catch((error: unknown) => made.report(error, 'the loop'));
}

/** On stderr, with its stack. */
function tellFailure(context: object, sentence: string): void {
  outputTo(2).write(`${sentence}: ${printable((context as { err?: unknown }).err)}\n`);
}

/** Anything can be thrown, also what throws when it is looked at. */
function printable(error: unknown): string {
  try {
    if (error instanceof Error) return String(error.stack ?? error.message);
    return typeof error === 'object' ? inspect(error) : String(error);
  } catch {
    return 'with an error that cannot be printed';
  }
}
