/** The bench itself: an open loop tells of a server that stops, the floor echoes what it is sent, rows say what is judged. */
import { afterAll, beforeAll, expect, test } from 'bun:test';
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { freePort } from '../../../bench/lib/free-port.ts';
import { buildFloor, buildLoadClient, killLoadClients, LoadClient } from '../../../bench/lib/load-client.ts';
import { chooseCpus } from '../../../bench/lib/machine.ts';
import { medianOf } from '../../../bench/lib/measurement.ts';
import { whenReady } from '../../../bench/lib/readiness.ts';
import { textTable } from '../../../bench/lib/report.ts';
import { isMeant, targetsOf, type Workload, workloads } from '../../../bench/lib/workloads.ts';

const running: ChildProcess[] = [];
const cpu = chooseCpus().client;

beforeAll(() => {
  buildLoadClient();
  buildFloor();
});

afterAll(() => {
  killLoadClients();
  for (const child of running) child.kill('SIGKILL');
});

const named = (name: string) => workloads.find((workload) => workload.name === name) as Workload;

/** Echoes, and does nothing at all for `stopMs` once it has echoed 50 messages. */
function stoppingServer(stopMs: number) {
  let echoed = 0;
  return Bun.serve({
    port: 0,
    hostname: '127.0.0.1',
    fetch: (request, server) => (server.upgrade(request) ? undefined : new Response('no')),
    websocket: {
      message(socket, message) {
        if (++echoed === 50) Bun.sleepSync(stopMs);
        socket.send(message);
      },
    },
  });
}

/** The server is in this process, so it stands while the load client goes on. */
async function loadOn(server: { port?: number | undefined }, args: readonly string[]) {
  const options = ['ws-echo', '--connections', '10', '--warmup-ms', '0', '--seconds', '3', ...args];
  return new LoadClient({ args: options, port: Number(server.port), cpu }).report();
}

test('in an open loop a server that stops makes all messages of that time late', async () => {
  const server = stoppingServer(1000);
  const { messages = 0, p50_us = 0, p90_us = 0, max_us = 0 } = await loadOn(server, ['--rate', '200']);
  await server.stop(true);
  expect(messages).toBeGreaterThan(400);
  // A third of the messages were due while it stopped, and have waited half a second on average.
  expect(max_us).toBeGreaterThan(800_000);
  expect(p90_us).toBeGreaterThan(400_000);
  expect(p50_us).toBeLessThan(p90_us);
});

test('as many messages are sent as the rate says, over all connections in turn', async () => {
  const heard = new Map<object, number>();
  const server = Bun.serve<object>({
    port: 0,
    hostname: '127.0.0.1',
    fetch: (request, bun) => (bun.upgrade(request, { data: {} }) ? undefined : new Response('no')),
    websocket: {
      message(socket, message) {
        heard.set(socket.data, (heard.get(socket.data) ?? 0) + 1);
        socket.send(message);
      },
    },
  });
  const { messages = 0 } = await loadOn(server, ['--rate', '100']);
  await server.stop(true);
  const counts = [...heard.values()];
  expect(heard.size).toBe(10);
  expect(messages).toBeLessThanOrEqual(320);
  expect(messages).toBeGreaterThan(200);
  expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(2);
});

test('the load client refuses a rate where there is no open loop', async () => {
  const client = new LoadClient({ args: ['ws-fanout', '--rate', '10'], port: 1, cpu });
  await expect(client.report()).rejects.toThrow('--rate is for ws-echo and http');
});

test('ws-open counts connections, and marks when the first begins and the last is open', async () => {
  const server = stoppingServer(0);
  const client = new LoadClient({ args: ['ws-open', '--connections', '150', '--opening', '20'], port: Number(server.port), cpu });
  await client.line('measure-begin');
  await client.line('measure-end');
  expect((await client.report()).messages).toBe(150);
  await server.stop(true);
});

/** A masked frame (RFC 6455 §5.2). */
function frame(opcode: number, text: string): Buffer {
  const mask = [0x11, 0x22, 0x33, 0x44];
  const payload = Buffer.from(text);
  const length = payload.length < 126 ? [0x80 | payload.length] : [0x80 | 126, payload.length >> 8, payload.length & 255];
  return Buffer.from([0x80 | opcode, ...length, ...mask, ...payload.map((byte, at) => byte ^ (mask[at & 3] as number))]);
}

