/**
 * A worker process: one core, one loop, the handlers of the config.
 *
 * Role: started by the supervisor (process/boot.ts says with what). Serves until it is told to drain, or until its
 * supervisor is gone.
 */

import { bindLifecycle, chosen, released, worker } from '../api/lifecycle.ts';
import { setPublisher, setServerTopics } from '../api/publish.ts';
import type { Topics } from '../api/topics.ts';
import type { Authentication } from '../auth/authentication.ts';
import { ConfigError } from '../config/config-error.ts';
import { coreSettings } from '../config/core-records.ts';
import { loadConfig } from '../config/load.ts';
import type { ResolvedConfig } from '../config/resolve.ts';
import { Core } from '../core/core.ts';
import { native } from '../core/native.ts';
import { statIndex } from '../core/stat-index.ts';
import { exitCodes } from '../exit-codes.ts';
import type { FrontendEntry } from '../frontend/frontend.ts';
import { honoFrontend } from '../frontend/hono/entry.ts';
import { installLightGlobals } from '../frontend/hono/index.ts';
import { Frontends, registeredFrontends } from '../frontend/registry.ts';
import { sseFrontend } from '../frontend/sse/entry.ts';
import { webSocketFrontend } from '../frontend/websocket/entry.ts';
import { Drain } from '../host/drain.ts';
import { startHeartbeat } from '../host/heartbeat.ts';
import { watchHostTimers } from '../host/host-timers.ts';
import { Loop } from '../host/loop.ts';
import { type PresenceTicks, startPresenceTicks } from '../host/presence-ticks.ts';
import { releaseMemoryWhenQuiet } from '../host/release-memory.ts';
import { RequestIds } from '../host/request-ids.ts';
import { RequestLog } from '../host/request-log.ts';
import { countLogLosses, measureLag } from '../host/stats.ts';
import { tellTopicsFull } from '../host/topics-full.ts';
import { createLog, type Log } from '../log.ts';
import { provideModules } from '../own-modules.ts';
import { readBoot, type SupervisorMessage, type WorkerBoot, type WorkerMessage } from '../process/boot.ts';
import { busNeeds, createBus } from '../pubsub/create.ts';
import type { Bus } from '../pubsub/nodes/bus.ts';
import { createTopics, type WorkerTopics } from '../topics/create.ts';
import { busLogsOf, createLinkedStore } from '../topics/linked-store.ts';
import { WorkerListeners } from './listeners.ts';
import { Operations } from './operations.ts';
import { warmUp } from './warm-up.ts';

function tell(message: WorkerMessage): void {
  process.send?.(message);
}

function createCore(boot: WorkerBoot, config: ResolvedConfig, wakeFd: number): Core {
  return new Core({
    ...coreSettings(config, boot.workers),
    wakeFd,
    inboxFdFirst: boot.inboxFdFirst,
    shmFd: boot.shmFd,
    workerIndex: boot.index,
    workerCount: boot.places,
    ...busNeeds(config),
  });
}

/** Loads what verifies tokens, where the config says whose are believed. */
async function createAuthentication(core: Core, { auth }: ResolvedConfig, log: Log): Promise<Authentication | undefined> {
  if (auth === undefined) return undefined;
  const { createTokens } = await import('../auth/tokens.ts');
  return createTokens(auth, {
    count: (counter) => core.addStat(statIndex(counter), 1),
    warn: (sentence) => log.warn(sentence),
    info: (sentence) => log.info(sentence),
  });
}

function createFrontends(
  core: Core,
  topics: Topics,
  authentication: Authentication | undefined,
  config: ResolvedConfig,
  log: Log,
): Frontends {
  const requestIds = new RequestIds(config.log.requestIdHeader);
  if (config.log.requests) core.observe(new RequestLog(requestIds, log, (head) => core.remoteAddress(head)?.address));
  const frontends = new Frontends({
    core,
    topics,
    requestIds,
    authentication,
    onFailure: (context, sentence) => log.error(context, sentence),
  });
  const entries: readonly FrontendEntry[] = [...registeredFrontends(), webSocketFrontend, sseFrontend, honoFrontend];
  for (const entry of entries) frontends.add(entry, config);
  return frontends;
}

/** Of the time until the supervisor kills this worker, kept for what comes after the bus. */
const endMs = 200;

/** What the config does last. The supervisor ends this process at its deadline, whatever that is. */
async function stopped(config: ResolvedConfig, log: Log): Promise<void> {
  try {
    await config.onStop?.(worker);
  } catch (error) {
    log.error({ err: error }, 'onStop failed');
  }
}

