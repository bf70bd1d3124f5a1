/**
 * A worker process: one core, one loop, the handlers of the config.
 *
 * Role: started by the supervisor (supervisor/boot.ts says with what). Serves until it is told to drain, or until its
 * supervisor is gone.
 */
import { native } from '../../ffi/bindings.ts';
import { statsLayout } from '../../ffi/layout.ts';
import { defaults } from '../config/defaults.ts';
import { loadConfig } from '../config/load.ts';
import { ConfigError, type ResolvedConfig } from '../config/resolve.ts';
import { Core } from '../core/core.ts';
import type { HttpEvents } from '../core/http.ts';
import { exitCodes } from '../exit-codes.ts';
import { FetchFrontend, honoWebSocketHandler, installLightGlobals } from '../frontend/hono/index.ts';
import { type RouteDefinition, WebSocketFrontend } from '../frontend/websocket/frontend.ts';
import { createLog, type Log } from '../log.ts';
import { readBoot, type SupervisorMessage, type WorkerBoot, type WorkerMessage } from '../supervisor/boot.ts';
import { Loop } from './loop.ts';
import { answerWithoutFetch } from './no-fetch.ts';
import { setPublisher } from './publish.ts';

/** How often the event loop's lag is measured. */
const lagIntervalMs = 1000;
/** The steps of draining. */
const drainPollMs = 20;

function statIndex(name: string): number {
  const index = statsLayout.fields.findIndex((field) => field.name === name);
  if (index < 0) throw new Error(`no counter is named ${name}`);
  return index;
}

function tell(message: WorkerMessage): void {
  process.send?.(message);
}

function createCore(boot: WorkerBoot, config: ResolvedConfig, wakeFd: number): Core {
  const { http, io, limits } = config;
  const ms = (seconds: number) => Math.round(seconds * 1000);
  return new Core({
    backend: io.backend,
    wakeFd,
    inboxFdFirst: boot.inboxFdFirst,
    shmFd: boot.shmFd,
    workerIndex: boot.index,
    workerCount: boot.count,
    maxBodyBytes: http.maxBodyBytes,
    numbers: {
      maxConnections: limits.maxConnections,
      ringEntries: io.ringEntries,
      recvBuffers: io.receiveBuffers,
      recvBufferBytes: io.receiveBufferBytes,
      sqpoll: io.sqpoll === false ? 0 : 1,
      sqpollCpu: io.sqpoll === false ? -1 : (io.sqpoll.cpu ?? -1),
      sqpollIdleMs: io.sqpoll === false ? 0 : io.sqpoll.idleMs,
      maxHeadBytes: http.maxHeadBytes,
      maxTargetBytes: http.maxTargetBytes,
      maxHeaderCount: http.maxHeaders,
      headTimeoutMs: ms(http.headTimeout),
      bodyTimeoutMs: ms(http.bodyTimeout),
      keepAliveTimeoutMs: ms(http.keepAliveTimeout),
      writeTimeoutMs: ms(http.writeTimeout),
      lingerTimeoutMs: ms(http.lingerTimeout),
      responseHighWaterBytes: http.responseHighWaterBytes,
      bodyWindowBytes: http.bodyWindowBytes,
    },
  });
}

interface Frontends {
  readonly http: HttpEvents;
  readonly websocket: WebSocketFrontend;
  pending(): number;
}

function createFrontends(core: Core, config: ResolvedConfig, log: Log): Frontends {
  const handlerErrors = statIndex('handler_errors');
  const originRefusals = statIndex('refused_origin');
  const routes: RouteDefinition[] = [...config.websocket];
  const honoHandlerIndex = routes.length;
  routes.push({ pattern: undefined, handler: honoWebSocketHandler as RouteDefinition['handler'], settings: defaults.websocket });
  const websocket = new WebSocketFrontend({
    core,
    routes,
    onError(error, context) {
      core.addStat(handlerErrors, 1);
      log.error({ err: error, ...context }, `the ${context.event} handler of ${context.route} failed`);
    },
    onOriginRefused: () => core.addStat(originRefusals, 1),
  });
  const fetchFrontend = new FetchFrontend({
    fetch: config.fetch ?? ((request) => answerWithoutFetch(request, (path) => websocket.hasRoute(path))),
    commands: core,
    honoHandlerIndex,
    onError(error, context) {
      core.addStat(handlerErrors, 1);
      log.error({ err: error, ...context }, `${context.method} ${context.url} failed`);
    },
    upgrade: (head, request) => websocket.takeHandshake(head, request),
  });
  const http: HttpEvents = {
    onRequest: (head) => fetchFrontend.onRequest(head),
    onBody: (slot, request, bytes, end) => fetchFrontend.onBody(slot, request, bytes, end),
    onAbort(slot, request) {
      websocket.forget(slot);
      fetchFrontend.onAbort(slot, request);
    },
    onResponseDrain: (slot, request) => fetchFrontend.onResponseDrain(slot, request),
  };
  return { http, websocket, pending: () => fetchFrontend.pending + websocket.pending };
}

