import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from 'bun:test';
import { readFileSync } from 'node:fs';
import { eventually } from '../support/eventually.ts';
import { frame, opcode } from '../support/frames.mjs';
import { forEachBackend, type Gateway, startGateway } from '../support/gateway.ts';
import { residentBytes } from '../support/process-state.ts';
import { RawClient } from '../support/raw-client.ts';
import { Wire } from '../support/wire.ts';

// Only ends a test that has failed: nothing here is measured in time.
setDefaultTimeout(120_000);

const mebi = 2 ** 20;
const budget = 32 * mebi;

/** Reads bodies whole, in every way there is, or as they come; a message is answered with its length. */
const config = `
import { defineGateway } from 'ringway';
const read = {
  '/bytes': async (request) => (await request.bytes()).length,
  '/native': async (request) => { void request.body; return (await request.bytes()).length; },
  '/clone': async (request) => { const copy = request.clone(); return (await Promise.all([copy.bytes(), request.bytes()]))[0].length; },
  '/stream': async (request) => { let sum = 0; for await (const part of request.body) sum += part.length; return sum; },
};
export default defineGateway({ $OPTIONS,
  limits: { maxUnfinishedBytes: ${budget} },
  fetch: async (request) => new Response(String(await read[new URL(request.url).pathname](request))),
  websocket: {
    '/ws': { maxPayloadBytes: ${8 * mebi}, message: (socket, message) => { socket.send(String(message.byteLength)); } },
    '/hasty': { messageTimeout: 1, pingInterval: 0.2, message: (socket, message) => { socket.send(message); } },
  },
});
`;

const post = (path: string, bytes: number) => `POST ${path} HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n`;
const part = Buffer.alloc(256 * 1024, 'x');

/** Send of a body until the kernel has it, or the gateway has answered. */
async function upload(client: RawClient, bytes: number): Promise<void> {
  for (let sent = 0; sent < bytes && !client.isClosed && client.received.length === 0; sent += part.length) {
    client.write(part.subarray(0, Math.min(part.length, bytes - sent)));
    await eventually('room', () => client.isClosed || client.received.length > 0 || client.socket.writableLength === 0);
  }
}

async function lengthOf(gateway: Gateway, path: string, bytes: number): Promise<string> {
  const response = await fetch(gateway.url + path, { method: 'POST', body: Buffer.alloc(bytes) });
  return `${response.status} ${await response.text()}`;
}

