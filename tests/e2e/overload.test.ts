/**
 * What holds under overload, whoever makes it: deadlines fire, bystanders are served and let in, what is held is bounded, and afterwards everything
 * is as it was before.
 *
 * The figures are printed; the limits are wide, for slow and busy machines. They are what a gateway without shares misses by far: it kept bystanders
 * and deadlines waiting for 20 s and more, and held gigabytes.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from 'bun:test';
import { join } from 'node:path';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { residentBytes } from '../support/process-state.ts';
import { Wire } from '../support/wire.ts';
import { kinds } from './overload-flood.ts';

// Only ends a test that has failed.
setDefaultTimeout(120_000);

/** What a deadline may be late, and a bystander may wait. */
const lateMostMs = 3000;
const waitMostMs = 3000;
/** What the worker may grow by, where no garbage of JavaScript is made for each message, which its collector comes to when it likes. */
const growthMost = 400 << 20;
const withoutGarbage = ['compressed bombs', 'messages to a slow handler', 'readers that do not read', 'handshakes of clients that leave'];
/** What the core may hold in buffers. */
const buffersMost = 64 << 20;
const headTimeoutMs = 500;
const idleTimeoutMs = 1000;

const config = `
import { defineGateway } from 'ringway';

const answer = Buffer.alloc(16384);
const busy = (us) => {
  const end = performance.now() + us / 1000;
  while (performance.now() < end);
};

export default defineGateway({
  $OPTIONS,
  http: { headTimeout: ${headTimeoutMs / 1000} },
  async fetch(request) {
    if (request.method === 'POST') for await (const _ of request.body);
    return new Response('well');
  },
  websocket: {
    '/echo': { message(socket, message) { socket.send(message); } },
    '/quick': { message() {} },
    '/busy': { message() { busy(20); } },
    '/later': { async message() { await new Promise(setImmediate); } },
    '/bombs': { compression: true, message() {} },
    '/reader': { onBackpressure: 'drop', maxBackpressureBytes: 262144, message(socket) { socket.send(answer); } },
    '/idle': { idleTimeout: ${idleTimeoutMs / 1000}, pingInterval: 0, message() {} },
    '/pinged': { idleTimeout: 10, pingInterval: 1, message() {} },
  },
});
`;

/** A gauge and its labels, with what it stood at. */
type Gauges = Map<string, number>;