/** How late a timer comes is how long the event loop was busy with something else. */
function measureLag(core: Core): void {
  const latest = statIndex('loop_lag_us');
  const worst = statIndex('loop_lag_max_us');
  let max = 0;
  let expected = performance.now() + lagIntervalMs;
  setInterval(() => {
    const lag = Math.max(0, performance.now() - expected);
    expected = performance.now() + lagIntervalMs;
    max = Math.max(max, lag);
    core.setStat(latest, Math.round(lag * 1000));
    core.setStat(worst, Math.round(max * 1000));
  }, lagIntervalMs);
}

function drain(core: Core, boot: WorkerBoot, code: number, overMs: number): void {
  core.drain(code, overMs);
  // Connections that are in the accept queue already are served; then the sockets close, so that later ones are refused and go elsewhere.
  setTimeout(() => {
    core.stopAccepting();
    core.onQueued?.();
    setTimeout(() => {
      for (const { fd } of boot.listeners) native.fdClose(fd);
    }, drainPollMs);
  }, drainPollMs);
  setTimeout(() => {
    setInterval(() => {
      if (core.connections() > 0) return;
      tell({ type: 'drained' });
      process.exit(exitCodes.ok);
    }, drainPollMs);
  }, drainPollMs * 3);
  // The loop may be asleep: what the drain has queued goes out in the next turn.
  core.onQueued?.();
}

function listenToSupervisor(core: Core, boot: WorkerBoot, log: Log): void {
  let draining = false;
  process.on('message', (message: SupervisorMessage) => {
    if (message.type !== 'drain' || draining) return;
    draining = true;
    drain(core, boot, message.code, message.overMs);
  });
  process.on('disconnect', () => {
    log.error('the supervisor is gone: this worker stops');
    process.exit(exitCodes.failure);
  });
  // Signals to the process group are the supervisor's to act on.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => {});
  process.on('SIGHUP', () => {});
}

function reportUncaught(core: Core, log: Log): void {
  const handlerErrors = statIndex('handler_errors');
  const report = (what: string) => (error: unknown) => {
    core.addStat(handlerErrors, 1);
    log.error({ err: error }, what);
  };
  process.on('uncaughtException', report('an error was not caught; the worker goes on'));
  process.on('unhandledRejection', report('a promise was rejected and nobody handled it; the worker goes on'));
}

async function main(): Promise<void> {
  const boot = readBoot(process.env);
  if (boot.cpu !== null) native.affinitySet(boot.cpu);
  installLightGlobals();
  const config = await loadConfig(boot.configPath);
  const log = createLog({ level: config.log.level, worker: boot.index });
  const wakeFd = native.eventfdCreate();
  const core = createCore(boot, config, wakeFd);
  setPublisher(core);
  const frontends = createFrontends(core, config, log);
  listenToSupervisor(core, boot, log);
  reportUncaught(core, log);
  for (const listener of boot.listeners) core.listen(listener.fd, listener.index);
  measureLag(core);
  const loop = new Loop({ core, http: frontends.http, websocket: frontends.websocket, wakeFd, pending: frontends.pending });
  tell({ type: 'ready', backend: core.backend, ...(core.note === '' ? {} : { note: core.note }) });
  await loop.run();
}

main().catch((error: unknown) => {
  const exitCode = error instanceof ConfigError ? exitCodes.config : exitCodes.failure;
  tell({ type: 'failed', message: error instanceof Error ? error.message : String(error), exitCode });
  process.exit(exitCode);
});