async function startFloor(): Promise<number> {
  const port = await freePort();
  running.push(
    spawn(join(import.meta.dir, '../../../bench/floor/build/floor'), {
      env: { PORT: String(port) },
      stdio: ['ignore', 'ignore', 'inherit'],
    }),
  );
  await whenReady({ port, tls: false, protocols: ['http', 'websocket'] }, () => undefined);
  return port;
}

test('the floor answers as every measured server does, and echoes frames however they are cut', async () => {
  const port = await startFloor();
  const sent = Buffer.concat([
    frame(1, 'hello'),
    frame(9, 'ping'),
    frame(2, 'x'.repeat(300)),
    frame(10, 'pong'),
    frame(1, ''),
    frame(1, 'y'.repeat(125)),
  ]);
  const expected = Buffer.concat([
    Buffer.from([0x81, 5]),
    Buffer.from('hello'),
    Buffer.from([0x8a, 4]),
    Buffer.from('ping'),
    Buffer.from([0x82, 126, 1, 44]),
    Buffer.from('x'.repeat(300)),
    Buffer.from([0x81, 0, 0x81, 125]),
    Buffer.from('y'.repeat(125)),
  ]);
  for (const part of [sent.length, 1, 7, 100]) {
    let got = Buffer.alloc(0);
    let onBytes = () => {};
    const until = async (isThere: () => boolean) => {
      while (!isThere())
        await new Promise<void>((resolve) => {
          onBytes = resolve;
        });
    };
    const socket = await Bun.connect({
      hostname: '127.0.0.1',
      port,
      socket: {
        data(_, bytes) {
          got = Buffer.concat([got, bytes]);
          onBytes();
        },
      },
    });
    socket.write(
      'GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
    );
    await until(() => got.includes('\r\n\r\n'));
    expect(got.toString()).toContain('Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n');
    got = Buffer.alloc(0);
    for (let at = 0; at < sent.length; at += part) {
      socket.write(sent.subarray(at, at + part));
      socket.flush();
      if (part < sent.length) await Bun.sleep(1);
    }
    await until(() => got.length >= expected.length);
    expect(got).toEqual(expected);
    socket.end();
  }
});

test('the floor loses nothing when more is sent than one receive brings', async () => {
  const port = await startFloor();
  const load = ['ws-echo', '--connections', '20', '--in-flight', '200', '--payload', '120', '--warmup-ms', '0', '--seconds', '1'];
  expect((await new LoadClient({ args: load, port, cpu }).report()).messages).toBeGreaterThan(0);
});

test('a name means itself and what follows it after a dash', () => {
  expect(workloads.filter((each) => isMeant(each, 'light-20')).map(({ name }) => name)).toEqual(['light-20']);
  expect(workloads.filter((each) => isMeant(each, 'echo')).map(({ name }) => name)).toEqual(['echo', 'echo-16']);
  expect(workloads.filter((each) => isMeant(each, 'light')).length).toBe(12);
  expect(new Set(workloads.map(({ name }) => name)).size).toBe(workloads.length);
});

test('each target of a workload is a row, with its own verdict', () => {
  const workload = named('light-20');
  const round = {
    ringway: { value: 80, p50: 100, p99: 300 },
    'bun-serve': { value: 100, p50: 100, p99: 200 },
  };
  const rows = textTable([{ workload, rounds: [round] }], [])
    .split('\n')
    .slice(1);
  expect(targetsOf(workload).length).toBe(3);
  expect(rows.map((row) => [/(OK|MISS)/.exec(row)?.[1], / (\d\.\d\d) +\d\.\d\d to/.exec(row)?.[1]])).toEqual([
    ['OK', '0.80'],
    ['OK', '1.00'],
    ['MISS', '1.50'],
  ]);
});

test('what a machine cannot hold is a row that says why', () => {
  const rows = textTable([{ workload: named('memory-300k'), rounds: [], skipped: 'no room' }], []).split('\n');
  expect(rows[1]).toContain('no room');
  expect(rows[1]).toContain('SKIPPED');
});

test('a round is the median of its slices, figure by figure', () => {
  const slices = [
    { value: 3, p50: 1, p99: 9 },
    { value: 1, p50: 2, p99: 7 },
    { value: 2, p50: 3, p99: 8 },
  ];
  expect(medianOf(slices)).toEqual({ value: 2, p50: 2, p99: 8 });
});