function listenToSupervisor(
  core: Core,
  operations: Operations,
  own: WorkerTopics,
  bus: Bus | undefined,
  presence: PresenceTicks,
  listeners: WorkerListeners,
  frontends: Frontends,
  config: ResolvedConfig,
  log: Log,
): void {
  const drain = new Drain(core, () => frontends.outliving > 0);
  let deadline = Number.POSITIVE_INFINITY;
  const end = async () => {
    // In this order: a cleanup may need what onStop closes.
    await released().cleanedUp;
    await stopped(config, log);
    await own.close();
    // Other workers of the node may still rely on this one; the latest deadline counts.
    await bus?.close(Math.max(0, deadline - performance.now() - endMs));
    tell({ type: 'drained' });
    process.exit(exitCodes.ok);
  };
  process.on('message', (message: SupervisorMessage) => {
    switch (message.type) {
      case 'serve':
        listeners.accept();
        return;
      case 'drain':
        deadline = performance.now() + message.deadlineMs;
        void released().done.then(() => tell({ type: 'released' }));
        drain.begin(
          message,
          () => listeners.close(),
          () => void end(),
        );
        return;
      case 'chosen':
        chosen();
        return;
      case 'certificates':
        listeners.reloadCertificates(message.listeners, log);
        return;
      case 'perform': {
        const { id } = message;
        // Behind the turn that sends them: what is answered has gone out, even if this worker ends right after.
        void operations.perform(message.operations).then((results) => setImmediate(() => tell({ type: 'performed', id, results })));
        return;
      }
      case 'worker-gone':
        bus?.workerGone(message.worker, message.epoch);
        presence.tick();
        own.workerGone(message.worker, message.epoch);
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
  // One that is hung would not notice that its channel has closed.
  native.endWithParent('SIGKILL');
  if (boot.cpu !== null) native.affinitySet(boot.cpu);
  installLightGlobals();
  const timers = watchHostTimers();
  const config = await loadConfig(boot.configPath, provideModules);
  const log = createLog({
    level: config.log.level,
    worker: boot.index,
    ...(boot.isTerminal === undefined ? {} : { readable: boot.isTerminal }),
  });
  const wakeFd = native.eventfdCreate();
  const core = createCore(boot, config, wakeFd);
  log.debug(await warmUp(), 'has served itself, to have its code compiled');
  core.setTrustedProxies(config.trustedProxies?.ranges ?? []);
  const bus = await createBus(core, boot, config, log, busLogsOf(core, config.topics));
  const authentication = await createAuthentication(core, config, log);
  const own = createTopics({
    core,
    policies: config.topics,
    store: createLinkedStore(core, bus),
    place: boot,
    hasNodes: bus !== undefined,
    verifyTopicToken: authentication?.verifyTopicToken.bind(authentication),
    log,
  });
  setPublisher(own.topics);
  setServerTopics(own.server);
  const frontends = createFrontends(core, own.topics, authentication, config, log);
  own.streams = frontends.streams;
  const listeners = new WorkerListeners(core, boot, config);
  const operations = new Operations(own.server);
  listenToSupervisor(core, operations, own, bus, startPresenceTicks(core), listeners, frontends, config, log);
  reportUncaught(core, log);
  bindLifecycle(boot.index, (error) => log.error({ err: error }, 'what onOneWorker was given failed'));
  await config.onStart?.(worker);
  if (!boot.holdsBack) listeners.accept();
  measureLag(core);
  tellTopicsFull(core, { socket: 'limits.maxTopicsPerSocket', worker: 'limits.maxTopics' }, (sentence) => log.warn(sentence));
  countLogLosses(core);
  releaseMemoryWhenQuiet(core);
  const loop = new Loop({
    core,
    ...frontends.events(),
    wakeFd,
    timers,
    pending: () => frontends.pending,
  });
  const running = loop.run();
  startHeartbeat(core);
  if (boot.holdsBack && bus !== undefined) await untilJoined(bus);
  tell({ type: 'ready', backend: core.backend, ...(core.note === '' ? {} : { note: core.note }) });
  await running;
}

/** How long a reload waits for other nodes to be reached; then it goes on without. */
const joinWithinMs = 5000;
const joinPollMs = 20;

/** Others serve meanwhile, so nothing is missed by waiting until this worker can take over what they hold. */
async function untilJoined(bus: Bus): Promise<void> {
  const until = performance.now() + joinWithinMs;
  while (bus.state !== 'up' && performance.now() < until) await Bun.sleep(joinPollMs);
}

main().catch((error: unknown) => {
  const exitCode = error instanceof ConfigError ? exitCodes.config : exitCodes.failure;
  tell({ type: 'failed', message: error instanceof Error ? error.message : String(error), exitCode });
  process.exit(exitCode);
});