forEachBackend('what is begun and not finished', (backend) => {
  let gateway: Gateway;
  beforeAll(async () => {
    gateway = await startGateway({ config, backend });
  });
  afterAll(() => gateway.stop());

  const held = () => gateway.metric('ringway_unfinished_bytes');
  const refused = (kind: string) => gateway.metric('ringway_unfinished_refused_total', { kind });

  test('the budget is told', async () => {
    expect(await gateway.metric('ringway_unfinished_limit_bytes')).toBe(budget);
    expect(await held()).toBe(0);
  });

  for (const path of ['/bytes', '/native', '/clone']) {
    test(`bodies that a handler reads whole share it, and a small one gets through: ${path}`, async () => {
      const [pid] = await gateway.workerPids();
      const before = residentBytes(pid as number);
      const already = await refused('request');
      const clients: RawClient[] = [];
      for (let i = 0; i < 8; i++) {
        const client = await RawClient.connect({ port: gateway.port });
        client.write(post(path, 64 * mebi));
        clients.push(client);
      }
      await Promise.all(clients.map((client) => upload(client, 63 * mebi)));
      for (const client of clients) {
        const { status, headers } = await client.response();
        expect([503, 413]).toContain(status);
        expect(headers.connection).toBe('close');
        if (status === 503) expect(headers['retry-after']).toBe('1');
      }
      expect(await refused('request')).toBe(already + 8);
      // Unbounded they would be 504 MiB. What is let go of waits for the collector only where the runtime has had it.
      expect(residentBytes(pid as number) - before).toBeLessThan((path === '/bytes' ? 128 : 256) * 1024 * 1024);
      for (const client of clients) client.socket.destroy();
      expect(await lengthOf(gateway, path, 100_000)).toBe('200 100000');
      expect(await lengthOf(gateway, path, 5 * mebi)).toBe(`200 ${5 * mebi}`);
      await eventually('all is given back', async () => (await held()) === 0);
    });
  }

  test('bodies that are read as they come pass whatever their size, beside others that wait', async () => {
    const client = await RawClient.connect({ port: gateway.port });
    client.write(post('/bytes', 60 * mebi));
    await upload(client, 16 * mebi);
    await eventually('it is held', async () => (await held()) >= 16 * mebi);
    expect(await lengthOf(gateway, '/stream', 60 * mebi)).toBe(`200 ${60 * mebi}`);
    client.socket.destroy();
    await eventually('all is given back', async () => (await held()) === 0);
  });

  test('unfinished messages share it: who asks for more is closed with 1013, small ones go on', async () => {
    const small = await Wire.open(gateway.port, '/ws');
    const large = frame(opcode.binary, Buffer.alloc(7 * mebi));
    const wires: Wire[] = [];
    for (let i = 0; i < 12; i++) {
      const wire = await Wire.open(gateway.port, '/ws');
      wire.write(large.subarray(0, large.length - 1));
      wires.push(wire);
    }
    await eventually('some are refused', async () => (await refused('message')) > 0);
    const ended = await eventually('one of them is told', () => wires.find((wire) => wire.received.length > 0));
    const close = await ended.frame();
    expect(close?.opcode).toBe(opcode.close);
    expect(close?.payload.readUInt16BE(0)).toBe(1013);
    expect(close?.payload.subarray(2).toString()).toBe('too much is held of unfinished messages, try again later');
    expect(await held()).toBeLessThanOrEqual(budget);
    small.write(frame(opcode.text, 'one ', { fin: false }));
    small.write(frame(opcode.pong));
    small.write(frame(opcode.continuation, 'two'));
    expect((await small.frame())?.payload.toString()).toBe('7');
    for (const wire of wires) wire.socket.destroy();
    await eventually('all is given back', async () => (await held()) === 0);
    small.write(large);
    expect((await small.frame())?.payload.toString()).toBe(String(7 * mebi));
    small.socket.destroy();
  });

  test('a message that does not end is closed with 1008, whatever pongs come', async () => {
    const wire = await Wire.open(gateway.port, '/hasty');
    wire.write(frame(opcode.text, 'begun', { fin: false }));
    const pongs = setInterval(() => wire.write(frame(opcode.pong)), 100);
    try {
      for (;;) {
        const got = await wire.frame();
        if (got?.opcode === opcode.ping) continue;
        expect(got?.opcode).toBe(opcode.close);
        expect(got?.payload.readUInt16BE(0)).toBe(1008);
        expect(got?.payload.subarray(2).toString()).toBe('a message took longer than allowed');
        break;
      }
    } finally {
      clearInterval(pongs);
      wire.socket.destroy();
    }
    expect(await gateway.metric('ringway_timeouts_total', { kind: 'message' })).toBe(1);
  });
});

describe('the default', () => {
  test('is a share of the memory that the machine, or a cgroup, gives, for each worker', async () => {
    const gateway = await startGateway({ config: config.replace(/limits: .*\n/, ''), workers: 2, backend: 'epoll' });
    try {
      const total = Number(/MemTotal:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024;
      const both = await gateway.metric('ringway_unfinished_limit_bytes');
      expect(both).toBeGreaterThanOrEqual(2 * 16 * mebi);
      expect(both).toBeLessThanOrEqual(Math.max(2 * 16 * mebi, total / 4 + 2048));
    } finally {
      await gateway.stop();
    }
  });
});
