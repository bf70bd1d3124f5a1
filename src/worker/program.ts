/**
 * What a process of `ringway run` does before its program: takes its place on the node, so that the topics of all processes are one.
 *
 * Role: a preload, started by the supervisor (process/boot.ts says with what). Down: register.ts, frontend/uws/process.ts.
 * The program is to find everything as if it had been started alone: no message channel, signals and their handlers untouched, an end when
 * it has nothing more to do. Processes that it forks load this file too, without a place.
 */
import '../register.ts';
import { createRequire } from 'node:module';
import { plugin } from 'bun';
import { native } from '../core/native.ts';
import { exitCodes } from '../exit-codes.ts';
import { activeRuntime, configureRuntime, isRunning } from '../frontend/uws/process.ts';
import { Drain } from '../host/drain.ts';
import { startHeartbeat } from '../host/heartbeat.ts';
import { measureLag } from '../host/stats.ts';
import { outputTo } from '../output.ts';
import {
  bootVariable,
  type DrainMessage,
  type ProgramBoot,
  readBoot,
  type SupervisorMessage,
  type WorkerMessage,
} from '../process/boot.ts';
import { agreeOnPort } from './shared-ports.ts';

const require = createRequire(import.meta.url);

/** Modules of this package by name: a program may lie in a folder without it, or with another copy, which would know nothing of the node. */
function provideModules(): void {
  plugin({
    name: 'ringway-program',
    setup(build) {
      // Synchronous, since a `require` of it must be.
      build.module('ringway/uws', () => ({ exports: { ...require('../frontend/uws/index.ts') }, loader: 'object' }));
      build.module('ringway/register', () => ({ exports: {}, loader: 'object' }));
    },
  });
}

function join(boot: ProgramBoot, tell: (message: WorkerMessage) => void): void {
  // One that is hung would not notice that its channel has closed.
  native.endWithParent('SIGKILL');
  if (boot.cpu !== null) native.affinitySet(boot.cpu);
  let isReady = false;
  configureRuntime({
    shmFd: boot.shmFd,
    inboxFdFirst: boot.inboxFdFirst,
    workerIndex: boot.index,
    workerCount: boot.places,
    workers: boot.workers,
    sharePort: (opened, port) => agreeOnPort(boot.portsFd, opened, port),
    onListening(fd) {
      const core = activeRuntime()?.core;
      if (isReady || core === undefined) return;
      isReady = true;
      measureLag(core);
      startHeartbeat(core, isRunning);
      const port = native.socketPort(fd);
      const where = port === 0 ? 'a Unix socket' : `port ${port}`;
      tell({ type: 'ready', backend: core.backend, where, ...(core.note === '' ? {} : { note: core.note }) });
    },
  });
}

/** Longer than a turn takes. */
const turnMs = 20;

function drain(message: DrainMessage): void {
  const { signal } = message;
  if (process.listenerCount(signal) > 0) {
    process.kill(process.pid, signal);
    return;
  }
  const runtime = activeRuntime();
  if (runtime === undefined) process.exit(exitCodes.ok);
  new Drain(runtime.core).begin(
    message,
    // Connections that the kernel has accepted until now belong to a listener, and come within a turn.
    () => setTimeout(() => runtime.closeListeners(), turnMs),
    () => process.exit(exitCodes.ok),
  );
}

function reloadCertificates(): void {
  for (const reload of activeRuntime()?.reloads ?? []) reload();
  if (process.listenerCount('SIGHUP') > 0) process.kill(process.pid, 'SIGHUP');
}

function listenToSupervisor(): void {
  process.on('message', (message: SupervisorMessage) => {
    switch (message.type) {
      case 'drain':
        return drain(message);
      case 'certificates':
        return reloadCertificates();
      // For workers of a gateway.
      case 'serve':
      case 'chosen':
      case 'worker-gone':
      case 'perform':
        return;
      default:
        message satisfies never;
    }
  });
  process.on('disconnect', () => {
    outputTo(2).write('ringway: the supervisor is gone: this program stops\n');
    process.exit(exitCodes.failure);
  });
  process.channel?.unref();
}

/** Started alone, a program has no parent to talk to. */
function hideChannel(): void {
  for (const name of ['send', 'disconnect', 'channel'] as const)
    Object.defineProperty(process, name, { value: undefined, configurable: true });
  Object.defineProperty(process, 'connected', { value: false, configurable: true });
}

if (process.env[bootVariable] !== undefined) {
  const boot = readBoot<ProgramBoot>(process.env);
  const send = process.send?.bind(process);
  delete process.env[bootVariable];
  provideModules();
  join(boot, (message) => void send?.(message));
  listenToSupervisor();
  hideChannel();
}