/** Of what is held for clients; others, such as lag, tell of the moment. */
const held =
  /^ringway_(connections|backpressure_\w+|topics|subscriptions|buffers_used|buffers_large_used|websocket_handlers_pending|websocket_messages_waiting|websocket_waiting_bytes|unfinished_bytes)(\{|$)/;

async function gaugesOf(gateway: Gateway): Promise<Gauges> {
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  const found: Gauges = new Map();
  for (const line of text.split('\n')) {
    const [, name = '', value] = /^(\S+) (\S+)$/.exec(line) ?? [];
    if (held.test(name)) found.set(name, Number(value));
  }
  return found;
}

/** Bytes in the buffers of the core; those that are larger than any class count as a message of the floods has. */
function bufferBytes(gauges: Gauges): number {
  let bytes = 0;
  for (const [name, value] of gauges) {
    const size = /^ringway_buffers_used\{.*bytes="(\d+)"/.exec(name)?.[1];
    if (size !== undefined) bytes += value * Number(size);
    else if (name.startsWith('ringway_buffers_large_used')) bytes += value * 2 ** 20;
  }
  return bytes;
}

const quantile = (sorted: readonly number[], share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] as number;

forEachBackend('under overload', (backend) => {
  let gateway: Gateway;
  let pid: number;
  let baseline: Gauges;
  beforeAll(async () => {
    gateway = await startGateway({ backend, config });
    [pid] = (await gateway.workerPids()) as [number];
    // What is made once: the buffers of the first connection, code.
    for (const path of ['/echo', '/idle']) (await Wire.open(gateway.port, path)).destroy();
    await eventually('they are gone', async () => (await gateway.metric('ringway_connections')) === 0);
    baseline = await gaugesOf(gateway);
    expect(baseline.size).toBeGreaterThan(12);
  });
  afterAll(() => gateway?.stop());

  /** Resolves once the flood has begun. */
  async function start(kind: string): Promise<{ stop(): Promise<void> }> {
    const child = Bun.spawn([process.execPath, join(import.meta.dir, 'overload-flood.ts'), kind, String(gateway.port)], {
      stdin: 'pipe',
      stdout: 'pipe',
      stderr: 'inherit',
    });
    const { value } = await child.stdout.getReader().read();
    if (value === undefined) throw new Error(`the flood of ${kind} ended`);
    return {
      async stop() {
        const killer = setTimeout(() => child.kill('SIGKILL'), 5000);
        await child.stdin.end();
        await child.exited;
        clearTimeout(killer);
      },
    };
  }

  /** How late the time limit of a request head is. */
  async function headLateness(): Promise<number> {
    const began = performance.now();
    const client = await Wire.connect(gateway.port);
    client.write('GET / HTTP/1.1\r\nHost: a\r\n');
    expect(await client.head()).toStartWith('HTTP/1.1 408 ');
    return performance.now() - began - headTimeoutMs;
  }

  async function idleLateness(): Promise<number> {
    const began = performance.now();
    const wire = await Wire.open(gateway.port, '/idle');
    await wire.untilEnded();
    return performance.now() - began - idleTimeoutMs;
  }

  async function pingLateness(): Promise<number> {
    const began = performance.now();
    const wire = await Wire.open(gateway.port, '/pinged');
    expect((await wire.frame())?.opcode).toBe(opcode.ping);
    const late = performance.now() - began - 1000;
    wire.destroy();
    return late;
  }

  /** Milliseconds that bystanders wait: one that comes anew each time, and one that has a WebSocket. */
  async function bystander(isOver: () => boolean): Promise<{ fresh: number[]; standing: number[] }> {
    const fresh: number[] = [];
    const standing: number[] = [];
    const wire = await Wire.open(gateway.port, '/echo');
    const come = async () => {
      while (!isOver()) {
        const began = performance.now();
        const client = await Wire.connect(gateway.port);
        client.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n');
        expect(await client.head()).toStartWith('HTTP/1.1 200 ');
        fresh.push(performance.now() - began);
        client.destroy();
        await Bun.sleep(5);
      }
    };
    const talk = async () => {
      while (!isOver()) {
        const began = performance.now();
        wire.write(frame(opcode.text, 'hello'));
        expect(String((await wire.frame())?.payload)).toBe('hello');
        standing.push(performance.now() - began);
        await Bun.sleep(5);
      }
    };
    await Promise.all([come(), talk()]);
    wire.destroy();
    return { fresh: fresh.sort((a, b) => a - b), standing: standing.sort((a, b) => a - b) };
  }

  for (const kind of kinds) {
    test(`${kind}: deadlines fire, bystanders are served, what is held is bounded and given back`, async () => {
      const residentBefore = residentBytes(pid);
      const receivedBefore = await gateway.metric('ringway_received_bytes_total');
      let most = 0;
      let buffers = 0;
      const flood = await start(kind);
      let isOver = false;
      try {
        const watching = (async () => {
          while (!isOver) {
            most = Math.max(most, residentBytes(pid) - residentBefore);
            buffers = Math.max(buffers, bufferBytes(await gaugesOf(gateway)));
            await Bun.sleep(50);
          }
        })();
        const served = bystander(() => isOver);
        const late = await Promise.all([headLateness(), idleLateness(), pingLateness(), headLateness()]);
        isOver = true;
        const { fresh, standing } = await served;
        await watching;
        const figures = (sorted: readonly number[]) =>
          `p50 ${quantile(sorted, 0.5).toFixed(1)}, p99 ${quantile(sorted, 0.99).toFixed(1)}, most ${sorted.at(-1)?.toFixed(1)} ms of ${sorted.length}`;
        console.log(
          `${backend}, ${kind}: late by ${late.map((ms) => ms.toFixed(0)).join(', ')} ms; a new client ${figures(fresh)}; a WebSocket ${figures(standing)}; ` +
            `grown by ${(most / 2 ** 20).toFixed(0)} MiB, ${(buffers / 2 ** 20).toFixed(1)} MiB of buffers`,
        );
        // The flood was one.
        expect((await gateway.metric('ringway_received_bytes_total')) - receivedBefore).toBeGreaterThan(100_000);
        if (kind === 'compressed bombs') expect(await gateway.metric('ringway_websocket_compressed_messages_total')).toBeGreaterThan(100);
        expect(Math.max(...late)).toBeLessThan(lateMostMs);
        expect(quantile(fresh, 0.99)).toBeLessThan(waitMostMs);
        expect(quantile(standing, 0.99)).toBeLessThan(waitMostMs);
        if (withoutGarbage.includes(kind)) expect(most).toBeLessThan(growthMost);
        expect(buffers).toBeLessThan(buffersMost);
      } finally {
        isOver = true;
        await flood.stop();
      }
      await eventually(
        'what was held is given back',
        async () => {
          const now = await gaugesOf(gateway);
          return [...baseline].every(([name, value]) => (now.get(name) ?? 0) <= value);
        },
        60_000,
      ).catch(async (error) => {
        const now = await gaugesOf(gateway);
        throw new Error(`${error}: ${JSON.stringify([...now].filter(([name, value]) => value > (baseline.get(name) ?? 0)))}`);
      });
      expect(await gateway.workerPids()).toEqual([pid]);
    });
  }
});
