/**
 * Topics that remember, in the workers of one node: real cores over one memory in this process, clients that come, go and publish, and workers that die, as
 * a seed has it. Thousands of steps a second, so that what happens is by the seed alone; a schedule that fails is shortened, and said.
 *
 * MODEL_SEED=7 bun test tests/model/workers.test.ts runs that seed alone, MODEL_RUNS and MODEL_STEPS more seeds and steps.
 */
import { expect, setDefaultTimeout, test } from 'bun:test';
import { native, type SharedStats } from '../../ffi/bindings.ts';
import type { GatewaySocket } from '../../src/api/socket.ts';
import { resolveTopics } from '../../src/config/topics.ts';
import type { BackendName } from '../../src/core/core.ts';
import { hostLayout } from '../../src/core/stat-index.ts';
import { createTopics, type WorkerTopics } from '../../src/topics/create.ts';
import { eventually } from '../support/eventually.ts';
import { backends, LiveCore } from '../support/live-core.ts';
import type { Wire } from '../support/wire.ts';
import { type At, Ledger, Listener, Observer, type Said, textOf } from './listener.ts';
import { type Step, scheduleOf, shorten, shown } from './schedule.ts';

// Only ends a test that has failed.
setDefaultTimeout(120_000);

const first = Number(process.env.MODEL_SEED ?? 1);
const runs = Number(process.env.MODEL_RUNS ?? (process.env.MODEL_SEED === undefined ? 6 : 1));
const length = Number(process.env.MODEL_STEPS ?? 500);

const places = 3;
const topics = ['log/a', 'log/b'] as const;
type Topic = (typeof topics)[number];
const weights = { publish: 40, repeat: 4, connect: 30, disconnect: 6, vanish: 6, leave: 8, crash: 3, reload: 2 } as const;
type Kind = keyof typeof weights;
/** Little is kept, so that many who come back are too late. */
const history = { size: 12, seconds: 60 };
const graceSeconds = 0.02;

class Worker {
  readonly index: number;
  readonly live: LiveCore;
  readonly own: WorkerTopics;

  constructor(backend: BackendName, index: number, shmFd: number) {
    this.index = index;
    this.live = new LiveCore(backend, { core: { shmFd, workerIndex: index, workerCount: places }, behavior: { positions: true } });
    const member = ({ data }: { readonly data: unknown }) => (data as { user: string }).user;
    const policies = resolveTopics({ 'log/:name': { history, presence: { grace: graceSeconds, member } } }, (...complaint) => {
      throw new Error(String(complaint));
    });
    this.own = createTopics({
      core: this.live.core,
      policies,
      store: undefined,
      place: { nodeId: '0123456789abcdef', index },
      hasNodes: false,
      verifyTopicToken: undefined,
      log: { error: console.error, warn: console.warn },
    });
  }

  async end(): Promise<void> {
    await this.own.close();
    this.live.destroy();
  }
}

class Client {
  readonly name: string;
  readonly user: string;
  readonly topic: Topic;
  readonly listener: Listener;
  observer: Observer | undefined;
  worker: Worker | undefined;
  #wire: Wire | undefined;
  #socket: GatewaySocket | undefined;
  readonly #faults: string[];

  constructor(name: string, user: string, topic: Topic, ledger: Ledger, faults: string[]) {
    this.name = name;
    this.user = user;
    this.topic = topic;
    this.#faults = faults;
    this.listener = new Listener(name, ledger, faults);
  }

  get isOn(): boolean {
    return this.worker !== undefined;
  }

