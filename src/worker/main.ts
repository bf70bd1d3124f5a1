/**
 * A worker process: one core, one loop, the handlers of the config.
 *
 * Role: started by the supervisor (supervisor/boot.ts says with what). Serves until it is told to drain, or until its
 * supervisor is gone.
 */
import { native, TlsError } from '../../ffi/bindings.ts';
import { defaults } from '../config/defaults.ts';
import { loadConfig } from '../config/load.ts';
import { ConfigError, type ResolvedConfig } from '../config/resolve.ts';
import { pathText } from '../config/schema.ts';
import { Core } from '../core/core.ts';
import type { HttpEvents } from '../core/http.ts';
import { statIndex } from '../core/stat-index.ts';
import { exitCodes } from '../exit-codes.ts';
import { FetchFrontend, honoWebSocketHandler, installLightGlobals } from '../frontend/hono/index.ts';
import { type RouteDefinition, WebSocketFrontend } from '../frontend/websocket/frontend.ts';
import { createLog, type Log } from '../log.ts';
import { type DrainMessage, readBoot, type SupervisorMessage, type WorkerBoot, type WorkerMessage } from '../supervisor/boot.ts';
import { drainCore } from './drain.ts';
import { Loop } from './loop.ts';
import { answerWithoutFetch } from './no-fetch.ts';
import { setPublisher } from './publish.ts';
import { releaseMemoryWhenQuiet } from './release-memory.ts';
import { measureLag } from './stats.ts';
import { applyTls } from './tls.ts';

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

function drain(core: Core, boot: WorkerBoot, message: DrainMessage): void {
  const closeSockets = () => {
    for (const { fd } of boot.listeners) native.fdClose(fd);
  };
  drainCore(core, message.code, message.overMs, closeSockets, () => {
    tell({ type: 'drained' });
    process.exit(exitCodes.ok);
  });
}

/** Take connections, with TLS where the config says so. Throws ConfigError. */
function listen(core: Core, boot: WorkerBoot, config: ResolvedConfig): void {
  for (const { index, fd } of boot.listeners) {
    const tls = config.listen[index]?.tls;
    try {
      if (tls !== undefined) applyTls(core, index, tls);
    } catch (error) {
      if (!(error instanceof TlsError)) throw error;
      throw new ConfigError(boot.configPath, [`${pathText(tls?.path ?? [])}: ${error.message}`]);
    }
    core.listen(fd, index);
  }
}

function reloadCertificates(core: Core, listeners: readonly number[], config: ResolvedConfig, log: Log): void {
  for (const index of listeners) {
    const tls = config.listen[index]?.tls;
    if (tls === undefined) continue;
    try {
      applyTls(core, index, tls);
    } catch (error) {
      // The supervisor has just loaded them: the files have changed since, and it will see that too.
      log.error({ err: error }, 'certificates could not be loaded again; the old ones stay in use');
    }
  }
}

function listenToSupervisor(core: Core, boot: WorkerBoot, config: ResolvedConfig, log: Log): void {
  let draining = false;
  process.on('message', (message: SupervisorMessage) => {
    switch (message.type) {
      case 'drain':
        if (draining) return;
        draining = true;
        drain(core, boot, message);
        return;
      case 'certificates':
        reloadCertificates(core, message.listeners, config, log);
        return;
      default:
        message satisfies never;
    }
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
  listenToSupervisor(core, boot, config, log);
  reportUncaught(core, log);
  listen(core, boot, config);
  measureLag(core);
  releaseMemoryWhenQuiet(core);
  const loop = new Loop({ core, http: frontends.http, websocket: frontends.websocket, wakeFd, pending: frontends.pending });
  tell({ type: 'ready', backend: core.backend, ...(core.note === '' ? {} : { note: core.note }) });
  await loop.run();
}

main().catch((error: unknown) => {
  const exitCode = error instanceof ConfigError ? exitCodes.config : exitCodes.failure;
  tell({ type: 'failed', message: error instanceof Error ? error.message : String(error), exitCode });
  process.exit(exitCode);
});