  async connect(worker: Worker): Promise<void> {
    this.disconnect(false);
    const { wire, socket } = await worker.live.open();
    const since = this.listener.begin();
    const observer = new Observer(this.name, this.#faults);
    this.observer = observer;
    this.#wire = wire;
    this.#socket = socket;
    void this.#listen(wire, observer);
    const { slot, generation, id, remoteAddress } = socket;
    const connection = { slot, generation, id, remoteAddress, user: undefined, data: { user: this.user }, kind: 'websocket' as const };
    const answer = await worker.own.topics.subscribeWith(connection, this.topic, { presence: true, since: since && textOf(since) });
    if (!answer.subscribed || answer.isMember !== true || answer.presence === undefined) {
      this.#faults.push(`${this.name} was answered ${JSON.stringify(answer)}`);
      return;
    }
    this.worker = worker;
    this.listener.begun(answer);
    observer.begun(answer.presence);
  }

  async #listen(wire: Wire, observer: Observer): Promise<void> {
    for (;;) {
      const frame = await wire.frame().catch(() => undefined);
      if (this.#wire !== wire) return;
      if (frame === undefined || frame.opcode === 8) {
        this.worker = undefined;
        return;
      }
      const said = JSON.parse(frame.payload.toString()) as Said;
      if (said.event === undefined) this.listener.take(said);
      else observer.take(said);
    }
  }

  /** Stay connected, and hear no more. */
  leave(): void {
    if (this.worker === undefined || this.#socket === undefined) return;
    this.worker.own.topics.unsubscribe(this.#socket, this.topic);
    this.disconnect(true);
  }

  /** `quietly`: the connection stays. */
  disconnect(quietly: boolean): void {
    if (!quietly) this.#wire?.destroy();
    this.#wire = undefined;
    this.worker = undefined;
  }
}

class Node {
  readonly faults: string[] = [];
  readonly ledgers = new Map<Topic, Ledger>(topics.map((topic) => [topic, new Ledger(topic, this.faults)]));
  readonly clients: Client[] = [];
  readonly #backend: BackendName;
  readonly #shmFd = native.shmCreate(places, 65_536, hostLayout, 64 << 20);
  readonly #shared: SharedStats = native.shmMap(this.#shmFd, hostLayout);
  readonly #workers: Worker[];
  readonly #lastKeyed = new Map<Topic, { readonly key: string; readonly at: At }>();
  #messages = 0;

  constructor(backend: BackendName) {
    this.#backend = backend;
    this.#workers = Array.from({ length: places }, (_, index) => new Worker(backend, index, this.#shmFd));
    for (let at = 0; at < 12; at++) {
      const topic = topics[at % 2] as Topic;
      // Some users have two connections.
      this.clients.push(new Client(`client ${at}`, `user-${at < 8 ? at >> 2 : at}`, topic, this.ledgers.get(topic) as Ledger, this.faults));
    }
  }

  worker(at: number): Worker {
    return this.#workers[at % places] as Worker;
  }

  async turn(times = 1): Promise<void> {
    for (let left = times; left > 0; left--) {
      for (const { live } of this.#workers) {
        live.turn();
        live.core.presenceTick();
      }
      await new Promise(setImmediate);
    }
  }

  async step({ kind, a, b, pause }: Step<Kind>): Promise<void> {
    const client = this.clients[a % this.clients.length] as Client;
    const topic = topics[a % 2] as Topic;
    if (kind === 'publish') for (let left = 1 + (b % 3); left > 0; left--) await this.publish(topic, this.worker(a + left));
    else if (kind === 'repeat') await this.#repeat(topic, this.worker(b));
    else if (kind === 'connect') await client.connect(this.worker(b));
    else if (kind === 'leave') client.leave();
    else if (kind === 'crash') await this.#end(this.worker(b), true);
    else if (kind === 'reload') await this.#end(this.worker(b), false);
    else client.disconnect(false);
    await this.turn(pause);
  }

  async publish(topic: Topic, worker: Worker): Promise<void> {
    const text = `m${this.#messages++}`;
    const { epoch = '', offset = 0 } = await worker.own.topics.publishWith(topic, text, { idempotencyKey: text });
    this.ledgers.get(topic)?.accept({ epoch, offset }, text);
    this.#lastKeyed.set(topic, { key: text, at: { epoch, offset } });
  }

  /** Whoever was not answered asks again, of whichever worker. */
  async #repeat(topic: Topic, worker: Worker): Promise<void> {
    const last = this.#lastKeyed.get(topic);
    if (last === undefined) return;
    const { epoch, offset } = await worker.own.topics.publishWith(topic, last.key, { idempotencyKey: last.key });
    if (epoch !== last.at.epoch || offset !== last.at.offset)
      this.faults.push(`${last.key} was at ${textOf(last.at)}, and is at ${epoch}:${offset} when it is published again`);
  }

  /** A worker is gone, as its supervisor sees it, and another one in its place. `isCrash`: the connections of it were not closed before. */
  async #end(worker: Worker, isCrash: boolean): Promise<void> {
    for (const client of this.clients) {
      if (client.worker !== worker) continue;
      client.disconnect(false);
      if (!isCrash) await this.turn();
    }
    const epoch = this.#shared.epoch(worker.index);
    await worker.end();
    this.#shared.workerGone(worker.index);
    for (const other of this.#workers) if (other !== worker) other.own.workerGone(worker.index, epoch);
    this.#workers[worker.index] = new Worker(this.#backend, worker.index, this.#shmFd);
  }

  /** All come, and then it is exact. */
  async settle(): Promise<void> {
    for (const [at, client] of this.clients.entries())
      if (!client.isOn || client.observer?.isLost === true) await client.connect(this.worker(at));
    for (const topic of topics) await this.publish(topic, this.worker(0));
    const is = (what: string, check: () => boolean) =>
      eventually(
        what,
        async () => {
          await this.turn();
          return check();
        },
        5000,
      ).catch((error) => void this.faults.push(error.message));
    for (const topic of topics) {
      const here = this.clients.filter((client) => client.topic === topic);
      const users = [...new Set(here.map(({ user }) => user))].sort().join();
      const pages = await Promise.all(this.#workers.map(({ own }) => own.server.history(topic, { limit: 1000 })));
      for (const [index, page] of pages.entries())
        this.ledgers.get(topic)?.compare(`worker ${index}`, page as Parameters<Ledger['compare']>[1]);
      const { epoch, offset } = pages[0] as At;
      const connections = here.length;
      for (const { index, own } of this.#workers) {
        let said = '';
        await is(`worker ${index} sees ${users} on ${topic}`, () => {
          void own.server.presence(topic).then((page) => {
            said = `${page.users.map(({ id }) => id).sort()} ${page.users.reduce((sum, user) => sum + user.connections, 0)}`;
          });
          return said === `${users} ${connections}`;
        });
      }
      for (const client of here) {
        await is(
          `${client.name} has heard all of ${topic}`,
          () => client.listener.at?.epoch === epoch && client.listener.at.offset === offset,
        );
        await is(`${client.name} knows who is there`, () => [...(client.observer?.there ?? [])].sort().join() === users);
        if (!client.isOn) this.faults.push(`${client.name} was cut off`);
      }
    }
  }

  async stop(): Promise<void> {
    for (const client of this.clients) client.disconnect(false);
    for (const worker of this.#workers) await worker.end();
    this.#shared.unmap();
    native.fdClose(this.#shmFd);
  }
}

async function run(backend: BackendName, steps: readonly Step<Kind>[]): Promise<Node> {
  const node = new Node(backend);
  try {
    for (const step of steps) await node.step(step);
    await node.settle();
  } catch (error) {
    node.faults.push(String(error));
  } finally {
    await node.stop();
  }
  return node;
}

for (const backend of backends)
  for (let seed = first; seed < first + runs; seed++)
    test(`seed ${seed} on ${backend}: workers die and clients move; each hears all of it once, or is told`, async () => {
      const steps = scheduleOf<Kind>(seed, length, weights, 3);
      const node = await run(backend, steps);
      if (node.faults.length > 0) {
        const least = await shorten(steps, async (fewer) => (await run(backend, fewer)).faults.length > 0, 30_000);
        throw new Error(`MODEL_SEED=${seed}\n${node.faults.slice(0, 20).join('\n')}\nit takes ${least.length} steps:\n${shown(least)}`);
      }
      const sum = (of: 'breaks' | 'recovered') => node.clients.reduce((total, { listener }) => total + listener[of], 0);
      // Else nothing was tried.
      if (length >= 500) expect(Math.min(sum('recovered'), sum('breaks'))).toBeGreaterThan(0);
    });
